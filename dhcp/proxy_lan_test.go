// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"

	"slate/dhcp"
	"slate/testbed/labtest"
	"slate/testbed/netns"
)

// dnsmasq runs in a machine as the network's own DHCP server.
func (l *lan) dnsmasq(ns *netns.NS, a string, args ...string) {
	l.Helper()
	labtest.Need(l.T, "dnsmasq")
	l.must(ns.Address("eth0", netip.MustParsePrefix(a+"/24")))
	cmd := exec.Command("dnsmasq", append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root",
		"--interface=eth0", "--bind-interfaces", "--no-ping", "--log-dhcp", "--log-facility=-", "--pid-file=",
		"--dhcp-leasefile=" + l.TempDir() + "/leases"}, args...)...)
	started := newWatcher("dnsmasq-dhcp")
	cmd.Stdout, cmd.Stderr = started, started
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	l.must(ns.Start(cmd))
	l.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if l.Failed() {
			l.Logf("dnsmasq said:\n%s", started)
		}
	})
	select {
	case <-started.seen:
	case <-time.After(patience):
		l.Fatalf("dnsmasq does not start: %s", started)
	}
}

// watcher is a program's output; seen is closed when a word appears in it.
type watcher struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	word string
	seen chan struct{}
}

func newWatcher(word string) *watcher { return &watcher{word: word, seen: make(chan struct{})} }

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(b)
	if w.word != "" && strings.Contains(w.buf.String(), w.word) {
		close(w.seen)
		w.word = ""
	}
	return len(b), nil
}

func (w *watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// rom is the socket of a PXE client with its address already there.
func (l *lan) rom(ns *netns.NS, a string) net.PacketConn {
	l.Helper()
	if a != "" {
		l.must(ns.Address("eth0", netip.MustParsePrefix(a+"/24")))
	}
	var c net.PacketConn
	l.must(ns.Do(func() (err error) {
		lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
			return rc.Control(func(fd uintptr) {
				syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, "eth0")
			})
		}}
		c, err = lc.ListenPacket(l.Context(), "udp4", "0.0.0.0:68")
		return err
	}))
	l.Cleanup(func() { c.Close() })
	return c
}

// ask sends a packet and collects n answers.
func (l *lan) ask(c net.PacketConn, p *dhcpv4.DHCPv4, to string, n int) []*dhcpv4.DHCPv4 {
	l.Helper()
	_, err := c.WriteTo(p.ToBytes(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	l.must(err)
	var list []*dhcpv4.DHCPv4
	buf := make([]byte, 2048)
	for len(list) < n {
		l.must(c.SetReadDeadline(time.Now().Add(patience)))
		size, _, err := c.ReadFrom(buf)
		l.must(err)
		a, err := dhcpv4.FromBytes(buf[:size])
		l.must(err)
		if a.TransactionID == p.TransactionID {
			list = append(list, a)
		}
	}
	return list
}

// Beside a dnsmasq that gives addresses: a BIOS and a UEFI client get an address
// from dnsmasq and the boot file from us, on port 67 and again on 4011.
func TestProxyBesideDnsmasq(t *testing.T) {
	l := newLAN(t)
	l.dnsmasq(l.machine(), "10.77.0.2", "--dhcp-range=10.77.0.150,10.77.0.160,1h")
	p := &dhcp.Proxy{Booter: booter{site}, Events: l.event}
	c67, c4011 := l.listen(67), l.listen(4011)
	l.run(func(ctx context.Context) error { return p.Serve(ctx, c67, c4011) })

	ns := l.machine()
	mac, err := ns.HardwareAddr("eth0")
	l.must(err)
	rom := l.rom(ns, "")
	for _, class := range []string{biosClass, uefiClass} {
		d := discover(map[uint8]string{60: class, 55: pxeList, 57: "\x05\xdc"})
		d.ClientHWAddr = mac
		d.SetBroadcast()
		var gave, boots *dhcpv4.DHCPv4
		for _, a := range l.ask(rom, d, "255.255.255.255:67", 2) {
			if a.YourIPAddr.IsUnspecified() {
				boots = a
			} else {
				gave = a
			}
		}
		if gave == nil || boots == nil {
			t.Fatalf("address from %v, boot file from %v: want one of each", gave, boots)
		}
		if gave.ServerIdentifier().String() != "10.77.0.2" || boots.ServerIdentifier().String() != "10.77.0.1" {
			t.Errorf("address from %v, boot file from %v", gave.ServerIdentifier(), boots.ServerIdentifier())
		}
		if boots.BootFileName == "" || boots.Options[51] != nil {
			t.Errorf("proxy offer %v", boots.Summary())
		}
	}
	// The system on the same wire gets an address, and nothing from us.
	d := discover(nil)
	d.ClientHWAddr = mac
	d.SetBroadcast()
	d.TransactionID[0]++
	if a := l.ask(rom, d, "255.255.255.255:67", 1)[0]; a.ServerIdentifier().String() != "10.77.0.2" {
		t.Errorf("answer from %v to a system", a.ServerIdentifier())
	}
	if e := l.await(dhcp.EventRival); e.Rival.Server != addr("10.77.0.2") || e.Rival.Proxy {
		t.Errorf("the network's server was seen as %v", e.Rival)
	}

	// Now it has its address and asks on port 4011.
	l.must(ns.Address("eth0", netip.MustParsePrefix("10.77.0.150/24")))
	q := message(dhcpv4.MessageTypeRequest, map[uint8]string{60: uefiClass, 93: "\x00\x07", 55: pxeList})
	q.ClientHWAddr, q.ClientIPAddr = mac, net.IPv4(10, 77, 0, 150)
	q.TransactionID[1]++
	a := l.ask(rom, q, "10.77.0.1:4011", 1)[0]
	if a.MessageType() != dhcpv4.MessageTypeAck || a.BootFileName != "snponly.efi" || !a.YourIPAddr.IsUnspecified() {
		t.Errorf("answer on port 4011: %s", a.Summary())
	}
}

// Probe finds a server that gives addresses, one that only boots, and one that
// does both, each once, from an interface without an address.
func TestProbeNamesRivals(t *testing.T) {
	l := newLAN(t)
	l.dnsmasq(l.machine(), "10.77.0.2", "--dhcp-range=10.77.0.150,10.77.0.160,1h")
	l.dnsmasq(l.machine(), "10.77.0.3", "--dhcp-range=10.77.0.0,proxy", "--pxe-service=x86PC,boot,loader", "--pxe-service=X86-64_EFI,boot,loader.efi")
	both := l.machine()
	l.must(both.Address("eth0", netip.MustParsePrefix("10.77.0.4/24")))
	n := l.subnet()
	n.Interface, n.Server = "eth0", addr("10.77.0.4")
	var conn *dhcp.Conn
	l.must(both.Do(func() (err error) {
		conn, err = dhcp.Listen(t.Context(), "eth0", 67)
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	l.run(func(ctx context.Context) error {
		return (&dhcp.Server{Subnets: []dhcp.Subnet{n}, Booter: booter{site}}).Serve(ctx, conn)
	})

	var got []dhcp.Rival
	l.must(l.machine().Do(func() (err error) {
		got, err = dhcp.Probe(t.Context(), "eth0")
		return err
	}))
	if len(got) != 3 {
		t.Fatalf("found %v, want three servers", got)
	}
	for i, want := range []struct {
		server      string
		proxy, file bool
	}{{"10.77.0.2", false, false}, {"10.77.0.3", true, false}, {"10.77.0.4", false, true}} {
		r := got[i]
		if r.Server != addr(want.server) || r.Proxy != want.proxy || r.Offers.IsValid() == want.proxy || (r.BootFile != "") != want.file || len(r.MAC) != 6 {
			t.Errorf("found %+v, want %+v", r, want)
		}
	}
}

func TestProbeErrors(t *testing.T) {
	l := newLAN(t)
	l.must(l.home.Down(l.bridge))
	for iface, hint := range map[string]string{"nix0": "there are: ", l.bridge: "bring it up", "lo": ""} {
		_, err := dhcp.Probe(t.Context(), iface)
		var h interface{ Hint() string }
		if err == nil || hint != "" && (!errors.As(err, &h) || !strings.HasPrefix(h.Hint(), hint)) {
			t.Errorf("Probe(%s): %v, want an error with the hint %q", iface, err, hint)
		}
	}
}

// Two servers for one wire: each learns of the other, from its offers and from
// the clients' choice.
func TestServerNoticesRival(t *testing.T) {
	labtest.Need(t, "udhcpc")
	l := newLAN(t)
	l.dnsmasq(l.machine(), "10.77.0.2", "--dhcp-range=10.77.0.150,10.77.0.160,1h", "--dhcp-broadcast")
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{l.subnet()}, SkipProbe: true})
	l.start(l.machine(), udhcpcHook, "udhcpc", "-f", "-B", "-i", "eth0", "-s", "SCRIPT", "-t", "5", "-T", "2").expect("bound")
	if e := l.await(dhcp.EventRival); e.Addr != addr("10.77.0.2") {
		t.Errorf("rival %v", e.Addr)
	}
}

func TestListenErrors(t *testing.T) {
	l := newLAN(t)
	first := l.listen(67)
	check := func(iface, text, hint string) {
		t.Helper()
		_, err := dhcp.Listen(t.Context(), iface, 67)
		var h interface{ Hint() string }
		if err == nil || !strings.Contains(err.Error(), text) || !errors.As(err, &h) || !strings.Contains(h.Hint(), hint) {
			t.Errorf("Listen(%s): %v; want %q with the hint %q", iface, err, text, hint)
		}
	}
	check(l.bridge, "another program has it", fmt.Sprintf("(process %d)", os.Getpid()))
	check("nix0", "no such interface", l.bridge)
	l.must(l.home.Down(l.bridge))
	check(l.bridge, "the interface is down", "ip link set")
	l.must(l.home.Up(l.bridge))
	first.Close()
	second := l.listen(67)
	second.Close()
	// A program that has the port on all interfaces is in the way too.
	any, err := net.ListenPacket("udp4", "0.0.0.0:67")
	l.must(err)
	defer any.Close()
	check(l.bridge, "another program has it", "process")
}

// Junk on both ports: the server lives on, and the log does not fill up.
func TestGarbageOnTheWire(t *testing.T) {
	l := newLAN(t)
	var log watcher
	s := &dhcp.Server{Subnets: []dhcp.Subnet{l.subnet()}, Events: l.event, SkipProbe: true, Log: slog.New(slog.NewTextHandler(&log, nil))}
	c67, c4011 := l.listen(67), l.listen(4011)
	l.run(func(ctx context.Context) error { return s.Serve(ctx, c67, c4011) })
	ns := l.machine()
	rom := l.rom(ns, "10.77.0.9")
	for i := range 2000 {
		junk := bytes.Repeat([]byte{byte(i)}, i%1400)
		for _, port := range []int{67, 4011} {
			_, err := rom.WriteTo(junk, &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: port})
			l.must(err)
		}
	}
	d := discover(nil)
	d.SetBroadcast()
	if a := l.ask(rom, d, "255.255.255.255:67", 1)[0]; a.MessageType() != dhcpv4.MessageTypeOffer {
		t.Errorf("answer after the junk: %s", a.Summary())
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 10 {
		t.Errorf("%d log lines for 4000 pieces of junk, want a few:\n%s", n, log.String())
	}
}

// The filter of the packet socket lets pass what servers send, nothing else. The
// kernel's packet type is not known to the emulator, so its check is cut off.
func TestFilterPassesServersOnly(t *testing.T) {
	prog := append([]bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegA, Val: 0}}, dhcp.FromServers[1:]...)
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	ap := netip.MustParseAddrPort
	fragment := dhcp.UDPPacket(ap("10.0.0.1:67"), ap("10.0.0.9:68"), make([]byte, 300))
	fragment[7] = 1
	tcp := dhcp.UDPPacket(ap("10.0.0.1:67"), ap("10.0.0.9:68"), make([]byte, 300))
	tcp[9] = 6
	for name, c := range map[string]struct {
		frame []byte
		pass  bool
	}{
		"answer":   {dhcp.UDPPacket(ap("10.0.0.1:67"), ap("255.255.255.255:68"), make([]byte, 300)), true},
		"request":  {dhcp.UDPPacket(ap("10.0.0.1:68"), ap("255.255.255.255:67"), make([]byte, 300)), false},
		"fragment": {fragment, false},
		"TCP":      {tcp, false},
		"short":    {[]byte{0x45}, false},
	} {
		n, err := vm.Run(c.frame)
		if err != nil {
			t.Fatal(err)
		}
		if (n > 0) != c.pass {
			t.Errorf("%s: passes %d bytes, want pass %v", name, n, c.pass)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package radv

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"slate/testbed/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

func TestSolicitor(t *testing.T) {
	rs := []byte{133, 0, 0, 0, 0, 0, 0, 0}
	with := func(opts ...byte) []byte { return append(append([]byte(nil), rs...), opts...) }
	const eui = "fe80::5054:ff:fe00:7"
	for _, c := range []struct {
		name   string
		packet []byte
		src    string
		want   string
	}{
		{"option", with(1, 1, 2, 0, 0, 0, 0, 9), "fe80::1", "02:00:00:00:00:09"},
		{"after another option", with(14, 1, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9), "fe80::1", "02:00:00:00:00:09"},
		{"by its address", rs, eui, "52:54:00:00:00:07"},
		{"unknown", rs, "fe80::1", ""},
		{"option of length 0", with(1, 0, 2, 0, 0, 0, 0, 9), eui, ""},
		{"option past the end", with(1, 2, 2, 0, 0, 0, 0, 9), eui, ""},
		{"short", rs[:7], eui, ""},
		{"an advertisement", []byte{134, 0, 0, 0, 0, 0, 0, 0}, eui, ""},
		{"empty", nil, eui, ""},
	} {
		mac, ok := solicitor(c.packet, netip.MustParseAddr(c.src))
		if mac.String() != c.want || ok != (c.want != "") {
			t.Errorf("%s: solicitor = %v, %v, want %q", c.name, mac, ok, c.want)
		}
	}
}

func FuzzSolicitor(f *testing.F) {
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		if mac, ok := solicitor(b, netip.MustParseAddr("fe80::1")); ok && len(mac) != 6 {
			t.Errorf("solicitor(%x) = %v", b, mac)
		}
	})
}

// A machine that is wanted gets an advertisement of nothing, from a link-local
// address, to itself alone; another one gets none.
func TestServe(t *testing.T) {
	here, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	// Without this the address is unusable for a second or two: duplicate detection.
	for _, ns := range []*netns.NS{here, there} {
		if err := ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(here.Veth("veth0", there, "eth0"), here.Up("veth0"), there.Up("eth0")); err != nil {
		t.Fatal(err)
	}
	defer here.Delete("veth0")
	waitLinkLocal(t, here, "veth0")
	waitLinkLocal(t, there, "eth0")
	mac, err := there.HardwareAddr("eth0")
	if err != nil {
		t.Fatal(err)
	}

	conn, err := Listen("veth0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	asked := make(chan string, 100)
	r := &Responder{Wants: func(m net.HardwareAddr) bool { asked <- m.String(); return m.String() == mac.String() }}
	go func() { done <- r.Serve(ctx, conn) }()

	var client *icmp.PacketConn
	var ifi *net.Interface
	err = there.Do(func() (err error) {
		if client, err = icmp.ListenPacket("ip6:ipv6-icmp", "::"); err == nil {
			ifi, err = net.InterfaceByName("eth0")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p := client.IPv6PacketConn()
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	if err := errors.Join(p.SetICMPFilter(&filter), p.SetMulticastHopLimit(255), p.SetControlMessage(ipv6.FlagHopLimit, true)); err != nil {
		t.Fatal(err)
	}
	ask := func(m net.HardwareAddr) {
		rs := append([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1}, m...)
		if _, err := p.WriteTo(rs, nil, &net.IPAddr{IP: allRouters.AsSlice(), Zone: ifi.Name}); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-asked:
			if got != m.String() {
				t.Errorf("asked about %s, want %s", got, m)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the solicitation does not arrive")
		}
	}
	ask(net.HardwareAddr{2, 0, 0, 0, 0, 99}) // not wanted: the answer below is to the next one
	ask(mac)
	if err := client.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 200)
	n, cm, from, err := p.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if src, ok := source(from); !ok || n != 16 || buf[0] != 134 || cm.HopLimit != 255 || buf[6] != 0 || buf[7] != 0 {
		t.Errorf("answer % x from %v with hop limit %d; want an advertisement with lifetime 0 and hop limit 255", buf[:n], src, cm.HopLimit)
	}
	if err := client.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := p.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a second answer came (%v), to the machine that is not wanted", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v after the end of its context, want nil", err)
	}
}

// waitLinkLocal waits for the address that the kernel gives a link a little after
// it is up.
func waitLinkLocal(t *testing.T, ns *netns.NS, link string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		found := false
		err := ns.Do(func() error {
			ifi, err := net.InterfaceByName(link)
			found = err == nil && hasLinkLocal(ifi)
			return err
		})
		switch {
		case found:
			return
		case err != nil || time.Now().After(deadline):
			t.Fatalf("%s has no link-local address (%v)", link, err)
		}
	}
}

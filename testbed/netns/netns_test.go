// SPDX-License-Identifier: GPL-2.0-or-later

package netns_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"slate/testbed/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

func TestOwnNetworkAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Errorf("uid %d inside, want root", os.Geteuid())
	}
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
			t.Errorf("interface %s of the host is visible", i.Name)
		}
	}
	c, err := net.ListenPacket("udp4", "127.0.0.1:67")
	if err != nil {
		t.Fatalf("the DHCP port must be free: %v", err)
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("x"), c.LocalAddr()); err != nil {
		t.Errorf("lo is not up: %v", err)
	}
}

func newNS(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Two namespaces on a bridge in a third talk to each other.
func TestBridgedNamespacesTalk(t *testing.T) {
	sw, a, b := newNS(t), newNS(t), newNS(t)
	must(t, sw.Veth("pa", a, "eth0"))
	must(t, sw.Veth("pb", b, "eth0"))
	must(t, sw.Bridge("br0", "pa", "pb"))
	must(t, a.Address("eth0", netip.MustParsePrefix("10.9.0.1/24")))
	must(t, b.Address("eth0", netip.MustParsePrefix("10.9.0.2/24")))

	ln, err := a.Listen("tcp", "10.9.0.1:80")
	must(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() { srv.Close(); <-done }()

	client := &http.Client{Transport: &http.Transport{DialContext: b.DialContext, DisableKeepAlives: true}}
	resp, err := client.Get("http://10.9.0.1/")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if !strings.HasPrefix(string(body), "10.9.0.2:") {
		t.Errorf("server saw %q, want the address of b", body)
	}
	if _, err := b.DialContext(t.Context(), "tcp", "localhost:80"); err == nil {
		t.Error("a name was dialled; it would be resolved in another namespace")
	}
}

func TestRouterForwards(t *testing.T) {
	a, r, b := newNS(t), newNS(t), newNS(t)
	must(t, r.Veth("left", a, "eth0"))
	must(t, r.Veth("right", b, "eth0"))
	for _, x := range []struct {
		ns       *netns.NS
		link, ip string
	}{{a, "eth0", "10.1.0.2/24"}, {r, "left", "10.1.0.1/24"}, {r, "right", "10.2.0.1/24"}, {b, "eth0", "10.2.0.2/24"}} {
		must(t, x.ns.Address(x.link, netip.MustParsePrefix(x.ip)))
	}
	must(t, r.Forward())
	must(t, a.Route(netip.MustParsePrefix("10.2.0.0/24"), netip.MustParseAddr("10.1.0.1")))
	must(t, b.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.2.0.1")))

	in, err := b.ListenPacket("udp4", "10.2.0.2:69")
	must(t, err)
	defer in.Close()
	out, err := a.DialContext(t.Context(), "udp4", "10.2.0.2:69")
	must(t, err)
	defer out.Close()
	_, err = out.Write([]byte("hello"))
	must(t, err)
	buf := make([]byte, 16)
	n, from, err := in.ReadFrom(buf)
	must(t, err)
	if string(buf[:n]) != "hello" || !strings.HasPrefix(from.String(), "10.1.0.2:") {
		t.Errorf("got %q from %s", buf[:n], from)
	}
}

func TestProgramRunsInside(t *testing.T) {
	ns := newNS(t)
	must(t, ns.Veth("only-here", ns, "peer"))
	for range 3 { // threads come back clean: the namespace of the process is unchanged
		var out bytes.Buffer
		cmd := exec.Command("cat", "/proc/net/dev")
		cmd.Stdout = &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		must(t, ns.Start(cmd))
		must(t, cmd.Wait())
		if !strings.Contains(out.String(), "only-here:") {
			t.Errorf("the program did not see the namespace's interface:\n%s", out.String())
		}
		if _, err := net.InterfaceByName("only-here"); err == nil {
			t.Error("the test itself sees the namespace's interface")
		}
	}
	if err := ns.Start(exec.Command("/no/such/program")); err == nil {
		t.Error("start of a missing program succeeded")
	}
	must(t, ns.Delete("only-here"))
	links, err := ns.Links()
	must(t, err)
	if slices.Contains(links, "peer") {
		t.Errorf("links %v: the peer outlived its pair", links)
	}
}

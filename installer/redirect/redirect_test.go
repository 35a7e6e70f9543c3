// SPDX-License-Identifier: GPL-2.0-or-later

package redirect_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"slate/installer/redirect"
	"slate/testbed/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// limit is how long anything here may take.
const limit = 20 * time.Second

// greeter is a server that says its name to whoever connects, and again to whoever
// writes to it.
func greeter(t *testing.T, at, name string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					fmt.Fprintln(c, name)
					if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
						return
					}
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func call(t *testing.T, to netip.AddrPort) (*bufio.Reader, net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(c), c
}

func wantName(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	if got, err := r.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func wantBroken(t *testing.T, c net.Conn, r *bufio.Reader) {
	t.Helper()
	fmt.Fprintln(c, "still there?")
	if got, err := r.ReadString('\n'); err == nil {
		t.Fatalf("a connection that should have broken says %q", got)
	}
}

// A server that is not there any more, and one that is: what the kernel has open to it
// is answered by another, then by a third, and in the end by itself again.
func TestRedirect(t *testing.T) {
	far := wire(t)
	for _, tc := range []struct{ name, dead string }{{"IPv4", "10.77.1.3:2049"}, {"IPv6", "[fd77::3]:2049"}} {
		t.Run(tc.name, func(t *testing.T) {
			dead := netip.MustParseAddrPort(tc.dead)
			second, third := greeter(t, "127.0.0.1:0", "second"), greeter(t, "127.0.0.1:0", "third")
			r, err := redirect.Open(dead, second)
			if err != nil {
				t.Fatal(err)
			}
			in, c := call(t, dead)
			wantName(t, in, "second")
			fmt.Fprintln(c, "again")
			wantName(t, in, "second")

			r.To(third)
			if r.Target() != third {
				t.Errorf("it leads to %v, want %v", r.Target(), third)
			}
			wantBroken(t, c, in)
			in, c = call(t, dead)
			wantName(t, in, "third")

			if err := r.Close(); err != nil {
				t.Error(err)
			}
			wantBroken(t, c, in)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/4)
			defer cancel()
			var d net.Dialer
			if c, err := d.DialContext(ctx, "tcp", dead.String()); err == nil {
				c.Close()
				t.Error("the server that is not there answers after Close")
			}
			if out, err := exec.Command("ip", "rule").CombinedOutput(); err != nil || string(out) != noRules {
				t.Errorf("rules are left behind: %s, %v", out, err)
			}
		})
	}

	// What is open to a server that is there breaks, too, and goes elsewhere.
	t.Run("open connections", func(t *testing.T) {
		first := netip.MustParseAddrPort("10.77.1.2:2049")
		l, err := far.Listen("tcp", first.String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, "first")
			}
		}()
		in, c := call(t, first)
		wantName(t, in, "first")
		r, err := redirect.Open(first, greeter(t, "127.0.0.1:0", "second"))
		if err != nil {
			t.Fatal(err)
		}
		wantBroken(t, c, in)
		in, c = call(t, first)
		wantName(t, in, "second")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		wantBroken(t, c, in)
		in, _ = call(t, first)
		wantName(t, in, "first")
	})
}

// wire connects this network with another.
func wire(t *testing.T) (far *netns.NS) {
	t.Helper()
	far, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	here, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	if err := errors.Join(here.Up("lo"), here.Veth("near", far, "far"), here.Address("near", netip.MustParsePrefix("10.77.1.1/24")),
		far.Address("far", netip.MustParsePrefix("10.77.1.2/24"))); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "addr", "add", "fd77::1/64", "dev", "near", "nodad").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return far
}

// noRules is what ip rule prints where nobody has made one.
const noRules = "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n"

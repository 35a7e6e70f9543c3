// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"slate/dhcp"
)

// A server can be asked from its own machine, where no broadcast of a client would
// reach it; in both modes.
func TestAskReachesTheServerOfThisMachine(t *testing.T) {
	for _, mode := range []string{"server", "proxy"} {
		t.Run(mode, func(t *testing.T) {
			l := newLAN(t)
			l.machine() // nothing leaves an interface without a link
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if r, err := dhcp.Ask(ctx, l.bridge, addr("10.77.0.1")); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("nobody serves: Ask = %v, %v, want the deadline exceeded", r, err)
			}
			conns := []*dhcp.Conn{l.listen(67)}
			if mode == "server" {
				l.run(func(ctx context.Context) error {
					return (&dhcp.Server{Subnets: []dhcp.Subnet{l.subnet()}, Booter: booter{}, Events: l.event}).Serve(ctx, conns...)
				})
			} else {
				conns = append(conns, l.listen(4011))
				l.run(func(ctx context.Context) error {
					return (&dhcp.Proxy{Booter: booter{}, Events: l.event}).Serve(ctx, conns...)
				})
			}
			ctx, cancel = context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := dhcp.Ask(ctx, l.bridge, addr("10.77.0.1"))
			if err != nil || r.BootFile == "" || r.Proxy != (mode == "proxy") || r.Offers.IsValid() != (mode == "server") {
				t.Errorf("Ask = %+v, %v, want an offer with a boot file", r, err)
			}
			for len(l.events) > 0 {
				if e := <-l.events; e.Client.UserClass != dhcp.ProbeClass {
					t.Errorf("event %s: user class %q, want %q", e.Kind, e.Client.UserClass, dhcp.ProbeClass)
				}
			}
		})
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// room is a set of interfaces whose links and servers come up at known times.
type room struct {
	start   time.Time
	ifaces  []Interface
	appears map[string]time.Duration // when an interface exists
	link    map[string]time.Duration // when it has a link; absent: never
	dhcp    map[string]bool          // whether somebody answers there
	asked   []string
	told    []string
}

func (r *room) list() (out []Interface) {
	for _, i := range r.ifaces {
		if time.Since(r.start) < r.appears[i.Name] {
			continue
		}
		up, ok := r.link[i.Name]
		i.Carrier = ok && time.Since(r.start) >= up
		out = append(out, i)
	}
	return out
}

func (r *room) acquire(ctx context.Context, i Interface) (Lease, error) {
	r.asked = append(r.asked, fmt.Sprintf("%s@%v", i.Name, time.Since(r.start).Round(time.Second)))
	if r.dhcp[i.Name] {
		return Lease{Interface: i.Name}, nil
	}
	<-ctx.Done()
	return Lease{}, fmt.Errorf("%s: %w", i, ErrNoAnswer)
}

func TestConnect(t *testing.T) {
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	eth := []Interface{{Index: 1, Name: "eth0", MAC: mac(0)}, {Index: 2, Name: "eth1", MAC: mac(1)}}
	sec := func(n int) time.Duration { return time.Duration(n) * time.Second }
	for _, tt := range []struct {
		name  string
		boot  net.HardwareAddr
		room  room
		want  string // interface, or a part of the error
		asked []string
		took  time.Duration // at most
	}{
		{"link at once", mac(0), room{ifaces: eth[:1], link: map[string]time.Duration{"eth0": 0}, dhcp: map[string]bool{"eth0": true}}, "eth0", []string{"eth0@0s"}, sec(1)},
		{"the second card is the one booted from", mac(1), room{ifaces: eth, link: map[string]time.Duration{"eth0": 0, "eth1": sec(3)}, dhcp: map[string]bool{"eth0": true, "eth1": true}},
			"eth1", []string{"eth1@3s"}, sec(4)},
		{"an unplugged second card costs nothing", mac(0), room{ifaces: eth, link: map[string]time.Duration{"eth0": sec(2)}, dhcp: map[string]bool{"eth0": true}}, "eth0", []string{"eth0@2s"}, sec(3)},
		{"cable moved to the other card", mac(0), room{ifaces: eth, link: map[string]time.Duration{"eth1": sec(1)}, dhcp: map[string]bool{"eth1": true}}, "eth1", []string{"eth1@10s"}, sec(11)},
		{"link there, nobody answers, the other does", mac(0), room{ifaces: eth, link: map[string]time.Duration{"eth0": 0, "eth1": 0}, dhcp: map[string]bool{"eth1": true}},
			"eth1", []string{"eth0@0s", "eth1@45s"}, sec(46)},
		{"no BOOTIF: the one with a link", nil, room{ifaces: eth, link: map[string]time.Duration{"eth1": 0}, dhcp: map[string]bool{"eth1": true}}, "eth1", []string{"eth1@0s"}, sec(1)},
		{"a USB adapter that comes late", mac(1), room{ifaces: eth[1:], appears: map[string]time.Duration{"eth1": sec(8)}, link: map[string]time.Duration{"eth1": sec(9)}, dhcp: map[string]bool{"eth1": true}},
			"eth1", []string{"eth1@9s"}, sec(10)},
		{"the card booted from has no driver", mac(9), room{ifaces: eth[:1], link: map[string]time.Duration{"eth0": 0}, dhcp: map[string]bool{"eth0": true}}, "eth0", []string{"eth0@10s"}, sec(11)},
		{"no cable at all", mac(0), room{ifaces: eth}, "eth0 (02:00:00:00:00:00): no link: is the cable in?; eth1 (02:00:00:00:00:01): no link", nil, sec(60)},
		{"nobody answers anywhere", mac(0), room{ifaces: eth, link: map[string]time.Duration{"eth0": 0}}, "eth0 (02:00:00:00:00:00): no DHCP server answered; eth1 (02:00:00:00:00:01): no link",
			[]string{"eth0@0s", "eth0@49s"}, sec(120)},
		{"no card", mac(0), room{}, "no wired network interface was found", nil, sec(21)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := tt.room
				r.start = time.Now()
				c := Connector{Boot: tt.boot, Patience: DefaultPatience(), list: r.list, acquire: r.acquire,
					up:   func([]Interface) error { return nil },
					Note: func(f string, a ...any) { r.told = append(r.told, fmt.Sprintf(f, a...)) }}
				l, err := c.Connect(t.Context())
				got := l.Interface
				if err != nil {
					got = err.Error()
				}
				if !strings.HasPrefix(got, tt.want) {
					t.Errorf("Connect() = %q, want %q", got, tt.want)
				}
				if d := cmp.Diff(tt.asked, r.asked); d != "" {
					t.Errorf("asked (- want, + got):\n%s", d)
				}
				if took := time.Since(r.start); took > tt.took {
					t.Errorf("took %v, want %v at most", took, tt.took)
				}
				if took := time.Since(r.start); took > time.Second && len(r.told) == 0 {
					t.Errorf("waited %v and said nothing", took)
				}
			})
		})
	}
}

// Two networks with DHCP, one of which leads to the server.
func TestConnectPrefersTheWayToTheServer(t *testing.T) {
	eth := []Interface{{Index: 1, Name: "eth0"}, {Index: 2, Name: "eth1"}}
	for _, tt := range []struct {
		name    string
		ifaces  []Interface
		leads   string // the interface that does
		want    string
		dropped []string
	}{
		{"the first", eth, "eth0", "eth0", nil},
		{"the second", eth, "eth1", "eth1", []string{"eth0"}},
		{"none: the server may be away, the first is as good as any", eth, "", "eth0", []string{"eth0", "eth1"}},
		{"only one: nothing to choose", eth[:1], "", "eth0", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := map[string]time.Duration{"eth0": 0, "eth1": 0}
				r := room{start: time.Now(), ifaces: tt.ifaces, link: up, dhcp: map[string]bool{"eth0": true, "eth1": true}}
				var dropped []string
				c := Connector{Patience: DefaultPatience(), list: r.list, acquire: r.acquire, up: func([]Interface) error { return nil },
					Check: func(_ context.Context, l Lease) error {
						if l.Interface != tt.leads {
							return errors.New("the server does not answer")
						}
						return nil
					},
					Drop: func(l Lease) { dropped = append(dropped, l.Interface) }}
				l, err := c.Connect(t.Context())
				if err != nil || l.Interface != tt.want {
					t.Errorf("Connect() = %q, %v, want %q", l.Interface, err, tt.want)
				}
				if d := cmp.Diff(tt.dropped, dropped); d != "" {
					t.Errorf("dropped (- want, + got):\n%s", d)
				}
			})
		})
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := room{start: time.Now(), ifaces: []Interface{{Index: 1, Name: "eth0"}}, link: map[string]time.Duration{"eth0": 0}}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		c := Connector{Patience: DefaultPatience(), list: r.list, acquire: r.acquire, up: func([]Interface) error { return nil }}
		_, err := c.Connect(ctx)
		var ce *ConnectError
		if took := time.Since(r.start); !errors.As(err, &ce) || ce.Hint() == "" || took > 4*time.Second {
			t.Errorf("Connect() = %v after %v", err, took)
		}
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package leases_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"slate/dhcp/leases"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func newPool(t *testing.T, s *leases.Store, first, last string, reserved ...string) *leases.Pool {
	t.Helper()
	p, err := s.Pool(leases.Range{
		Prefix: netip.MustParsePrefix("10.0.0.0/24"), First: addr(first), Last: addr(last),
		Reserved: func(a netip.Addr) bool { return slices.Contains(reserved, a.String()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func offer(t *testing.T, p *leases.Pool, client, want string) string {
	t.Helper()
	var w netip.Addr
	if want != "" {
		w = addr(want)
	}
	a, _, err := p.Offer(client, w)
	if err != nil {
		t.Fatalf("Offer(%q, %q): %v", client, want, err)
	}
	return a.String()
}

func bind(t *testing.T, p *leases.Pool, client, a string, d time.Duration) {
	t.Helper()
	if err := tryBind(p, client, a, d); err != nil {
		t.Fatalf("Bind(%q, %s): %v", client, a, err)
	}
}

func tryBind(p *leases.Pool, client, a string, d time.Duration) error {
	return p.Bind(leases.Lease{Addr: addr(a), Client: client, Expires: time.Now().Add(d)})
}

func TestOfferChoosesByTheRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := leases.NewMemory()
		p := newPool(t, s, "10.0.0.10", "10.0.0.14", "10.0.0.11")
		steps := []struct{ client, want, got string }{
			{"a", "", "10.0.0.10"},          // never used, in order
			{"a", "10.0.0.14", "10.0.0.10"}, // keeps what it was offered, whatever it wants
			{"b", "", "10.0.0.12"},          // .11 is reserved
			{"c", "10.0.0.14", "10.0.0.14"}, // wants one that is free
			{"d", "10.0.0.10", "10.0.0.13"}, // wants one that is held, gets another
		}
		for _, st := range steps {
			if got := offer(t, p, st.client, st.want); got != st.got {
				t.Errorf("Offer(%q, %q) = %s, want %s", st.client, st.want, got, st.got)
			}
		}
		if _, _, err := p.Offer("e", netip.Addr{}); !errors.Is(err, leases.ErrExhausted) {
			t.Errorf("Offer from a full pool: %v, want ErrExhausted", err)
		}
		bind(t, p, "a", "10.0.0.10", time.Hour)
		bind(t, p, "b", "10.0.0.12", 2*time.Hour)
		time.Sleep(2 * time.Minute) // the offers to c and d lapse
		if got := offer(t, p, "c", ""); got != "10.0.0.14" {
			t.Errorf("a client whose offer lapsed gets %s, want the same again", got)
		}
		if got := offer(t, p, "e", ""); got != "10.0.0.13" {
			t.Errorf("Offer = %s, want the lapsed offer of d", got)
		}
	})
}

func TestExpiredLeasesAreReusedLastOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, leases.NewMemory(), "10.0.0.10", "10.0.0.13")
		bind(t, p, "a", offer(t, p, "a", ""), 30*time.Minute)
		bind(t, p, "b", offer(t, p, "b", ""), 10*time.Minute)
		time.Sleep(time.Hour)
		if got := offer(t, p, "c", ""); got != "10.0.0.12" {
			t.Errorf("with expired and unused addresses Offer = %s, want the unused 10.0.0.12", got)
		}
		if got := offer(t, p, "d", ""); got != "10.0.0.13" {
			t.Errorf("Offer = %s, want the unused 10.0.0.13", got)
		}
		if got := offer(t, p, "e", ""); got != "10.0.0.11" {
			t.Errorf("Offer = %s, want b's 10.0.0.11, expired the longest ago", got)
		}
		if got := offer(t, p, "a", ""); got != "10.0.0.10" {
			t.Errorf("a returns after expiry and gets %s, want its own 10.0.0.10", got)
		}
	})
}

func TestBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, leases.NewMemory(), "10.0.0.10", "10.0.0.20", "10.0.0.15")
		bind(t, p, "a", "10.0.0.10", time.Hour)
		for _, c := range []struct {
			client, addr string
			want         error
		}{
			{"a", "10.0.0.10", nil},
			{"b", "10.0.0.10", leases.ErrTaken},
			{"b", "10.0.0.12", nil}, // free: a client that the store forgot
			{"b", "10.0.0.15", leases.ErrOutside},
			{"b", "10.0.0.99", leases.ErrOutside},
			{"b", "10.9.9.9", leases.ErrOutside},
		} {
			if err := tryBind(p, c.client, c.addr, time.Hour); !errors.Is(err, c.want) {
				t.Errorf("Bind(%q, %s) = %v, want %v", c.client, c.addr, err, c.want)
			}
		}
		time.Sleep(time.Hour)
		if err := tryBind(p, "b", "10.0.0.10", time.Hour); err != nil {
			t.Errorf("Bind of an expired lease's address: %v", err)
		}
	})
}

func TestDeclinedAddressRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, leases.NewMemory(), "10.0.0.10", "10.0.0.11")
		bind(t, p, "a", offer(t, p, "a", ""), 12*time.Hour)
		p.Decline("a", addr("10.0.0.10"), time.Now().Add(time.Hour))
		if got := offer(t, p, "a", "10.0.0.10"); got != "10.0.0.11" {
			t.Errorf("after its decline a gets %s, want 10.0.0.11", got)
		}
		bind(t, p, "a", "10.0.0.11", 12*time.Hour)
		if err := tryBind(p, "a", "10.0.0.10", time.Hour); !errors.Is(err, leases.ErrTaken) {
			t.Errorf("Bind of a declined address: %v, want ErrTaken", err)
		}
		if _, _, err := p.Offer("b", netip.Addr{}); !errors.Is(err, leases.ErrExhausted) {
			t.Errorf("Offer: %v, want ErrExhausted", err)
		}
		if got, want := p.Usage(), (leases.Usage{Size: 2, Active: 1, Declined: 1}); got != want {
			t.Errorf("Usage = %+v, want %+v", got, want)
		}
		time.Sleep(time.Hour)
		if got := offer(t, p, "b", ""); got != "10.0.0.10" {
			t.Errorf("an hour later b gets %s, want 10.0.0.10", got)
		}
	})
}

func TestReleaseAndWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, leases.NewMemory(), "10.0.0.10", "10.0.0.10")
		bind(t, p, "a", offer(t, p, "a", ""), 12*time.Hour)
		if p.Release("b", addr("10.0.0.10")) {
			t.Error("b could release a's address")
		}
		p.Withdraw("a") // ends offers, not leases
		if l, _ := p.Find("a"); !l.Active(time.Now()) {
			t.Error("Withdraw ended a lease")
		}
		if !p.Release("a", addr("10.0.0.10")) {
			t.Error("a could not release its address")
		}
		if got := offer(t, p, "b", ""); got != "10.0.0.10" {
			t.Errorf("after the release b gets %s", got)
		}
		p.Withdraw("b")
		if got := offer(t, p, "c", ""); got != "10.0.0.10" {
			t.Errorf("after the withdrawal c gets %s", got)
		}
	})
}

func TestFixedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := leases.NewMemory()
		p := newPool(t, s, "10.0.0.10", "10.0.0.12", "10.0.0.11")
		if _, err := p.OfferFixed("a", addr("10.1.0.1")); !errors.Is(err, leases.ErrOutside) {
			t.Errorf("OfferFixed in another subnet: %v, want ErrOutside", err)
		}
		for _, a := range []string{"10.0.0.11", "10.0.0.200"} { // in the range and outside
			if _, err := p.OfferFixed("a", addr(a)); err != nil {
				t.Fatalf("OfferFixed(%s): %v", a, err)
			}
			err := p.Bind(leases.Lease{Addr: addr(a), Client: "a", Fixed: true, Expires: time.Now().Add(time.Hour)})
			if err != nil {
				t.Errorf("Bind fixed %s: %v", a, err)
			}
			if _, err := p.OfferFixed("b", addr(a)); !errors.Is(err, leases.ErrTaken) {
				t.Errorf("OfferFixed of a's %s to b: %v, want ErrTaken", a, err)
			}
		}
		// The entry is gone from the configuration: the client may not keep it.
		if err := tryBind(p, "a", "10.0.0.200", time.Hour); !errors.Is(err, leases.ErrOutside) {
			t.Errorf("Bind of what is no longer fixed: %v, want ErrOutside", err)
		}
	})
}

// An address can be reserved when it is passed and free later, and the other way.
func TestReservationsChange(t *testing.T) {
	reserved := map[netip.Addr]bool{addr("10.0.0.1"): true}
	p, err := leases.NewMemory().Pool(leases.Range{
		Prefix: netip.MustParsePrefix("10.0.0.0/30"), First: addr("10.0.0.0"), Last: addr("10.0.0.3"),
		Reserved: func(a netip.Addr) bool { return reserved[a] },
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := offer(t, p, "a", ""); got != "10.0.0.2" {
		t.Errorf("Offer = %s, want 10.0.0.2: .0 is the network, .1 reserved", got)
	}
	if _, _, err := p.Offer("b", netip.Addr{}); !errors.Is(err, leases.ErrExhausted) {
		t.Errorf("Offer: %v, want ErrExhausted: .3 is the broadcast address", err)
	}
	reserved[addr("10.0.0.1")] = false
	if got := offer(t, p, "b", ""); got != "10.0.0.1" {
		t.Errorf("Offer = %s, want 10.0.0.1", got)
	}
	reserved[addr("10.0.0.2")] = true
	if _, _, err := p.Offer("a", netip.Addr{}); !errors.Is(err, leases.ErrExhausted) {
		t.Errorf("Offer to the client of a newly reserved address: %v, want ErrExhausted", err)
	}
}

func TestPoolRefusesNonsense(t *testing.T) {
	for _, c := range []struct{ prefix, first, last string }{
		{"fd00::/64", "", ""},
		{"10.0.0.0/24", "10.0.0.20", "10.0.0.10"},
		{"10.0.0.0/24", "10.0.0.20", ""},
		{"10.0.0.0/24", "10.0.0.20", "10.0.1.1"},
		{"10.0.0.0/24", "fd00::1", "fd00::2"},
	} {
		r := leases.Range{Prefix: netip.MustParsePrefix(c.prefix)}
		r.First, _ = netip.ParseAddr(c.first)
		r.Last, _ = netip.ParseAddr(c.last)
		if _, err := leases.NewMemory().Pool(r); err == nil {
			t.Errorf("Pool(%+v) succeeded", c)
		}
	}
	s := leases.NewMemory()
	newPool(t, s, "10.0.0.10", "10.0.0.20")
	if _, err := s.Pool(leases.Range{Prefix: netip.MustParsePrefix("10.0.0.128/25")}); err == nil {
		t.Error("two pools for the same addresses")
	}
}

// A day of a room: 200 machines on 150 addresses come and go, renew half way,
// leave with and without a word. No address is ever two machines' at once.
func TestADayWithoutDoubleLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = time.Hour
		p := newPool(t, leases.NewMemory(), "10.0.0.1", "10.0.0.150")
		holder := map[string]string{} // what the machines themselves believe
		until := map[string]time.Time{}
		mine := map[string]string{}
		refused := 0
		for minute := range 24 * 60 {
			for i := range 200 {
				c := fmt.Sprintf("m%d", i)
				a, has := mine[c]
				now := time.Now()
				on := (minute/90+i)%3 != 0 // two thirds are switched on
				switch {
				case has && (!on || now.After(until[a])):
					if i%2 == 0 && now.Before(until[a]) {
						p.Release(c, addr(a))
						until[a] = now
					}
					delete(mine, c)
				case has && until[a].Sub(now) <= lease/2:
					bind(t, p, c, a, lease)
					until[a] = now.Add(lease)
				case !has && on:
					got, _, err := p.Offer(c, netip.Addr{})
					if errors.Is(err, leases.ErrExhausted) {
						refused++
						continue
					}
					a = got.String()
					if h := holder[a]; h != c && now.Before(until[a]) {
						t.Fatalf("minute %d: %s offered to %s while %s has it", minute, a, c, h)
					}
					bind(t, p, c, a, lease)
					holder[a], until[a], mine[c] = c, now.Add(lease), a
				}
			}
			time.Sleep(time.Minute)
		}
		if refused == 0 {
			t.Error("the pool never ran out: the day was too easy")
		}
	})
}

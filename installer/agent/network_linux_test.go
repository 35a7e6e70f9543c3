// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slate/installer/machine"
	"slate/installer/network"
	"slate/installer/servers"
	"slate/netboot/api"
)

// A machine that started without a network asks until it has an address, keeps that from
// then on, and says who it is.
func TestJoinLate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{start: time.Now(), extend: func(time.Duration) error { return nil }}
		tries := 0
		a := w.agent(dir)
		a.defaults("n1")
		a.leased = make(chan struct{})
		a.Network = func(_ context.Context, l Late) (network.Lease, error) {
			if tries++; tries < 4 {
				return network.Lease{}, errors.New("eth0: no link:\n is the cable in?")
			}
			lease := w.lease("10.0.0.5")
			lease.MAC = l.Card
			return lease, nil
		}
		u, err := machine.ParseServer("http://10.0.0.1:8070")
		if err != nil {
			t.Fatal(err)
		}
		fleet := servers.NewFleet([]machine.Server{u}, "")
		if fleet.Usable() {
			t.Fatal("there is something to say to a server before there is an address")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
		defer cancel()
		kept := make(chan error, 1)
		go func() { kept <- a.keepLease(ctx) }()
		if !a.joinLate(ctx, Late{Card: "52:54:00:00:00:01", Hello: api.Hello{UUID: "u"}}, fleet) {
			t.Fatal("it gave up")
		}
		if w.age() < 3*latePause || w.age() > 3*(latePause+lateSpray) {
			t.Errorf("four tries took %v", w.age())
		}
		if h := fleet.Introduction(); h.MAC != "52:54:00:00:00:01" || h.UUID != "u" || !fleet.Usable() {
			t.Errorf("it introduces itself as %+v", h)
		}
		if l, err := network.LoadLease(filepath.Join(dir, LeaseFile)); err != nil || l.Address != netip.MustParsePrefix("10.0.0.5/24") {
			t.Errorf("the lease that is kept is %v, %v", l.Address, err)
		}
		if err := <-kept; err != nil {
			t.Error(err)
		}
		if got := strings.Join(w.did, "; "); !strings.Contains(got, "renew; ") {
			t.Errorf("the lease was not renewed: %s", got)
		}
		if n := strings.Count(w.log.String(), "no link: is the cable in?"); n != 1 {
			t.Errorf("what keeps it out was said %d times, want once:\n%s", n, w.log.String())
		}
	})
}

func TestJoinLateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{Dir: "/nonexistent", Log: &bytes.Buffer{}, leased: make(chan struct{})}
		a.Network = func(context.Context, Late) (network.Lease, error) { return network.Lease{}, errors.New("no") }
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if a.joinLate(ctx, Late{}, servers.NewFleet(nil, "")) {
			t.Error("it has joined without a network")
		}
	})
}

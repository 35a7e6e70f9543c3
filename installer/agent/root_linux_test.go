// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slate/images"
	"slate/installer/machine"
	"slate/installer/servers"
	"slate/netboot/api"

	"github.com/google/go-cmp/cmp"
)

// switches notes what is done about the root's connections.
type switches struct{ did []string }

func (s *switches) To(to netip.AddrPort) { s.did = append(s.did, "to "+to.String()) }
func (s *switches) Close() error         { s.did = append(s.did, "direct"); return nil }

func (s *switches) open(from, to netip.AddrPort) (redirection, error) {
	s.did = append(s.did, fmt.Sprintf("%v by %v", from, to))
	return s, nil
}

// The root goes from server to server, and back to the one that it was mounted from.
func TestSendRoot(t *testing.T) {
	first, second, third := netip.MustParseAddrPort("10.0.0.1:2049"), netip.MustParseAddrPort("10.0.0.2:2049"), netip.MustParseAddrPort("10.0.0.3:2049")
	var s switches
	a := Agent{redirect: s.open}
	a.root.from, a.root.now = first, first
	for _, to := range []netip.AddrPort{first, second, second, third, first, third} {
		if err := a.sendRoot(to); err != nil || a.rootServer() != to {
			t.Errorf("sendRoot(%v): %v, and it comes from %v", to, err, a.rootServer())
		}
	}
	want := []string{"10.0.0.1:2049 by 10.0.0.2:2049", "to 10.0.0.3:2049", "direct", "10.0.0.1:2049 by 10.0.0.3:2049"}
	if d := cmp.Diff(want, s.did); d != "" {
		t.Errorf("done about the connections (- want, + got):\n%s", d)
	}
}

func TestSendRootRefused(t *testing.T) {
	a := Agent{redirect: func(_, _ netip.AddrPort) (redirection, error) { return nil, errors.New("no policy routing") }}
	at := netip.MustParseAddrPort("10.0.0.1:2049")
	a.root.from, a.root.now = at, at
	if err := a.sendRoot(netip.MustParseAddrPort("10.0.0.2:2049")); err == nil || a.rootServer() != at {
		t.Errorf("sendRoot() = %v, and the root comes from %v; want an error, and nothing changed", err, a.rootServer())
	}
}

// A server that is away for the time of a restart is waited for; one that stays away is
// told of, once, if no other has the root.
func TestWatchRoot(t *testing.T) {
	dir := t.TempDir()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := images.WritePublicKey(filepath.Join(dir, KeysFile), key); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var told []string
		a := Agent{Dir: dir, Log: &strings.Builder{}, reach: func(context.Context, netip.AddrPort) error {
			switch age := time.Since(start); {
			case age > time.Minute && age < time.Minute+25*time.Second, age > 5*time.Minute:
				return errors.New("refused")
			}
			return nil
		}}
		at := netip.MustParseAddrPort("10.0.0.1:2049")
		a.root.from, a.root.now = at, at
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		a.watchRoot(ctx, Config{Version: "demo/3"}, servers.NewFleet([]machine.Server{}, ""), func(e api.Event) { told = append(told, e.Text) })
		want := []string{"the root's server 10.0.0.1:2049 does not answer: no other server has demo/3"}
		if d := cmp.Diff(want, told); d != "" {
			t.Errorf("told (- want, + got):\n%s", d)
		}
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"slate/installer/network"
	"slate/netboot/api"

	"github.com/google/go-cmp/cmp"
)

// world is a network as the agent sees it: what servers answer at which time, and
// what the agent did about it.
type world struct {
	start  time.Time
	extend func(age time.Duration) error
	renew  func(age time.Duration) (string, error)
	did    []string
	log    bytes.Buffer
}

func (w *world) age() time.Duration { return time.Since(w.start).Round(time.Second) }

func (w *world) note(f string, a ...any) {
	w.did = append(w.did, fmt.Sprintf("%v ", w.age())+fmt.Sprintf(f, a...))
}

func (w *world) lease(addr string) network.Lease {
	return network.Lease{Interface: "eth0", Address: netip.MustParsePrefix(addr + "/24"), Obtained: time.Now(), Duration: time.Hour, T1: 30 * time.Minute, T2: 50 * time.Minute}
}

func (w *world) agent(dir string) *Agent {
	return &Agent{Dir: dir, Proc: fstest.MapFS{}, Log: &w.log, look: time.Minute,
		extend: func(_ context.Context, l network.Lease, a network.Action) (network.Lease, error) {
			w.note("%s", map[network.Action]string{network.Renew: "renew", network.Rebind: "rebind"}[a])
			if err := w.extend(w.age()); err != nil {
				return l, err
			}
			return w.lease(l.Address.Addr().String()), nil
		},
		renew: func(context.Context, network.Lease) (network.Lease, error) {
			w.note("discover")
			addr, err := w.renew(w.age())
			if err != nil {
				return network.Lease{}, err
			}
			return w.lease(addr), nil
		},
		apply:  func(l network.Lease) error { w.note("apply %v", l.Address.Addr()); return nil },
		remove: func(l network.Lease) error { w.note("remove %v", l.Address.Addr()); return nil },
	}
}

func TestAgentKeepsTheLease(t *testing.T) {
	silence := func(time.Duration) error { return network.ErrNoAnswer }
	noOffer := func(time.Duration) (string, error) { return "", network.ErrNoAnswer }
	for _, tt := range []struct {
		name   string
		extend func(time.Duration) error
		renew  func(time.Duration) (string, error)
		run    time.Duration
		want   []string
		log    string
	}{
		{"renewed at T1 each time", func(time.Duration) error { return nil }, noOffer, 70 * time.Minute,
			[]string{"30m0s renew", "30m0s apply 10.0.0.5", "1h0m0s renew", "1h0m0s apply 10.0.0.5"}, ""},
		{"the server is away for a while", func(age time.Duration) error {
			if age < 45*time.Minute {
				return network.ErrNoAnswer
			}
			return nil
		}, noOffer, 50 * time.Minute, []string{"30m0s renew", "40m0s renew", "45m0s renew", "45m0s apply 10.0.0.5"}, "was not renewed"},
		{"nobody answers any more: the address stays", silence, noOffer, 61*time.Minute + 30*time.Second,
			[]string{"30m0s renew", "40m0s renew", "45m0s renew", "47m30s renew", "48m45s renew", "49m45s renew", "50m0s rebind", "55m0s rebind",
				"57m30s rebind", "58m45s rebind", "59m45s rebind", "1h0m0s discover", "1h1m0s discover"}, "keeping it"},
		{"refused: another address, then the old one goes", func(age time.Duration) error {
			if age < 31*time.Minute {
				return fmt.Errorf("%w: moved", network.ErrRefused)
			}
			return nil
		}, func(time.Duration) (string, error) { return "10.0.0.9", nil }, 40 * time.Minute,
			[]string{"30m0s renew", "30m0s discover", "30m0s apply 10.0.0.9", "30m0s remove 10.0.0.5", "30m0s apply 10.0.0.9"}, "is now 10.0.0.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := &world{start: time.Now(), extend: tt.extend, renew: tt.renew}
				if err := (Config{Node: "n1"}).Save(dir); err != nil {
					t.Fatal(err)
				}
				if err := w.lease("10.0.0.5").Save(filepath.Join(dir, LeaseFile)); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.run)
				defer cancel()
				if err := w.agent(dir).Run(ctx); err != nil {
					t.Error(err)
				}
				if d := cmp.Diff(tt.want, w.did); d != "" {
					t.Errorf("the agent did (- want, + got):\n%s", d)
				}
				if !strings.Contains(w.log.String(), tt.log) {
					t.Errorf("log %q lacks %q", w.log.String(), tt.log)
				}
			})
		})
	}
}

func TestAgentWritesDownWhatItGot(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{start: time.Now(), extend: func(time.Duration) error { return network.ErrRefused }, renew: func(time.Duration) (string, error) { return "10.0.0.9", nil }}
		if err := (Config{}).Save(dir); err != nil {
			t.Fatal(err)
		}
		if err := w.lease("10.0.0.5").Save(filepath.Join(dir, LeaseFile)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 31*time.Minute)
		defer cancel()
		if err := w.agent(dir).Run(ctx); err != nil {
			t.Error(err)
		}
		l, err := network.LoadLease(filepath.Join(dir, LeaseFile))
		if err != nil || l.Address.Addr().String() != "10.0.0.9" {
			t.Errorf("lease file holds %v, %v", l.Address, err)
		}
	})
}

func TestAgentWithoutItsFiles(t *testing.T) {
	if err := (&Agent{Dir: t.TempDir()}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run() without a configuration = %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ConfigFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (&Agent{Dir: dir}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), ConfigFile) {
		t.Errorf("Run() with half a configuration = %v", err)
	}
}

func TestConfigKeepsEvents(t *testing.T) {
	dir := t.TempDir()
	if err := (Config{Server: "http://x", Boot: "b", Pending: []api.Event{{Step: "root", State: "done"}}}).Save(dir); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, ConfigFile))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("configuration: %v, %v", fi, err)
	}
}

func TestLogins(t *testing.T) {
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	proc := fstest.MapFS{
		"1/comm": text("systemd\n"), "1/cmdline": text("/sbin/init\x00"), "self/comm": text("agetty\n"), "meminfo": text(""),
		"2/comm": text("kthreadd\n"), "2/cmdline": text(""),
	}
	l := logins{proc: proc, kernel: map[string]bool{}}
	if l.found() || len(l.kernel) != 1 || !l.kernel["2"] {
		t.Errorf("found a login before there is one, or %v as kernel threads", l.kernel)
	}
	proc["1/comm"] = text("systemd2\n") // a program may become another one
	proc["77/comm"], proc["77/cmdline"] = text("sh\n"), text("sh\x00")
	if l.found() {
		t.Error("a shell is no login")
	}
	proc["77/comm"] = text("agetty\n")
	if !l.found() {
		t.Error("the shell that became a getty was not found")
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slate/images"
	"slate/netboot/config"
	"slate/testbed/labtest"
)

// recorded is something that an installed machine does between two times that its power
// is off, while what it writes is recorded.
type recorded struct {
	name string
	// prepare makes the drive, which is off, what the machine starts with.
	prepare func(*installedMachine)
	run     func(*installedMachine)
	// earned are the flags that were earned when the machine was switched off before or at
	// that start, as slot and 1 for the older version, 2 for the newer.
	earned  []string
	altered map[string]string
}

// What a machine does whose two systems are good, B being the active one; each begins
// where the one before ended.
var recordings = []recorded{
	{name: "copying the backup over a damaged slot", prepare: func(m *installedMachine) {
		m.update("clone", "weekly")
		m.on("b", `rm .slate/flag`)
	}, run: func(m *installedMachine) {
		m.Expect(m.n, bootLimit, `copying demo/[0-9]+ from system A over system B`)
		m.loginAfter(startsB, m.n)
		m.endHealthy()
	}, earned: []string{"a 1"}},
	{name: "earning the flag and mending a file", prepare: func(m *installedMachine) {
		m.update("bailout", "boot")
		m.on("b", `touch -r usr/bin/od ../stamp; printf X | dd of=usr/bin/od bs=1 seek=5000 conv=notrunc status=none; touch -r ../stamp usr/bin/od`)
	}, run: func(m *installedMachine) {
		m.Expect(m.n, bootLimit, `system B has earned its boot flag`, `mending /usr/bin/od`)
		m.loginAfter(startsB, m.n)
		m.endHealthy()
	}, earned: []string{"a 1", "b 1"}, altered: map[string]string{"b": "usr/bin/od"}},
	{name: "updating from the running system", prepare: func(m *installedMachine) { m.update("bailout", "weekly") }, run: func(m *installedMachine) {
		m.loginAfter(startsB, m.n)
		m.wantEvents(m.n, "health done")
		next := m.nextVersion("demo@stable", "", "echo two > etc/next-version")
		done := make(chan error, 1)
		go func() { _, err := m.tryLong("node", "update", cycleNode); done <- err }()
		m.loginUpdated(m.n, `starting `+next+` from system A`)
		if err := <-done; err != nil {
			m.t.Fatalf("slate node update: %v", err)
		}
		m.halt()
	}, earned: []string{"a 1", "b 1"}},
	{name: "earning the flag of an update", run: func(m *installedMachine) {
		m.Expect(m.n, bootLimit, `system A has earned its boot flag`)
		m.loginAfter(`starting demo/[0-9]+ from system A`, m.n)
		m.endHealthy()
	}, earned: []string{"a 2", "b 1"}},
}

// The power goes at random moments of what an installed machine does by itself. Whatever
// is left, there is a system to go on with, and none has a flag that it did not earn; a
// machine that is switched on with it comes up.
func TestUpdatePowerCuts(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("hours: make soak runs it")
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			r := newRounds(t, "power-cuts-update-"+k.name, 0, 52)
			if !r.left() {
				return
			}
			m := k.machine(t)
			if k.fs == config.Btrfs {
				m.checkShared()
			}
			rng := rand.New(rand.NewPCG(cutSeed(t), 0))
			for _, rec := range recordings {
				t.Run(rec.name, func(t *testing.T) { m.part(t).cutDuring(rec, r, rng, r.all/len(recordings)) })
			}
		})
	}
}

// checkShared measures how much of system B, a copy of system A, takes room of its own.
func (m *installedMachine) checkShared() {
	m.t.Helper()
	labtest.Need(m.t, "btrfs")
	var total, exclusive int64
	out := m.on("b", `btrfs filesystem du --summarize --raw . | tail -n 1`)
	if _, err := fmt.Sscan(out, &total, &exclusive); err != nil {
		m.t.Fatalf("btrfs filesystem du: %v\n%s", err, out)
	}
	m.t.Logf("of the %d MB of system B, %.1f MB are its own", total/1e6, float64(exclusive)/1e6)
	if exclusive > total/10 {
		m.t.Errorf("system B, a copy of system A, shares too little with it")
	}
}

// cutDuring records what the machine does, judges its drive as n power cuts leave it, and
// switches the machine on with every fourth.
func (m *installedMachine) cutDuring(rec recorded, r *rounds, rng *rand.Rand, n int) {
	m.t.Helper()
	if rec.prepare != nil {
		rec.prepare(m)
	}
	dir := m.t.TempDir()
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	keep := func(name string) { shell(m.t, dir, fmt.Sprintf("cp --sparse=always %q %q", m.n.DiskFile(0), name)) }
	keep(before)
	m.start()
	rec.run(m)
	keep(after)
	c := newCuts(m.t, m.site, m.n, 0, "cp --sparse=always "+before+" $D", 0)
	rules := slotRules{records: c.records(), altered: rec.altered}
	versions := slices.SortedFunc(slices.Values(rules.records), func(a, b images.Record) int { return a.Number - b.Number })
	for _, e := range rec.earned {
		name, which, _ := strings.Cut(e, " ")
		i := map[string]int{"1": 0, "2": len(versions) - 1}[which]
		rules.earned = append(rules.earned, name+" "+versions[i].Ref())
	}
	for i, at := range c.moments(rng, n, 0) {
		file := c.make(at, rng)
		text, err := c.judgeSlots(file, rules)
		if err != nil {
			m.t.Fatalf("power cut before write %d of %d: %v", at, c.log.Len(), err)
		}
		if i%4 == 0 {
			shell(m.t, dir, fmt.Sprintf("cp --sparse=always %q %q", file, m.n.DiskFile(0)))
			m.start()
			m.loginAfter(`starting demo/[0-9]+ from system [AB]`, m.n)
			m.n.PowerCut()
			text += "; switched on, it came up"
		}
		r.passed("%s, %s, before write %d of %d, after %d MB: %s", filepath.Base(r.file), rec.name, at, c.log.Len(), c.log.Bytes(at)>>20, text)
	}
	shell(m.t, dir, fmt.Sprintf("cp --sparse=always %q %q", after, m.n.DiskFile(0)))
}

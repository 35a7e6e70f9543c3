// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"slate/installer/bootpart"
	"slate/installer/health"
	"slate/installer/slot"
	"slate/netboot/api"
)

// newCycle makes the directory of the agent of a machine whose first cycle, of system
// A, has begun.
func newCycle(t *testing.T, env bootpart.Env) (dir string, cycle func() slot.Cycle) {
	t.Helper()
	dir = t.TempDir()
	boot := filepath.Join(dir, BootDir)
	for _, s := range []string{"a", "b"} {
		if err := bootpart.WriteEntry(boot, bootpart.Entry{Slot: s, Kernel: strings.NewReader("kernel"), Cmdline: []string{"quiet"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := bootpart.WriteEnv(boot, env); err != nil {
		t.Fatal(err)
	}
	k, _, err := slot.MakeKey(boot)
	if err != nil {
		t.Fatal(err)
	}
	r, at := slot.Records{Key: k}, filepath.Join(dir, userDir, slot.CyclesDir)
	if _, err := r.Begin(at, slot.Cycle{Slot: "a", Started: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	return dir, func() slot.Cycle {
		t.Helper()
		c, err := r.Cycle(at, 1)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func TestCycleOfAHealthyStart(t *testing.T) {
	dir, cycle := newCycle(t, bootpart.Env{Slot: "a", Tries: map[string]int{"a": 1, "b": 3}, Trial: map[string]string{"a": "x"}})
	a := Agent{Dir: dir}
	a.defaults("pc1")
	c := Config{Slot: "a", Cycle: 1, Tries: 5}
	a.becameHealthy(c)
	if got := cycle(); got.Healthy.IsZero() || !got.Ended.IsZero() || got.State() != "healthy" {
		t.Errorf("the record says %s: %+v", got.State(), got)
	}
	env, err := bootpart.ReadEnv(filepath.Join(dir, BootDir))
	if err != nil || env.Tries["a"] != 5 || env.Tries["b"] != 3 || env.Trial["a"] != "x" {
		t.Errorf("the loader's counters are %+v, %v; want A's tries begun anew, and its trial going on", env, err)
	}
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := RecordEnd(dir); err != nil {
		t.Fatal(err)
	}
	if got := cycle(); got.State() != "ended" {
		t.Errorf("after the end the record says %s", got.State())
	}
	// Over the network, because no system came up: there is one more try.
	a.becameHealthy(Config{Grant: "b"})
	if env, err := bootpart.ReadEnv(filepath.Join(dir, BootDir)); err != nil || env.Tries["b"] != 1 || env.Tries["a"] != 5 {
		t.Errorf("after a grant the counters are %+v, %v", env, err)
	}
	// A machine without a system of its own has nothing to record.
	if err := (Config{}).Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := RecordEnd(dir); err != nil {
		t.Error(err)
	}
}

// A start-up that fails restarts the machine while a try is left, and if the system does
// not do so, it is made to.
func TestCycleOfAFailedStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		tries map[string]int
		last  bool
		obeys bool
		want  []string
	}{
		{"tries left", map[string]int{"a": 1}, false, true, []string{"restart"}},
		{"tries left, and it hangs", map[string]int{"a": 1}, false, false, []string{"restart", "force"}},
		{"the other has some", map[string]int{"b": 1}, false, true, []string{"restart"}},
		{"none left", nil, false, true, nil},
		{"the last start of all", map[string]int{"a": 1, "b": 1}, true, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, cycle := newCycle(t, bootpart.Env{Slot: "a", Tries: c.tries})
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var got []string
				a := Agent{Dir: dir, Proc: fstest.MapFS{}, Probe: func(context.Context, health.Spec) (health.Result, error) {
					return health.Result{Waiting: []string{"ssh is failed"}}, nil
				}}
				a.restart = func() error {
					got = append(got, "restart")
					if c.obeys {
						cancel()
					}
					return errors.New("said so")
				}
				a.force = func() error { got = append(got, "force"); return nil }
				a.defaults("pc1")
				a.watchHealth(ctx, Config{Slot: "a", Cycle: 1, Last: c.last}, func(api.Event) {})
				if !slices.Equal(got, c.want) {
					t.Errorf("it did %v, want %v", got, c.want)
				}
			})
			if got := cycle(); got.State() != "failed" || got.Failed != "ssh is failed" {
				t.Errorf("the record says %s: %+v", got.State(), got)
			}
		})
	}
}

// What is found wrong is kept until it is mended, also over parts that are well.
func TestVerifyNow(t *testing.T) {
	dir, _ := newCycle(t, bootpart.Env{Slot: "a"})
	var jobs, faults []string
	a := Agent{Dir: dir, Verify: func(_ context.Context, j VerifyJob) ([]string, error) {
		jobs = append(jobs, fmt.Sprintf("%d/%d", j.Part, j.Parts))
		return faults, nil
	}}
	a.defaults("pc1")
	c := Config{Slot: "a", Tree: "t"}
	c.Verify.Share = 50
	var told []string
	tell := func(e api.Event) { told = append(told, e.Text) }
	for i, step := range []struct {
		faults []string
		all    bool
		want   []string
	}{
		{[]string{"bin/x"}, false, []string{"bin/x"}},
		{nil, false, []string{"bin/x"}},
		{[]string{"bin/x", "bin/y"}, false, []string{"bin/x", "bin/y"}},
		{[]string{}, true, nil},
	} {
		faults = step.faults
		if _, err := a.VerifyNow(t.Context(), c, step.all, tell); err != nil {
			t.Fatal(err)
		}
		if got := slot.LoadVerified(filepath.Join(dir, BootDir))["a"]; !slices.Equal(got.Faults, step.want) || got.Tree != "t" {
			t.Errorf("step %d: %+v, want %v", i, got, step.want)
		}
	}
	if want := []string{"0/2", "1/2", "0/2", "0/1"}; !slices.Equal(jobs, want) || len(told) != 4 {
		t.Errorf("compared %v, want %v; told %q", jobs, want, told)
	}
}

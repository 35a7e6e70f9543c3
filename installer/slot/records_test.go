// SPDX-License-Identifier: GPL-2.0-or-later

package slot_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/images"
	"slate/installer/bootpart"
	"slate/installer/slot"
)

func newRecords(t *testing.T) (slot.Records, string) {
	t.Helper()
	boot := t.TempDir()
	if err := os.Mkdir(filepath.Join(boot, "slate"), 0o700); err != nil {
		t.Fatal(err)
	}
	k, fresh, err := slot.MakeKey(boot)
	if err != nil || !fresh || len(k) != 32 {
		t.Fatalf("MakeKey = %d bytes, fresh %v, %v", len(k), fresh, err)
	}
	return slot.Records{Key: k}, boot
}

func TestKey(t *testing.T) {
	r, boot := newRecords(t)
	if k, fresh, err := slot.MakeKey(boot); err != nil || fresh || !bytes.Equal(k, r.Key) {
		t.Errorf("MakeKey made another key (%v)", err)
	}
	file := filepath.Join(boot, slot.KeyFile)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v (%v)", info.Mode(), err)
	}
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := slot.LoadKey(boot); err == nil {
		t.Error("a damaged key is taken")
	}
	if k, fresh, err := slot.MakeKey(boot); err != nil || !fresh || bytes.Equal(k, r.Key) {
		t.Errorf("a damaged key is not replaced (%v)", err)
	}
}

func TestFlag(t *testing.T) {
	r, _ := newRecords(t)
	stranger, _ := newRecords(t)
	want := slot.Flag{Tree: "aa", Disk: "guid", Slot: "a", Cycle: "c1"}
	for _, c := range []struct {
		name string
		r    slot.Records
		do   func(dir, file string) error
		want string // empty: good
	}{
		{"whole", r, func(dir, _ string) error { return r.WriteFlag(dir, want) }, ""},
		{"another cycle", r, func(dir, _ string) error { f := want; f.Cycle = "c2"; return r.WriteFlag(dir, f) }, ""},
		{"missing", r, func(string, string) error { return nil }, "missing"},
		{"another machine's", stranger, func(dir, _ string) error { return r.WriteFlag(dir, want) }, "altered, or another machine's"},
		{"another drive's", r, func(dir, _ string) error { f := want; f.Disk = "other"; return r.WriteFlag(dir, f) }, "another drive"},
		{"the other slot's", r, func(dir, _ string) error { f := want; f.Slot = "b"; return r.WriteFlag(dir, f) }, "the other slot"},
		{"another version's", r, func(dir, _ string) error { f := want; f.Tree = "bb"; return r.WriteFlag(dir, f) }, "another version"},
		{"altered", r, func(dir, file string) error {
			return errors.Join(r.WriteFlag(dir, want), alter(file, "guid", "guie"))
		}, "altered"},
		{"cut off", r, func(dir, file string) error { return errors.Join(r.WriteFlag(dir, want), os.Truncate(file, 20)) }, "altered"},
		{"empty", r, func(_, file string) error { return os.WriteFile(file, nil, 0o600) }, "altered"},
		{"no key", slot.Records{}, func(dir, _ string) error { return r.WriteFlag(dir, want) }, "altered"},
		{"written without a key", r, func(dir, _ string) error { return slot.Records{}.WriteFlag(dir, want) }, "altered"},
		{"a cycle's record in its place", r, func(dir, file string) error {
			return errors.Join(r.SaveCycle(dir, slot.Cycle{Number: 1}), os.Rename(filepath.Join(dir, "1"), file))
		}, "altered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, slot.Dir), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.do(dir, filepath.Join(dir, slot.Dir, "flag")); err != nil {
				t.Fatal(err)
			}
			err := c.r.CheckFlag(dir, slot.Flag{Tree: "aa", Disk: "guid", Slot: "a"})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("CheckFlag = %v, want %q", err, c.want)
			}
		})
	}
}

func alter(file, from, to string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, bytes.Replace(b, []byte(from), []byte(to), 1), 0o600)
}

func TestCycles(t *testing.T) {
	r, _ := newRecords(t)
	dir := filepath.Join(t.TempDir(), "user", slot.CyclesDir)
	for n := 1; n <= 60; n++ {
		c, err := r.Begin(dir, slot.Cycle{Slot: "a"})
		if err != nil || c.Number != n || c.ID == "" {
			t.Fatalf("Begin = %+v, %v; want number %d", c, err, n)
		}
	}
	all, bad := r.Cycles(dir)
	if len(all) != 50 || bad != 0 || all[49].Number != 60 || all[0].Number != 11 {
		t.Fatalf("%d cycles are kept, %d of them bad", len(all), bad)
	}
	// One that says something else than was written, and one under another number.
	if err := alter(filepath.Join(dir, "60"), `"slot":"a"`, `"slot":"b"`); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "58"), filepath.Join(dir, "59")); err != nil {
		t.Fatal(err)
	}
	all, bad = r.Cycles(dir)
	if len(all) != 47 || bad != 2 {
		t.Errorf("%d cycles, %d bad; want 47 and 2", len(all), bad)
	}
	// A bad one keeps its number: the next is not taken for it.
	if c, err := r.Begin(dir, slot.Cycle{}); err != nil || c.Number != 61 {
		t.Errorf("Begin = %d, %v", c.Number, err)
	}
}

func TestEarned(t *testing.T) {
	now := time.Unix(1, 0)
	flag := slot.Flag{Tree: "aa", Disk: "guid", Slot: "a"}
	good := slot.Cycle{ID: "x", Tree: "aa", Disk: "guid", Slot: "a", Trial: "t1", Healthy: now, Ended: now}
	for name, c := range map[string]struct {
		change func(*slot.Cycle)
		trial  string
		strict bool
		want   bool
	}{
		"healthy and ended":           {func(*slot.Cycle) {}, "t1", true, true},
		"switched off hard":           {func(c *slot.Cycle) { c.Ended = time.Time{} }, "t1", false, true},
		"switched off hard, strict":   {func(c *slot.Cycle) { c.Ended = time.Time{} }, "t1", true, false},
		"never healthy":               {func(c *slot.Cycle) { c.Healthy = time.Time{} }, "t1", false, false},
		"of an earlier trial":         {func(*slot.Cycle) {}, "t2", false, false},
		"not on trial":                {func(c *slot.Cycle) { c.Trial = "" }, "", false, false},
		"of another version":          {func(c *slot.Cycle) { c.Tree = "bb" }, "t1", false, false},
		"of the other slot":           {func(c *slot.Cycle) { c.Slot = "b" }, "t1", false, false},
		"of another drive":            {func(c *slot.Cycle) { c.Disk = "other" }, "t1", false, false},
		"with a clock ten years slow": {func(c *slot.Cycle) { c.Healthy = now.AddDate(-10, 0, 0) }, "t1", false, true},
	} {
		cycle := good
		c.change(&cycle)
		if _, got := slot.Earned([]slot.Cycle{cycle}, c.trial, flag, c.strict); got != c.want {
			t.Errorf("%s: earned %v, want %v", name, got, c.want)
		}
	}
}

func TestJudge(t *testing.T) {
	rec := images.Record{Name: "demo", Number: 3, Tree: images.Digest{1}}
	trial := bootpart.NewTrial(rec.Tree)
	half := &slot.IncompleteError{Version: "demo/3"}
	var got []string
	for _, c := range []slot.Seen{
		{Read: slot.ErrEmpty},
		{Record: rec, Read: half},
		{Record: rec, Read: errors.New("its record: signed by somebody else")},
		{Record: rec, Tries: 0},
		{Record: rec, Flag: slot.ErrNoFlag, Trial: trial, Tries: 2},
		{Record: rec, Flag: slot.ErrNoFlag, Trial: trial, Tries: 0, Started: true},
		{Record: rec, Flag: slot.ErrNoFlag, Trial: trial},
		{Record: rec, Flag: slot.ErrNoFlag, Trial: bootpart.NewTrial(images.Digest{2}), Tries: 2},
		{Record: rec, Flag: slot.ErrNoFlag, Tries: 2},
		{Record: rec, Flag: errors.New("altered"), Trial: trial, Tries: 2},
	} {
		s := slot.Judge(c)
		got = append(got, strings.TrimSpace(string(s.State)+" "+s.Version+" "+s.Why))
	}
	want := []string{"empty", "incomplete demo/3 the installation of demo/3 was interrupted", "damaged demo/3 its record: signed by somebody else",
		"good demo/3", "trial demo/3", "trial demo/3", "failed demo/3 it did not come through its trial",
		"damaged demo/3 its boot flag is missing", "damaged demo/3 its boot flag is missing", "damaged demo/3 altered"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Judge (-want +got):\n%s", diff)
	}
}

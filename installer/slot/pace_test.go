// SPDX-License-Identifier: GPL-2.0-or-later

package slot_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/installer/slot"
	"slate/netboot/config"
)

func TestVerifiedDue(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		at   string
		v    slot.Verified
		want bool
	}{
		{config.VerifyNever, slot.Verified{}, false},
		{config.VerifyBoot, slot.Verified{Tree: "t", At: now}, true},
		{config.VerifyDaily, slot.Verified{Tree: "t", At: now.Add(-23 * time.Hour)}, false},
		{config.VerifyDaily, slot.Verified{Tree: "t", At: now.Add(-24 * time.Hour)}, true},
		{config.VerifyWeekly, slot.Verified{Tree: "t", At: now.Add(-6 * 24 * time.Hour)}, false},
		{config.VerifyWeekly, slot.Verified{Tree: "t", At: now.Add(-8 * 24 * time.Hour)}, true},
		{config.VerifyWeekly, slot.Verified{}, true},                                     // never
		{config.VerifyWeekly, slot.Verified{Tree: "old", At: now}, true},                 // another version
		{config.VerifyWeekly, slot.Verified{Tree: "t", At: now.AddDate(10, 0, 0)}, true}, // the clock was ten years fast
	} {
		if got := c.v.Due(c.at, "t", now); got != c.want {
			t.Errorf("%s, %+v: due %v, want %v", c.at, c.v, got, c.want)
		}
	}
}

func TestVerifiedTurns(t *testing.T) {
	for share, want := range map[int]int{100: 1, 51: 2, 50: 2, 34: 3, 10: 10, 1: 100, 0: 100} {
		if got := slot.Parts(share); got != want {
			t.Errorf("Parts(%d) = %d, want %d", share, got, want)
		}
	}
	now := time.Unix(1700000000, 0)
	v, seen := slot.Verified{}, []int{}
	for range 4 {
		seen = append(seen, v.Part)
		v = v.Next("t", now, 3, nil)
	}
	if diff := cmp.Diff([]int{0, 1, 2, 0}, seen); diff != "" {
		t.Errorf("parts in turn (-want +got):\n%s", diff)
	}
	if v = v.Next("new", now, 3, []slot.Fault{{Path: "bin/x"}}); v.Part != 1 || !v.Suspect("new") || v.Suspect("t") {
		t.Errorf("of a new version: %+v", v)
	}
}

func TestVerifiedKept(t *testing.T) {
	boot := t.TempDir()
	if err := os.Mkdir(filepath.Join(boot, "slate"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := slot.Verified{Tree: "t", At: time.Unix(1700000000, 0).UTC(), Part: 2, Faults: []string{"a"}}
	for _, s := range []string{"a", "b"} {
		if err := slot.SaveVerified(boot, s, want); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]slot.Verified{"a": want, "b": want}, slot.LoadVerified(boot)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, text := range []string{"", "null", "[]", "{\"a\":"} {
		if err := os.WriteFile(filepath.Join(boot, "slate/verified.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := slot.LoadVerified(boot); len(got) != 0 {
			t.Errorf("%q: %v", text, got)
		}
		if err := slot.SaveVerified(boot, "a", want); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

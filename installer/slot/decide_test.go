// SPDX-License-Identifier: GPL-2.0-or-later

package slot_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/installer/slot"
	"slate/netboot/config"
)

func TestDecide(t *testing.T) {
	st := func(s slot.State, tries int) slot.SlotState {
		return slot.SlotState{State: s, Tries: tries, Version: "demo/1", Why: map[slot.State]string{slot.Damaged: "its boot flag is missing", slot.Incomplete: "interrupted"}[s]}
	}
	empty := st(slot.Empty, 0)
	for _, c := range []struct {
		name string
		f    slot.Facts
		a, b slot.SlotState
		want string
	}{
		{"a good system", slot.Facts{Active: "a", Started: "a"}, st(slot.Good, 2), empty, "start a, network, chooser"},
		{"on its last try", slot.Facts{Active: "a", Started: "a"}, st(slot.Good, 0), empty, "start a, network, chooser"},
		{"freshly installed", slot.Facts{Active: "a", Started: "a"}, st(slot.Trial, 2), empty, "start a, network, chooser"},
		{"over the network", slot.Facts{Active: "b"}, st(slot.Good, 3), st(slot.Trial, 3), "start b, start a, network, chooser"},
		{"counters lost", slot.Facts{Started: "b"}, st(slot.Good, 0), st(slot.Good, 0), "start b, start a, network, chooser"},
		{"counters and start lost", slot.Facts{}, st(slot.Good, 3), st(slot.Good, 3), "start a, start b, network, chooser"},
		{"nothing there", slot.Facts{Active: "a"}, empty, empty, "chooser"},
		{"only the other is there", slot.Facts{Active: "a"}, empty, st(slot.Good, 3), "start b, network, chooser"},
		{"a trial that failed", slot.Facts{Active: "b", Started: "a"}, st(slot.Good, 2), st(slot.Failed, 0), "start a, network, chooser"},
		{"a good one that does not come up any more", slot.Facts{Active: "a", Started: "b"}, st(slot.Good, 0), st(slot.Good, 2), "start b, network, chooser"},
		{"an interrupted update", slot.Facts{Active: "b", Started: "b"}, st(slot.Good, 3), st(slot.Incomplete, 3), "start a, sync b, network, chooser"},
		{"an interrupted installation", slot.Facts{Active: "a", Started: ""}, st(slot.Incomplete, 3), empty, "sync a, network, chooser"},

		{"damaged, bailout", slot.Facts{Active: "a", Started: "a", Damaged: config.DamagedBailout}, st(slot.Damaged, 2), st(slot.Good, 3), "start b, clone a, sync a, network, chooser"},
		{"damaged, clone", slot.Facts{Active: "a", Started: "a", Damaged: config.DamagedClone}, st(slot.Damaged, 2), st(slot.Good, 3), "clone a, start b, sync a, network, chooser"},
		{"damaged, sync", slot.Facts{Active: "a", Started: "a", Damaged: config.DamagedSync}, st(slot.Damaged, 2), st(slot.Good, 3), "sync a, start b, clone a, network, chooser"},
		{"damaged, the backup on trial is not copied", slot.Facts{Active: "a", Started: "a", Damaged: config.DamagedClone}, st(slot.Damaged, 2), st(slot.Trial, 3), "start b, sync a, network, chooser"},
		{"damaged, no backup", slot.Facts{Active: "a", Started: "a", Damaged: config.DamagedBailout}, st(slot.Damaged, 2), empty, "sync a, network, chooser"},
		{"damaged, the backup failed", slot.Facts{Active: "a", Started: "a", Damaged: config.DamagedBailout}, st(slot.Damaged, 2), st(slot.Failed, 0), "sync a, network, chooser"},
		{"both damaged", slot.Facts{Active: "a", Started: "a", Damaged: config.DamagedBailout}, st(slot.Damaged, 2), st(slot.Damaged, 3), "sync a, sync b, network, chooser"},
		{"the backup is damaged", slot.Facts{Active: "a", Started: "a", Damaged: config.DamagedBailout}, st(slot.Good, 2), st(slot.Damaged, 3), "start a, network, chooser"},

		{"all tries used up", slot.Facts{Active: "a", Started: "a", Last: true}, st(slot.Good, 0), st(slot.Good, 0), "network, start a, start b, chooser"},
		{"all used up, seen from the network", slot.Facts{Active: "a"}, st(slot.Good, 0), empty, "network, start a, chooser"},
		{"a trial that failed, and no other", slot.Facts{Active: "a"}, st(slot.Failed, 0), empty, "network, chooser"},
		{"one does not come up, the other is damaged", slot.Facts{Active: "a", Started: "b"}, st(slot.Good, 0), st(slot.Damaged, 1), "sync b, network, start a, chooser"},
		{"a person chose it in the loader's menu", slot.Facts{Active: "a", Started: "a", Last: true}, st(slot.Good, 0), st(slot.Good, 3), "start a, start b, network, chooser"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f.Slots = map[string]slot.SlotState{"a": c.a, "b": c.b}
			actions := slot.Decide(c.f)
			if diff := cmp.Diff(c.want, words(actions)); diff != "" {
				t.Errorf("Decide (-want +got):\n%s", diff)
			}
		})
	}
}

func words(actions []slot.Action) string {
	var out []string
	for _, a := range actions {
		out = append(out, strings.TrimSpace(string(a.Do)+" "+a.Slot))
	}
	return strings.Join(out, ", ")
}

// Whatever the facts, the list ends with somebody to ask, has nothing twice, starts
// only what may be started, and is never without an end.
func TestDecideIsBounded(t *testing.T) {
	states := []slot.State{slot.Empty, slot.Incomplete, slot.Trial, slot.Good, slot.Failed, slot.Damaged}
	n := 0
	for _, a := range states {
		for _, b := range states {
			for tries := range 4 {
				for _, active := range []string{"", "a", "b"} {
					for _, started := range []string{"", "a", "b"} {
						for _, damaged := range []string{config.DamagedBailout, config.DamagedClone, config.DamagedSync} {
							for _, last := range []bool{false, true} {
								f := slot.Facts{Active: active, Started: started, Last: last, Damaged: damaged, Slots: map[string]slot.SlotState{
									"a": {State: a, Tries: tries & 1}, "b": {State: b, Tries: tries & 2}}}
								checkList(t, f, slot.Decide(f))
								n++
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d cases", n)
}

func checkList(t *testing.T, f slot.Facts, list []slot.Action) {
	t.Helper()
	seen := map[string]bool{}
	for _, a := range list {
		key := words([]slot.Action{a})
		if seen[key] {
			t.Errorf("%+v: %s is there twice", f, key)
		}
		seen[key] = true
		s := f.Slots[a.Slot].State
		if a.Do == slot.Start && s != slot.Good && s != slot.Trial {
			t.Errorf("%+v: starts system %s, which is %s", f, a.Slot, s)
		}
		if a.Do == slot.Clone && f.Slots[slot.Other(a.Slot)].State != slot.Good {
			t.Errorf("%+v: copies a system that is not good", f)
		}
		if (a.Do == slot.Clone || a.Do == slot.Sync) && s == slot.Good {
			t.Errorf("%+v: writes over a good system", f)
		}
	}
	if len(list) == 0 || list[len(list)-1].Do != slot.Chooser {
		t.Errorf("%+v: %s does not end with the chooser", f, words(list))
	}
	for _, s := range f.Slots {
		if s.State == slot.Good && !strings.Contains(words(list), "start") {
			t.Errorf("%+v: a good system is not started: %s", f, words(list))
		}
	}
}

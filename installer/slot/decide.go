// SPDX-License-Identifier: GPL-2.0-or-later

package slot

import (
	"fmt"
	"strings"

	"slate/netboot/config"
)

// Do is what is done to have a system.
type Do string

// What can be done.
const (
	Start   Do = "start"   // start the slot
	Clone   Do = "clone"   // copy the other slot over it, then start it
	Sync    Do = "sync"    // make it whole, from what is good of it, the other slot and an appliance; then start it
	Network Do = "network" // run over the network
	Chooser Do = "chooser" // ask the person at the machine
)

// Action is one thing to do, and why.
type Action struct {
	Do   Do
	Slot string // for Start, Clone and Sync
	Why  string
}

// String says it in a line.
func (a Action) String() string {
	what := map[Do]string{Start: "start system %s", Clone: "copy the backup over system %s", Sync: "make system %s whole"}[a.Do]
	if what == "" {
		what = map[Do]string{Network: "run over the network", Chooser: "ask"}[a.Do]
	} else {
		what = fmt.Sprintf(what, strings.ToUpper(a.Slot))
	}
	if a.Why != "" {
		what += ": " + a.Why
	}
	return what
}

// Facts are what the decision is made from.
type Facts struct {
	Active  string // the slot that should run: grubenv's
	Started string // the slot that the loader started; empty: the machine came over the network
	// Last: the loader found no tries left and started a slot for a last time.
	Last    bool
	Slots   map[string]SlotState
	Damaged string // update.chk.conf
}

// Other is the other slot.
func Other(s string) string {
	if s == "b" {
		return "a"
	}
	return "b"
}

// Decide says what to do: the first action, and what to do in turn if one cannot be
// done. Each is there at most once, so whoever follows the list comes to its end.
func Decide(f Facts) []Action {
	active := f.Active
	if active != "a" && active != "b" {
		active = "a"
		if f.Started != "" {
			active = f.Started
		}
	}
	first, second := f.slot(active), f.slot(Other(active))
	if first.State == Empty && second.State == Empty {
		return []Action{{Do: Chooser, Why: "there is no system in its slots"}}
	}
	if first.State == Empty {
		first, second = second, first
	}
	if f.usedUp(first, second) {
		return lastResorts(first, second)
	}
	var out []Action
	why := reason(first)
	switch {
	case first.startable() && (first.Tries > 0 || f.Started == first.Slot):
		out = append(out, Action{Start, first.Slot, ""})
		out = append(out, start(second, "the other one cannot be started")...)
	case first.startable(), first.State == Failed:
		why = fmt.Sprintf("system %s (%s) did not come up", strings.ToUpper(first.Slot), first.Version)
		out = append(out, start(second, why)...)
		if len(out) == 0 {
			return lastResorts(first, second)
		}
	case first.State == Incomplete:
		// It was never good, so it is no damage: what was before goes on.
		out = append(out, start(second, why)...)
		out = append(out, Action{Sync, first.Slot, why})
	default:
		out = append(out, repair(f.Damaged, first, second)...)
	}
	return append(out, Action{Network, "", why}, Action{Chooser, "", why})
}

func (f Facts) slot(name string) SlotState {
	s := f.Slots[name]
	if s.State == "" {
		s.State = Empty
	}
	s.Slot = name
	return s
}

// usedUp tells whether no slot has a try left: what is started then must not restart
// by itself.
func (f Facts) usedUp(first, second SlotState) bool {
	return (f.Last || f.Started == "") && exhausted(first) && exhausted(second)
}

func exhausted(s SlotState) bool {
	return s.State == Empty || s.State == Failed || s.startable() && s.Tries == 0 // a damaged one can be mended
}

// lastResorts are what is left when no system came up.
func lastResorts(first, second SlotState) []Action {
	why := "no system of this machine came up"
	var out []Action
	if second.State == Damaged {
		out = append(out, Action{Sync, second.Slot, reason(second)})
	}
	out = append(out, Action{Network, "", why})
	out = append(out, start(first, why+", and the network does not help")...)
	out = append(out, start(second, why+", and the network does not help")...)
	return append(out, Action{Chooser, "", why})
}

func start(s SlotState, why string) []Action {
	if !s.startable() {
		return nil
	}
	return []Action{{Start, s.Slot, why}}
}

// repair are the ways out of damage, the configured one first.
func repair(configured string, bad, backup SlotState) (out []Action) {
	why := reason(bad)
	ways := map[string][]Action{config.DamagedBailout: start(backup, why), config.DamagedSync: {{Sync, bad.Slot, why}}}
	if backup.State == Good { // only what was healthy is worth copying
		ways[config.DamagedClone] = []Action{{Clone, bad.Slot, why}}
	}
	out = append(out, ways[configured]...)
	for _, w := range []string{config.DamagedBailout, config.DamagedClone, config.DamagedSync} {
		if w != configured {
			out = append(out, ways[w]...)
		}
	}
	if backup.State == Damaged {
		out = append(out, Action{Sync, backup.Slot, reason(backup)})
	}
	return out
}

func reason(s SlotState) string {
	name := "system " + strings.ToUpper(s.Slot)
	if s.Why != "" {
		return name + ": " + s.Why
	}
	return name + " is " + string(s.State)
}

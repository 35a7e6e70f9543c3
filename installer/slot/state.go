// SPDX-License-Identifier: GPL-2.0-or-later

package slot

import (
	"slices"
	"time"
)

// State is what a slot is worth.
type State string

// The states.
const (
	Empty      State = "empty"      // there is nothing in it
	Incomplete State = "incomplete" // it was not filled to its end
	Trial      State = "trial"      // whole, and not through a healthy cycle yet
	Good       State = "good"       // it has its boot flag
	Failed     State = "failed"     // on trial, and its tries are used up
	Damaged    State = "damaged"    // it should have a boot flag, and has not its own
)

// SlotState is what is known of a slot.
type SlotState struct {
	Slot    string `json:"slot"` // a or b
	State   State  `json:"state"`
	Version string `json:"version,omitempty"` // what its record says, whatever its state
	Tree    string `json:"tree,omitempty"`    // its digest
	Why     string `json:"why,omitempty"`     // for Incomplete, Failed and Damaged
	Tries   int    `json:"tries"`             // left, before the loader starts the other one
}

// startable tells whether the slot may be started as it is.
func (s SlotState) startable() bool { return s.State == Good || s.State == Trial }

// Flag is the boot flag: the record in a slot's root that its version went through a
// healthy cycle on this machine. Only the controller writes it.
type Flag struct {
	Tree  string // digest of the version's tree list
	Disk  string // GUID of the drive's partition table
	Slot  string // a or b
	Cycle string // id of the healthy cycle
}

// Cycle is one start-up to one shut-down of a slot's system. Each state has a time; one
// that was not reached has none.
type Cycle struct {
	Number  int       `json:"number"` // grows from one start to the next
	ID      string    `json:"id"`     // random
	Slot    string    `json:"slot"`
	Version string    `json:"version"`
	Tree    string    `json:"tree"`
	Disk    string    `json:"disk"`
	Trial   string    `json:"trial,omitempty"`  // of the slot, as the loader's counters name it
	Started time.Time `json:"started"`          // the controller handed over
	Healthy time.Time `json:"healthy,omitzero"` // the default target was reached, services ran, checks passed
	Ended   time.Time `json:"ended,omitzero"`   // it was shut down clean
	// Failed says why the start-up did not become healthy within its limit.
	Failed string `json:"failed,omitempty"`
}

// Earned finds the cycle that earns a slot its boot flag: a healthy one of just this
// trial, version, slot and drive. With strict, one that was not shut down clean is none.
func Earned(cycles []Cycle, trial string, want Flag, strict bool) (Cycle, bool) {
	for _, c := range slices.Backward(cycles) {
		if trial != "" && c.Trial == trial && c.Tree == want.Tree && c.Slot == want.Slot && c.Disk == want.Disk &&
			!c.Healthy.IsZero() && (!strict || !c.Ended.IsZero()) {
			return c, true
		}
	}
	return Cycle{}, false
}

// State is what became of the cycle, in a word.
func (c Cycle) State() string {
	switch {
	case c.Failed != "" && c.Healthy.IsZero(): // however it ended
		return "failed"
	case !c.Ended.IsZero() && !c.Healthy.IsZero():
		return "ended"
	case !c.Ended.IsZero():
		return "ended without having been healthy"
	case !c.Healthy.IsZero():
		return "healthy"
	}
	return "started"
}

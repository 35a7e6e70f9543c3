// SPDX-License-Identifier: GPL-2.0-or-later

package slot

import (
	"errors"

	"slate/images"
	"slate/installer/bootpart"
)

// Seen is what was found in a slot and on the boot partition about it.
type Seen struct {
	Slot    string
	Record  images.Record
	Read    error // what Read said
	Flag    error // what CheckFlag said
	Trial   string
	Tries   int
	Started bool // the loader started it, and has taken one of its tries
}

// Judge says what the slot is worth.
func Judge(s Seen) SlotState {
	out := SlotState{Slot: s.Slot, Version: s.Record.Ref(), Tree: s.Record.Tree.String(), Tries: s.Tries}
	if s.Record.Name == "" {
		out.Version, out.Tree = "", ""
	}
	var half *IncompleteError
	switch {
	case errors.Is(s.Read, ErrEmpty):
		out.State = Empty
	case errors.As(s.Read, &half):
		out.State, out.Why = Incomplete, half.Error()
	case s.Read != nil:
		out.State, out.Why = Damaged, s.Read.Error()
	case s.Flag == nil:
		out.State = Good
	case !errors.Is(s.Flag, ErrNoFlag) || !bootpart.OnTrial(s.Trial, s.Record.Tree):
		out.State, out.Why = Damaged, s.Flag.Error()
	case s.Tries == 0 && !s.Started:
		out.State, out.Why = Failed, "it did not come through its trial"
	default:
		out.State = Trial
	}
	return out
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package update brings another version into the slot of an installed machine that
// does not run: decides whether, fetches what this machine does not have yet, and sets
// one trial start of it. It never touches the slot that runs.
package update

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"slate/images"
	"slate/images/durable"
	"slate/installer/slot"
	"slate/netboot/api"
	"slate/netboot/config"
)

// Do is what is done about a version.
type Do string

// What can be done.
const (
	Nothing Do = "nothing"
	Ask     Do = "ask"    // the person at the machine
	Fetch   Do = "fetch"  // into the other slot, and start it
	Switch  Do = "switch" // start the other slot, which holds it already
)

// Facts are what the decision is made from.
type Facts struct {
	Conf     config.UpdateCheck
	Running  images.Record
	Backup   slot.SlotState
	Assigned *api.Assigned // verified; nil: nobody says anything
	// Known is the revision of the last assignment that was obeyed: one that has failed
	// is not obeyed again.
	Known int64
	// NextStart is the revision of the assignment that was put off to this start.
	NextStart int64
	// Ordered: the admin, or root at the machine, wants it now.
	Ordered bool
}

// Plan is what to do, and why.
type Plan struct {
	Do  Do
	Why string
	// Then is what an answer of "now" comes to: Fetch or Switch.
	Then Do
}

// Decide says what to do.
func Decide(f Facts) Plan {
	a := f.Assigned
	if a == nil {
		return Plan{Do: Nothing, Why: "no appliance says what this machine is to run"}
	}
	if a.Tree == f.Running.Tree {
		return Plan{Do: Nothing, Why: a.Version + " is what runs"}
	}
	if f.Backup.State == slot.Failed && f.Backup.Tree == a.Tree.String() && a.Revision <= f.Known && !f.Ordered {
		return Plan{Do: Nothing, Why: a.Version + " has failed here, and is not tried again unless the admin says so"}
	}
	then := Fetch
	if (f.Backup.State == slot.Good || f.Backup.State == slot.Trial) && f.Backup.Tree == a.Tree.String() {
		then = Switch
	}
	from := fmt.Sprintf("%s instead of %s", a.Version, f.Running.Ref())
	switch {
	case f.Ordered:
		return Plan{then, from + ", as ordered", then}
	case f.NextStart == a.Revision:
		return Plan{then, from + ", as was said at the last start", then}
	case f.Conf.Mode == config.UpdateAuto:
		return Plan{then, from + ", unasked (update.chk.conf)", then}
	case f.Conf.Mode == config.UpdateOff:
		return Plan{Do: Nothing, Why: from + " waits for the admin's order (update.chk.conf)"}
	}
	return Plan{Ask, from, then}
}

// State is what is kept of updates between starts, on the boot partition.
type State struct{ Dir string }

// Dir is where it lies on the boot partition.
const Dir = "slate/update"

// Files of the state.
const (
	assignedFile  = "assigned"   // the newest assignment that was accepted, signed
	knownFile     = "obeyed"     // revision of the last one that was obeyed
	nextStartFile = "next-start" // revision of the one that was put off
)

// OlderError says that an assignment is older than one that was accepted before.
type OlderError struct{ Got, Have api.Assigned }

func (e *OlderError) Error() string {
	return fmt.Sprintf("the appliance says %s, revision %d, and this machine has been told %s, revision %d, before: refused", e.Got.Version, e.Got.Revision, e.Have.Version, e.Have.Revision)
}

// Hint says what it may mean.
func (e *OlderError) Hint() string {
	return "Somebody may be sending what was said earlier. If the appliance was set back to an older state, publish the version anew."
}

// Accept takes an assignment if it is signed, for this node and not older than the one
// accepted before. open is api.OpenAssigned with the keys and the node's name.
func (s State) Accept(data []byte, open func([]byte) (api.Assigned, error)) (*api.Assigned, error) {
	a, err := open(data)
	if err != nil {
		return nil, err
	}
	have, err := s.Last(open)
	if err != nil || have == nil { // what is damaged binds nobody
		return &a, s.save(assignedFile, data)
	}
	switch {
	case a.Revision < have.Revision && (a.Tree != have.Tree || a.Controller != have.Controller):
		return nil, &OlderError{a, *have}
	case a.Revision < have.Revision:
		return have, nil // another appliance of the site, with the same to say
	case a.Revision == have.Revision && string(a.Content()) != string(have.Content()):
		return nil, &OlderError{a, *have}
	case a.Revision == have.Revision:
		return have, nil
	}
	return &a, s.save(assignedFile, data)
}

// Last is the assignment that was accepted last; nil: none was.
func (s State) Last(open func([]byte) (api.Assigned, error)) (*api.Assigned, error) {
	data, err := os.ReadFile(filepath.Join(s.Dir, assignedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a, err := open(data)
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// Known is the revision of the last assignment that was obeyed, NextStart that of the
// one that was put off to the next start.
func (s State) Known() int64     { return s.number(knownFile) }
func (s State) NextStart() int64 { return s.number(nextStartFile) }

// Obey notes that an assignment is obeyed from now on.
func (s State) Obey(a api.Assigned) error {
	if err := durable.Remove(filepath.Join(s.Dir, nextStartFile)); err != nil {
		return err
	}
	return s.save(knownFile, strconv.AppendInt(nil, a.Revision, 10))
}

// PutOff notes that an assignment is to be obeyed at the next start.
func (s State) PutOff(a api.Assigned) error {
	return s.save(nextStartFile, strconv.AppendInt(nil, a.Revision, 10))
}

func (s State) save(name string, data []byte) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.Dir, name), data, 0o600)
}

func (s State) number(name string) int64 {
	text, _ := os.ReadFile(filepath.Join(s.Dir, name))
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

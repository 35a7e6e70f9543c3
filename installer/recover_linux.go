// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"slate/installer/bootpart"
	"slate/installer/slot"
)

// runLocal starts a system of this machine's drive, mends one, or runs over the
// network in its place: what slot.Decide says, in turn, until one thing succeeds. If
// nothing does, a person has to decide, and is told why.
func (b *Boot) runLocal(ctx context.Context) (done bool, why string) {
	if !b.anySystem() {
		return false, ""
	}
	for range 3 { // one time for each slot that turns out to be damaged, and the last
		again := false
		if done, why, again = b.tryActions(ctx); !again {
			break
		}
	}
	return done, why
}

// tryActions does what slot.Decide says, in turn. again: a slot turned out to be
// damaged, so that it has to be asked anew.
func (b *Boot) tryActions(ctx context.Context) (done bool, why string, again bool) {
	for _, a := range slot.Decide(b.localFacts(b.config().Update)) {
		if a.Why != "" {
			b.Note("%s", a)
		}
		if a.Do == slot.Chooser {
			return false, a.Why, false
		}
		err := b.act(ctx, a)
		if err == nil {
			return true, "", false
		}
		b.Note("cannot %s: %v", strings.SplitN(a.String(), ":", 2)[0], oneLine(err))
		var bad *damagedError
		if again = errors.As(err, &bad); again || ctx.Err() != nil {
			return false, err.Error(), again
		}
	}
	return false, "", false
}

// damagedError says that a slot that seemed good is not.
type damagedError struct{ err error }

func (e *damagedError) Error() string { return e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// anySystem tells whether a slot holds what was once a whole system.
func (b *Boot) anySystem() bool {
	if b.Local == nil {
		return false
	}
	for _, s := range b.Local.Slots {
		if s.State != slot.Empty && s.State != slot.Incomplete {
			return true
		}
	}
	return false
}

// hasAppliance tells whether there is one to ask.
func (b *Boot) hasAppliance() bool { return b.Fleet.Usable() && b.Offline == nil }

var errNothingToRun = errors.New("no appliance offers a system to run")

func (b *Boot) act(ctx context.Context, a slot.Action) error {
	switch a.Do {
	case slot.Network:
		if !b.canRun() || !b.hasAppliance() && !b.hasMediumRoot() {
			return errNothingToRun
		}
		if active := b.Local.Env.Slot; b.Local.Slots[active].State == slot.Good && b.Local.Slots[active].Tries == 0 {
			b.grant = active
		}
		return b.withoutAsking()
	case slot.Clone:
		if err := b.cloneSlot(ctx, a.Slot); err != nil {
			return err
		}
	case slot.Sync:
		if err := b.mendSlot(ctx, a.Slot); err != nil {
			return err
		}
	}
	return b.startSlot(ctx, a)
}

// startSlot starts a slot. One that takes the place of another is the active one from
// now on, if it has shown that it can be.
func (b *Boot) startSlot(ctx context.Context, a slot.Action) error {
	l := b.Local
	if err := b.verifyBefore(ctx, a.Slot); err != nil {
		st := l.Slots[a.Slot]
		st.State, st.Why = slot.Damaged, "files in it are not the image's"
		l.Slots[a.Slot] = st
		return &damagedError{err}
	}
	if a.Slot != l.Env.Slot && l.Slots[a.Slot].State == slot.Good {
		l.Env.Slot = a.Slot
		if err := bootpart.WriteEnv(bootMount, l.Env); err != nil {
			b.Note("the loader is not told: %v", err)
		}
	}
	if b.Settings.Last || l.Slots[a.Slot].Tries == 0 && b.Settings.Slot != a.Slot {
		b.Note("system %s has no tries left: if it fails it will not restart by itself", strings.ToUpper(a.Slot))
	}
	if err := b.useSystem(ctx, l.system(a.Slot)); err != nil {
		return fmt.Errorf("system %s: %w", strings.ToUpper(a.Slot), err)
	}
	return nil
}

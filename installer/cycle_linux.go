// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"slate/images"
	"slate/installer/bootpart"
	"slate/installer/disk"
	"slate/installer/root"
	"slate/installer/slot"
	"slate/netboot/config"

	"golang.org/x/sys/unix"
)

// installed tells whether the machine runs from its own drive.
func (b *Boot) installed() bool {
	return b.Lower.Local() && b.System != nil && b.Lower.Slot == b.System.Mount
}

// readCycles reads the records of the machine's cycles, which lie on user-data.
func (b *Boot) readCycles(l *Local) []slot.Cycle {
	m := l.mount("user")
	if m.What == "" {
		return nil
	}
	m.Where, m.Flags = slotMount, unix.MS_RDONLY|unix.MS_NOATIME
	if err := m.Do(); err != nil {
		b.Note("the records of earlier starts cannot be read: %v", err)
		return nil
	}
	defer unix.Unmount(slotMount, 0)
	cycles, bad := l.Records.Cycles(filepath.Join(slotMount, slot.CyclesDir))
	if bad > 0 {
		b.Note("%d records of earlier starts do not count: they are altered, or another machine's", bad)
	}
	if len(cycles) > 0 {
		last := cycles[len(cycles)-1]
		b.Note("the last start, %d, was of system %s with %s: %s", last.Number, strings.ToUpper(last.Slot), last.Version, last.State())
	}
	b.Cycles = cycles
	return cycles
}

// earn gives a slot the boot flag that a healthy cycle has earned it, and ends its trial.
func (b *Boot) earn(l *Local, s string, c slot.Cycle, seen *slot.Seen) error {
	endTrial := func() error {
		delete(l.Env.Trial, s)
		seen.Trial = ""
		return bootpart.WriteEnv(bootMount, l.Env)
	}
	if seen.Flag == nil { // the power went between the two
		return endTrial()
	}
	m := l.mount(s)
	m.Where, m.Flags = slotMount, unix.MS_NOATIME
	if err := m.Do(); err != nil {
		return err
	}
	err := l.Records.Earn(slotMount, l.flagOf(s), c, func() error {
		seen.Flag = nil
		return endTrial()
	})
	if e := unix.Unmount(slotMount, 0); err == nil {
		err = e
	}
	if err == nil {
		b.Note("system %s has earned its boot flag: start %d was healthy", strings.ToUpper(s), c.Number)
	}
	return err
}

// reopen looks anew at a drive on which a slot was filled.
func (b *Boot) reopen(d disk.Drive, layout config.BtrfsConf, target string) error {
	keys, err := b.siteKeys()
	if err != nil {
		return err
	}
	l := &Local{Drive: d, Layout: layout, Slots: map[string]slot.SlotState{}, records: map[string]images.Record{}}
	if l.Env, err = bootpart.ReadEnv(bootMount); err != nil {
		return err
	}
	if l.Records.Key, err = slot.LoadKey(bootMount); err != nil {
		return err
	}
	b.Local = l
	b.lookAtSlots(l, keys, b.config().Update)
	if st := l.Slots[target]; st.State != slot.Trial {
		return fmt.Errorf("system %s is %s", strings.ToUpper(target), describe(st))
	}
	s := l.system(target)
	b.System = &s
	return nil
}

// countStart takes one of a slot's tries, unless the loader has done so.
func (b *Boot) countStart(s string) error {
	if b.Settings.Slot == s || b.Local == nil {
		return nil
	}
	env, err := bootpart.ReadEnv(bootMount)
	if err != nil {
		return err
	}
	if env.Tries[s] == 0 {
		b.Settings.Last = true // as the loader would have it
		return nil
	}
	env.Tries[s]--
	b.Local.Env = env
	return bootpart.WriteEnv(bootMount, env)
}

// beginCycle records that a cycle has started.
func (b *Boot) beginCycle() {
	l, s := b.Local, b.System
	c := slot.Cycle{Slot: s.Slot, Version: s.Record.Ref(), Tree: s.Record.Tree.String(), Disk: s.Drive.GUID, Trial: l.Env.Trial[s.Slot], Started: time.Now().UTC().Truncate(time.Second)}
	c, err := l.Records.Begin(filepath.Join(root.UserData, slot.CyclesDir), c)
	if err != nil {
		b.Note("this start is not recorded, and earns no boot flag: %v", err)
		return
	}
	b.Cycle = c
	b.Note("start %d of this machine", c.Number)
}

// reached tells whether an appliance was: it has given this start an id. That the
// command line names one says nothing.
func (b *Boot) reached() bool {
	_, id := b.Fleet.Known()
	return id != ""
}

// keepLog keeps the log of this start on the boot partition. The agent sends the logs of
// starts in which no appliance was reached.
func (b *Boot) keepLog() {
	if err := bootpart.SaveLog(bootMount, b.Cycle.Number, b.Log(), b.reached()); err != nil {
		b.printf("slate:   the log of this start is not kept: %v\n", err)
	}
}

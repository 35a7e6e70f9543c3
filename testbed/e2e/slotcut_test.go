// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slate/images"
	"slate/installer/bootpart"
	"slate/installer/disk"
	"slate/installer/slot"
	"slate/netboot/config"
)

// slotRules are what must hold of a drive that has two slots, whenever its power goes.
type slotRules struct {
	records []images.Record   // of the versions that the slots may hold
	earned  []string          // boot flags that were earned, as slot and version, e.g. "a demo/1"
	altered map[string]string // by slot: a file that is not the version's, until it is mended
}

// seenSlot is what is in a slot, with all of it compared.
type seenSlot struct {
	slot.Seen
	slot.SlotState
	whole error // of what says that it is whole; nil: it is
}

// judgeSlots looks at a drive with two slots as the controller would that its loader
// starts. Never may there be no system to go on with, a flag that was not earned, or one
// that says that it is whole and is not; what the loader starts must be whole.
func (c *cuts) judgeSlots(file string, rules slotRules) (text string, err error) {
	err = c.look(file, func(d disk.Drive, boot bootFiles) error {
		if !d.Ours() {
			return errors.New("the drive is not ours: " + strings.Join(d.Holds(), "; "))
		}
		if err := c.loaders(boot.file, d, boot); err != nil {
			return err
		}
		dir, err := boot.take("slate/grubenv", "slate/flag.key")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		env, err := bootpart.ReadEnv(dir)
		if err != nil || env.Slot == "" {
			return fmt.Errorf("the loader's counters name no slot (%v)", err)
		}
		key, err := slot.LoadKey(dir)
		if err != nil {
			return err
		}
		started := env.Slot
		if env.Tries[started] == 0 && env.Tries[slot.Other(started)] > 0 {
			started = slot.Other(started)
		}
		if err := boot.startsOne(started, rules.records); err != nil {
			return fmt.Errorf("the loader starts system %s, and %w", started, err)
		}
		states := map[string]slot.SlotState{}
		for _, s := range []string{"a", "b"} {
			seen, err := c.slotOn(d, s, env, slot.Records{Key: key}, s == started)
			if err == nil {
				err = rules.check(seen)
			}
			if err != nil {
				return fmt.Errorf("system %s: %w", s, err)
			}
			states[s] = seen.SlotState
		}
		list := slot.Decide(slot.Facts{Active: env.Slot, Started: started, Slots: states, Damaged: config.Defaults().Update.Damaged})
		text = fmt.Sprintf("a %s, b %s: %s", states["a"].State, states["b"].State, list[0])
		if list[0].Do == slot.Network || list[0].Do == slot.Chooser {
			return errors.New("there is no system to go on with: " + text)
		}
		return nil
	})
	return text, err
}

// records are those of the versions that the slots hold in the end; one may be empty.
func (c *cuts) records() (out []images.Record) {
	c.t.Helper()
	err := c.look(c.whole, func(d disk.Drive, _ bootFiles) error {
		for _, s := range []string{"a", "b"} {
			dir, unmount, err := mountSlot(d, s)
			if err != nil {
				return err
			}
			rec, err := slot.Read(dir, c.keys)
			unmount()
			if errors.Is(err, slot.ErrEmpty) {
				continue
			}
			if err != nil {
				return fmt.Errorf("system %s: %w", s, err)
			}
			out = append(out, rec)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (r slotRules) check(s seenSlot) error {
	if s.Read == nil && s.Flag == nil && !slices.Contains(r.earned, s.Seen.Slot+" "+s.Record.Ref()) {
		return errors.New("it has a boot flag that was not earned")
	}
	if file := r.altered[s.Seen.Slot]; s.whole != nil && (file == "" || !strings.Contains(s.whole.Error(), file)) {
		return fmt.Errorf("it says that it is whole, and is not: %w", s.whole)
	}
	return nil
}

// slotOn looks at a slot of a drive, and compares all of one that says that it is whole.
func (c *cuts) slotOn(d disk.Drive, name string, env bootpart.Env, records slot.Records, started bool) (seenSlot, error) {
	tries := env.Tries[name]
	if started {
		tries = max(0, tries-1) // as the loader counts
	}
	s := seenSlot{Seen: slot.Seen{Slot: name, Trial: env.Trial[name], Tries: tries, Started: started}}
	dir, unmount, err := mountSlot(d, name)
	if err != nil {
		return s, err
	}
	defer unmount()
	s.Record, s.Read = slot.Read(dir, c.keys)
	if s.Read == nil {
		s.Flag = records.CheckFlag(dir, slot.Flag{Tree: s.Record.Tree.String(), Disk: d.GUID, Slot: name})
		t, err := slot.ReadTree(dir, s.Record.Tree)
		if err == nil {
			err = slot.Verify(c.t.Context(), dir, t, nil)
		}
		s.whole = err
	}
	s.SlotState = slot.Judge(s.Seen)
	return s, nil
}

// take copies files of the boot partition into a directory, where they lie as there.
func (b bootFiles) take(names ...string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "slate-cut-"); err != nil {
		return "", err
	}
	for _, name := range names {
		data, err := b.read(name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	return dir, nil
}

// startsOne checks that a slot has kernel and initramfs of one of some versions.
func (b bootFiles) startsOne(name string, records []images.Record) error {
	kernel, err := b.read("slate/" + name + "/vmlinuz")
	if err != nil {
		return err
	}
	initrd, err := b.read("slate/" + name + "/initrd.img")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(records, func(rec images.Record) bool {
		sums := string(sumParts(initrd, rec))
		return images.Digest(sha256.Sum256(kernel)) == rec.Kernel.Digest &&
			!slices.ContainsFunc(rec.Parts()[1:], func(p images.Part) bool { return !strings.Contains(sums, p.Digest.String()) })
	}) {
		return errors.New("its kernel and initramfs are those of no version")
	}
	return nil
}

// checkSlots cuts the power n times after entry from of the record. It returns the last
// drive.
func (c *cuts) checkSlots(rng *rand.Rand, n, from int, rules slotRules) (file string) {
	c.t.Helper()
	for _, at := range c.moments(rng, n, from) {
		file = c.make(at, rng)
		text, err := c.judgeSlots(file, rules)
		if err != nil {
			c.t.Errorf("power cut before write %d of %d: %v", at, c.log.Len(), err)
			continue
		}
		c.t.Logf("cut before write %d of %d, after %d MB: %s", at, c.log.Len(), c.log.Bytes(at)>>20, text)
	}
	return file
}

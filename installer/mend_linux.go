// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slate/images"
	"slate/images/transfer"
	"slate/images/tree"
	"slate/installer/bootpart"
	"slate/installer/slot"
	"slate/installer/update"
	"slate/netboot/api"
	"slate/netboot/config"

	"golang.org/x/sys/unix"
)

// otherMount is where the other slot is mounted while one is filled or mended.
const otherMount = RunDir + "/other"

// mountSlot mounts a slot to be written to. Its file system is looked over first.
func (b *Boot) mountSlot(ctx context.Context, s string) error {
	m := b.Local.mount(s)
	if m.What == "" {
		return errors.New("there is no place for it")
	}
	if m.Type == "ext4" {
		if out, err := b.tools().Run(ctx, "e2fsck", "-p", m.What); err != nil && exitCode(err) != 1 {
			b.Note("system %s was looked over: %s", strings.ToUpper(s), lastLine(out))
		}
	}
	m.Where, m.Flags = slotMount, unix.MS_NOATIME
	return m.Do()
}

// otherSource mounts the other slot, to take contents from. The function takes it down.
func (b *Boot) otherSource(s string) (*slot.Source, func(), error) {
	o := slot.Other(s)
	rec, ok := b.Local.records[o]
	if !ok {
		return nil, nil, slot.ErrEmpty
	}
	m := b.Local.mount(o)
	m.Where, m.Flags = otherMount, unix.MS_RDONLY|unix.MS_NOATIME
	if err := m.Do(); err != nil {
		return nil, nil, err
	}
	down := func() { _ = unix.Unmount(otherMount, 0) }
	t, err := slot.ReadTree(otherMount, rec.Tree)
	if err != nil {
		down()
		return nil, nil, err
	}
	return slot.NewSource(otherMount, t), down, nil
}

// cloneSlot copies the other system over a slot, verified, with what starts it.
func (b *Boot) cloneSlot(ctx context.Context, s string) error {
	o := slot.Other(s)
	rec := b.Local.records[o]
	src, down, err := b.otherSource(s)
	if err != nil {
		return err
	}
	defer down()
	signed, err := slot.ReadSigned(otherMount, rec)
	if err != nil {
		return err
	}
	start := time.Now()
	b.Note("copying %s from system %s over system %s", rec.Ref(), strings.ToUpper(o), strings.ToUpper(s))
	if err := b.mountSlot(ctx, s); err != nil {
		return err
	}
	defer unix.Unmount(slotMount, 0)
	f := slot.Fill{Dir: slotMount, Signed: signed, Tree: src.Tree(), Note: b.Note, Clear: true, Progress: b.verifying(),
		Fetch: func(ctx context.Context, t *tree.Tree, _ []images.Blob, to transfer.Sink) error {
			if _, _, err := src.Give(ctx, t.Blobs(), to); err != nil {
				return err
			}
			for blob := range t.Blobs() {
				if !to.Has(blob.Digest) {
					return fmt.Errorf("system %s is damaged itself: it lacks the content %s", strings.ToUpper(o), blob.Digest.Short())
				}
			}
			return nil
		},
		Take: func(func(images.Digest) (*os.File, error)) error { return b.cloneBoot(rec, o, s) },
	}
	if err := f.Run(ctx); err != nil {
		return err
	}
	if err := unix.Unmount(slotMount, 0); err != nil {
		return err
	}
	b.Note("system %s is %s again, in %.0f s", strings.ToUpper(s), rec.Ref(), time.Since(start).Seconds())
	return b.onTrial(s, rec)
}

// cloneBoot copies what starts a slot for the other.
func (b *Boot) cloneBoot(rec images.Record, from, to string) error {
	kernel, err := os.Open(bootpart.KernelPath(bootMount, from))
	if err != nil {
		return err
	}
	defer kernel.Close()
	if err := checkKernel(kernel, rec); err != nil {
		return err
	}
	initrd, err := os.Open(bootpart.InitrdPath(bootMount, from))
	if err != nil {
		return err
	}
	defer initrd.Close()
	line, err := bootpart.Cmdline(bootMount, from)
	if err != nil {
		return err
	}
	return bootpart.WriteEntry(bootMount, bootpart.Entry{Slot: to, Title: rec.Ref(), Kernel: kernel, Initrd: []io.Reader{initrd},
		Cmdline: update.Cmdline(line, rec, to, b.Local.Drive.GUID)})
}

// checkKernel compares a kernel with the version's record, and goes back to its begin.
func checkKernel(f *os.File, rec images.Record) error {
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	for _, p := range rec.Parts() {
		if p.Name == "kernel" && p.Digest != images.Digest(h.Sum(nil)) {
			return fmt.Errorf("the kernel on the boot partition is not that of %s", rec.Ref())
		}
	}
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// onTrial puts what was put into a slot on trial: it has to earn its flag.
func (b *Boot) onTrial(s string, rec images.Record) error {
	l := b.Local
	l.Env.Trial[s] = bootpart.NewTrial(rec.Tree)
	l.Env.Tries[s] = b.config().Update.Tries
	if err := bootpart.WriteEnv(bootMount, l.Env); err != nil {
		return err
	}
	l.records[s], l.fresh = rec, map[string]bool{s: true}
	l.Slots[s] = slot.Judge(slot.Seen{Slot: s, Record: rec, Flag: slot.ErrNoFlag, Trial: l.Env.Trial[s], Tries: l.Env.Tries[s]})
	return nil
}

// mendSlot makes a slot whole: what is wrong in it is taken from the other slot or from
// an appliance. If not even its lists can be trusted, it is filled anew.
func (b *Boot) mendSlot(ctx context.Context, s string) error {
	rec, ok := b.Local.records[s]
	if !ok {
		return b.refill(ctx, s)
	}
	if err := b.mountSlot(ctx, s); err != nil {
		return err
	}
	t, err := slot.ReadTree(slotMount, rec.Tree)
	if err == nil {
		err = b.mend(ctx, s, rec, t)
	}
	if e := unix.Unmount(slotMount, 0); err == nil {
		err = e
	}
	if err != nil && ctx.Err() == nil {
		b.Note("system %s cannot be mended: %v", strings.ToUpper(s), oneLine(err))
		return b.refill(ctx, s)
	}
	return err
}

// mend mends the slot that is mounted, and puts it on trial.
func (b *Boot) mend(ctx context.Context, s string, rec images.Record, t *tree.Tree) error {
	if err := slot.RemoveFlag(slotMount); err != nil {
		return err
	}
	b.Note("comparing system %s with %s", strings.ToUpper(s), rec.Ref())
	faults, err := slot.Check(ctx, slotMount, t, nil, b.verifying())
	if err != nil {
		return err
	}
	if err := b.replaceFaults(ctx, s, t, faults); err != nil {
		return err
	}
	k, err := os.Open(bootpart.KernelPath(bootMount, s))
	if err == nil {
		err = checkKernel(k, rec)
		k.Close()
	}
	if err != nil {
		return err
	}
	if err := slot.MarkComplete(slotMount, t); err != nil {
		return err
	}
	if err := b.onTrial(s, rec); err != nil {
		return err
	}
	return slot.EndMend(slotMount)
}

// replaceFaults replaces what is wrong in the slot that is mounted.
func (b *Boot) replaceFaults(ctx context.Context, s string, t *tree.Tree, faults []slot.Fault) error {
	for i, f := range faults {
		if i == 10 {
			b.Note("and %d more", len(faults)-i)
			break
		}
		b.Note("system %s: %s", strings.ToUpper(s), f)
	}
	if len(faults) == 0 {
		b.Note("all of system %s is as it should be", strings.ToUpper(s))
		return nil
	}
	return slot.Mend{Dir: slotMount, Tree: t, Faults: faults, Note: b.Note, Fetch: func(ctx context.Context, to transfer.Sink) error {
		return b.contents(ctx, s, t, to)
	}}.Run(ctx)
}

// contents brings contents of a tree from the other slot, and else from an appliance.
func (b *Boot) contents(ctx context.Context, s string, t *tree.Tree, to transfer.Sink) error {
	if src, down, err := b.otherSource(s); err == nil {
		n, bytes, err := src.Give(ctx, t.Blobs(), to)
		down()
		if err != nil {
			b.Note("system %s: %v", strings.ToUpper(slot.Other(s)), err)
		}
		if n > 0 {
			b.Note("%d files, %d KB, come from system %s", n, bytes>>10, strings.ToUpper(slot.Other(s)))
		}
	}
	whole := true
	for blob := range t.Blobs() {
		whole = whole && to.Has(blob.Digest)
	}
	if whole {
		return nil
	}
	if !b.hasAppliance() {
		return errors.New("the other system does not have all that is missing, and there is no appliance to ask")
	}
	keys, err := b.siteKeys()
	if err != nil {
		return err
	}
	c := b.Fleet.Transfer(keys, b.Note)
	c.Memory = max(b.Memory.Available/4, 32<<20)
	c.Work = filepath.Join(slotMount, slot.Dir)
	b.Note("fetching what is missing")
	return c.Fetch(ctx, t, nil, nil, to)
}

// refill fills a slot anew with the version that the appliance has for this machine.
func (b *Boot) refill(ctx context.Context, s string) error {
	if !b.hasAppliance() {
		return errors.New("there is no appliance to fill it anew from")
	}
	c, signed, err := b.version(ctx)
	if err != nil {
		return err
	}
	t, err := c.Tree(ctx, signed.Tree, nil)
	if err != nil {
		return err
	}
	b.Note("filling system %s anew with %s", strings.ToUpper(s), signed.Ref())
	if err := b.mountTarget(ctx, b.Local.Drive, s); err != nil {
		return err
	}
	err = b.fill(ctx, c, signed, t, b.Local.Drive, s)
	if e := unix.Unmount(slotMount, 0); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return b.reopen(b.Local.Drive, b.Local.Layout, s)
}

// verifying tells from time to time how far a comparison is.
func (b *Boot) verifying() func(done, all int) {
	last := time.Now()
	return func(done, all int) {
		if now := time.Now(); now.Sub(last) > 5*time.Second {
			last = now
			b.Note("verifying: %d of %d", done, all)
		}
	}
}

// verifyBefore compares the files of a slot before it is started, if config.d wants it
// at each start or the running system found something wrong, and mends what is.
func (b *Boot) verifyBefore(ctx context.Context, s string) error {
	rec, conf := b.Local.records[s], b.config().Update.Verify
	known := slot.LoadVerified(bootMount)[s]
	suspect := known.Suspect(rec.Tree.String())
	if b.Local.fresh[s] || !suspect && conf.At != config.VerifyBoot {
		return nil
	}
	part, parts := known.Part, slot.Parts(conf.Share)
	if suspect {
		b.Note("the running system found files of system %s that are not the image's: comparing all", strings.ToUpper(s))
		part, parts = 0, 1
	}
	start := time.Now()
	if err := b.mountSlot(ctx, s); err != nil {
		return err
	}
	err := b.compare(ctx, s, rec, slot.Share(part, parts))
	if e := unix.Unmount(slotMount, 0); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	b.Note("system %s was compared with %s, one part in %d, in %.1f s", strings.ToUpper(s), rec.Ref(), parts, time.Since(start).Seconds())
	return slot.SaveVerified(bootMount, s, known.Next(rec.Tree.String(), time.Now(), slot.Parts(conf.Share), nil))
}

// compare compares the slot that is mounted, and mends it. Its boot flag stays: in the
// end it holds what earned it.
func (b *Boot) compare(ctx context.Context, s string, rec images.Record, read func(uint32) bool) error {
	t, err := slot.ReadTree(slotMount, rec.Tree)
	if err != nil {
		return err
	}
	faults, err := slot.Check(ctx, slotMount, t, read, b.verifying())
	if err != nil || len(faults) == 0 {
		return err
	}
	if err := b.replaceFaults(ctx, s, t, faults); err != nil {
		return err
	}
	b.event(api.StepSystem, api.StateNote, fmt.Sprintf("%d files of system %s were not the image's and were mended", len(faults), strings.ToUpper(s)))
	return slot.EndMend(slotMount)
}

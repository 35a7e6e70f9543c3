// SPDX-License-Identifier: GPL-2.0-or-later

package update

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"slate/images"
	"slate/images/transfer"
	"slate/images/tree"
	"slate/installer/bootpart"
	"slate/installer/slot"
	"slate/netboot/api"
)

// Job fills the slot that does not run.
type Job struct {
	Boot    string        // where the boot partition is mounted
	Target  string        // the slot to fill, a or b
	Dir     string        // where that is mounted
	Disk    string        // GUID of the drive's partition table
	Running images.Record // of the other slot
	Root    string        // where the other slot is mounted
	// Cmdline is the kernel command line of this start.
	Cmdline string

	Assigned api.Assigned
	Client   *transfer.Client
	// Controller fetches a controller that is not on the boot partition, verified.
	Controller func(context.Context, images.Digest) ([]byte, error)
	Note       func(string, ...any)
	Progress   func(done, all int) // of the files that are verified; may be nil
}

// Size is what is to be fetched at most: the contents that the running system does not
// have, before compression.
func (j Job) Size(ctx context.Context) (int64, error) {
	_, t, old, err := j.lists(ctx)
	if err != nil {
		return 0, err
	}
	have := map[images.Digest]bool{}
	for b := range old.Blobs() {
		have[b.Digest] = true
	}
	var size int64
	for b := range t.Blobs() {
		if !have[b.Digest] {
			size += b.Size
		}
	}
	return size, nil
}

// lists fetches the record and the tree list of the version, and reads those of the
// system that runs.
func (j Job) lists(ctx context.Context) (transfer.Signed, *tree.Tree, *tree.Tree, error) {
	ref, err := images.ParseRef(j.Assigned.Version)
	if err != nil {
		return transfer.Signed{}, nil, nil, err
	}
	signed, err := j.Client.Record(ctx, ref, transfer.Policy{})
	if err != nil {
		return signed, nil, nil, err
	}
	if signed.Tree != j.Assigned.Tree {
		return signed, nil, nil, fmt.Errorf("%s is %s at the appliance, not %s as assigned", ref, signed.Tree.Short(), j.Assigned.Tree.Short())
	}
	if signed.Kernel == nil {
		return signed, nil, nil, fmt.Errorf("%s has no kernel", ref)
	}
	old, err := slot.ReadTree(j.Root, j.Running.Tree)
	if err != nil {
		return signed, nil, nil, fmt.Errorf("the list of the system that runs: %w", err)
	}
	t, err := j.Client.Tree(ctx, signed.Tree, old)
	return signed, t, old, err
}

// Run fills the slot and what starts it, verified. Nothing is started by that: Start
// sets the trial.
func (j Job) Run(ctx context.Context) (images.Record, error) {
	signed, t, old, err := j.lists(ctx)
	if err != nil {
		return images.Record{}, err
	}
	controller, err := j.controller(ctx)
	if err != nil {
		return signed.Record, fmt.Errorf("the controller: %w", err)
	}
	var extra []images.Blob
	for _, p := range signed.Parts() {
		extra = append(extra, p.Blob)
	}
	j.Client.Work = filepath.Join(j.Dir, slot.Dir)
	src := slot.NewSource(j.Root, old)
	f := slot.Fill{Dir: j.Dir, Signed: signed, Tree: t, Note: j.Note, Clear: true, Progress: j.Progress, Extra: extra,
		Fetch: func(ctx context.Context, t *tree.Tree, extra []images.Blob, to transfer.Sink) error {
			n, size, err := src.Give(ctx, t.Blobs(), to)
			if err != nil {
				return err
			}
			j.Note("%d files, %d MB, come from the system that runs", n, size>>20)
			if err := j.giveParts(ctx, signed.Record, to); err != nil {
				j.Note("what starts the running system is not taken over: %v", err)
			}
			return j.Client.Fetch(ctx, t, extra, []*tree.Tree{old}, both{to, src})
		},
		Take: func(open func(images.Digest) (*os.File, error)) error {
			return j.writeEntry(signed.Record, controller, open)
		},
	}
	return signed.Record, f.Run(ctx)
}

// both is a sink whose contents are made from what the running system has.
type both struct {
	transfer.Sink
	src *slot.Source
}

// OpenBlob opens what was put into the sink, or what the running system has.
func (b both) OpenBlob(d images.Digest) (*os.File, error) {
	f, err := b.Sink.OpenBlob(d)
	if errors.Is(err, os.ErrNotExist) {
		return b.src.Open(d)
	}
	return f, err
}

// parts are the contents beside the tree as they lie on the boot partition for the slot
// that runs: the kernel by itself, the others at the end of its initramfs.
func (j Job) parts() (map[string]func() (io.ReadCloser, error), int64, error) {
	slotName := slot.Other(j.Target)
	initrd := bootpart.InitrdPath(j.Boot, slotName)
	info, err := os.Stat(initrd)
	if err != nil {
		return nil, 0, err
	}
	section := func(from, size int64) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) {
			f, err := os.Open(initrd)
			if err != nil {
				return nil, err
			}
			return struct {
				io.Reader
				io.Closer
			}{io.NewSectionReader(f, from, size), f}, nil
		}
	}
	out := map[string]func() (io.ReadCloser, error){}
	at := info.Size()
	list := j.Running.Parts()
	for i := len(list) - 1; i >= 0; i-- {
		p := list[i]
		if p.Name == "kernel" {
			out[p.Name] = func() (io.ReadCloser, error) { return os.Open(bootpart.KernelPath(j.Boot, slotName)) }
			continue
		}
		at -= p.Size
		if at < 0 {
			return nil, 0, errors.New("the initramfs on the boot partition is too small")
		}
		out[p.Name] = section(at, p.Size)
	}
	out["controller"] = section(0, at)
	return out, at, nil
}

// giveParts puts those of the new version's parts into the sink that the running one
// has too, each verified.
func (j Job) giveParts(ctx context.Context, rec images.Record, to transfer.Sink) error {
	from, _, err := j.parts()
	if err != nil {
		return err
	}
	for _, p := range rec.Parts() {
		for _, o := range j.Running.Parts() {
			if o.Digest != p.Digest || to.Has(p.Digest) {
				continue
			}
			ok, err := same(from[o.Name], p.Digest)
			if err != nil {
				return err
			}
			if !ok {
				j.Note("the %s on the boot partition is not that of %s: fetching it", o.Name, j.Running.Ref())
				continue
			}
			r, err := from[o.Name]()
			if err != nil {
				return err
			}
			err = to.Put(ctx, p.Blob, r)
			if e := r.Close(); err == nil {
				err = e
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func same(open func() (io.ReadCloser, error), want images.Digest) (bool, error) {
	r, err := open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	h := sha256.New()
	_, err = io.Copy(h, r)
	return images.Digest(h.Sum(nil)) == want, err
}

// controller is the one that the assignment names: the one that the running system was
// started with, or fetched.
func (j Job) controller(ctx context.Context) ([]byte, error) {
	if from, size, err := j.parts(); err == nil && size < 256<<20 {
		if ok, err := same(from["controller"], j.Assigned.Controller); err == nil && ok {
			r, err := from["controller"]()
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(r)
		}
	}
	j.Note("fetching the controller that goes with %s", j.Assigned.Version)
	return j.Controller(ctx, j.Assigned.Controller)
}

// writeEntry writes what starts the slot onto the boot partition.
func (j Job) writeEntry(rec images.Record, controller []byte, open func(images.Digest) (*os.File, error)) error {
	j.Note("writing the kernel")
	return bootpart.WriteVersion(j.Boot, j.Target, rec, controller, Cmdline(j.Cmdline, rec, j.Target, j.Disk), open)
}

// Cmdline makes the command line of starts from the disk out of this start's: what
// belongs to this one start only goes.
func Cmdline(now string, rec images.Record, target, disk string) []string {
	drop := map[string]bool{"BOOT_IMAGE": true, "initrd": true, "slate.boot": true, "slate.slot": true, "slate.disk": true,
		"slate.image": true, "slate.tree": true, "slate.install": true, "slate.medium": true, bootpart.LastWord: true}
	var out []string
	last := strings.Contains(" "+now+" ", " "+bootpart.LastWord+" ")
	for _, w := range strings.Fields(now) {
		if key, _, _ := strings.Cut(w, "="); drop[key] || last && w == "panic=0" {
			continue
		}
		out = append(out, w)
	}
	return append(out, "slate.image="+rec.Ref(), "slate.tree="+rec.Tree.String(), "slate.slot="+target, "slate.disk="+disk)
}

// Start has the loader start a slot next. fresh: what is in it has yet to earn its boot
// flag, and gets one try; if that fails, the other slot is started.
func Start(boot, target string, rec images.Record, fresh bool, tries int) error {
	env, err := bootpart.ReadEnv(boot)
	if err != nil {
		return err
	}
	env.Slot, env.Tries[target] = target, tries
	if fresh {
		env.Tries[target] = 1
		if !bootpart.OnTrial(env.Trial[target], rec.Tree) {
			env.Trial[target] = bootpart.NewTrial(rec.Tree)
		}
	}
	other := slot.Other(target)
	env.Tries[other] = max(env.Tries[other], tries) // it was left in order
	return bootpart.WriteEnv(boot, env)
}

// Trial puts what was put into a slot on trial, with no try yet: it is not started before
// Start says so.
func Trial(boot, target string, tree images.Digest) error {
	env, err := bootpart.ReadEnv(boot)
	if err != nil {
		return err
	}
	env.Trial[target], env.Tries[target] = bootpart.NewTrial(tree), 1
	return bootpart.WriteEnv(boot, env)
}

// Forget takes what is on trial in a slot out of the loader's mind, before the slot is
// filled: neither is it started, nor does a cycle of it count.
func Forget(boot, target string) error {
	env, err := bootpart.ReadEnv(boot)
	if err != nil {
		return err
	}
	delete(env.Trial, target)
	env.Tries[target] = 0
	if env.Slot == target {
		env.Slot = slot.Other(target)
	}
	return bootpart.WriteEnv(boot, env)
}

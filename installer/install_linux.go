// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slate/images"
	"slate/images/transfer"
	"slate/images/tree"
	"slate/installer/bootpart"
	"slate/installer/conf"
	"slate/installer/disk"
	"slate/installer/machine"
	"slate/installer/slot"
	"slate/installer/update"
	"slate/netboot/api"
	"slate/netboot/config"

	"golang.org/x/sys/unix"
)

// controllerList is the list of digests of the controller's own archive.
const controllerList = "/etc/slate/files.sha256"

// verdicts says which drives the image may be installed on. The drives are looked at
// anew: a stick may have been pulled since.
func (b *Boot) verdicts(ctx context.Context, need int64) []disk.Verdict {
	b.Drives = b.tools().Look(ctx, b.Root)
	return disk.Judge(b.Drives, b.config().Drives, need)
}

// version asks the appliance for the version that this machine was told to run.
func (b *Boot) version(ctx context.Context) (*transfer.Client, transfer.Signed, error) {
	keys, err := b.siteKeys()
	if err != nil {
		return nil, transfer.Signed{}, err
	}
	ref, err := images.ParseRef(b.Settings.Image)
	if err != nil {
		return nil, transfer.Signed{}, fmt.Errorf("the command line does not say what to install: %w", err)
	}
	c := b.Fleet.Transfer(keys, b.Note)
	c.Memory = max(b.Memory.Available/4, 32<<20)
	b.Note("asking for %s", ref)
	signed, err := c.Record(ctx, ref, transfer.Policy{})
	if err == nil && signed.Kernel == nil {
		err = fmt.Errorf("%s has no kernel", ref)
	}
	return c, signed, err
}

// unattended installs without asking, where drives.conf allows it.
func (b *Boot) unattended(ctx context.Context) error {
	if b.NoInstall != "" {
		return errors.New(b.NoInstall)
	}
	c, signed, err := b.version(ctx)
	if err != nil {
		return err
	}
	v, err := disk.Pick(b.verdicts(ctx, signed.Size))
	if err != nil {
		return err
	}
	b.Note("installing %s on %s: %s", signed.Ref(), v.Drive, v.Reason)
	return b.install(ctx, c, signed, v)
}

// plan is what an installation would do to a drive. An installation of before stays
// what it is as far as it can, for what is kept on user-data and for what an
// interrupted one has fetched.
func (b *Boot) installPlan(v disk.Verdict, need int64) (disk.Plan, error) {
	return disk.MakePlan(v, b.config().Btrfs, need, newGUID(), true)
}

func newGUID() string {
	var g [16]byte
	rand.Read(g[:])
	g[6], g[8] = g[6]&0x0f|0x40, g[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
}

// install puts a version on a drive. Until it is called nothing has been written;
// the version's lists are here before anything is.
func (b *Boot) install(ctx context.Context, c *transfer.Client, signed transfer.Signed, v disk.Verdict) error {
	start := time.Now()
	b.event(api.StepInstall, api.StateStart, signed.Ref()+" on "+v.Drive.String())
	if err := b.installOn(ctx, c, signed, v); err != nil {
		b.event(api.StepInstall, api.StateFailed, err.Error())
		return err
	}
	took := fmt.Sprintf("%s is installed on %s, in %.0f s", signed.Ref(), v.Drive.Name, time.Since(start).Seconds())
	b.Note("%s", took)
	b.event(api.StepInstall, api.StateDone, took)
	return nil
}

func (b *Boot) installOn(ctx context.Context, c *transfer.Client, signed transfer.Signed, v disk.Verdict) error {
	t, err := c.Tree(ctx, signed.Tree, nil)
	if err != nil {
		return err
	}
	plan, err := b.installPlan(v, signed.Size)
	if err != nil {
		return err
	}
	target := "a"
	if s := b.System; s != nil && plan.Keep && s.Drive.GUID == plan.GUID && s.Slot == "a" {
		target = "b" // at no moment is there none
	}
	for _, l := range plan.Tell() {
		b.Note("%s", l)
	}
	_ = unix.Unmount(bootMount, unix.MNT_DETACH)
	if err := b.tools().Do(ctx, plan, b.Note); err != nil {
		return err
	}
	v.Drive = b.tools().LookAt(ctx, b.Root, disk.Drive{Name: v.Drive.Name, Device: v.Drive.Device, ID: v.Drive.ID, Serial: v.Drive.Serial, Model: v.Drive.Model,
		Path: v.Drive.Path, Transport: v.Drive.Transport, Size: v.Drive.Size})
	if !v.Drive.Ours() {
		return fmt.Errorf("%s does not have the partitions that were written: %s", v.Drive.Device, strings.Join(v.Drive.Holds(), "; "))
	}
	if err := b.mountBoot(ctx, v.Drive); err != nil {
		return err
	}
	if err := b.mountTarget(ctx, v.Drive, target); err != nil {
		return err
	}
	defer unix.Unmount(slotMount, 0)
	if err := b.fill(ctx, c, signed, t, v.Drive, target); err != nil {
		return err
	}
	if err := unix.Unmount(slotMount, 0); err != nil {
		return fmt.Errorf("unmount the new system: %w", err)
	}
	return b.reopen(v.Drive, plan.Btrfs, target)
}

// mountTarget mounts the slot that is to be filled, made anew if it cannot be used.
func (b *Boot) mountTarget(ctx context.Context, d disk.Drive, target string) error {
	m := slotOn(d, target, b.config().Btrfs)
	if m.Type == config.Btrfs {
		return b.mountSubvolume(ctx, d, m)
	}
	m.Where, m.Flags = slotMount, unix.MS_NOATIME
	_, err := b.tools().Run(ctx, "e2fsck", "-p", m.What)
	if err == nil || exitCode(err) == 1 {
		err = m.Do()
	}
	if err == nil {
		return nil
	}
	b.Note("system %s is made anew: %v", strings.ToUpper(target), oneLine(err))
	if _, err := b.tools().Run(ctx, "mkfs.ext4", "-q", "-F", "-m", "1", "-L", "slate-"+target, m.What); err != nil {
		return err
	}
	return m.Do()
}

// mountSubvolume makes the subvolumes that are missing and mounts the one to fill.
func (b *Boot) mountSubvolume(ctx context.Context, d disk.Drive, m machine.Mount) error {
	top := machine.Mount{What: m.What, Where: slotMount, Type: config.Btrfs, Flags: unix.MS_NOATIME, Data: "subvolid=5"}
	if err := top.Do(); err != nil {
		return err
	}
	s := b.config().Btrfs.Subvolumes
	for _, name := range []string{s.A, s.B, s.User} {
		at := filepath.Join(slotMount, name)
		if _, err := os.Stat(at); err == nil {
			continue
		}
		if _, err := b.tools().Run(ctx, "btrfs", "subvolume", "create", at); err != nil {
			return errors.Join(err, unix.Unmount(slotMount, 0))
		}
	}
	if err := unix.Unmount(slotMount, 0); err != nil {
		return err
	}
	m.Where, m.Flags = slotMount, unix.MS_NOATIME
	return m.Do()
}

func exitCode(err error) int {
	var e interface{ ExitCode() int }
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return -1
}

// fill brings the version's content into the slot and what starts it onto the boot
// partition.
func (b *Boot) fill(ctx context.Context, c *transfer.Client, signed transfer.Signed, t *tree.Tree, d disk.Drive, target string) error {
	var extra []images.Blob
	for _, p := range signed.Parts() {
		extra = append(extra, p.Blob)
	}
	c.Work = filepath.Join(slotMount, slot.Dir)
	r := newRate(time.Now)
	c.Progress = progressNote(b, r)
	last := time.Now()
	f := slot.Fill{
		Dir: slotMount, Signed: signed, Tree: t, Note: b.Note, Extra: extra,
		Fetch: func(ctx context.Context, t *tree.Tree, extra []images.Blob, s transfer.Sink) error {
			return c.Fetch(ctx, t, extra, nil, s)
		},
		Take: func(open func(images.Digest) (*os.File, error)) error {
			return b.installBoot(ctx, signed.Record, d, target, open)
		},
		Progress: func(done, all int) {
			if now := time.Now(); now.Sub(last) > 5*time.Second {
				last = now
				b.Note("verifying: %d of %d", done, all)
			}
		},
	}
	return f.Run(ctx)
}

// installBoot writes kernel and initramfs of a slot, and the loaders. The counters
// come last but one: with them the loader knows the slot.
func (b *Boot) installBoot(ctx context.Context, rec images.Record, d disk.Drive, target string, open func(images.Digest) (*os.File, error)) error {
	b.Note("writing kernel and loaders")
	controller, err := b.controllerArchive(ctx)
	if err != nil {
		return fmt.Errorf("the controller: %w", err)
	}
	cmdline := update.Cmdline(readText(b.path("/proc/cmdline")), rec, target, d.GUID)
	if err := bootpart.WriteVersion(bootMount, target, rec, controller, cmdline, open); err != nil {
		return err
	}
	if err := b.keepConfig(); err != nil {
		return err
	}
	if err := b.installLoaders(ctx, d); err != nil {
		return err
	}
	if _, _, err := slot.MakeKey(bootMount); err != nil {
		return err
	}
	env, _ := bootpart.ReadEnv(bootMount)
	env.Slot = target
	env.Tries[target] = b.config().Update.Tries
	env.Trial[target] = bootpart.NewTrial(rec.Tree)
	return bootpart.WriteEnv(bootMount, env)
}

// controllerArchive is what the machine starts with from its drive: the controller that
// the appliance has for it, which the first update then need not fetch, or the one that
// runs.
func (b *Boot) controllerArchive(ctx context.Context) ([]byte, error) {
	if b.hasAppliance() {
		a, err := b.askAssigned(ctx, updateState(), b.openAssigned())
		if err == nil {
			var data []byte
			if data, err = b.Fleet.Controller(ctx, a.Controller); err == nil {
				return data, nil
			}
		}
		b.Note("keeping the controller that runs, as the appliance's cannot be had: %v", err)
	}
	return bootpart.ControllerCPIO(or2(b.Root, "/"), controllerList)
}

// keepConfig keeps beside the kernels what the machine is configured by when nobody can
// be asked.
func (b *Boot) keepConfig() error {
	key, err := os.ReadFile(b.path(sitePub))
	if err != nil {
		return err
	}
	for _, dir := range []string{bootpart.ConfigDir, bootpart.LogDir} {
		if err := os.MkdirAll(filepath.Join(bootMount, dir), 0o700); err != nil {
			return err
		}
	}
	if err := bootpart.SetTimeout(bootMount, b.config().Boot.LoaderTimeout); err != nil {
		return err
	}
	if b.bundle != nil {
		if err := (conf.Store{Dir: b.ConfigDir}).Save(b.bundle); err != nil {
			return fmt.Errorf("keep the configuration: %w", err)
		}
	}
	return os.WriteFile(filepath.Join(bootMount, bootpart.Dir, "site.key.pub"), key, 0o600)
}

// installLoaders installs the loaders for both kinds of firmware, since a drive can be
// moved and a firmware's set-up changed; the one for this machine's must be there.
func (b *Boot) installLoaders(ctx context.Context, d disk.Drive) error {
	core, boot := d.Part(disk.LabelBIOS), d.Part(disk.LabelBoot)
	if core == nil || boot == nil {
		return errors.New("the drive lacks a partition for the loader")
	}
	l := bootpart.Loader{GRUB: b.path(disk.ToolGRUB), Run: b.tools().Run, Work: RunDir, Dir: bootMount, Drive: d.Device, Sector: d.Sector,
		CoreStart: core.Start, CoreSize: core.Size, CoreDevice: core.Device, BootPart: boot.Number}
	bios, err := l.InstallBIOS(ctx)
	if err != nil {
		return fmt.Errorf("the loader for BIOS: %w", err)
	}
	uefi, err := l.InstallUEFI()
	if err != nil {
		return fmt.Errorf("the loader for UEFI: %w", err)
	}
	_, statErr := os.Stat(b.path("/sys/firmware/efi"))
	byUEFI := statErr == nil
	if byUEFI && !uefi || !byUEFI && !bios {
		return fmt.Errorf("the image has no loader for this machine's firmware (%s)", map[bool]string{true: "UEFI", false: "BIOS"}[byUEFI])
	}
	if byUEFI {
		target := bootpart.Target{Part: boot.Number, Start: boot.Start, Size: boot.Size, Sector: d.Sector, GUID: boot.GUID, File: `\EFI\slate\shimx64.efi`}
		if err := bootpart.AddNVRAM(b.path("/sys/firmware/efi/efivars"), target); err != nil {
			b.Note("the firmware did not take an entry of its own (%v); it will find the loader where it looks by itself", err)
		}
	}
	return nil
}

// progressNote tells from time to time how far a transfer is.
func progressNote(b *Boot, r *rate) func(transfer.Progress) {
	return func(p transfer.Progress) {
		if text, ok := r.tell(p.Have, p.Total); ok {
			b.Note("%s", text)
		}
	}
}

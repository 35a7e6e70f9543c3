// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slate/images"
	"slate/installer/bootpart"
	"slate/installer/conf"
	"slate/installer/disk"
	"slate/installer/machine"
	"slate/installer/root"
	"slate/installer/slot"
	"slate/netboot/config"

	"golang.org/x/sys/unix"
)

// Where the controller mounts what is on the drive. The boot partition goes along
// into the running system: the agent works on it.
const (
	bootMount = RunDir + "/boot"
	slotMount = RunDir + "/slot"
)

// System is a system on one of the machine's own drives.
type System struct {
	Drive  disk.Drive
	Slot   string // a or b
	Record images.Record
	Mount  machine.Mount // of its root, without a place
	User   machine.Mount // of user-data, without a place
}

// tools are the programs of the initramfs.
func (b *Boot) tools() disk.Tools { return disk.Tools{Dir: b.path(disk.ToolDir), Libs: disk.ToolLibs} }

// findLimit bounds the search for a system on the drives.
const findLimit = time.Minute

// findSystem looks for a system on the machine's own drives and mounts the boot
// partition beside it. Whatever is wrong, the machine goes on: then it has none.
func (b *Boot) findSystem(ctx context.Context) {
	t := b.tools()
	if len(machine.ReadDisks(b.Root)) == 0 {
		b.NoInstall = "this machine has no drive"
		return
	}
	if !t.Has("blkid") {
		b.NoInstall = "the image came without the programs that an installation needs; slate image lint says which"
		return
	}
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	if err := t.Check(ctx); err != nil {
		b.NoInstall = "the programs for it do not work: " + oneLine(err)
		b.Note("%s", b.NoInstall)
	}
	if b.Loader != nil {
		// Without the names of its character sets FAT cannot be mounted.
		_, _ = b.Loader.Load(ctx, "ext4", "vfat", "nls_cp437", "nls_ascii")
	}
	keys, err := b.siteKeys()
	if err != nil || len(keys) == 0 {
		b.NoInstall = "the site's key did not come with the controller"
		b.Note("no system on a drive can be trusted: %s (%v)", b.NoInstall, err)
		return
	}
	b.Drives = t.Look(ctx, b.Root)
	for _, d := range b.Drives {
		b.Note("drive %s: %s", d, strings.Join(d.Holds(), "; "))
		if !d.Ours() || b.Settings.Disk != "" && d.GUID != b.Settings.Disk {
			continue
		}
		if err := b.openDrive(ctx, d, keys); err != nil {
			b.Note("no system on %s: %v", d.Name, err)
			continue
		}
		return
	}
}

// Local is what is on the drive of ours.
type Local struct {
	Drive   disk.Drive
	Layout  config.BtrfsConf
	Records slot.Records
	Env     bootpart.Env
	Slots   map[string]slot.SlotState
	records map[string]images.Record // of slots that have one, by slot
	fresh   map[string]bool          // slots that were filled or mended by this start
}

// mount is how a slot, or user-data, is mounted.
func (l *Local) mount(s string) machine.Mount { return slotOn(l.Drive, s, l.Layout) }

// system is what would be started from a slot.
func (l *Local) system(s string) System {
	return System{Drive: l.Drive, Slot: s, Record: l.records[s], Mount: l.mount(s), User: l.mount("user")}
}

// openDrive looks into the slots of a drive of ours. What cleaning up after a power cut
// cost the loader is written anew.
func (b *Boot) openDrive(ctx context.Context, d disk.Drive, keys []ed25519.PublicKey) error {
	if err := b.mountBoot(ctx, d); err != nil {
		return err
	}
	if bootpart.Has(bootMount, "a") || bootpart.Has(bootMount, "b") {
		if err := bootpart.WriteConfig(bootMount); err != nil {
			b.Note("the loader's configuration: %v", err)
		}
	}
	if p := d.Part(disk.LabelData); p != nil {
		b.mendData(ctx, p.Device)
	}
	return b.openSlots(d, keys)
}

// mendData mends the btrfs that slots and user-data share, if it cannot be mounted for its
// superblock: a power cut that leaves half of one would take both systems at once.
func (b *Boot) mendData(ctx context.Context, device string) {
	err := machine.Mount{What: device, Where: slotMount, Type: config.Btrfs, Flags: unix.MS_RDONLY | unix.MS_NOATIME}.Do()
	if err == nil {
		_ = unix.Unmount(slotMount, 0)
		return
	}
	b.Note("%s: %v", disk.LabelData, err)
	if !errors.Is(err, unix.EINVAL) {
		return
	}
	switch mended, err := b.tools().MendSuperblock(ctx, device); {
	case err != nil:
		b.Note("%s: its superblock cannot be mended: %v", disk.LabelData, oneLine(err))
	case mended:
		b.Note("%s: its superblock was damaged, as by a power cut, and is that of its copy again", disk.LabelData)
	}
}

// openSlots looks into the slots of a drive whose boot partition is mounted, and finds
// the system that could be started.
func (b *Boot) openSlots(d disk.Drive, keys []ed25519.PublicKey) error {
	kept := b.keptConfig(keys)
	l := &Local{Drive: d, Layout: kept.Btrfs, Slots: map[string]slot.SlotState{}, records: map[string]images.Record{}}
	var err error
	if l.Env, err = bootpart.ReadEnv(bootMount); err != nil {
		b.Note("the loader's counters: %v", err)
	}
	key, fresh, err := slot.MakeKey(bootMount)
	if err != nil {
		b.Note("the key of this machine's boot flags: %v", err)
	}
	if fresh {
		b.Note("this machine has a new key for its boot flags")
	}
	l.Records.Key = key
	b.Local = l
	b.lookAtSlots(l, keys, kept.Update)
	for _, a := range slot.Decide(b.localFacts(kept.Update)) {
		if a.Do == slot.Start {
			s := l.system(a.Slot)
			b.System = &s
			return nil
		}
	}
	return errors.New(l.why())
}

// lookAtSlots finds out what each slot is worth, after a healthy cycle has earned its
// slot the boot flag.
func (b *Boot) lookAtSlots(l *Local, keys []ed25519.PublicKey, conf config.UpdateCheck) {
	cycles := b.readCycles(l)
	for _, s := range []string{"a", "b"} {
		seen := b.lookAtSlot(l, s, keys)
		if c, ok := slot.Earned(cycles, seen.Trial, l.flagOf(s), conf.Unclean == config.UncleanCount); ok && seen.Read == nil {
			if err := b.earn(l, s, c, &seen); err != nil {
				b.Note("system %s does not get its boot flag: %v", strings.ToUpper(s), err)
			}
		}
		state := slot.Judge(seen)
		l.Slots[s] = state
		var half *slot.IncompleteError
		if errors.As(seen.Read, &half) {
			b.Interrupted = half.Error()
		}
		if state.State == slot.Empty {
			continue
		}
		b.Note("system %s on %s is %s: %s, %d tries left", strings.ToUpper(s), l.Drive.Name, or2(state.Version, "unknown"), describe(state), state.Tries)
	}
}

func describe(s slot.SlotState) string {
	if s.Why != "" {
		return string(s.State) + " (" + s.Why + ")"
	}
	return string(s.State)
}

// why says why no system of the drive can be started.
func (l *Local) why() string {
	var out []string
	for _, s := range []string{"a", "b"} {
		if st := l.Slots[s]; st.State != slot.Empty {
			out = append(out, "system "+strings.ToUpper(s)+" is "+describe(st))
		}
	}
	if len(out) == 0 {
		return "its slots are empty"
	}
	return strings.Join(out, "; ")
}

// lookAtSlot reads what is known of a slot.
func (b *Boot) lookAtSlot(l *Local, s string, keys []ed25519.PublicKey) slot.Seen {
	seen := slot.Seen{Slot: s, Trial: l.Env.Trial[s], Tries: l.Env.Tries[s], Started: b.Settings.Slot == s, Read: slot.ErrEmpty}
	m := l.mount(s)
	if m.What == "" {
		return seen
	}
	m.Where, m.Flags = slotMount, unix.MS_RDONLY|unix.MS_NOATIME
	if err := m.Do(); err != nil {
		if seen.Trial != "" || bootpart.Has(bootMount, s) {
			seen.Read = err
		} // else it was never filled: an installation ended before that
		return seen
	}
	defer unix.Unmount(slotMount, 0)
	seen.Record, seen.Read = slot.Read(slotMount, keys)
	if seen.Record.Name != "" {
		l.records[s] = seen.Record
	}
	if seen.Read == nil {
		seen.Flag = l.Records.CheckFlag(slotMount, l.flagOf(s))
	}
	return seen
}

// flagOf is the boot flag that a slot should have, but for the cycle.
func (l *Local) flagOf(s string) slot.Flag {
	return slot.Flag{Tree: l.records[s].Tree.String(), Disk: l.Drive.GUID, Slot: s}
}

// localFacts are what is decided from.
func (b *Boot) localFacts(conf config.UpdateCheck) slot.Facts {
	return slot.Facts{Active: b.Local.Env.Slot, Started: b.Settings.Slot, Last: b.Settings.Last, Slots: b.Local.Slots, Damaged: conf.Damaged}
}

// mountBoot mounts the boot partition. FAT has no journal: it is looked over first, and
// a file that is renamed is there at once, not some seconds after the old one is gone.
func (b *Boot) mountBoot(ctx context.Context, d disk.Drive) error {
	p := d.Part(disk.LabelBoot)
	if p == nil {
		return errors.New("it has no boot partition")
	}
	_ = unix.Unmount(bootMount, unix.MNT_DETACH)
	if out, err := b.tools().Run(ctx, "fsck.fat", "-a", p.Device); err != nil {
		b.Note("the boot partition was looked over: %s", lastLine(out))
	}
	m := machine.Mount{What: p.Device, Where: bootMount, Type: "vfat", Flags: unix.MS_NOATIME | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_DIRSYNC, Data: "umask=0077,quiet,flush"}
	if err := m.Do(); err != nil {
		return err
	}
	b.ConfigDir = filepath.Join(bootMount, bootpart.ConfigDir)
	return nil
}

// keptConfig is the configuration that is kept on the drive. It says how the drive was
// filled: what the appliance says now counts for what is installed anew.
func (b *Boot) keptConfig(keys []ed25519.PublicKey) *config.Node {
	kept, err := conf.Store{Dir: b.ConfigDir}.Load()
	if err != nil || len(kept) == 0 {
		return config.Defaults()
	}
	return conf.Choose(conf.Facts{Node: b.Settings.Node, Keys: keys, Kept: kept}).Config
}

// slotOn is how a slot of a drive, or its user-data, is mounted.
func slotOn(d disk.Drive, s string, c config.BtrfsConf) machine.Mount {
	if p := d.Part(disk.LabelData); p != nil {
		name := map[string]string{"a": c.Subvolumes.A, "b": c.Subvolumes.B, "user": c.Subvolumes.User}[s]
		data := "subvol=" + name
		if o := c.MountOptions(); o != "" {
			data += "," + o
		}
		return machine.Mount{What: p.Device, Type: config.Btrfs, Data: data}
	}
	label := map[string]string{"a": disk.LabelA, "b": disk.LabelB, "user": disk.LabelUser}[s]
	if p := d.Part(label); p != nil {
		return machine.Mount{What: p.Device, Type: config.Ext4}
	}
	return machine.Mount{}
}

// useSystem makes a system on a drive the one that is started.
func (b *Boot) useSystem(ctx context.Context, s System) error {
	if err := b.countStart(s.Slot); err != nil {
		b.Note("this start is not counted: %v", err)
	}
	// Its own kernel was started if the loader says so, whatever that calls itself: a
	// second time would be no better.
	if release := machine.Release(); s.Record.Kernel != nil && s.Record.Kernel.Release != release && b.Settings.Slot != s.Slot {
		b.Note("%s on %s needs the kernel %s, and %s runs: starting its own", s.Record.Ref(), s.Drive.Name, s.Record.Kernel.Release, release)
		if err := b.kexec(s); err != nil {
			return fmt.Errorf("start the kernel of %s: %w", s.Record.Ref(), err)
		}
	}
	b.System = &s
	b.Lower = root.Lower{Slot: s.Mount}
	b.UserData = b.userData(ctx, s.User)
	b.Settings.Image, b.Settings.Tree = s.Record.Ref(), s.Record.Tree.String()
	b.Note("starting %s from system %s on %s", s.Record.Ref(), strings.ToUpper(s.Slot), s.Drive.Name)
	return nil
}

// userData is the file system that keeps what may be kept, once it is in order. One
// that cannot be used is left alone, and memory is taken in its place.
func (b *Boot) userData(ctx context.Context, m machine.Mount) machine.Mount {
	if m.Type == config.Ext4 {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		if out, err := b.tools().Run(ctx, "e2fsck", "-p", m.What); err != nil {
			b.Note("user-data was looked over: %s", lastLine(out))
		}
	}
	try := m
	try.Where = slotMount
	if err := try.Do(); err != nil {
		b.Note("user-data cannot be used, what is written is kept in memory: %v", err)
		return machine.Mount{}
	}
	_ = unix.Unmount(slotMount, 0)
	return m
}

// kexec starts the kernel that lies on the boot partition for a slot. It returns only
// with an error.
func (b *Boot) kexec(s System) error {
	at := filepath.Join(bootMount, bootpart.Dir, s.Slot)
	cmdline, err := os.ReadFile(filepath.Join(at, "cmdline"))
	if err != nil {
		return err
	}
	kernel, err := os.Open(filepath.Join(at, "vmlinuz"))
	if err != nil {
		return err
	}
	defer kernel.Close()
	initrd, err := os.Open(filepath.Join(at, "initrd.img"))
	if err != nil {
		return err
	}
	defer initrd.Close()
	line := strings.TrimSpace(string(cmdline))
	if b.Settings.Boot != "" {
		line += " slate.boot=" + b.Settings.Boot // it is the same start
	}
	if err := unix.KexecFileLoad(int(kernel.Fd()), int(initrd.Fd()), line, 0); err != nil {
		return err
	}
	b.Reporter.Stop(500 * time.Millisecond)
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

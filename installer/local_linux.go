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

// openDrive looks into the slots of a drive of ours, the active one first.
func (b *Boot) openDrive(ctx context.Context, d disk.Drive, keys []ed25519.PublicKey) error {
	if err := b.mountBoot(ctx, d); err != nil {
		return err
	}
	layout := b.keptBtrfs(keys)
	env, err := bootpart.ReadEnv(bootMount)
	if err != nil {
		b.Note("the loader's counters: %v", err)
	}
	order := []string{"a", "b"}
	if first := or2(b.Settings.Slot, env.Slot); first == "b" {
		order = []string{"b", "a"}
	}
	var why []string
	for _, s := range order {
		m := slotOn(d, s, layout)
		rec, err := readSlot(m, keys)
		if err == nil {
			b.System = &System{Drive: d, Slot: s, Record: rec, Mount: m, User: slotOn(d, "user", layout)}
			b.Note("system %s on %s is %s", strings.ToUpper(s), d.Name, rec.Ref())
			return nil
		}
		var half *slot.IncompleteError
		if errors.As(err, &half) {
			b.Interrupted = half.Error()
		}
		if !errors.Is(err, slot.ErrEmpty) {
			why = append(why, fmt.Sprintf("system %s: %v", strings.ToUpper(s), err))
		}
	}
	if len(why) == 0 {
		why = []string{"its slots are empty"}
	}
	return errors.New(strings.Join(why, "; "))
}

// mountBoot mounts the boot partition. FAT has no journal: it is looked over first.
func (b *Boot) mountBoot(ctx context.Context, d disk.Drive) error {
	p := d.Part(disk.LabelBoot)
	if p == nil {
		return errors.New("it has no boot partition")
	}
	_ = unix.Unmount(bootMount, unix.MNT_DETACH)
	if out, err := b.tools().Run(ctx, "fsck.fat", "-a", p.Device); err != nil {
		b.Note("the boot partition was looked over: %s", lastLine(out))
	}
	m := machine.Mount{What: p.Device, Where: bootMount, Type: "vfat", Flags: unix.MS_NOATIME | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, Data: "umask=0077,quiet,flush"}
	if err := m.Do(); err != nil {
		return err
	}
	b.ConfigDir = filepath.Join(bootMount, bootpart.ConfigDir)
	return nil
}

// keptBtrfs is how the drive was filled: as the configuration says that is kept on it.
// What the appliance says now counts for what is installed anew.
func (b *Boot) keptBtrfs(keys []ed25519.PublicKey) config.BtrfsConf {
	kept, err := conf.Store{Dir: b.ConfigDir}.Load()
	if err != nil || len(kept) == 0 {
		return config.Defaults().Btrfs
	}
	return conf.Choose(conf.Facts{Node: b.Settings.Node, Keys: keys, Kept: kept}).Config.Btrfs
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

func readSlot(m machine.Mount, keys []ed25519.PublicKey) (images.Record, error) {
	if m.What == "" {
		return images.Record{}, slot.ErrEmpty
	}
	m.Where, m.Flags = slotMount, unix.MS_RDONLY|unix.MS_NOATIME
	if err := m.Do(); err != nil {
		return images.Record{}, err
	}
	defer unix.Unmount(slotMount, 0)
	return slot.Read(slotMount, keys)
}

// useSystem makes a system on a drive the one that is started.
func (b *Boot) useSystem(ctx context.Context, s System) error {
	if release := machine.Release(); s.Record.Kernel != nil && s.Record.Kernel.Release != release {
		b.Note("%s on %s needs the kernel %s, and %s runs: starting its own", s.Record.Ref(), s.Drive.Name, s.Record.Kernel.Release, release)
		if err := b.kexec(s); err != nil {
			return fmt.Errorf("start the kernel of %s: %w", s.Record.Ref(), err)
		}
	}
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

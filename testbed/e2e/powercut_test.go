// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slate/images"
	"slate/installer/disk"
	"slate/installer/slot"
	"slate/netboot/config"
	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
	"slate/testbed/writelog"
)

// cuts makes drives as a power cut leaves them, out of the record of an installation.
type cuts struct {
	t     *testing.T
	base  string // the drive as it was when the record began; advanced as needed
	log   *writelog.Log
	at    int    // entries that base has
	whole string // the drive when the installation had ended
	keys  []ed25519.PublicKey
}

// newCuts takes over the record of a machine's drive, as far as it goes now. before is
// the script that makes the drive as it was before entry from, in $D; entry 0 is the first
// after the machine was switched on.
func newCuts(t *testing.T, s *site, n *lab.Node, drive int, before string, from int) *cuts {
	t.Helper()
	for _, tool := range []string{"losetup", "partx", "blkid", "mcopy"} {
		labtest.Need(t, tool)
	}
	dir := t.TempDir()
	c := &cuts{t: t, base: filepath.Join(dir, "base"), whole: filepath.Join(dir, "whole"), at: from}
	shell(t, dir, "cp --reflink=auto --sparse=always "+n.DiskRecord(drive)+" record; D=base\n"+before+"\ncp --reflink=auto --sparse=always base whole")
	var err error
	if c.log, err = writelog.Open(filepath.Join(dir, "record")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.log.Close() })
	if c.keys, err = images.LoadPublicKeys(filepath.Join(s.dir, "site.key.pub")); err != nil {
		t.Fatal(err)
	}
	c.write(c.whole, func(f *os.File) error { return c.log.Apply(f, from, c.log.Len()) })
	return c
}

func (c *cuts) write(name string, do func(*os.File) error) {
	c.t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(do(f), f.Close())
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// moments chooses n moments after entry from, in order, since base goes forward only.
func (c *cuts) moments(rng *rand.Rand, n, from int) (out []int) {
	for len(out) < n {
		if at := c.log.Moment(rng); at >= from {
			out = append(out, at)
		}
	}
	slices.Sort(out)
	return out
}

// make makes the drive after a power cut before entry n: what was flushed is there, of
// the rest what chance has kept. Moments must come in order.
func (c *cuts) make(n int, rng *rand.Rand) string {
	c.t.Helper()
	sure := c.log.Sure(n)
	c.write(c.base, func(f *os.File) error { return c.log.Apply(f, c.at, sure) })
	c.at = sure
	cut := filepath.Join(filepath.Dir(c.base), "cut")
	shell(c.t, filepath.Dir(c.base), "cp --reflink=auto --sparse=always base cut")
	c.write(cut, func(f *os.File) error { return c.log.Lose(f, sure, n, rng) })
	return cut
}

// verdict is what a drive is after a power cut.
type verdict struct {
	installed bool
	why       string // if it is not
}

// look lets the controller's own code look at a copy of a drive: looking repairs.
func (c *cuts) look(file string, with func(disk.Drive, bootFiles) error) (err error) {
	if _, err := run("cp", "--reflink=auto", "--sparse=always", file, file+".look"); err != nil {
		return err
	}
	file += ".look"
	loop, err := run("losetup", "--find", "--show", file)
	if err != nil {
		return err
	}
	defer func() {
		_, _ = run("partx", "--delete", loop)
		if _, derr := run("losetup", "--detach", loop); err == nil {
			err = derr
		}
	}()
	_, _ = run("partx", "--add", loop) // not every kernel reads the table itself; there may be none
	if first, err := readAt(file, 0, 512); err != nil || first[0] == 0 && first[510] == 0x55 && first[511] == 0xaa {
		return fmt.Errorf("a BIOS starts a first sector without code (%v)", err)
	}
	d := disk.Tools{}.LookAt(c.t.Context(), "", disk.Drive{Name: filepath.Base(loop), Device: loop})
	if p := d.Part(disk.LabelData); p != nil {
		_, _ = disk.Tools{}.MendSuperblock(c.t.Context(), p.Device) // what cannot be mended is judged as it is
	}
	boot := bootFiles{file: file}
	if p := d.Part(disk.LabelBoot); p != nil {
		boot.at = p.Start
	}
	return with(d, boot)
}

// judge looks at a drive of which slot A is being installed: there is a whole system
// with all that starts it, or there is none. What a firmware would start must be whole in
// either case.
func (c *cuts) judge(file string) (v verdict, err error) {
	err = c.look(file, func(d disk.Drive, boot bootFiles) error {
		if !d.Ours() {
			v = verdict{why: "the drive is not ours: " + strings.Join(d.Holds(), "; ")}
			return nil
		}
		if err := c.loaders(boot.file, d, boot); err != nil {
			return err
		}
		rec, err := c.system(c.t.Context(), d)
		if err != nil || rec.why != "" {
			v = rec.verdict
			return err
		}
		v = verdict{installed: true}
		return c.starts(boot, rec.Record)
	})
	return v, err
}

// mountSlot mounts a slot of a drive, to be read.
func mountSlot(d disk.Drive, name string) (dir string, unmount func(), err error) {
	device, kind, data := "", config.Ext4, ""
	if p := d.Part("slate-" + name); p != nil {
		device = p.Device
	} else if p := d.Part(disk.LabelData); p != nil {
		device, kind, data = p.Device, config.Btrfs, "subvol=@"+name
	}
	if dir, err = os.MkdirTemp("", "slate-cut-"); err != nil {
		return "", nil, err
	}
	if err := unix.Mount(device, dir, kind, unix.MS_RDONLY|unix.MS_NOATIME, data); err != nil {
		os.Remove(dir)
		return "", nil, fmt.Errorf("system %s cannot be mounted: %w", name, err)
	}
	return dir, func() { unix.Unmount(dir, 0); os.Remove(dir) }, nil
}

type found struct {
	images.Record
	verdict
}

// system looks for a system in slot A, as the controller does, and compares a whole one
// with its tree list.
func (c *cuts) system(ctx context.Context, d disk.Drive) (found, error) {
	dir, unmount, err := mountSlot(d, "a")
	if err != nil {
		return found{verdict: verdict{why: err.Error()}}, nil
	}
	defer unmount()
	rec, err := slot.Read(dir, c.keys)
	var half *slot.IncompleteError
	switch {
	case errors.Is(err, slot.ErrEmpty):
		return found{verdict: verdict{why: "slot A is empty"}}, nil
	case errors.As(err, &half):
		return found{verdict: verdict{why: half.Error()}}, nil
	case err != nil:
		return found{verdict: verdict{why: "slot A: " + err.Error()}}, nil
	}
	t, err := slot.ReadTree(dir, rec.Tree)
	if err == nil {
		err = slot.Verify(ctx, dir, t, nil)
	}
	if err != nil {
		return found{}, fmt.Errorf("slot A says that it is whole, and is not: %w", err)
	}
	return found{Record: rec}, nil
}

// grubCode is the first byte of GRUB's first sector: a jump over its parameters.
const grubCode = 0xeb

// loaders checks that whatever a firmware would start is whole.
func (c *cuts) loaders(file string, d disk.Drive, boot bootFiles) error {
	whole := bootFiles{file: c.whole, at: boot.at}
	first, err := readAt(file, 0, 440)
	if err != nil {
		return err
	}
	core := d.Part(disk.LabelBIOS)
	if first[0] == grubCode {
		have, err := readAt(file, core.Start, core.Size)
		if err != nil {
			return err
		}
		want, err := readAt(c.whole, core.Start, core.Size)
		if err != nil {
			return err
		}
		if sha256.Sum256(have) != sha256.Sum256(want) {
			return errors.New("a BIOS starts a loader that is not whole")
		}
		if err := boot.startable(); err != nil {
			return fmt.Errorf("a BIOS starts the loader, and %w", err)
		}
	}
	// FAT has a new name on the disk before it has the content: firmware passes over an
	// empty loader as if there was none.
	if first, err := boot.read("EFI/BOOT/BOOTX64.EFI"); err != nil || len(first) == 0 {
		return nil
	}
	for _, name := range []string{"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/grub.cfg", "EFI/debian/grub.cfg"} {
		have, err := boot.read(name)
		if err != nil {
			return fmt.Errorf("a UEFI starts the loader, and %w", err)
		}
		if want, err := whole.read(name); err != nil || string(have) != string(want) {
			return fmt.Errorf("a UEFI starts the loader, and %s is not what it becomes (%v)", name, err)
		}
	}
	return boot.startable()
}

// starts checks that the loader would start a system that is whole.
func (c *cuts) starts(b bootFiles, rec images.Record) error {
	if err := b.startable(); err != nil {
		return err
	}
	kernel, err := b.read("slate/a/vmlinuz")
	if err != nil {
		return err
	}
	if images.Digest(sha256.Sum256(kernel)) != rec.Kernel.Digest {
		return errors.New("the kernel on the boot partition is another")
	}
	initrd, err := b.read("slate/a/initrd.img")
	if err != nil {
		return err
	}
	for _, p := range rec.Parts()[1:] {
		if !strings.Contains(string(sumParts(initrd, rec)), p.Digest.String()) {
			return fmt.Errorf("the initramfs on the boot partition lacks the %s", p.Name)
		}
	}
	if first, err := readAt(b.file, 0, 440); err != nil || first[0] != grubCode {
		return fmt.Errorf("the loader for BIOS is missing (%v)", err)
	}
	for _, name := range []string{"EFI/BOOT/BOOTX64.EFI", "slate/site.key.pub", "slate/grubenv"} {
		if !b.has(name) {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}

// sumParts gives the digests of what is at the end of the initramfs.
func sumParts(initrd []byte, rec images.Record) (out []byte) {
	parts := rec.Parts()[1:]
	end := len(initrd)
	for i := len(parts) - 1; i >= 0 && end >= int(parts[i].Size); i-- {
		sum := images.Digest(sha256.Sum256(initrd[end-int(parts[i].Size) : end]))
		out = append(out, sum.String()+"\n"...)
		end -= int(parts[i].Size)
	}
	return out
}

// bootFiles reads the boot partition of a drive's file. Not every kernel that runs the
// tests has FAT.
type bootFiles struct {
	file string
	at   int64
}

func (b bootFiles) read(name string) ([]byte, error) {
	var stderr strings.Builder
	cmd := exec.Command("mcopy", "-n", "-i", fmt.Sprintf("%s@@%d", b.file, b.at), "::/"+name, "-")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

func (b bootFiles) has(name string) bool {
	_, err := b.read(name)
	return err == nil
}

// startable checks that the loader finds a kernel and a controller to start: whether
// there is a system, that one decides.
func (b bootFiles) startable() error {
	conf, err := b.read("slate/grub.cfg")
	if err != nil {
		return err
	}
	if !strings.Contains(string(conf), "initrd /slate/a/initrd.img") {
		return errors.New("slate/grub.cfg starts nothing")
	}
	for _, name := range []string{"slate/a/vmlinuz", "slate/a/initrd.img"} {
		if data, err := b.read(name); err != nil || len(data) < 1<<20 {
			return fmt.Errorf("%s has %d bytes (%v)", name, len(data), err)
		}
	}
	return nil
}

func readAt(file string, at, n int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	_, err = f.ReadAt(b, at)
	return b, err
}

func run(args ...string) (string, error) {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// cutSeed is where the moments of this run come from; SLATE_SEED repeats one.
func cutSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SLATE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SLATE_SEED: %v", err)
		}
	}
	t.Logf("SLATE_SEED=%d", seed)
	return seed
}

// check cuts the power n times. Each time there must be a whole system, or none.
func (c *cuts) check(rng *rand.Rand, n int) {
	c.t.Helper()
	for _, at := range c.moments(rng, n, 0) {
		v, err := c.judge(c.make(at, rng))
		if err != nil {
			c.t.Errorf("power cut before write %d of %d: %v", at, c.log.Len(), err)
			continue
		}
		c.t.Logf("cut before write %d of %d, after %d MB: %s", at, c.log.Len(), c.log.Bytes(at)>>20, v)
	}
}

func (v verdict) String() string {
	if v.installed {
		return "installed"
	}
	return "chooser: " + v.why
}

// boot switches a machine on with a drive of after a power cut: it must start its
// system, or say that there is none.
func (c *cuts) boot(s *site, name string, fw qemu.Firmware, file string, v verdict) error {
	n, err := s.AddNode(lab.NodeSpec{Name: name, Firmware: fw, Boot: []string{"disk", "net"}, Disks: []lab.Disk{{File: file}}})
	if err == nil {
		err = n.Start(c.t.Context())
	}
	if err != nil {
		return err
	}
	defer n.PowerCut()
	want := `No system image was found on this machine\.`
	if v.installed {
		want = `slate:   starting demo/[0-9]+ from system A`
	}
	if _, err := n.Console().Expect(c.t.Context(), bootLimit, want); err != nil {
		return fmt.Errorf("%s: with a drive that is %s: %w", name, v, err)
	}
	return nil
}

// judgedPerBoot is how many power cuts are judged for each one of which a machine is
// switched on.
const judgedPerBoot = 4

// Two installations are recorded, and machines are switched on with their drives as a
// power cut at a random moment leaves them. The sample of make test is part of
// TestInstallAtTheConsole.
func TestPowerCuts(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("part of make soak: it takes half an hour")
	}
	r := newRounds(t, "power-cuts", 0, 50)
	if !r.left() {
		return
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.conf("system/cboot.conf", "timeout = 0\n") // the chooser waits for a person
	s.conf("nodes/node-1e0101/system/cboot.conf", "mode = \"installed\"\ntimeout = 0\n")
	s.conf("nodes/node-1e0201/system/cboot.conf", "mode = \"installed\"\ntimeout = 0\n")
	const rule = "[[drive]]\nname = \"it\"\nmatch = { serial = \"IT\" }\n"
	s.conf("nodes/node-1e0101/controller/drives.conf", rule)
	s.conf("nodes/node-1e0201/controller/drives.conf", rule+"filesystem = \"btrfs\"\n")
	s.serve()
	type machine struct {
		name string
		fw   qemu.Firmware
		node *lab.Node
		cuts *cuts
		at   []int
	}
	ms := []*machine{{name: "bios-ext4", fw: qemu.BIOS}, {name: "uefi-btrfs", fw: qemu.UEFI}}
	for _, m := range ms {
		m.node = s.Node(lab.NodeSpec{Name: m.name, Firmware: m.fw, Boot: []string{"net"}, Disks: []lab.Disk{{Size: 4 << 30, Serial: "IT", Record: true}}})
	}
	rng := rand.New(rand.NewPCG(cutSeed(t), 0))
	for _, m := range ms {
		s.Expect(m.node, bootLimit, `is installed on vda`)
		m.cuts = newCuts(t, s, m.node, 0, "truncate -s 4G $D", 0)
		m.node.PowerCut()
		m.at = m.cuts.moments(rng, judgedPerBoot*((r.all-r.done+1)/2), 0)
	}
	for i := 0; r.left(); i++ {
		var g errgroup.Group
		var told []string
		for _, m := range ms {
			var file string
			var v verdict
			for _, at := range m.at[judgedPerBoot*i : judgedPerBoot*(i+1)] {
				file = m.cuts.make(at, rng)
				var err error
				if v, err = m.cuts.judge(file); err != nil {
					t.Fatalf("%s, power cut before write %d of %d: %v", m.name, at, m.cuts.log.Len(), err)
				}
				t.Logf("%s before write %d: %s", m.name, at, v)
			}
			at := m.at[judgedPerBoot*(i+1)-1]
			told = append(told, fmt.Sprintf("%s started as before write %d of %d, after %d MB: %s", m.name, at, m.cuts.log.Len(), m.cuts.log.Bytes(at)>>20, v))
			g.Go(func() error { return m.cuts.boot(s, fmt.Sprintf("%s-%d", m.name, i), m.fw, file, v) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		for _, text := range told {
			r.passed("%s", text)
		}
	}
}

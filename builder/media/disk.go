// SPDX-License-Identifier: GPL-2.0-or-later

package media

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	mib    = 1 << 20
	sector = 512
	// fatExtra is the room left on the FAT partition, for what an admin adds.
	fatExtra = 32 * mib
)

// usb makes a disk image: BIOS boot partition, FAT, and the version.
func (m *maker) usb(ctx context.Context, out string) error {
	tree := m.path("tree")
	size, err := m.stage(tree, append(m.files(), m.efiFiles()...))
	if err != nil {
		return err
	}
	fat := roundUp(size+size/50+fatExtra, mib)
	var image int64
	if m.Image != "" {
		fi, err := os.Stat(m.Image)
		if err != nil {
			return err
		}
		image = roundUp(fi.Size(), mib)
	}
	const biosAt, fatAt = 1 * mib, 2 * mib
	imageAt := fatAt + fat
	total := imageAt + image + mib // the second copy of the table of partitions
	m.step("laying out a disk of %d MB", total/1e6)
	if err := makeFile(out, total); err != nil {
		return err
	}
	table := fmt.Sprintf("label: gpt\nstart=%d, size=%d, type=21686148-6449-6E6F-744E-656564454649, name=slate-bios\nstart=%d, size=%d, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=slate-media\n",
		biosAt/sector, mib/sector, fatAt/sector, fat/sector)
	if image > 0 {
		table += fmt.Sprintf("start=%d, size=%d, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=%s\n", imageAt/sector, image/sector, ImagePartition)
	}
	if err := m.run(ctx, table, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", out); err != nil {
		return err
	}
	m.step("filling the FAT file system")
	if err := m.fat(ctx, m.path("fat"), fat, tree); err != nil {
		return err
	}
	m.step("putting it together")
	disk, err := os.OpenFile(out, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = errors.Join(pour(ctx, disk, fatAt, m.path("fat")), m.installBIOS(disk, biosAt))
	if err == nil && m.Image != "" {
		err = pour(ctx, disk, imageAt, m.Image)
	}
	return errors.Join(err, disk.Close())
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func makeFile(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// fat makes a FAT32 file system of the size with what is in the directory.
func (m *maker) fat(ctx context.Context, name string, size int64, dir string) error {
	if err := makeFile(name, size); err != nil {
		return err
	}
	// The serial number follows the medium's id, so that the same input gives the same bytes.
	if err := m.run(ctx, "", "mkfs.vfat", "-F", "32", "-n", Label, "-i", m.ID[:8], name); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	args := []string{"mcopy", "-Q", "-s", "-i", name}
	for _, e := range entries {
		args = append(args, filepath.Join(dir, e.Name()))
	}
	return m.run(ctx, "", append(args, "::/")...)
}

// pour copies a file to a place on the disk.
func pour(ctx context.Context, disk *os.File, at int64, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.NewOffsetWriter(disk, at), readerOf(ctx, f))
	return err
}

// readerOf ends a copy with ctx.
func readerOf(ctx context.Context, r io.Reader) io.Reader { return ctxReader{ctx, r} }

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// Places in boot.img and in the first sector of core.img (grub-core/boot/i386/pc/
// boot.S and diskboot.S; what grub-bios-setup writes).
const (
	bootCode      = 440  // bytes of code; the table of partitions follows
	bootSector    = 0x5c // where core.img begins
	bootDrive     = 0x64
	bootDriveTest = 0x66 // a jump for the sake of broken firmware that takes a disk for a floppy
	coreList      = sector - 12
	pmbrStatus    = 446 // of the protective MBR's partition
)

// installBIOS puts GRUB into the MBR and the BIOS boot partition, as grub-bios-setup
// does, which works on block devices only.
func (m *maker) installBIOS(disk *os.File, at int64) error {
	boot, err := os.ReadFile(biosDir + "/boot.img")
	if err != nil {
		return err
	}
	core, err := os.ReadFile(m.path("core.img"))
	if err != nil {
		return err
	}
	if len(boot) != sector || len(core) < 2*sector || len(core) > mib {
		return fmt.Errorf("media: boot.img has %d bytes and core.img %d: not what this slate knows", len(boot), len(core))
	}
	binary.LittleEndian.PutUint64(boot[bootSector:], uint64(at/sector))
	boot[bootDrive] = 0xff // the one that it was loaded from
	boot[bootDriveTest], boot[bootDriveTest+1] = 0x90, 0x90
	binary.LittleEndian.PutUint64(core[coreList:], uint64(at/sector)+1)
	if _, err := disk.WriteAt(core, at); err != nil {
		return err
	}
	if _, err := disk.WriteAt(boot[:bootCode], 0); err != nil {
		return err
	}
	// Some BIOSes start a disk only if a partition is marked active.
	_, err = disk.WriteAt([]byte{0x80}, pmbrStatus)
	return err
}

// iso makes an ISO that is a disc and, byte for byte, a disk: with an MBR that
// loads GRUB under BIOS and the EFI system partition behind the file system.
func (m *maker) iso(ctx context.Context, out string) error {
	tree, efi := m.path("tree"), m.path("efi")
	files := append(m.files(), file{name: "slate/eltorito.img", from: m.path("core.img")})
	if Signed() {
		// Of a disc the signed GRUB sees the whole only, not the part that firmware took it from.
		files = append(files, file{name: signedConfig, text: m.findMedium()})
	}
	if m.Image != "" {
		files = append(files, file{name: ImageFile, from: m.Image})
	}
	if _, err := m.stage(tree, files); err != nil {
		return err
	}
	size, err := m.stage(efi, m.efiFiles())
	if err != nil {
		return err
	}
	if err := m.fatEFI(ctx, m.path("efi.img"), max(roundUp(size+mib, mib), 34*mib), efi); err != nil {
		return err
	}
	m.step("making the ISO")
	return m.run(ctx, "", "xorriso", "-as", "mkisofs", "-quiet", "-o", out, "-volid", Label, "-iso-level", "3", "-rock", "-joliet",
		"--grub2-mbr", biosDir+"/boot_hybrid.img", "-partition_offset", "16", "-appended_part_as_gpt", "-append_partition", "2", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", m.path("efi.img"),
		"-b", "slate/eltorito.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info",
		"-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot", tree)
}

// fatEFI is the small file system of an ISO's loaders. It has another label: the
// controller looks for the ISO's own.
func (m *maker) fatEFI(ctx context.Context, name string, size int64, dir string) error {
	if err := makeFile(name, size); err != nil {
		return err
	}
	if err := m.run(ctx, "", "mkfs.vfat", "-F", "32", "-n", "SLATE-EFI", "-i", m.ID[:8], name); err != nil {
		return err
	}
	return m.run(ctx, "", "mcopy", "-Q", "-s", "-i", name, filepath.Join(dir, "EFI"), "::/")
}

func copyFile(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// deliver puts the medium where it was wanted: a file is replaced as a whole, a
// block device is written to.
func deliver(ctx context.Context, from, to string) error {
	fi, err := os.Stat(to)
	if err == nil && fi.Mode()&os.ModeDevice != 0 {
		return writeDevice(ctx, from, to)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := in.Sync(); err != nil {
		return err
	}
	if err := os.Chmod(from, 0o644); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// writeDevice copies the medium onto a block device and waits until it is there.
func writeDevice(ctx context.Context, from, to string) error {
	dev, err := os.OpenFile(to, os.O_WRONLY|os.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("%w (is it mounted?)", err)
	}
	room, err := dev.Seek(0, io.SeekEnd)
	if fi, serr := os.Stat(from); err == nil && serr == nil && fi.Size() > room {
		err = fmt.Errorf("%s holds %.1f GB, the medium needs %.1f GB", to, float64(room)/1e9, float64(fi.Size())/1e9)
	}
	if err == nil {
		err = pour(ctx, dev, 0, from)
	}
	if err == nil {
		err = dev.Sync()
	}
	return errors.Join(err, dev.Close())
}

// A Drive is what a block device shows of itself.
type Drive struct {
	Path    string
	Model   string
	Size    int64
	Whole   bool     // it is no partition of another
	Parts   []string // with what is on them, for people
	Mounted []string // where parts of it are mounted
}

// Look describes a block device; ok is false if path is none.
func Look(path string) (d Drive, ok bool, err error) {
	fi, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return d, false, nil
	}
	if err != nil || fi.Mode()&os.ModeDevice == 0 || fi.Mode()&os.ModeCharDevice != 0 {
		return d, false, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return d, false, err
	}
	name := filepath.Base(real)
	sys := filepath.Join("/sys/class/block", name)
	_, perr := os.Stat(sys + "/partition")
	d = Drive{Path: path, Whole: perr != nil, Model: strings.TrimSpace(read(sys+"/device/vendor") + " " + read(sys+"/device/model"))}
	fmt.Sscan(read(sys+"/size"), &d.Size)
	d.Size *= sector
	names := []string{name}
	entries, err := os.ReadDir(sys)
	if err != nil {
		return d, false, err
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(sys, e.Name(), "partition")); err == nil {
			names = append(names, e.Name())
			var n int64
			fmt.Sscan(read(filepath.Join(sys, e.Name(), "size")), &n)
			d.Parts = append(d.Parts, strings.TrimSpace(fmt.Sprintf("%s, %.1f GB %s", e.Name(), float64(n*sector)/1e9, partName(sys, e.Name()))))
		}
	}
	for line := range strings.Lines(read("/proc/self/mounts") + "\n" + swaps()) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if dev, err := filepath.EvalSymlinks(f[0]); err == nil && slices.Contains(names, filepath.Base(dev)) && strings.HasPrefix(dev, "/dev/") {
			d.Mounted = append(d.Mounted, f[1])
		}
	}
	return d, true, nil
}

func read(name string) string {
	b, _ := os.ReadFile(name)
	return strings.TrimSpace(string(b))
}

// swaps lists what is swapped to as if it were mounted.
func swaps() string {
	var b strings.Builder
	for line := range strings.Lines(read("/proc/swaps")) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "/dev/") {
			b.WriteString(f[0] + " swap\n")
		}
	}
	return b.String()
}

func partName(sys, part string) string {
	for line := range strings.Lines(read(filepath.Join(sys, part, "uevent"))) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PARTNAME="); ok {
			return name
		}
	}
	return ""
}

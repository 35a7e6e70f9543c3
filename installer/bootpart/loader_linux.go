// SPDX-License-Identifier: GPL-2.0-or-later

package bootpart

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slate/images/durable"
)

// Loader says where the loaders go.
type Loader struct {
	GRUB   string // directory with the image's loaders
	Run    func(ctx context.Context, args ...string) (string, error)
	Work   string // a directory for temporary files
	Dir    string // where the boot partition is mounted
	Drive  string // the drive's device
	Sector int64
	// Core is the partition for GRUB's core: its start and size in bytes, and device.
	CoreStart, CoreSize int64
	CoreDevice          string
	BootPart            int // number of the boot partition
}

// InstallUEFI puts the signed loaders where every firmware looks, and tells whether
// there were any.
func (l Loader) InstallUEFI() (bool, error) {
	grub, err := os.ReadFile(filepath.Join(l.GRUB, "grubx64.efi"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	shim, err := os.ReadFile(filepath.Join(l.GRUB, "shimx64.efi"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	first := shim
	if first == nil {
		first = grub
	}
	// The signed GRUB looks for its configuration where its distribution has it.
	vendors := []string{"debian"}
	if i := bytes.Index(grub, []byte("/EFI/ubuntu")); i >= 0 {
		vendors = append(vendors, "ubuntu")
	}
	files := map[string][]byte{"EFI/BOOT/grubx64.efi": grub, "EFI/BOOT/BOOTX64.EFI": first, "EFI/slate/grubx64.efi": grub, "EFI/slate/shimx64.efi": first}
	for _, v := range append(vendors, "slate", "BOOT") {
		files["EFI/"+v+"/grub.cfg"] = []byte("# Written by slate.\nset prefix=($root)/slate\nconfigfile ($root)/" + configFile + "\n")
	}
	for _, name := range []string{"EFI/BOOT/grub.cfg", "EFI/slate/grub.cfg", "EFI/debian/grub.cfg", "EFI/ubuntu/grub.cfg", "EFI/slate/grubx64.efi",
		"EFI/slate/shimx64.efi", "EFI/BOOT/grubx64.efi", "EFI/BOOT/BOOTX64.EFI"} { // the first that starts comes last
		data, ok := files[name]
		if !ok {
			continue
		}
		at := filepath.Join(l.Dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			return false, err
		}
		if err := durable.WriteFile(at, data, 0o600); err != nil {
			return false, err
		}
	}
	return true, nil
}

// InstallBIOS makes GRUB's core from the image's modules and puts it into its
// partition, and GRUB's first sector into the drive's. It tells whether the image has
// a GRUB for BIOS.
func (l Loader) InstallBIOS(ctx context.Context) (bool, error) {
	dir := filepath.Join(l.GRUB, "i386-pc")
	boot, err := os.ReadFile(filepath.Join(dir, "boot.img"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mods, err := filepath.Glob(filepath.Join(dir, "*.mod"))
	if err != nil {
		return false, err
	}
	core := filepath.Join(l.Work, "core.img")
	args := []string{"grub-mkimage", "--directory", dir, "--format", "i386-pc", "--output", core, "--prefix", fmt.Sprintf("(,gpt%d)/slate", l.BootPart)}
	for _, m := range mods {
		args = append(args, strings.TrimSuffix(filepath.Base(m), ".mod"))
	}
	defer os.Remove(core)
	if _, err := l.Run(ctx, args...); err != nil {
		return false, err
	}
	image, err := os.ReadFile(core)
	if err != nil {
		return false, err
	}
	if err := placeCore(image, l.CoreStart, l.CoreSize); err != nil {
		return false, err
	}
	// The core first: a first sector that leads nowhere is worse than none.
	if err := writeAt(l.CoreDevice, image, 0); err != nil {
		return false, err
	}
	head := make([]byte, 512)
	drive, err := os.Open(l.Drive)
	if err != nil {
		return false, err
	}
	_, err = drive.ReadAt(head, 0)
	drive.Close()
	if err != nil {
		return false, err
	}
	sector, err := firstSector(boot, head, l.CoreStart)
	if err != nil {
		return false, err
	}
	return true, writeAt(l.Drive, sector, 0)
}

// Places in GRUB's images; they are part of the interface between its boot.S,
// diskboot.S and what installs them (grub's include/grub/i386/pc/boot.h).
const (
	bootKernelSector = 0x5c
	bootDrive        = 0x64
	bootDriveCheck   = 0x66
	bootPartTable    = 0x1b8 // disk signature and MBR partition table: they stay
	bootSignature    = 0x1fe
	listOffset       = 0x1f4 // in the core's first sector: start, length, segment
	listSegment      = 0x820
)

// placeCore tells the core's first sector where the rest of it lies.
func placeCore(core []byte, start, size int64) error {
	if int64(len(core)) > size {
		return fmt.Errorf("the loader has %d bytes, its partition %d", len(core), size)
	}
	if len(core) < 1024 {
		return errors.New("the loader made by grub-mkimage is too short")
	}
	sectors := (len(core) + 511) / 512
	binary.LittleEndian.PutUint64(core[listOffset:], uint64(start/512+1))
	binary.LittleEndian.PutUint16(core[listOffset+8:], uint16(sectors-1))
	binary.LittleEndian.PutUint16(core[listOffset+10:], listSegment)
	return nil
}

// firstSector makes the drive's first sector out of GRUB's and what must stay of old.
func firstSector(boot, old []byte, coreStart int64) ([]byte, error) {
	if len(boot) != 512 || boot[bootSignature] != 0x55 || boot[bootSignature+1] != 0xaa {
		return nil, errors.New("boot.img is not GRUB's first sector")
	}
	out := slices.Clone(boot)
	copy(out[bootPartTable:bootSignature], old[bootPartTable:bootSignature])
	binary.LittleEndian.PutUint64(out[bootKernelSector:], uint64(coreStart/512))
	out[bootDrive] = 0xff // the one the BIOS says
	// Some BIOSes say none: GRUB's own installer takes the check out like this.
	out[bootDriveCheck], out[bootDriveCheck+1] = 0x90, 0x90
	return out, nil
}

func writeAt(device string, data []byte, off int64) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, off)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

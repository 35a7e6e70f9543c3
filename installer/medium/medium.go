// SPDX-License-Identifier: GPL-2.0-or-later

// Package medium finds the USB stick or disc that a machine started from, and what
// it carries. It reads superblocks by itself, so that it needs no program.
//
// A medium's file system has the label SLATE-MEDIA; such a drive is never one to
// install on, whatever else is known of it (see Is). The word slate.medium of the
// command line names the one that the machine started from by its id.
package medium

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// What builder/media writes.
const (
	Label     = "SLATE-MEDIA"
	idFile    = "slate/medium-"
	imageFile = "slate/image.squashfs"
	imagePart = "slate-image"
	configDir = "slate/config"
)

// FS is a file system on a medium.
type FS struct {
	Device string // as the kernel calls it: sda2, sr0
	Type   string // vfat or iso9660
}

// Find lists the file systems below root that have a medium's label.
func Find(root string) []FS {
	entries, _ := os.ReadDir(filepath.Join(root, "/sys/class/block"))
	var out []FS
	for _, e := range entries {
		if skip(e.Name()) {
			continue
		}
		if t := probe(filepath.Join(root, "/dev", e.Name())); t != "" {
			out = append(out, FS{e.Name(), t})
		}
	}
	return out
}

// skip leaves out what is never a medium, and a floppy drive, which takes its time.
func skip(name string) bool {
	for _, p := range []string{"loop", "ram", "zram", "fd", "md", "dm-", "nbd"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// Is reports whether the drive, sda or sr0, has a medium of ours on it, on the
// whole of it or on a partition. Nothing may ever be installed on it.
func Is(root, drive string) bool {
	for _, f := range Find(root) {
		if f.Device == drive || parent(root, f.Device) == drive {
			return true
		}
	}
	return false
}

// parent is the drive that a partition is on; "" for a drive.
func parent(root, name string) string {
	dir := filepath.Join(root, "/sys/class/block", name)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err != nil {
		return ""
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	return filepath.Base(filepath.Dir(real))
}

// probe tells the type of the file system if it has our label.
func probe(device string) string {
	f, err := os.Open(device)
	if err != nil {
		return ""
	}
	defer f.Close()
	t, label := Identify(f)
	if label != Label {
		return ""
	}
	return t
}

// Identify reads the label of a FAT32 or ISO 9660 file system; both are "" for
// anything else. The places are those of Microsoft's FAT specification, section
// 3.3, and of ECMA-119, section 8.4.
func Identify(r io.ReaderAt) (kind, label string) {
	var boot [512]byte
	if _, err := r.ReadAt(boot[:], 0); err == nil && boot[510] == 0x55 && boot[511] == 0xaa && string(boot[0x52:0x5a]) == "FAT32   " {
		return "vfat", strings.TrimRight(string(boot[0x47:0x52]), " ")
	}
	var volume [2048]byte
	if _, err := r.ReadAt(volume[:], 16*2048); err == nil && volume[0] == 1 && string(volume[1:6]) == "CD001" {
		return "iso9660", strings.TrimRight(string(volume[40:72]), " ")
	}
	return "", ""
}

// Has reports whether the medium that is mounted at dir is the one with the id.
func Has(dir, id string) bool {
	_, err := os.Stat(filepath.Join(dir, idFile+id))
	return err == nil && id != ""
}

// Image says where the medium that is mounted at dir carries a version: in a
// partition of its drive, or in a file. Both are "" if it carries none.
func Image(root, dir string, f FS) (partition, file string) {
	if p := filepath.Join(dir, imageFile); exists(p) {
		return "", p
	}
	drive := parent(root, f.Device)
	if drive == "" {
		return "", ""
	}
	entries, _ := os.ReadDir(filepath.Join(root, "/sys/class/block", drive))
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(root, "/sys/class/block", drive, e.Name(), "uevent"))
		if err == nil && strings.Contains("\n"+string(text), "\nPARTNAME="+imagePart+"\n") {
			return e.Name(), ""
		}
	}
	return "", ""
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// Config reads a file of config.d that the medium carries; nil if there is none.
func Config(dir, name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, configDir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package initramfs makes the two archives a node starts from: the controller,
// the same for all, and the modules of one kernel. It finds that kernel in a
// tree, chooses modules by what the controller has to do with them, and follows
// their dependencies. It does not know where trees come from or where the
// archives are kept.
//
// The archives are in the "newc" cpio format that
// Documentation/driver-api/early-userspace/buffer-format.rst describes, padded
// so that any number of them can be put after one another.
package initramfs

import (
	"embed"
	"errors"
	"io/fs"
	"maps"
	"slices"
)

// The Makefile puts slate-init there before it builds slate.
//
//go:embed all:bin
var bin embed.FS

// NoControllerError says that this slate was built without its controller.
type NoControllerError struct{}

func (NoControllerError) Error() string { return "this slate carries no controller (slate-init)" }

func (NoControllerError) Hint() string {
	return "build it with make build: it builds slate-init first and then slate with it inside"
}

// Controller returns the program that becomes /init.
func Controller() ([]byte, error) {
	b, err := bin.ReadFile("bin/slate-init")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, NoControllerError{}
	}
	return b, err
}

// Paths in the controller's archive.
const (
	SitePubPath = "etc/slate/site.pub"
	DigestsPath = "etc/slate/files.sha256"
)

// ControllerOptions say what goes into the controller's archive.
type ControllerOptions struct {
	Init        []byte            // the program; nil: the embedded one
	SitePub     []byte            // text of the site's public key file; empty: left out
	Files       map[string][]byte // more files by absolute path, mode 0644
	Compression Compression
}

// directories are those the controller finds when it starts.
var directories = []struct {
	name string
	mode uint64
}{
	{"dev", 0o755}, {"proc", 0o555}, {"sys", 0o555}, {"run", 0o755}, {"tmp", 0o1777}, {"root", 0o700},
	{"etc", 0o755}, {"etc/slate", 0o755}, {"lib", 0o755}, {"lib/modules", 0o755}, {"lib/firmware", 0o755},
	{"mnt", 0o755}, {"sysroot", 0o755}, {"var", 0o755},
}

// devices are those needed before devtmpfs is mounted: the kernel opens
// /dev/console for PID 1 itself, and says nothing at all without it.
var devices = []struct {
	name               string
	mode, major, minor uint64
}{
	{"dev/console", 0o600, 5, 1},
	{"dev/null", 0o666, 1, 3},
	{"dev/kmsg", 0o644, 1, 11},
	{"dev/tty", 0o666, 5, 0},
}

// ControllerCPIO makes the controller's archive. Beside the controller it holds
// the directories and devices it starts with, the site's key, and the digests of
// all files in it.
func ControllerCPIO(o ControllerOptions) ([]byte, error) {
	if o.Init == nil {
		b, err := Controller()
		if err != nil {
			return nil, err
		}
		o.Init = b
	}
	a, err := newArchive(o.Compression)
	if err != nil {
		return nil, err
	}
	for _, d := range directories {
		if err := a.dir(d.name, d.mode); err != nil {
			return nil, err
		}
	}
	for _, d := range devices {
		if err := a.char(d.name, d.mode, d.major, d.minor); err != nil {
			return nil, err
		}
	}
	if err := a.file("init", 0o755, o.Init); err != nil {
		return nil, err
	}
	if len(o.SitePub) > 0 {
		if err := a.file(SitePubPath, 0o644, o.SitePub); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		if err := a.file(name, 0o644, o.Files[name]); err != nil {
			return nil, err
		}
	}
	// Last, and not part of itself.
	if err := a.file(DigestsPath, 0o644, a.digests()); err != nil {
		return nil, err
	}
	return a.finish()
}

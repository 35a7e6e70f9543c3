// SPDX-License-Identifier: GPL-2.0-or-later

// Package media writes media that start a machine without the network's help: a
// disk image for a USB stick, and an ISO that works on a disc and on a stick. Both
// start under BIOS and UEFI, by GRUB, and hold the kernel and the initramfs of one
// version, the site's list of servers, and, if wanted, the version itself as a
// squashfs. It knows boot loaders and disk layouts; what is on the command line,
// and where the files come from, is the caller's business.
package media

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slate/builder/command"
)

// Label is the label of the file system that the controller knows a medium by:
// never is a drive with it installed on.
const Label = "SLATE-MEDIA"

// Names on a medium.
const (
	// IDFile starts the name of the empty file that ends in the medium's id: GRUB
	// and the controller find this very medium by it, whatever else is plugged in.
	IDFile = "slate/medium-"
	// ImageFile is the version on an ISO.
	ImageFile = "slate/image.squashfs"
	// ImagePartition is the name of the partition with the version on a USB stick.
	ImagePartition = "slate-image"
	// ConfigDir has copies of files of config.d, for the controller.
	ConfigDir = "slate/config"

	configFile = "slate/grub.cfg"
)

// Kind is what is written.
type Kind string

// The kinds.
const (
	USB Kind = "usb"
	ISO Kind = "iso"
)

// Options say what goes onto a medium.
type Options struct {
	Kind    Kind
	To      string   // file or block device
	ID      string   // of the medium, from NewID; Cmdline has it too
	Title   string   // for the loader's screen
	Cmdline []string // of the kernel
	Kernel  string   // file
	Initrds []Initrd // in order
	Config  map[string][]byte
	Image   string             // squashfs with the version; "": none
	Work    string             // directory for what is made on the way; it must have room
	Step    func(what string)  // told what is being done; may be nil
	Line    func(words string) // told what the tools say; may be nil
}

// Initrd is a part of the initramfs.
type Initrd struct{ Name, File string }

// NewID makes the id of a medium.
func NewID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// ToolError says which program or file is missing.
type ToolError struct {
	What    string
	Package string
}

func (e *ToolError) Error() string { return "media: " + e.What + " is not on this machine" }

// Hint names the package.
func (e *ToolError) Hint() string { return "install the package " + e.Package }

// tools are what each kind needs, with Debian's packages.
var tools = []struct {
	file, pkg string
	kinds     []Kind
}{
	{"grub-mkimage", "grub-common", []Kind{USB, ISO}},
	{biosDir + "/boot.img", "grub-pc-bin", []Kind{USB, ISO}},
	{"mkfs.vfat", "dosfstools", []Kind{USB, ISO}},
	{"mcopy", "mtools", []Kind{USB, ISO}},
	{"sfdisk", "fdisk", []Kind{USB}},
	{"xorriso", "xorriso", []Kind{ISO}},
}

// Check reports all that is missing for a kind.
func Check(k Kind) error {
	var errs []error
	for _, t := range tools {
		if slices.Contains(t.kinds, k) && !have(t.file) {
			errs = append(errs, &ToolError{t.file, t.pkg})
		}
	}
	if !haveAll(signed) && !have(efiDir+"/fat.mod") {
		errs = append(errs, &ToolError{efiDir, "grub-efi-amd64-bin, or shim-signed and grub-efi-amd64-signed for Secure Boot"})
	}
	return errors.Join(errs...)
}

func have(file string) bool {
	if filepath.IsAbs(file) {
		_, err := os.Stat(file)
		return err == nil
	}
	_, err := find(file)
	return err == nil
}

func haveAll(files map[string]string) bool {
	for _, f := range files {
		if !have(f) {
			return false
		}
	}
	return true
}

// find looks in the system's directories too: an ordinary user's PATH lacks them.
func find(program string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		p := filepath.Join(dir, program)
		if fi, err := os.Stat(p); err == nil && !fi.IsDir() && fi.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: not found", program)
}

// Signed reports whether the media of this machine start with Secure Boot on.
func Signed() bool { return haveAll(signed) }

// Write writes a medium. What is at o.To stays as it was until all is made.
func Write(ctx context.Context, o Options) error {
	if err := errors.Join(Check(o.Kind), o.check()); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.Work, "media-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := maker{Options: o, dir: dir}
	if err := m.loaders(ctx); err != nil {
		return err
	}
	out := filepath.Join(dir, "medium")
	fill := m.usb
	if o.Kind == ISO {
		fill = m.iso
	}
	if err := fill(ctx, out); err != nil {
		return err
	}
	m.step("writing %s", o.To)
	return deliver(ctx, out, o.To)
}

func (o Options) check() error {
	for _, w := range append(slices.Clone(o.Cmdline), o.Title) {
		if strings.ContainsAny(w, "'\n\\") {
			return fmt.Errorf("media: %q cannot stand in GRUB's configuration", w)
		}
	}
	if len(o.ID) != 16 || strings.Trim(o.ID, "0123456789abcdef") != "" {
		return fmt.Errorf("media: %q is not an id", o.ID)
	}
	return nil
}

// maker makes one medium in a directory of its own.
type maker struct {
	Options
	dir string
}

func (m *maker) path(name string) string { return filepath.Join(m.dir, name) }

func (m *maker) step(format string, a ...any) {
	if m.Step != nil {
		m.Step(fmt.Sprintf(format, a...))
	}
}

func (m *maker) run(ctx context.Context, stdin string, args ...string) error {
	program, err := find(args[0])
	if err != nil {
		return err
	}
	return command.Run(ctx, command.Cmd{Args: append([]string{program}, args[1:]...), Stdin: strings.NewReader(stdin), Line: m.Line})
}

// file is something that goes onto the medium's file system.
type file struct {
	name string
	from string // file, or:
	text []byte
}

// files are all but the loader's own.
func (m *maker) files() []file {
	out := []file{{name: IDFile + m.ID}, {name: configFile, text: m.grubConfig()}, {name: "slate/vmlinuz", from: m.Kernel}}
	for _, i := range m.Initrds {
		out = append(out, file{name: "slate/" + i.Name, from: i.File})
	}
	for name, text := range m.Config {
		out = append(out, file{name: ConfigDir + "/" + name, text: text})
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return out
}

// stage lays files out in a directory, by links where it can.
func (m *maker) stage(dir string, files []file) (size int64, err error) {
	for _, f := range files {
		to := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return 0, err
		}
		if f.from == "" {
			err = os.WriteFile(to, f.text, 0o644)
		} else {
			err = copyFile(f.from, to)
		}
		if err != nil {
			return 0, err
		}
		fi, err := os.Stat(to)
		if err != nil {
			return 0, err
		}
		size += fi.Size() + 32<<10 // clusters, directories
	}
	return size, nil
}

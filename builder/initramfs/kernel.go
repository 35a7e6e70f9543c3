// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"slate/builder/rootfs"
)

// Kernel is a kernel found in a tree.
type Kernel struct {
	Release string // as in /lib/modules/<release>
	Path    string // in the tree, without leading slash
	Arch    string // amd64, i386, arm64, riscv64, …; "" if the image does not say
	UKI     bool   // Path is a unified kernel image; the kernel is its .linux section
	Modules string // directory of its modules, "" if there is none
}

// NoKernelError says where a kernel was looked for.
type NoKernelError struct {
	Releases []string // module directories without a kernel
	Rejected []string // files that have a kernel's name but are none
}

func (e *NoKernelError) Error() string {
	msg := "no kernel in the tree"
	if len(e.Releases) > 0 {
		msg += "; modules without a kernel: " + strings.Join(e.Releases, ", ")
	}
	if len(e.Rejected) > 0 {
		msg += "; not a kernel: " + strings.Join(e.Rejected, ", ")
	}
	return msg
}

func (e *NoKernelError) Hint() string {
	return "add a kernel package (linux-image-amd64, sys-kernel/gentoo-kernel-bin), or put the kernel at /boot/vmlinuz-<release> with its modules in /lib/modules/<release>"
}

// moduleRoots are where modules lie; in a merged-usr tree they are the same.
var moduleRoots = []string{"lib/modules", "usr/lib/modules"}

// versioned are the places of a kernel whose release is part of the path, in
// order of preference; * is the release.
var versioned = []string{
	"*/vmlinuz", // below the module directory: what distribution kernels ship
	"boot/vmlinuz-*", "boot/kernel-*", "boot/vmlinux-*", "boot/Image-*", "boot/bzImage-*", "boot/kernel-*-dist",
	"boot/kernel-genkernel-x86_64-*",
}

// unversioned are the places of the last resort.
var unversioned = []string{"boot/vmlinuz", "boot/kernel", "boot/bzImage", "boot/Image", "vmlinuz", "boot/vmlinuz.old", "vmlinuz.old"}

// kernelDirs are searched for files whose names begin like a kernel's, and for
// the <machine>/<release>/linux layout of boot loader entries.
var kernelDirs = []string{"boot", "efi", "boot/efi"}

// FindKernel returns the newest kernel of the tree, by its release and not by
// date. One with modules is preferred to one without.
func FindKernel(fsys fs.FS) (Kernel, error) {
	f := finder{fsys: fsys, seen: map[string]bool{}}
	f.findModules()
	for _, r := range f.releases {
		for _, p := range versioned {
			if rest, ok := strings.CutPrefix(p, "*/"); ok {
				f.try(path.Join(f.modules[r], rest), r)
			} else {
				f.try(strings.ReplaceAll(p, "*", r), r)
			}
		}
	}
	for _, dir := range kernelDirs {
		f.scanBoot(dir)
	}
	for _, p := range unversioned {
		f.try(p, "")
	}
	if len(f.found) == 0 {
		return Kernel{}, &NoKernelError{Releases: f.releases, Rejected: f.rejected}
	}
	// Found in order of preference, so the first of the best wins.
	best := f.found[0]
	for _, k := range f.found[1:] {
		if better(k, best) {
			best = k
		}
	}
	return best, nil
}

func better(a, b Kernel) bool {
	if (a.Modules != "") != (b.Modules != "") {
		return a.Modules != ""
	}
	return CompareReleases(a.Release, b.Release) > 0
}

type finder struct {
	fsys     fs.FS
	modules  map[string]string // release → directory
	releases []string
	seen     map[string]bool
	found    []Kernel
	rejected []string
}

func (f *finder) findModules() {
	f.modules = map[string]string{}
	for _, root := range moduleRoots {
		list, err := fs.ReadDir(f.fsys, root)
		if err != nil {
			continue
		}
		for _, e := range list {
			dir := path.Join(root, e.Name())
			if f.modules[e.Name()] != "" || !isModuleDir(f.fsys, dir) {
				continue
			}
			f.modules[e.Name()] = dir
			f.releases = append(f.releases, e.Name())
		}
	}
	slices.SortFunc(f.releases, func(a, b string) int { return CompareReleases(b, a) })
}

// isModuleDir tells a module directory from what a removed kernel left behind.
func isModuleDir(fsys fs.FS, dir string) bool {
	return rootfs.Exists(fsys, dir+"/modules.dep") || rootfs.Exists(fsys, dir+"/kernel") || rootfs.Exists(fsys, dir+"/vmlinuz")
}

func (f *finder) scanBoot(dir string) {
	list, err := fs.ReadDir(f.fsys, dir)
	if err != nil {
		return
	}
	for _, e := range list {
		p := path.Join(dir, e.Name())
		switch {
		case !e.IsDir() && hasAnyPrefix(e.Name(), "vmlinuz-", "kernel-", "vmlinux-", "bzImage-", "Image-"):
			f.try(p, "")
		case e.IsDir() && len(e.Name()) == 32: // <machine-id>/<release>/linux
			sub, _ := fs.ReadDir(f.fsys, p)
			for _, r := range sub {
				f.try(path.Join(p, r.Name(), "linux"), r.Name())
			}
		}
	}
	ukis, _ := fs.ReadDir(f.fsys, path.Join(dir, "EFI/Linux"))
	for _, e := range ukis {
		if strings.HasSuffix(strings.ToLower(e.Name()), ".efi") {
			f.try(path.Join(dir, "EFI/Linux", e.Name()), "")
		}
	}
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// try looks at one file. Its own header beats the name it goes by.
func (f *finder) try(p, release string) {
	if f.seen[p] {
		return
	}
	f.seen[p] = true
	fi, err := fs.Stat(f.fsys, p)
	if err != nil || !fi.Mode().IsRegular() || strings.HasSuffix(p, ".sig") {
		return
	}
	k := Kernel{Path: p, Release: release}
	img, err := readHeader(f.fsys, p)
	if err != nil {
		f.rejected = append(f.rejected, fmt.Sprintf("/%s (%v)", p, err))
		return
	}
	k.Arch, k.UKI = img.arch, img.uki
	if img.release != "" {
		k.Release = img.release
	}
	if k.Release == "" {
		k.Release = releaseFromName(path.Base(p))
	}
	k.Modules = f.modules[k.Release]
	f.found = append(f.found, k)
}

// releaseFromName takes what follows the first dash, without the suffixes that
// distributions add.
func releaseFromName(base string) string {
	_, r, _ := strings.Cut(base, "-")
	return strings.TrimSuffix(strings.TrimSuffix(r, ".efi"), ".gz")
}

// image is what the head of a kernel file says about itself.
type image struct {
	release, arch string
	uki           bool
}

// headerSize covers the boot protocol header and, behind the offset it holds,
// the release string: setup code is at most 64 sectors long.
const headerSize = 64<<10 + 512

func readHeader(fsys fs.FS, p string) (image, error) {
	f, err := fsys.Open(p)
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	if r, ok := f.(io.ReaderAt); ok {
		if img, ok := parseUKI(r); ok {
			return img, nil
		}
	}
	head := make([]byte, headerSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return image{}, err
	}
	return parseImage(head[:n])
}

var errNotKernel = errors.New("no known kernel header")

// parseImage reads the head of a kernel: the x86 boot protocol
// (Documentation/arch/x86/boot.rst), a PE header, an ELF header, or gzip.
func parseImage(b []byte) (image, error) {
	u16 := func(off int) int {
		if off+2 > len(b) {
			return 0
		}
		return int(binary.LittleEndian.Uint16(b[off:]))
	}
	has := func(off int, magic string) bool {
		return off+len(magic) <= len(b) && string(b[off:off+len(magic)]) == magic
	}
	switch {
	case has(0x202, "HdrS") && u16(0x1fe) == 0xaa55:
		img := image{arch: "i386"}
		if u16(0x236)&1 != 0 { // XLF_KERNEL_64
			img.arch = "amd64"
		}
		if off := u16(0x20e); off != 0 && off+0x200 < len(b) {
			s, _, _ := bytes.Cut(b[off+0x200:], []byte{0})
			img.release = firstWord(string(s[:min(len(s), 256)]))
		}
		return img, nil
	case has(0x38, "ARMd"):
		return image{arch: "arm64"}, nil
	case has(0x38, "RSC\x05"):
		return image{arch: "riscv64"}, nil
	case has(0x24, "\x18\x28\x6f\x01"):
		return image{arch: "arm"}, nil
	case has(0, "MZ") && has(u16(0x3c), "PE\x00\x00"):
		return image{arch: peArch[u16(u16(0x3c)+4)]}, nil
	case has(0, "\x7fELF"):
		return image{arch: ELFArch(b)}, nil
	case has(0, "\x1f\x8b"):
		return image{}, nil
	}
	return image{}, errNotKernel
}

var peArch = map[int]string{0x8664: "amd64", 0x14c: "i386", 0xaa64: "arm64", 0x1c0: "arm", 0x5064: "riscv64", 0x6264: "loong64"}

func firstWord(s string) string {
	s, _, _ = strings.Cut(s, " ")
	if strings.ContainsAny(s, "/\n") || s == "." || s == ".." {
		return "" // it becomes part of paths
	}
	return s
}

// parseUKI recognises a unified kernel image by its sections.
func parseUKI(r io.ReaderAt) (image, bool) {
	f, err := pe.NewFile(r)
	if err != nil {
		return image{}, false
	}
	linux := f.Section(".linux")
	if linux == nil {
		return image{}, false
	}
	img := image{arch: peArch[int(f.Machine)], uki: true}
	head := make([]byte, headerSize)
	n, _ := linux.ReadAt(head, 0)
	if inner, err := parseImage(head[:n]); err == nil {
		img.release = inner.release
	}
	if s := f.Section(".uname"); s != nil && s.Size < 256 && img.release == "" {
		if b, err := s.Data(); err == nil {
			img.release = firstWord(strings.Trim(string(b), "\x00\n"))
		}
	}
	return img, true
}

// maxKernel bounds what is taken for a kernel, in bytes.
const maxKernel = 512 << 20

// OpenKernel returns the kernel's bytes, out of the unified image if it is one.
func OpenKernel(fsys fs.FS, k Kernel) (io.ReadCloser, error) {
	f, err := fsys.Open(k.Path)
	if err != nil {
		return nil, err
	}
	if !k.UKI {
		return f, nil
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		f.Close()
		return nil, fmt.Errorf("/%s: cannot be read at an offset", k.Path)
	}
	p, err := pe.NewFile(r)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("/%s: %w", k.Path, err)
	}
	s := p.Section(".linux")
	if s == nil || int64(s.Size) > maxKernel {
		f.Close()
		return nil, fmt.Errorf("/%s: no usable .linux section", k.Path)
	}
	// The section on disk is padded; VirtualSize is what was put in.
	n := int64(min(s.VirtualSize, s.Size))
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(s, 0, n), f}, nil
}

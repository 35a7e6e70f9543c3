// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"slate/builder/rootfs"
)

// Where the tools archive puts things. The programs run with LD_LIBRARY_PATH set
// to ToolLibs, so that it does not matter where the image keeps its libraries.
const (
	ToolPrograms    = "usr/lib/slate/bin"
	ToolLibs        = "usr/lib/slate/lib"
	ToolGRUB        = "usr/lib/slate/grub" // <platform>/ and the signed loaders
	ToolDigestsPath = "etc/slate/tools.sha256"
)

// tools are the programs that an installation calls, and what each is for.
// installer/disk and installer/bootpart call them by these names.
var tools = []struct {
	name, what string
	must       bool // nothing can be installed without it
}{
	{"sfdisk", "partitions (fdisk)", true},
	{"blkid", "what is on a drive (util-linux)", true},
	{"wipefs", "old signatures (util-linux)", true},
	{"mkfs.ext4", "ext4 (e2fsprogs)", true},
	{"e2fsck", "checks of ext4 (e2fsprogs)", true},
	{"mkfs.fat", "the boot partition (dosfstools)", true},
	{"fsck.fat", "checks of the boot partition (dosfstools)", true},
	{"mkfs.btrfs", "btrfs (btrfs-progs)", false},
	{"btrfs", "btrfs (btrfs-progs)", false},
	{"grub-mkimage", "the BIOS loader (grub-common)", false},
}

// programDirs is where an image keeps programs.
var programDirs = []string{"usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/local/bin"}

// toolFiles are read by the programs, at their own places.
var toolFiles = []string{"etc/mke2fs.conf"}

// grubModules are those of GRUB's core for BIOS; what they depend on comes along.
// installer/bootpart puts all that is in the archive into the core.
var grubModules = []string{"biosdisk", "part_gpt", "fat", "normal", "configfile", "linux", "loadenv", "test", "echo", "sleep",
	"search", "search_fs_uuid", "search_label", "search_fs_file", "serial", "terminal", "reboot", "halt", "minicmd", "ls", "cat"}

// grubImages are the parts of GRUB that are no modules.
var grubImages = []string{"kernel.img", "boot.img", "diskboot.img", "lzma_decompress.img", "moddep.lst"}

// signedLoaders are the loaders for UEFI that the archive takes, by the names it
// gives them. The first that is there counts.
var signedLoaders = []struct {
	name  string
	paths []string
}{
	{"shimx64.efi", []string{"usr/lib/shim/shimx64.efi.signed", "usr/share/shim/shimx64.efi", "usr/lib/shim/shimx64.efi"}},
	{"grubx64.efi", []string{"usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "usr/share/grub/grubx64.efi"}},
}

// ToolsReport says what went into a tools archive and what did not.
type ToolsReport struct {
	Programs    int
	Lacks       []string // programs that an installation needs and the tree has not
	Optional    []string // programs without which something cannot be chosen
	BIOS, UEFI  bool     // whether a machine with that firmware can start from its disk
	Size        int64
	Compression Compression
}

// Usable reports whether anything can be installed with it.
func (r ToolsReport) Usable() bool { return len(r.Lacks) == 0 && (r.BIOS || r.UEFI) }

// LackingTools lists what a tree lacks for its image to be installed on drives; it
// looks for the programs only.
func LackingTools(fsys fs.FS) []string {
	var out []string
	for _, t := range tools {
		if t.must && !slices.ContainsFunc(programDirs, func(dir string) bool { return rootfs.Exists(fsys, path.Join(dir, t.name)) }) {
			out = append(out, lack(t.name, t.what, nil))
		}
	}
	bios := rootfs.Exists(fsys, "usr/lib/grub/i386-pc/kernel.img") && rootfs.Exists(fsys, "usr/bin/grub-mkimage")
	uefi := slices.ContainsFunc(signedLoaders[1].paths, func(p string) bool { return rootfs.Exists(fsys, p) })
	if !bios && !uefi {
		out = append(out, "a loader (grub-pc-bin with grub-common for BIOS, grub-efi-amd64-signed with shim-signed for UEFI)")
	}
	return out
}

// ToolsCPIO makes the archive with the programs that install the image on a
// machine's own drive: taken from the tree, with their libraries and the loaders.
// It is nil if the tree has none of them.
func ToolsCPIO(ctx context.Context, fsys fs.FS, release string, c Compression) ([]byte, ToolsReport, error) {
	rep := ToolsReport{Compression: usable(fsys, release, c)}
	a, err := newArchive(rep.Compression)
	if err != nil {
		return nil, rep, err
	}
	p := &toolPacker{a: a, fsys: fsys, libs: map[string]bool{}, dirs: libraryDirs(fsys)}
	have := map[string]bool{}
	for _, t := range tools {
		if err := ctx.Err(); err != nil {
			return nil, rep, context.Cause(ctx)
		}
		err := p.program(t.name)
		var missing *missingLibraryError
		switch {
		case err == nil:
			have[t.name] = true
			rep.Programs++
		case !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &missing):
			return nil, rep, err
		case t.must:
			rep.Lacks = append(rep.Lacks, lack(t.name, t.what, missing))
		default:
			rep.Optional = append(rep.Optional, lack(t.name, t.what, missing))
		}
	}
	if rep.Programs == 0 {
		return nil, rep, nil
	}
	for _, name := range toolFiles {
		if b, err := fs.ReadFile(fsys, name); err == nil {
			if err := a.file(name, 0o644, b); err != nil {
				return nil, rep, err
			}
		}
	}
	bios, err := p.grubModules("i386-pc")
	if err != nil {
		return nil, rep, err
	}
	rep.BIOS = bios && have["grub-mkimage"]
	if rep.UEFI, err = p.signed(); err != nil {
		return nil, rep, err
	}
	if err := a.file(ToolDigestsPath, 0o644, a.digests()); err != nil {
		return nil, rep, err
	}
	out, err := a.finish()
	rep.Size = int64(len(out))
	return out, rep, err
}

func lack(name, what string, missing *missingLibraryError) string {
	if missing != nil {
		return fmt.Sprintf("%s, %s: %v", name, what, missing)
	}
	return name + ", " + what
}

// toolPacker puts programs and the libraries they need into an archive.
type toolPacker struct {
	a    *archive
	fsys fs.FS
	libs map[string]bool
	dirs []string
}

type missingLibraryError struct{ program, library string }

func (e *missingLibraryError) Error() string {
	return fmt.Sprintf("%s needs %s, which is not in the tree", e.program, e.library)
}

// libraryDirs is where the dynamic loader of the tree looks, as far as it can be
// told without running it (ld.so(8)).
func libraryDirs(fsys fs.FS) []string {
	var dirs []string
	confs, _ := fs.Glob(fsys, "etc/ld.so.conf.d/*.conf")
	for _, name := range append([]string{"etc/ld.so.conf"}, confs...) {
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			continue
		}
		for line := range lines(b) {
			if d, ok := strings.CutPrefix(line, "/"); ok && fs.ValidPath(d) {
				dirs = append(dirs, d)
			}
		}
	}
	for _, multi := range []string{"x86_64-linux-gnu/", "aarch64-linux-gnu/", ""} {
		dirs = append(dirs, "usr/lib/"+multi, "lib/"+multi)
	}
	dirs = append(dirs, "usr/lib64", "lib64")
	for i := range dirs {
		dirs[i] = strings.TrimSuffix(dirs[i], "/")
	}
	return dirs
}

// program packs a program, once all it needs is known to be there.
func (p *toolPacker) program(name string) error {
	for _, dir := range programDirs {
		b, err := fs.ReadFile(p.fsys, path.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		need := map[string][]byte{}
		if err := p.needs(name, b, need); err != nil {
			return err
		}
		for _, n := range slices.Sorted(maps.Keys(need)) {
			if p.libs[n] {
				continue
			}
			p.libs[n] = true
			if err := p.a.file(n, 0o755, need[n]); err != nil {
				return err
			}
		}
		return p.a.file(path.Join(ToolPrograms, name), 0o755, b)
	}
	return fs.ErrNotExist
}

// needs collects what an ELF file needs, directly or not, by its place in the archive.
func (p *toolPacker) needs(program string, data []byte, need map[string][]byte) error {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	if interp := interpreter(f); interp != "" {
		if _, ok := need[interp]; !ok {
			b, err := fs.ReadFile(p.fsys, interp)
			if err != nil {
				return &missingLibraryError{program, "/" + interp}
			}
			need[interp] = b
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	own, _ := f.DynString(elf.DT_RUNPATH)
	for _, lib := range libs {
		at := path.Join(ToolLibs, lib)
		if _, ok := need[at]; ok || strings.Contains(lib, "/") {
			continue
		}
		b := p.library(lib, f, own)
		if b == nil {
			return &missingLibraryError{program, lib}
		}
		need[at] = b
		if err := p.needs(program, b, need); err != nil {
			return err
		}
	}
	return nil
}

// interpreter is the dynamic loader that the kernel starts the program with.
func interpreter(f *elf.File) string {
	for _, prog := range f.Progs {
		if prog.Type == elf.PT_INTERP && prog.Filesz < 4096 {
			b := make([]byte, prog.Filesz)
			if _, err := prog.ReadAt(b, 0); err == nil {
				return strings.TrimLeft(strings.TrimRight(string(b), "\x00"), "/")
			}
		}
	}
	return ""
}

// library finds a library of the same kind as f.
func (p *toolPacker) library(name string, f *elf.File, runpath []string) []byte {
	dirs := slices.Clone(p.dirs)
	for _, r := range runpath {
		for _, d := range strings.Split(r, ":") {
			if d, ok := strings.CutPrefix(path.Clean(d), "/"); ok {
				dirs = append(dirs, d)
			}
		}
	}
	for _, dir := range dirs {
		b, err := fs.ReadFile(p.fsys, path.Join(dir, name))
		if err != nil {
			continue
		}
		if l, err := elf.NewFile(bytes.NewReader(b)); err == nil && l.Machine == f.Machine && l.Class == f.Class {
			return b
		}
	}
	return nil
}

// grubModules packs GRUB's parts for a platform, if the tree has them all.
func (p *toolPacker) grubModules(platform string) (bool, error) {
	dir := path.Join("usr/lib/grub", platform)
	deps, err := fs.ReadFile(p.fsys, path.Join(dir, "moddep.lst"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	files := slices.Clone(grubImages)
	for _, m := range grubClosure(deps, grubModules) {
		files = append(files, m+".mod")
	}
	contents := make([][]byte, len(files))
	for i, name := range files {
		b, err := fs.ReadFile(p.fsys, path.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // a GRUB of another make
		}
		if err != nil {
			return false, err
		}
		contents[i] = b
	}
	for i, name := range files {
		if err := p.a.file(path.Join(ToolGRUB, platform, name), 0o644, contents[i]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// grubClosure adds to some modules of GRUB what moddep.lst says they need.
func grubClosure(moddep []byte, want []string) []string {
	deps := map[string][]string{}
	for line := range lines(moddep) {
		name, rest, _ := strings.Cut(line, ":")
		deps[name] = strings.Fields(rest)
	}
	in := map[string]bool{}
	var add func(string)
	add = func(m string) {
		if in[m] {
			return
		}
		in[m] = true
		for _, d := range deps[m] {
			add(d)
		}
	}
	for _, m := range want {
		add(m)
	}
	return slices.Sorted(maps.Keys(in))
}

// signed packs the loaders for UEFI. GRUB alone starts a machine whose firmware
// does not ask for signatures; shim needs GRUB.
func (p *toolPacker) signed() (bool, error) {
	have := false
	for _, l := range signedLoaders {
		for _, name := range l.paths {
			b, err := fs.ReadFile(p.fsys, name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return false, err
			}
			if err := p.a.file(path.Join(ToolGRUB, l.name), 0o644, b); err != nil {
				return false, err
			}
			have = have || l.name == "grubx64.efi"
			break
		}
	}
	return have, nil
}

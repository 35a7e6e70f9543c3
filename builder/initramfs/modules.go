// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Format changes when the same kernel and options make another archive.
const Format = 5

// ModulesOptions say which modules to pack. The zero value packs all classes.
type ModulesOptions struct {
	Classes        []string // names of Classes; empty: all
	Extra          []string // further modules, by name or alias
	Exclude        []string // modules to leave out, by name; what needs them goes too
	NoFirmware     bool
	FirmwareBudget int64 // bytes of firmware at most; 0: 48 MiB
	NoMicrocode    bool  // leave out the tree's updates for processors
	// Files are more files for the archive, mode 0644, by path without a leading slash.
	Files map[string][]byte
	// Compression of the archive; where it is Zstd and the kernel's own
	// configuration says that it cannot read that, gzip is taken.
	Compression Compression
}

// ModulesReport says what went into a modules archive and what did not.
type ModulesReport struct {
	Release         string
	Modules         int   // number of modules
	ModuleBytes     int64 // unpacked
	FirmwareFiles   int
	FirmwareBytes   int64
	FirmwareMissing int      // files the modules name that are not in the tree
	FirmwareDropped []string // modules whose firmware did not fit into the budget
	Missing         []string // modules that modules.dep or Extra name and the tree lacks
	Lacks           []string // what a diskless node needs and this kernel has neither as module nor built in
	Microcode       int64    // bytes of updates for processors
	IndexMade       bool     // the tree had no modules.dep
	Compression     Compression
	Size            int64 // of the archive
}

// needed is what the controller cannot do without, by the name of the module.
var needed = []struct{ module, what string }{
	{"nfsv3", "the NFS client (nfsv3)"},
	{"overlay", "overlay file systems (overlay)"},
}

// ModulesCPIO makes the archive with the chosen modules of the kernel release,
// with everything they depend on, the index files the controller matches
// hardware with, and the firmware they name. The modules are not compressed in
// it: the archive as a whole is. In front lie the updates for processors that the
// tree has: it has to be the first archive that the kernel gets.
func ModulesCPIO(ctx context.Context, fsys fs.FS, release string, o ModulesOptions) ([]byte, ModulesReport, error) {
	rep := ModulesReport{Release: release}
	if release == "" || strings.Contains(release, "/") || !fs.ValidPath(release) || release == "." {
		return nil, rep, fmt.Errorf("kernel release %q: not a directory name", release)
	}
	dir, err := moduleDir(fsys, release)
	if err != nil {
		return nil, rep, err
	}
	x, err := readIndex(ctx, fsys, dir)
	if err != nil {
		return nil, rep, fmt.Errorf("modules of %s: %w", release, err)
	}
	rep.IndexMade = x.made
	paths, err := choose(x, o, &rep)
	if err != nil {
		return nil, rep, err
	}
	mods, err := load(ctx, fsys, dir, paths, &rep)
	if err != nil {
		return nil, rep, err
	}
	rep.Compression = usable(fsys, release, o.Compression)
	a, err := newArchive(rep.Compression)
	if err != nil {
		return nil, rep, err
	}
	if err := packModules(a, fsys, dir, release, x, mods); err != nil {
		return nil, rep, err
	}
	if !o.NoFirmware {
		if err := addFirmware(a, fsys, release, mods, o.FirmwareBudget, &rep); err != nil {
			return nil, rep, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		if err := a.file(name, 0o644, o.Files[name]); err != nil {
			return nil, rep, err
		}
	}
	if err := a.file(ModuleDigestsPath, 0o644, a.digests()); err != nil {
		return nil, rep, err
	}
	out, err := a.finish()
	if err != nil {
		return nil, rep, err
	}
	if !o.NoMicrocode {
		front, size, err := microcode(fsys, release)
		if err != nil {
			return nil, rep, err
		}
		out, rep.Microcode = append(front, out...), size
	}
	rep.Size = int64(len(out))
	return out, rep, nil
}

func lacking(x *index) []string {
	var out []string
	for _, n := range needed {
		if len(x.find(n.module)) == 0 && !x.builtin[n.module] {
			out = append(out, n.what)
		}
	}
	return out
}

// Lacking lists what a diskless node needs and the kernel of the release has
// neither as a module nor built in.
func Lacking(ctx context.Context, fsys fs.FS, release string) ([]string, error) {
	dir, err := moduleDir(fsys, release)
	if err != nil {
		return nil, err
	}
	x, err := readIndex(ctx, fsys, dir)
	if err != nil {
		return nil, err
	}
	return lacking(x), nil
}

// CapablePath is the tree list of the files with capabilities, for
// ModulesOptions.Files. NFS has no capabilities: the controller gives them to
// copies of these files in memory.
const CapablePath = "etc/slate/capable.mtree"

// ModuleDigestsPath lists the digests of the files of the modules archive.
const ModuleDigestsPath = "etc/slate/modules.sha256"

func moduleDir(fsys fs.FS, release string) (string, error) {
	for _, root := range moduleRoots {
		dir := path.Join(root, release)
		if fi, err := fs.Stat(fsys, dir); err == nil && fi.IsDir() {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no modules of kernel %s: neither /lib/modules/%[1]s nor /usr/lib/modules/%[1]s is a directory", release)
}

// choose returns the paths of the modules to pack.
func choose(x *index, o ModulesOptions, rep *ModulesReport) ([]string, error) {
	var chosen []class
	for _, c := range classes {
		if len(o.Classes) == 0 || slices.Contains(o.Classes, c.name) {
			chosen = append(chosen, c)
		}
	}
	for _, name := range o.Classes {
		if !slices.ContainsFunc(classes, func(c class) bool { return c.name == name }) {
			return nil, fmt.Errorf("no class of modules %q; there are %s", name, strings.Join(Classes(), ", "))
		}
	}
	var want []string
	for _, p := range x.paths {
		if slices.ContainsFunc(chosen, func(c class) bool { return c.has(p) }) {
			want = append(want, p)
		}
	}
	for _, name := range o.Extra {
		found := x.find(name)
		if len(found) == 0 && !x.builtin[moduleName(name)] {
			rep.Missing = append(rep.Missing, name)
		}
		want = append(want, found...)
	}
	rep.Lacks = lacking(x)
	named := func(p string) bool {
		return slices.ContainsFunc(o.Exclude, func(e string) bool { return moduleName(e) == moduleName(p) })
	}
	want = slices.DeleteFunc(want, func(p string) bool { return named(p) || slices.ContainsFunc(x.deps[p], named) })
	// Soft dependencies may have brought an excluded one back.
	return slices.DeleteFunc(x.closure(want), named), nil
}

// module is one module on its way into the archive.
type module struct {
	path string // relative to the module directory, as in the tree
	data []byte
	info modinfo
}

// load reads the modules, several at once. Missing ones are reported: a tree
// may have been thinned out by hand.
func load(ctx context.Context, fsys fs.FS, dir string, paths []string, rep *ModulesReport) ([]module, error) {
	mods := make([]module, len(paths))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range paths {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			name := path.Join(dir, p)
			if _, err := fs.Stat(fsys, name); err != nil {
				return nil // stays empty, counted below
			}
			b, err := readModule(ctx, fsys, name)
			if err != nil {
				return err
			}
			info, err := readModinfo(b)
			if err != nil {
				return fmt.Errorf("/%s: %w", name, err)
			}
			mods[i] = module{path: p, data: b, info: info}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := mods[:0]
	for i, m := range mods {
		if m.data == nil {
			rep.Missing = append(rep.Missing, paths[i])
			continue
		}
		rep.Modules++
		rep.ModuleBytes += int64(len(m.data))
		out = append(out, m)
	}
	return out, nil
}

func packModules(a *archive, fsys fs.FS, dir, release string, x *index, mods []module) error {
	base := path.Join("lib/modules", release)
	for _, m := range mods {
		if err := a.file(path.Join(base, unpacked(m.path)), 0o644, m.data); err != nil {
			return err
		}
	}
	files, err := trimmed(fsys, dir, x, mods)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := a.file(path.Join(base, f.name), 0o644, f.data); err != nil {
			return err
		}
	}
	return nil
}

func addFirmware(a *archive, fsys fs.FS, release string, mods []module, budget int64, rep *ModulesReport) error {
	if budget <= 0 {
		budget = defaultFirmwareBudget
	}
	fw := newFirmware(fsys, release)
	for _, m := range mods {
		if err := fw.add(moduleName(m.path), m.info.firmware); err != nil {
			return err
		}
	}
	files, dropped := fw.fit(budget)
	rep.FirmwareFiles, rep.FirmwareMissing, rep.FirmwareDropped = len(files), len(fw.missing), dropped
	for _, f := range files {
		rep.FirmwareBytes += int64(len(f.data))
	}
	return packFirmware(a, files)
}

// usable is the compression this kernel can undo. Without its configuration in
// the tree we trust the caller.
func usable(fsys fs.FS, release string, c Compression) Compression {
	if c != Zstd {
		return c
	}
	for _, p := range []string{"boot/config-" + release, "lib/modules/" + release + "/config", "usr/lib/modules/" + release + "/config"} {
		b, err := fs.ReadFile(fsys, p)
		if err != nil {
			continue
		}
		conf := "\n" + string(b) + "\n"
		switch {
		case strings.Contains(conf, "\nCONFIG_RD_ZSTD=y\n"):
			return Zstd
		case strings.Contains(conf, "\nCONFIG_RD_GZIP=y\n"):
			return Gzip
		case strings.Contains(conf, "\nCONFIG_"):
			return Plain
		}
	}
	return c
}

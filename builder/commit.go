// SPDX-License-Identifier: GPL-2.0-or-later

// Package builder turns a tree of files into a version of an image. It makes
// the tree from a recipe, or takes one that is there; finds out what the system
// in it is; and commits it with its kernel and the modules archive that nodes
// start with. Where versions are kept is package images/store's business, how a
// distribution is installed that of the packages below.
package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"slate/builder/initramfs"
	"slate/builder/lint"
	"slate/images"
	"slate/images/store"
	"slate/images/tree"
)

// Source is where a tree comes from: a directory or a tar stream.
type Source struct {
	Dir  string
	Tar  io.Reader
	Name string // of the tar, for messages and for how it is compressed
	// Afresh reads every file of the directory, also those that have not changed
	// since it was committed before.
	Afresh bool
}

// Meta is what the record says beside what the tree itself tells.
type Meta struct {
	Name    string // of the image
	Recipe  string // what it was made from
	Note    string
	Modules initramfs.ModulesOptions

	Step func(step, detail string) // what is going on; may be nil
	Warn func(string)              // what is wrong with the tree, but no reason to refuse it; may be nil
}

func (m Meta) step(step, format string, args ...any) {
	if m.Step != nil {
		m.Step(step, fmt.Sprintf(format, args...))
	}
}

func (m Meta) warn(format string, args ...any) {
	if m.Warn != nil {
		m.Warn(fmt.Sprintf(format, args...))
	}
}

// Commit puts a tree into the store and makes a version of it. A tree without
// a kernel becomes a version too, which cannot be booted; Warn hears of it. If
// the newest version has the same tree and boots the same, that is returned, and
// false.
func Commit(ctx context.Context, st *store.Store, source Source, meta Meta) (images.Record, bool, error) {
	if err := images.CheckName(meta.Name); err != nil {
		return images.Record{}, false, err
	}
	t, digest, err := add(ctx, st, source)
	if err != nil {
		return images.Record{}, false, err
	}
	return commitTree(ctx, st, t, digest, meta)
}

// IsInitrd reports whether a path is where distributions keep their initramfs,
// or a link to it.
func IsInitrd(name string) bool {
	dir, name := path.Split(name)
	switch dir {
	case "boot/":
		return strings.HasPrefix(name, "initrd") || strings.HasPrefix(name, "initramfs")
	case "":
		return name == "initrd.img" || name == "initrd.img.old"
	}
	return false
}

func add(ctx context.Context, st *store.Store, s Source) (*tree.Tree, images.Digest, error) {
	switch {
	case s.Dir != "" && s.Tar == nil && s.Afresh:
		return st.AddDirAfresh(ctx, s.Dir)
	case s.Dir != "" && s.Tar == nil:
		return st.AddDir(ctx, s.Dir)
	case s.Tar != nil && s.Dir == "":
		return st.AddTar(ctx, s.Tar, s.Name)
	}
	return nil, images.Digest{}, errors.New("BUG: a source is a directory or a tar")
}

// commitTree commits a tree whose files are in the store.
func commitTree(ctx context.Context, st *store.Store, t *tree.Tree, digest images.Digest, meta Meta) (images.Record, bool, error) {
	rec := images.Record{Name: meta.Name, Tree: digest, Recipe: meta.Recipe, Note: meta.Note}
	fsys := st.FS(t)
	meta.step("looking at the system", "")
	facts := Inspect(fsys)
	rec.Arch, rec.Init = facts.Arch, facts.Init
	for _, f := range lint.Check(fsys, lint.System{Init: facts.Init}) {
		if f.Severity >= lint.Warning {
			meta.warn("%v", f)
		}
	}
	list, err := capable(t)
	if err != nil {
		return images.Record{}, false, err
	}
	if list != nil {
		meta.Modules.Files = map[string][]byte{initramfs.CapablePath: list}
	}
	if err := addKernel(ctx, st, fsys, &rec, meta); err != nil {
		return images.Record{}, false, err
	}
	meta.step("committing", "")
	return st.Commit(ctx, rec)
}

// capable returns the tree list of the files that have capabilities; nil if
// there are none.
func capable(t *tree.Tree) ([]byte, error) {
	var b tree.Builder
	found := false
	for i := range uint32(t.Len()) {
		e := t.Entry(i)
		if e.Type != tree.File || !slices.ContainsFunc(e.Xattrs, func(x tree.Xattr) bool { return x.Name == "security.capability" }) {
			continue
		}
		found = true
		if err := b.Add(t.Path(i), e); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, nil
	}
	sub, err := b.Build()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	_, err = sub.WriteTo(&text)
	return text.Bytes(), err
}

// addKernel stores the tree's kernel and its modules archive and notes both in
// the record.
func addKernel(ctx context.Context, st *store.Store, fsys store.TreeFS, rec *images.Record, meta Meta) error {
	k, err := initramfs.FindKernel(fsys)
	var none *initramfs.NoKernelError
	if errors.As(err, &none) {
		return nil // lint has said so
	}
	if err != nil {
		return err
	}
	if rec.Arch == "" {
		rec.Arch = k.Arch
	} else if k.Arch != "" && k.Arch != rec.Arch && !runsOn(rec.Arch, k.Arch) {
		meta.warn("the kernel is for %s, the system for %s", k.Arch, rec.Arch)
	}
	f, err := initramfs.OpenKernel(fsys, k)
	if err != nil {
		return err
	}
	defer f.Close()
	blob, err := st.PutBlob(ctx, f)
	if err != nil {
		return err
	}
	rec.Kernel = &images.Kernel{Release: k.Release, Path: "/" + k.Path, Blob: blob}
	if k.Modules == "" {
		return nil
	}
	meta.step("packing modules", "kernel %s", k.Release)
	b, rep, err := initramfs.ModulesCPIO(ctx, fsys, k.Release, meta.Modules)
	if err != nil {
		return err
	}
	reportModules(rep, meta)
	mods, err := st.PutBlob(ctx, bytes.NewReader(b))
	if err != nil {
		return err
	}
	rec.Modules = &mods
	return addTools(ctx, st, fsys, rec, meta)
}

// addTools stores the archive of the programs that install the version, if the
// tree has them.
func addTools(ctx context.Context, st *store.Store, fsys store.TreeFS, rec *images.Record, meta Meta) error {
	meta.step("packing tools", "")
	b, rep, err := initramfs.ToolsCPIO(ctx, fsys, rec.Kernel.Release, meta.Modules.Compression)
	if err != nil {
		return err
	}
	if !rep.Usable() {
		return nil // lint has said why
	}
	tools, err := st.PutBlob(ctx, bytes.NewReader(b))
	if err != nil {
		return err
	}
	rec.Tools = &tools
	meta.step("packing tools", "%d programs, %.1f MB %s", rep.Programs, float64(rep.Size)/1e6, rep.Compression)
	return nil
}

// runsOn reports whether a system for arch runs on a kernel for kernel.
func runsOn(arch, kernel string) bool {
	return arch == "i386" && kernel == "amd64" || arch == "arm" && kernel == "arm64"
}

func reportModules(rep initramfs.ModulesReport, meta Meta) {
	if len(rep.Missing) > 0 {
		meta.warn("%d modules of kernel %s are not in the tree: %s", len(rep.Missing), rep.Release, few(rep.Missing))
	}
	if len(rep.FirmwareDropped) > 0 {
		meta.warn("too much firmware for the modules archive; that of these modules was left out: %s", few(rep.FirmwareDropped))
	}
	meta.step("packing modules", "%d modules of kernel %s, %d firmware files, %.1f MB of microcode, %.1f MB %s",
		rep.Modules, rep.Release, rep.FirmwareFiles, float64(rep.Microcode)/1e6, float64(rep.Size)/1e6, rep.Compression)
}

// few lists the first of many names.
func few(names []string) string {
	const most = 8
	if len(names) <= most {
		return fmt.Sprint(names)
	}
	return fmt.Sprintf("%v and %d more", names[:most], len(names)-most)
}

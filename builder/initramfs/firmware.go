// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// defaultFirmwareBudget is how much firmware is packed at most, in bytes.
const defaultFirmwareBudget = 48 << 20

// firmwareFile is one file below /lib/firmware.
type firmwareFile struct {
	name string // as it lies in the tree, compression suffix included
	data []byte
}

// firmwareDirs are where the kernel looks, in its order
// (Documentation/driver-api/firmware/fw_search_path.rst).
func firmwareDirs(release string) []string {
	var out []string
	for _, root := range []string{"lib/firmware", "usr/lib/firmware"} {
		out = append(out, path.Join(root, "updates", release), path.Join(root, "updates"), path.Join(root, release), root)
	}
	return out
}

// firmware collects what the modules ask for.
type firmware struct {
	fsys    fs.FS
	dirs    []string
	byName  map[string][]byte // tree name → content
	wants   []firmwareWant
	missing []string
}

// firmwareWant is what one module takes.
type firmwareWant struct {
	module string
	names  []string
	size   int64
}

func newFirmware(fsys fs.FS, release string) *firmware {
	return &firmware{fsys: fsys, dirs: firmwareDirs(release), byName: map[string][]byte{}}
}

// add looks for the firmware that module names. What is not in the tree is
// noted: a driver usually names more files than any one machine needs.
func (f *firmware) add(module string, names []string) error {
	w := firmwareWant{module: module}
	for _, name := range names {
		if !fs.ValidPath(name) {
			f.missing = append(f.missing, name)
			continue
		}
		found, err := f.find(name)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			f.missing = append(f.missing, name)
		}
		for _, n := range found {
			w.names = append(w.names, n)
			w.size += int64(len(f.byName[n]))
		}
	}
	if len(w.names) > 0 {
		f.wants = append(f.wants, w)
	}
	return nil
}

// find returns the names below the firmware directory that name stands for; it
// may hold wildcards, and the files may be compressed, which the kernel undoes.
func (f *firmware) find(name string) ([]string, error) {
	if strings.ContainsAny(name, "*?[") {
		return f.glob(name)
	}
	for _, dir := range f.dirs {
		for _, suffix := range []string{"", ".zst", ".xz"} {
			ok, err := f.load(dir, name+suffix)
			if err != nil {
				return nil, err
			}
			if ok {
				return []string{name + suffix}, nil
			}
		}
	}
	return nil, nil
}

func (f *firmware) glob(pattern string) ([]string, error) {
	var out []string
	for _, dir := range f.dirs {
		list, err := fs.Glob(f.fsys, path.Join(dir, pattern))
		if err != nil {
			return nil, nil // a pattern we cannot read names nothing
		}
		for _, p := range list {
			name := strings.TrimPrefix(p, dir+"/")
			ok, err := f.load(dir, name)
			if err != nil {
				return nil, err
			}
			if ok && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out, nil
}

func (f *firmware) load(dir, name string) (bool, error) {
	if f.byName[name] != nil {
		return true, nil
	}
	fi, err := fs.Stat(f.fsys, path.Join(dir, name))
	if err != nil || !fi.Mode().IsRegular() {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		// Broken and endless links in a firmware tree are the tree's business.
		return false, nil
	}
	b, err := fs.ReadFile(f.fsys, path.Join(dir, name))
	if err != nil {
		return false, err
	}
	f.byName[name] = b
	return true, nil
}

// fit returns the files to pack, sorted by name, and the modules whose firmware
// was left out because all together would be larger than budget: the largest go
// first.
func (f *firmware) fit(budget int64) (files []firmwareFile, dropped []string) {
	wants := slices.Clone(f.wants)
	slices.SortFunc(wants, func(a, b firmwareWant) int {
		if c := cmp.Compare(b.size, a.size); c != 0 {
			return c
		}
		return cmp.Compare(a.module, b.module)
	})
	for {
		files = f.collect(wants)
		var sum int64
		for _, file := range files {
			sum += int64(len(file.data))
		}
		if sum <= budget || len(wants) == 0 {
			return files, dropped
		}
		dropped = append(dropped, wants[0].module)
		wants = wants[1:]
	}
}

func (f *firmware) collect(wants []firmwareWant) []firmwareFile {
	seen := map[string]bool{}
	var out []firmwareFile
	for _, w := range wants {
		for _, n := range w.names {
			if !seen[n] {
				seen[n] = true
				out = append(out, firmwareFile{n, f.byName[n]})
			}
		}
	}
	slices.SortFunc(out, func(a, b firmwareFile) int { return cmp.Compare(a.name, b.name) })
	return out
}

// packFirmware writes the files; firmware is full of links, so a content that
// is already there becomes one.
func packFirmware(a *archive, files []firmwareFile) error {
	first := map[[sha256.Size]byte]string{}
	for _, f := range files {
		p := path.Join("lib/firmware", f.name)
		sum := sha256.Sum256(f.data)
		if old, ok := first[sum]; ok {
			if err := a.symlink(p, relative(p, old)); err != nil {
				return err
			}
			continue
		}
		first[sum] = p
		if err := a.file(p, 0o644, f.data); err != nil {
			return err
		}
	}
	return nil
}

// relative is the target of a link at from that leads to to; both are clean
// paths below the same root.
func relative(from, to string) string {
	f, t := strings.Split(path.Dir(from), "/"), strings.Split(to, "/")
	for len(f) > 0 && len(t) > 1 && f[0] == t[0] {
		f, t = f[1:], t[1:]
	}
	return strings.Repeat("../", len(f)) + strings.Join(t, "/")
}

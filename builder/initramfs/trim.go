// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// indexFile is one of depmod's text files, cut down to the modules packed.
type indexFile struct {
	name string
	data []byte
}

// trimmed makes the index files of the archive. The controller matches devices
// with modules.alias and loads by modules.dep and modules.softdep; the rest is
// for people and for kmod's own programs.
func trimmed(fsys fs.FS, dir string, x *index, mods []module) ([]indexFile, error) {
	inPath, inName := map[string]bool{}, map[string]bool{}
	for _, m := range mods {
		inPath[m.path] = true
		inName[moduleName(m.path)] = true
	}
	out := []indexFile{{"modules.dep", trimDep(x, mods, inPath)}}
	if x.made {
		return append(out, madeIndex(mods)...), nil
	}
	second := func(f []string) bool { return len(f) > 1 && inName[moduleName(f[1])] }
	for _, t := range []struct {
		name string
		keep func(fields []string) bool
	}{
		{"modules.alias", func(f []string) bool { return len(f) == 3 && inName[moduleName(f[2])] }},
		{"modules.softdep", second},
		{"modules.weakdep", second},
		{"modules.devname", func(f []string) bool { return inName[moduleName(f[0])] }},
		{"modules.order", func(f []string) bool { return inName[moduleName(f[0])] }},
		{"modules.builtin", nil},
		{"modules.builtin.modinfo", nil},
	} {
		b, err := optional(fsys, path.Join(dir, t.name))
		if err != nil {
			return nil, err
		}
		if b == nil {
			continue
		}
		if t.keep != nil {
			b = filter(b, t.keep)
		}
		if t.name == "modules.order" {
			b = unpackNames(b)
		}
		out = append(out, indexFile{t.name, b})
	}
	return out, nil
}

// trimDep writes modules.dep with the names the modules have in the archive.
func trimDep(x *index, mods []module, in map[string]bool) []byte {
	var b strings.Builder
	for _, m := range mods {
		b.WriteString(unpacked(m.path) + ":")
		for _, d := range x.deps[m.path] {
			if in[d] {
				b.WriteString(" " + unpacked(d))
			}
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

func filter(b []byte, keep func([]string) bool) []byte {
	var out strings.Builder
	for l := range lines(b) {
		if keep(strings.Fields(l)) {
			out.WriteString(l + "\n")
		}
	}
	return []byte(out.String())
}

func unpackNames(b []byte) []byte {
	var out strings.Builder
	for l := range lines(b) {
		out.WriteString(unpacked(l) + "\n")
	}
	return []byte(out.String())
}

// madeIndex makes the other index files from what the modules say, for a tree
// without depmod's.
func madeIndex(mods []module) []indexFile {
	var alias, soft []string
	for _, m := range mods {
		name := moduleName(m.path)
		for _, a := range m.info.aliases {
			if !strings.ContainsAny(a, " \t") {
				alias = append(alias, fmt.Sprintf("alias %s %s\n", a, name))
			}
		}
		for _, s := range m.info.softdeps {
			soft = append(soft, fmt.Sprintf("softdep %s %s\n", name, s))
		}
	}
	slices.Sort(alias)
	return []indexFile{{"modules.alias", []byte(strings.Join(alias, ""))}, {"modules.softdep", []byte(strings.Join(soft, ""))}}
}

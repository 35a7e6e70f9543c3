// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// index is what depmod(8) knows about the modules of one kernel: the text files
// in the module directory. Module paths are relative to that directory.
type index struct {
	paths   []string            // of all modules, in the order of modules.dep
	deps    map[string][]string // path → all it needs, directly or not, as depmod wrote them
	byName  map[string]string   // module name → path
	builtin map[string]bool     // names of what is compiled in
	soft    map[string][]string // name → names or aliases wanted too
	exact   map[string][]string // alias without wildcard → module names
	globs   []alias             // the others
	made    bool                // there was no modules.dep
}

type alias struct{ pattern, module string }

// readIndex reads the index of the module directory dir, or makes it from the
// modules themselves where depmod never ran.
func readIndex(ctx context.Context, fsys fs.FS, dir string) (*index, error) {
	x := &index{deps: map[string][]string{}, byName: map[string]string{}, builtin: map[string]bool{},
		soft: map[string][]string{}, exact: map[string][]string{}}
	b, err := fs.ReadFile(fsys, path.Join(dir, "modules.dep"))
	switch {
	case err == nil:
		x.parseDep(b)
		for _, f := range []struct {
			name  string
			parse func([]byte)
		}{
			{"modules.alias", x.parseAlias},
			{"modules.softdep", x.parseSoft},
			{"modules.weakdep", x.parseSoft},
		} {
			if b, err = optional(fsys, path.Join(dir, f.name)); err != nil {
				return nil, err
			}
			f.parse(b)
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := x.scan(ctx, fsys, dir); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	if b, err = optional(fsys, path.Join(dir, "modules.builtin")); err != nil {
		return nil, err
	}
	for line := range lines(b) {
		x.builtin[moduleName(line)] = true
	}
	return x, nil
}

// optional reads a file that need not be there.
func optional(fsys fs.FS, name string) ([]byte, error) {
	b, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// lines yields the lines of b that say something.
func lines(b []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		sc := bufio.NewScanner(bytes.NewReader(b))
		sc.Buffer(nil, len(b)+1)
		for sc.Scan() {
			l := strings.TrimSpace(sc.Text())
			if l != "" && l[0] != '#' && !yield(l) {
				return
			}
		}
	}
}

func (x *index) parseDep(b []byte) {
	for line := range lines(b) {
		p, rest, ok := strings.Cut(line, ":")
		if !ok || !fs.ValidPath(p) {
			continue
		}
		x.paths = append(x.paths, p)
		x.byName[moduleName(p)] = p
		for _, d := range strings.Fields(rest) {
			if fs.ValidPath(d) {
				x.deps[p] = append(x.deps[p], d)
			}
		}
	}
}

func (x *index) parseAlias(b []byte) {
	for line := range lines(b) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "alias" {
			x.addAlias(f[1], f[2])
		}
	}
}

func (x *index) addAlias(pattern, module string) {
	module = moduleName(module)
	if strings.ContainsAny(pattern, "*?[") {
		x.globs = append(x.globs, alias{pattern, module})
	} else {
		x.exact[pattern] = append(x.exact[pattern], module)
	}
}

// parseSoft reads modules.softdep and modules.weakdep:
// "softdep NAME pre: a b post: c", "weakdep NAME a b".
func (x *index) parseSoft(b []byte) {
	for line := range lines(b) {
		f := strings.Fields(line)
		if len(f) > 2 && (f[0] == "softdep" || f[0] == "weakdep") {
			x.addSoft(f[1], f[2:])
		}
	}
}

func (x *index) addSoft(module string, words []string) {
	for _, w := range words {
		if w != "pre:" && w != "post:" {
			module = moduleName(module)
			x.soft[module] = append(x.soft[module], w)
		}
	}
}

// find returns the paths of the modules that name stands for: a module, or an
// alias such as crypto-crc32c.
func (x *index) find(name string) []string {
	if p, ok := x.byName[moduleName(name)]; ok {
		return []string{p}
	}
	names := slices.Clone(x.exact[name])
	for _, a := range x.globs {
		if ok, err := path.Match(a.pattern, name); err == nil && ok {
			names = append(names, a.module)
		}
	}
	var out []string
	for _, n := range names {
		if p, ok := x.byName[n]; ok && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// closure returns the modules of want and all they need, in the order of
// modules.dep.
func (x *index) closure(want []string) []string {
	in := map[string]bool{}
	var add func(p string)
	add = func(p string) {
		if in[p] {
			return
		}
		in[p] = true
		for _, d := range x.deps[p] {
			add(d)
		}
		for _, s := range x.soft[moduleName(p)] {
			for _, d := range x.find(s) {
				add(d)
			}
		}
	}
	for _, p := range want {
		add(p)
	}
	var out []string
	for _, p := range x.paths {
		if in[p] {
			out = append(out, p)
			delete(in, p)
		}
	}
	// What only a dependency names has no line of its own; reading it will tell.
	rest := make([]string, 0, len(in))
	for p := range in {
		rest = append(rest, p)
	}
	slices.Sort(rest)
	return append(out, rest...)
}

// scan makes the index from the modules, as depmod would: from what each says
// about itself.
func (x *index) scan(ctx context.Context, fsys fs.FS, dir string) error {
	x.made = true
	needs := map[string][]string{}
	err := fs.WalkDir(fsys, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isModule(d.Name()) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := readModule(ctx, fsys, p)
		if err != nil {
			return err
		}
		m, err := readModinfo(b)
		if err != nil {
			return fmt.Errorf("/%s: %w", p, err)
		}
		rel := strings.TrimPrefix(p, dir+"/")
		name := moduleName(rel)
		x.paths = append(x.paths, rel)
		x.byName[name] = rel
		needs[rel] = m.depends
		for _, a := range m.aliases {
			x.addAlias(a, name)
		}
		for _, s := range append(m.softdeps, m.weakdeps...) {
			x.addSoft(name, strings.Fields(s))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for p, names := range needs {
		for _, n := range names {
			if d, ok := x.byName[moduleName(n)]; ok {
				x.deps[p] = append(x.deps[p], d)
			}
		}
	}
	// depmod lists what a module needs indirectly too. Computed from the direct
	// needs first, because the result replaces them.
	all := make([][]string, len(x.paths))
	for i, p := range x.paths {
		all[i] = x.flat(p)
	}
	for i, p := range x.paths {
		x.deps[p] = all[i]
	}
	return nil
}

// flat lists all that p needs. The last has to be loaded first, as in
// modules.dep.
func (x *index) flat(p string) []string {
	var out []string
	seen := map[string]bool{p: true}
	var visit func(string)
	visit = func(p string) {
		for _, d := range x.deps[p] {
			if !seen[d] {
				seen[d] = true
				visit(d)
				out = append(out, d)
			}
		}
	}
	visit(p)
	slices.Reverse(out)
	return out
}

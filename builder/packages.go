// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"cmp"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Package is one package that is installed in a tree.
type Package struct {
	Name    string `json:"name"` // with the category where there is one: sys-apps/portage
	Version string `json:"version"`
	Arch    string `json:"arch,omitempty"`
}

// Packages lists the packages of a tree by the database of its package manager,
// dpkg's, Portage's or apk's, sorted by name. A tree without one has none.
func Packages(fsys fs.FS) ([]Package, error) {
	var out []Package
	for _, read := range []func(fs.FS) ([]Package, error){dpkgPackages, portagePackages, apkPackages} {
		list, err := read(fsys)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	slices.SortFunc(out, func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Arch, b.Arch))
	})
	return out, nil
}

// dpkgPackages reads dpkg's status file, and the directory with one file for
// each package that distroless images have.
func dpkgPackages(fsys fs.FS) ([]Package, error) {
	texts, err := readAny(fsys, "var/lib/dpkg/status")
	if err != nil {
		return nil, err
	}
	list, _ := fs.ReadDir(fsys, "var/lib/dpkg/status.d")
	for _, e := range list {
		more, err := readAny(fsys, path.Join("var/lib/dpkg/status.d", e.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, more...)
	}
	var out []Package
	for _, text := range texts {
		for _, p := range paragraphs(text) {
			// A removed package keeps its entry as long as its configuration is there.
			if s, ok := p["Status"]; ok && !strings.HasSuffix(s, " installed") {
				continue
			}
			if p["Package"] != "" {
				out = append(out, Package{p["Package"], p["Version"], p["Architecture"]})
			}
		}
	}
	return out, nil
}

// apkPackages reads Alpine's database.
func apkPackages(fsys fs.FS) ([]Package, error) {
	texts, err := readAny(fsys, "lib/apk/db/installed")
	if err != nil {
		return nil, err
	}
	var out []Package
	for _, text := range texts {
		for _, p := range paragraphs(text) {
			if p["P"] != "" {
				out = append(out, Package{p["P"], p["V"], p["A"]})
			}
		}
	}
	return out, nil
}

// portagePackages reads /var/db/pkg, which has a directory for each package:
// CATEGORY/NAME-VERSION.
func portagePackages(fsys fs.FS) ([]Package, error) {
	categories, err := fs.ReadDir(fsys, "var/db/pkg")
	if err != nil {
		return nil, nil // not a Gentoo
	}
	var out []Package
	for _, c := range categories {
		list, err := fs.ReadDir(fsys, path.Join("var/db/pkg", c.Name()))
		if err != nil {
			continue
		}
		for _, e := range list {
			if name, version, ok := splitPF(e.Name()); ok && e.IsDir() {
				out = append(out, Package{Name: c.Name() + "/" + name, Version: version})
			}
		}
	}
	return out, nil
}

// splitPF splits Portage's PF at the dash before the version: names may have
// dashes and digits, but no part of one looks like a version (PMS 3.1.2).
func splitPF(pf string) (name, version string, ok bool) {
	if strings.HasPrefix(pf, "-") { // a merge that was interrupted
		return "", "", false
	}
	parts := strings.Split(pf, "-")
	for i := len(parts) - 1; i > 0; i-- {
		if p := parts[i]; p != "" && p[0] >= '0' && p[0] <= '9' {
			return strings.Join(parts[:i], "-"), strings.Join(parts[i:], "-"), true
		}
	}
	return "", "", false
}

// readAny reads a file that may be absent.
func readAny(fsys fs.FS, name string) ([]string, error) {
	if _, err := fs.Stat(fsys, name); err != nil {
		return nil, nil
	}
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	return []string{string(b)}, nil
}

// paragraphs splits "Key: value" text at its empty lines. Continued lines are
// passed over: nothing we read is that long.
func paragraphs(text string) []map[string]string {
	var out []map[string]string
	cur := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" {
			if len(cur) > 0 {
				out = append(out, cur)
				cur = map[string]string{}
			}
			continue
		}
		if k, v, ok := strings.Cut(line, ":"); ok && line[0] != ' ' && line[0] != '\t' {
			cur[k] = strings.TrimSpace(v)
		}
	}
	if len(cur) > 0 {
		out = append(out, cur)
	}
	return out
}

// Change is a package that differs between two trees; From or To is empty where
// it is only in one of them.
type Change struct {
	Name string `json:"name"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// DiffPackages says what became of the packages of one tree in another.
func DiffPackages(from, to []Package) []Change {
	versions := func(list []Package) map[string]string {
		m := map[string]string{}
		for _, p := range list {
			if have := m[p.Name]; have != "" && have != p.Version { // slots, several architectures
				m[p.Name] = have + " " + p.Version
			} else {
				m[p.Name] = p.Version
			}
		}
		return m
	}
	old, now := versions(from), versions(to)
	var out []Change
	for n, v := range old {
		if now[n] != v {
			out = append(out, Change{n, v, now[n]})
		}
	}
	for n, v := range now {
		if _, ok := old[n]; !ok {
			out = append(out, Change{n, "", v})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Node is the configuration of one node, after the merge.
type Node struct {
	Boot  Boot
	Etc   Etc
	Tmpfs Tmpfs

	origins map[string]string // "system/boot.conf timeout" to "nodes/pc1/system/boot.conf:3"
}

// part is one *.conf file: its path below config.d and its place in Node.
type part struct {
	path  string
	value any // pointer into a Node
	check func(*Doc) []error
}

func (n *Node) parts() []part {
	return []part{
		{"controller/tmpfs.conf", &n.Tmpfs, n.Tmpfs.check},
		{"system/boot.conf", &n.Boot, n.Boot.check},
		{"system/etc.conf", &n.Etc, n.Etc.check},
	}
}

func defaultNode() *Node {
	return &Node{Boot: defaultBoot(), Etc: defaultEtc(), Tmpfs: defaultTmpfs(), origins: map[string]string{}}
}

// Site is a config.d that was read and found good.
type Site struct {
	files map[string][]byte // path below config.d to content
}

// Load reads a config.d and checks all of it: every file, the defaults merged
// with the site's, and each node's merge. The error joins everything found.
func Load(fsys fs.FS) (*Site, error) {
	s := &Site{files: map[string][]byte{}}
	var errs []error
	err := fs.WalkDir(fsys, ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() || path.Ext(p) != ".conf":
			return nil
		}
		if _, err := scopeOf(p); err != nil {
			errs = append(errs, err)
			return nil
		}
		data, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		s.files[p] = data
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read config.d: %w", err)
	}
	for _, node := range append([]string{""}, s.Nodes()...) {
		if _, err := s.merge(node, node != ""); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(dedup(errs)...); err != nil {
		return nil, err
	}
	return s, nil
}

// Nodes lists the nodes that have files of their own.
func (s *Site) Nodes() []string {
	var nodes []string
	for p := range s.files {
		if rest, ok := strings.CutPrefix(p, "nodes/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			nodes = append(nodes, name)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// Node merges what holds for the named node: defaults, the site's files, the
// node's own; after them, in the same order, the files with the c prefix.
func (s *Site) Node(name string) *Node {
	n, err := s.merge(name, false)
	if err != nil {
		panic("BUG: config.d was loaded but does not merge: " + err.Error())
	}
	return n
}

// merge applies the files for a node in order of rising precedence. With
// ownOnly the errors of site files, which Load has reported already, are left out.
func (s *Site) merge(node string, ownOnly bool) (*Node, error) {
	n := defaultNode()
	var errs []error
	prefixes := []string{""}
	if node != "" {
		prefixes = append(prefixes, "nodes/"+node+"/")
	}
	for _, p := range n.parts() {
		dir, base := path.Split(p.path)
		for _, name := range []string{dir + base, dir + "c" + base} {
			for _, prefix := range prefixes {
				file := prefix + name
				data, ok := s.files[file]
				if !ok {
					continue
				}
				d, err := Decode(file, data, p.value)
				if err == nil {
					err = errors.Join(p.check(d)...)
				}
				if err != nil && (!ownOnly || prefix != "") {
					errs = append(errs, err)
				}
				if d == nil {
					continue
				}
				for _, k := range d.Keys() {
					n.origins[p.path+" "+k] = fmt.Sprintf("%s:%d", file, d.Line(k))
				}
			}
		}
	}
	return n, errors.Join(errs...)
}

// scopeOf says whose file p is ("" for the site), or why slate does not know it.
func scopeOf(p string) (node string, err error) {
	rest := p
	if after, ok := strings.CutPrefix(p, "nodes/"); ok {
		node, rest, _ = strings.Cut(after, "/")
	}
	var known []string
	for _, part := range defaultNode().parts() {
		dir, base := path.Split(part.path)
		if rest == part.path || rest == dir+"c"+base {
			return node, nil
		}
		known = append(known, part.path)
	}
	return "", &Error{File: p, Text: "slate knows no such file", Help: "known files: " + strings.Join(known, ", ") + "; the same below nodes/<node>/"}
}

// Value is one setting of a node, with where it comes from.
type Value struct {
	File   string `json:"file"`   // e.g. system/boot.conf
	Key    string `json:"key"`    // e.g. timeout
	Value  any    `json:"value"`  // as decoded from TOML
	Origin string `json:"origin"` // file:line below config.d, or "default"
}

// String returns "file key = value   (origin)".
func (v Value) String() string {
	text, err := json.Marshal(v.Value)
	if err != nil {
		text = fmt.Append(nil, v.Value)
	}
	return fmt.Sprintf("%s %s = %s   (%s)", v.File, v.Key, text, v.Origin)
}

// Explain lists every setting of the node with its origin, in the order of
// files and keys.
func (n *Node) Explain() []Value {
	var out []Value
	for _, p := range n.parts() {
		text, err := toml.Marshal(p.value)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		var tree map[string]any
		md, err := toml.Decode(string(text), &tree)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		for _, k := range md.Keys() {
			if t := md.Type(k...); t == "Hash" {
				continue
			}
			v := any(tree)
			for _, name := range k {
				v = v.(map[string]any)[name]
			}
			origin := n.origins[p.path+" "+k.String()]
			if origin == "" {
				origin = "default"
			}
			out = append(out, Value{File: p.path, Key: k.String(), Value: v, Origin: origin})
		}
	}
	return out
}

func dedup(errs []error) []error {
	seen := map[string]bool{}
	return slices.DeleteFunc(errs, func(e error) bool {
		text := e.Error()
		dup := seen[text]
		seen[text] = true
		return dup
	})
}

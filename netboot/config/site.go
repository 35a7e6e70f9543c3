// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Node is the configuration of one node, after the merge.
type Node struct {
	Boot    Boot
	Etc     Etc
	Servers ServerInfo
	Tmpfs   Tmpfs
	DHCP    DHCP

	Overlays Overlays
	Fstab    Fstab
	Cfstab   Cfstab
	Network  Network
	Services Services
	Drives   Drives
	Btrfs    BtrfsConf
	Update   UpdateCheck
	Health   Health
	Sources  Sources

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
		{btrfsFile, &n.Btrfs, n.Btrfs.check},
		{drivesFile, &n.Drives, n.Drives.check},
		{healthDir, &n.Health, n.Health.check},
		{ServerFile, &n.Servers, n.Servers.check},
		{tmpfsFile, &n.Tmpfs, n.Tmpfs.check},
		{cfstabFile, &n.Cfstab, n.Cfstab.check},
		{servicesFile, &n.Services, n.Services.check},
		{updateFile, &n.Update, n.Update.check},
		{"sources/sources.conf", &n.Sources, n.Sources.check},
		{bootFile, &n.Boot, n.Boot.check},
		{dhcpFile, &n.DHCP, n.DHCP.check},
		{etcFile, &n.Etc, n.Etc.check},
		{fstabFile, &n.Fstab, n.Fstab.check},
		{networkFile, &n.Network, n.Network.check},
		{overlaysFile, &n.Overlays, n.Overlays.check},
	}
}

func defaultNode() *Node {
	return &Node{Boot: defaultBoot(), Etc: defaultEtc(), Servers: defaultServerInfo(), Tmpfs: defaultTmpfs(), DHCP: defaultDHCP(),
		Overlays: defaultOverlays(), Network: defaultNetwork(), Services: defaultServices(),
		Drives: defaultDrives(), Btrfs: defaultBtrfs(), Update: defaultUpdateCheck(), Sources: defaultSources(), origins: map[string]string{}}
}

// Site is a config.d that was read and found good.
type Site struct {
	files   map[string][]byte // path below config.d to content
	sources map[string][]byte // the same of what etc.conf puts into /etc
	ids     identities
	portage map[string][]byte // the same for what is Portage's and not TOML
}

// Load reads a config.d and checks all of it: every file, the defaults merged
// with the site's, and each node's merge. The error joins everything found.
func Load(fsys fs.FS) (*Site, error) {
	s := &Site{files: map[string][]byte{}, sources: map[string][]byte{}, portage: map[string][]byte{}}
	var errs []error
	err := fs.WalkDir(fsys, ".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return nil
		case isBuilds(p):
			return nil
		case isPortage(p):
			s.portage[p], err = fs.ReadFile(fsys, p)
			return err
		case isSource(p):
			return s.readSource(fsys, p)
		case path.Ext(p) != ".conf" && strings.TrimPrefix(path.Base(p), "c") != path.Base(servicesFile):
			return nil
		}
		if err := checkName(p); err != nil {
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
	if err := s.check(errs); err != nil {
		return nil, err
	}
	return s, nil
}

// check merges for everybody and joins what was found wrong, with what was before.
func (s *Site) check(errs []error) error {
	for i, scope := range s.scopes() {
		if _, err := s.merge(scope, i > 0); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(dedup(errs)...); err != nil {
		return err
	}
	return s.identify()
}

// scopes are everybody, each group that has files, and each node that has.
func (s *Site) scopes() []Scope {
	list := []Scope{{}}
	for _, g := range s.Groups() {
		list = append(list, Scope{Groups: []string{g}})
	}
	for _, n := range s.Nodes() {
		list = append(list, Scope{Node: n})
	}
	return list
}

// Anywhere tells whether something is so for everybody, for a group or for a node.
func (s *Site) Anywhere(is func(*Node) bool) bool {
	return slices.ContainsFunc(s.scopes(), func(scope Scope) bool { return is(s.For(scope)) })
}

// Nodes lists the nodes that have files of their own.
func (s *Site) Nodes() []string { return s.below(nodesDir) }

// Groups lists the groups that have files.
func (s *Site) Groups() []string { return s.below(groupsDir) }

// Directories of config.d with files for some nodes only.
const (
	nodesDir  = "nodes/"
	groupsDir = "groups/"
)

func (s *Site) below(dir string) []string {
	var names []string
	for p := range s.files {
		if rest, ok := strings.CutPrefix(p, dir); ok {
			name, _, _ := strings.Cut(rest, "/")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Scope says whose configuration is wanted.
type Scope struct {
	Node   string
	Groups []string // those the node is in; of two that set one key, the later counts
	Set    Set      // what was set for the node beside config.d
}

// Node merges what holds for the named node without groups.
func (s *Site) Node(name string) *Node { return s.For(Scope{Node: name}) }

// For merges what holds in a scope: defaults, the site's files, the groups', the
// node's own, what was set for the node; after them, in the same order, the files
// with the c prefix.
func (s *Site) For(scope Scope) *Node {
	n, err := s.merge(scope, false)
	if err != nil {
		panic("BUG: config.d was loaded but does not merge: " + err.Error())
	}
	return n
}

// layer is one file that is merged.
type layer struct {
	name string // path below config.d, or what else it is
	data []byte
	site bool // for all nodes
}

// layers lists the files of one kind in order of rising precedence.
func (s *Site) layers(p part, scope Scope) []layer {
	var out []layer
	if p.path == healthDir {
		for _, prefix := range scope.prefixes() {
			for _, name := range s.healthFiles(prefix) {
				out = append(out, layer{name, s.files[name], prefix == ""})
			}
		}
		return out
	}
	dir, base := path.Split(p.path)
	for _, name := range []string{dir + base, dir + "c" + base} {
		for _, prefix := range scope.prefixes() {
			if data, ok := s.files[prefix+name]; ok {
				out = append(out, layer{prefix + name, data, prefix == ""})
			}
		}
		if name == bootFile && !scope.Set.isZero() {
			out = append(out, layer{SetOrigin, scope.Set.toml(), false})
		}
	}
	return out
}

// merge applies the layers of a scope. With ownOnly the errors of site files,
// which Load has reported already, are left out.
func (s *Site) merge(scope Scope, ownOnly bool) (*Node, error) {
	n := defaultNode()
	var errs []error
	for _, p := range n.parts() {
		for _, l := range s.layers(p, scope) {
			if err := n.apply(p, l); err != nil && (!ownOnly || !l.site) {
				errs = append(errs, err)
			}
		}
	}
	if len(errs) == 0 { // else it would complain of what comes from the errors
		errs = append(errs, s.finish(n, scope)...)
	}
	return n, errors.Join(errs...)
}

// apply decodes one layer of a part over what the layers before it gave.
func (n *Node) apply(p part, l layer) error {
	var lists []keyedList
	if v, ok := p.value.(listed); ok {
		lists = v.lists()
	}
	var finish []func(*Doc) (map[string]int, []error)
	for _, list := range lists {
		finish = append(finish, list.begin())
	}
	if p.path == servicesFile {
		l.data = plainServices(l.data)
	}
	d, err := Decode(l.name, l.data, p.value)
	if err == nil {
		err = errors.Join(p.check(d)...)
	}
	if d == nil {
		d = &Doc{Name: l.name}
	}
	origin := func(key string, line int) {
		n.origins[p.path+" "+key] = l.name
		if l.name != SetOrigin {
			n.origins[p.path+" "+key] = fmt.Sprintf("%s:%d", l.name, line)
		}
	}
	for _, k := range d.Keys() {
		origin(k, d.Line(k))
	}
	for i, list := range lists {
		set, errs := finish[i](d)
		err = errors.Join(append([]error{err}, errs...)...)
		for id, line := range set {
			origin(entryKey(list.key(), id), line)
		}
	}
	return err
}

// finish looks at what no single file can tell: whether the parts of a node's
// configuration fit, and what its files refer to.
func (s *Site) finish(n *Node, scope Scope) []error {
	return slices.Concat(n.checkWritable(), s.readSources(n, scope))
}

// errorAt makes an error about a merged value, at the place that it comes from.
func (n *Node) errorAt(file, key, format string, args ...any) *Error {
	e := &Error{File: file, Key: key, Text: fmt.Sprintf(format, args...)}
	if from, line, ok := strings.Cut(n.Origin(file, key), ":"); ok {
		e.File = from
		e.Line, _ = strconv.Atoi(line)
	}
	return e
}

// Origin says where a setting comes from: file and line, or "default".
func (n *Node) Origin(file, key string) string {
	if o := n.origins[file+" "+key]; o != "" {
		return o
	}
	return "default"
}

// checkName says why slate does not know the file p, if it does not.
func checkName(p string) error {
	_, rest := splitScope(p)
	var known []string
	for _, part := range defaultNode().parts() {
		dir, base := path.Split(part.path)
		if part.path == healthDir && inHealthDir(rest) {
			return nil
		}
		if rest == part.path || rest == dir+"c"+base {
			return nil
		}
		known = append(known, part.path)
	}
	return &Error{File: p, Text: "slate knows no such file", Help: "known files: " + strings.Join(known, ", ") + "; the same below groups/<group>/ and nodes/<node>/"}
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
		if strings.HasPrefix(p.path, "sources/") {
			continue // for builds, and no node's
		}
		text, err := toml.Marshal(p.value)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		var tree map[string]any
		md, err := toml.Decode(string(text), &tree)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		tables := listsOfTables(md)
		shown := map[string]bool{}
		for _, k := range md.Keys() {
			if t := md.Type(k...); t == "Hash" || len(k) > 1 && tables[k[0]] || len(k) == 1 && t == "ArrayHash" && n.seen(out, p.path, k[0]) {
				continue
			}
			v := any(tree)
			for _, name := range k {
				v = v.(map[string]any)[name]
			}
			if ids, ok := idsOf(p, k.String()); ok {
				if !shown[k.String()] {
					shown[k.String()] = true
					out = append(out, n.explainList(p.path, k.String(), ids, v)...)
				}
				continue
			}
			out = append(out, Value{File: p.path, Key: k.String(), Value: v, Origin: n.Origin(p.path, k.String())})
		}
	}
	return out
}

// idsOf gives the ids of the entries of a list that is merged entry by entry.
func idsOf(p part, key string) ([]string, bool) {
	if v, ok := p.value.(listed); ok {
		for _, l := range v.lists() {
			if l.key() == key {
				return l.ids(), true
			}
		}
	}
	return nil, false
}

// explainList gives each entry of such a list.
func (n *Node) explainList(file, key string, ids []string, v any) (out []Value) {
	rows, _ := v.([]map[string]any)
	for i, id := range ids {
		value := any(true) // the list is one of names
		if i < len(rows) {
			delete(rows[i], "remove")
			value = rows[i]
		}
		key := entryKey(key, id)
		out = append(out, Value{File: file, Key: key, Value: value, Origin: n.Origin(file, key)})
	}
	return out
}

// seen tells whether a list of tables, which has a key for each table, is there already.
func (n *Node) seen(out []Value, file, key string) bool {
	return slices.ContainsFunc(out, func(v Value) bool { return v.File == file && v.Key == key })
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

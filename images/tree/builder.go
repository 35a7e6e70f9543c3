// SPDX-License-Identifier: GPL-2.0-or-later

package tree

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"slate/images"
)

// A Builder collects entries in any order and makes a Tree of them. The zero
// Builder is ready to use. It is not safe for use by several goroutines.
type Builder struct {
	root  *name
	count int
}

// A name is a place in the tree; several may share one inode.
type name struct {
	inode *inode
	kids  map[string]*name // nil unless a directory
}

type inode struct {
	Entry
	links uint32
	first uint32 // set while building; 0 means not yet placed
}

// ErrBelowNonDir is in the error for an entry whose parent is no directory,
// such as a symbolic link that would lead it elsewhere.
var ErrBelowNonDir = errors.New("lies below something that is not a directory")

// Add puts e at path. Directories that are missing above it are made, mode
// 0755 and owned by root. An entry that is there already is replaced, as tar
// does, except that a directory keeps its children and a directory with
// children cannot become anything else. The fields Nlink, and Size except for
// files, are ignored.
func (b *Builder) Add(path string, e Entry) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("%s: %w", show(path), err)
	}
	e.Xattrs = slices.Clone(e.Xattrs)
	slices.SortFunc(e.Xattrs, func(x, y Xattr) int { return strings.Compare(x.Name, y.Name) })
	return b.put(path, &inode{Entry: e})
}

// Link gives the entry at target, which must be there and no directory, the
// further name path.
func (b *Builder) Link(path, target string) error {
	n := b.find(target)
	switch {
	case n == nil:
		return fmt.Errorf("%s: hard link to %s, which is not there", show(path), show(target))
	case n.inode.Type == Dir:
		return fmt.Errorf("%s: hard link to %s, which is a directory", show(path), show(target))
	}
	return b.put(path, n.inode)
}

func (b *Builder) put(path string, ino *inode) error {
	b.init()
	if len(path) > MaxPath {
		return fmt.Errorf("%s…: path is longer than %d bytes", show(path[:64]), MaxPath)
	}
	for elem, rest := nextElement(path); elem != ""; elem, rest = nextElement(rest) {
		if err := checkName(elem); err != nil {
			return fmt.Errorf("%s: %w", show(path), err)
		}
	}
	at := b.root
	elem, rest := nextElement(path)
	if elem == "" {
		if ino.Type != Dir {
			return fmt.Errorf("the root is a %s, not a directory", ino.Type)
		}
		at.inode = ino
		return nil
	}
	for {
		if at.inode.Type != Dir {
			return fmt.Errorf("%s: %w", show(path), ErrBelowNonDir)
		}
		next, more := nextElement(rest)
		kid := at.kids[elem]
		if next == "" {
			return b.place(at, elem, kid, ino, path)
		}
		if kid == nil {
			kid = &name{inode: &inode{Entry: Entry{Type: Dir, Mode: 0o755}}}
			if err := b.grow(path); err != nil {
				return err
			}
			at.add(elem, kid)
		}
		at, elem, rest = kid, next, more
	}
}

func (b *Builder) place(dir *name, elem string, old *name, ino *inode, path string) error {
	if old == nil {
		if err := b.grow(path); err != nil {
			return err
		}
		dir.add(elem, &name{inode: ino})
		return nil
	}
	if len(old.kids) > 0 && ino.Type != Dir {
		return fmt.Errorf("%s: a %s cannot replace a directory that is not empty", show(path), ino.Type)
	}
	old.inode = ino
	return nil
}

func (n *name) add(elem string, kid *name) {
	if n.kids == nil {
		n.kids = make(map[string]*name)
	}
	n.kids[strings.Clone(elem)] = kid
}

func (b *Builder) grow(path string) error {
	if b.count++; b.count >= MaxEntries {
		return fmt.Errorf("%s: more than %d entries", show(path), MaxEntries)
	}
	return nil
}

func (b *Builder) init() {
	if b.root == nil {
		b.root = &name{inode: &inode{Entry: Entry{Type: Dir, Mode: 0o755}}}
	}
}

func (b *Builder) find(path string) *name {
	b.init()
	n := b.root
	for elem, rest := nextElement(path); elem != "" && n != nil; elem, rest = nextElement(rest) {
		n = n.kids[elem]
	}
	return n
}

// Get returns the entry at path as it was added.
func (b *Builder) Get(path string) (Entry, bool) {
	n := b.find(path)
	if n == nil {
		return Entry{}, false
	}
	return n.inode.Entry, true
}

// Remove takes the entry at path and all below it out again. The root cannot
// be removed, only emptied.
func (b *Builder) Remove(path string) bool {
	b.init()
	var dir *name
	n, base := b.root, ""
	for elem, rest := nextElement(path); elem != ""; elem, rest = nextElement(rest) {
		dir, base = n, elem
		if n = n.kids[elem]; n == nil {
			return false
		}
	}
	b.count -= n.size()
	if dir == nil {
		b.count++
		n.kids = nil
		return true
	}
	delete(dir.kids, base)
	return true
}

func (n *name) size() int {
	s := 1
	for _, k := range n.kids {
		s += k.size()
	}
	return s
}

// List returns the names in the directory at path, sorted.
func (b *Builder) List(path string) []string {
	n := b.find(path)
	if n == nil {
		return nil
	}
	return sortedKids(n)
}

func sortedKids(n *name) []string {
	list := make([]string, 0, len(n.kids))
	for k := range n.kids {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// Build makes the tree. The Builder can go on being used.
func (b *Builder) Build() (*Tree, error) {
	b.init()
	place := []*name{b.root} // by entry number
	a := newAssembler(b.count + 1)
	a.add(0, nil, &b.root.inode.Entry)
	b.resetInodes(b.root)
	for i := 0; i < len(place); i++ {
		dir := place[i]
		if dir.inode.Type != Dir {
			continue
		}
		a.openDir(uint32(i))
		for _, elem := range sortedKids(dir) {
			kid := dir.kids[elem]
			num := uint32(len(place))
			place = append(place, kid)
			a.add(uint32(i), []byte(elem), &kid.inode.Entry)
			if kid.inode.Type == Dir {
				continue
			}
			if kid.inode.links++; kid.inode.links == 1 {
				kid.inode.first = num
				a.payload(num, &kid.inode.Entry)
			} else {
				a.link(num, kid.inode.first)
			}
		}
	}
	for i, n := range place {
		if n.inode.Type != Dir {
			a.t.nodes[i].links = n.inode.links
		}
	}
	return a.finish()
}

func (b *Builder) resetInodes(n *name) {
	n.inode.links, n.inode.first = 0, 0
	for _, k := range n.kids {
		b.resetInodes(k)
	}
}

func checkName(s string) error {
	switch {
	case s == "" || s == "." || s == "..":
		return fmt.Errorf("%q is no name for an entry", s)
	case len(s) > MaxName:
		return fmt.Errorf("name of %d bytes, at most %d are allowed", len(s), MaxName)
	case strings.ContainsAny(s, "/\x00"):
		return fmt.Errorf("name %q holds a slash or a zero byte", s)
	}
	return nil
}

// check refuses what the tree list could not say.
func (e *Entry) check() error {
	switch {
	case e.Type < File || e.Type > Socket:
		return fmt.Errorf("unknown type %d", e.Type)
	case e.Mode&^0o7777 != 0:
		return fmt.Errorf("mode %o has bits beyond 07777", e.Mode)
	case e.Type == File && (e.Size < 0 || e.Digest.IsZero()):
		return errors.New("file without size or digest")
	case e.Type != File && !e.Digest.IsZero():
		return fmt.Errorf("%s with a digest", e.Type)
	case e.Type == Symlink && (e.Target == "" || len(e.Target) > MaxTarget || strings.Contains(e.Target, "\x00")):
		return fmt.Errorf("symbolic link with a target of %d bytes or a zero byte in it; 1 to %d bytes are allowed", len(e.Target), MaxTarget)
	case e.Type != Symlink && e.Target != "":
		return fmt.Errorf("%s with a link target", e.Type)
	case e.Major > maxMajor || e.Minor > maxMinor:
		return fmt.Errorf("device number %d,%d is out of range", e.Major, e.Minor)
	case e.Type != Block && e.Type != Char && (e.Major != 0 || e.Minor != 0):
		return fmt.Errorf("%s with a device number", e.Type)
	}
	return checkXattrs(e.Xattrs)
}

func checkXattrs(xs []Xattr) error {
	total := 0
	for i, x := range xs {
		if x.Name == "" || len(x.Name) > MaxName || strings.Contains(x.Name, "\x00") {
			return fmt.Errorf("extended attribute %q: name must have 1 to %d bytes, none of them zero", x.Name, MaxName)
		}
		for _, y := range xs[:i] {
			if x.Name == y.Name {
				return fmt.Errorf("extended attribute %q is there twice", x.Name)
			}
		}
		total += len(x.Name) + len(x.Value)
	}
	if total > MaxXattrs {
		return fmt.Errorf("extended attributes of %d bytes, at most %d are allowed", total, MaxXattrs)
	}
	return nil
}

// show returns a path as a person should see it: quoted only where it holds
// anything odd.
func show(path string) string {
	if path == "" {
		return "."
	}
	for i := range len(path) {
		if c := path[i]; c < 0x20 || c == 0x7f {
			return fmt.Sprintf("%q", path)
		}
	}
	return path
}

// An assembler fills the arrays of a Tree, entry by entry in canonical order.
// The builder and the parser share it.
type assembler struct {
	t        *Tree
	names    []byte
	targets  []byte
	ownerOf  map[owner]uint32
	last     owner
	lastIdx  uint32
	tooLarge bool
}

func newAssembler(entries int) *assembler {
	return &assembler{
		t:       &Tree{nodes: make([]node, 0, entries), xattrs: map[uint32][]Xattr{}},
		ownerOf: map[owner]uint32{},
	}
}

// add appends an entry with all that does not depend on hard links.
func (a *assembler) add(parent uint32, elem []byte, e *Entry) {
	if uint64(len(a.names))+MaxName+1 > 1<<32-1 || uint64(len(a.targets))+MaxTarget+2 > 1<<32-1 {
		a.tooLarge = true
		return
	}
	o := owner{typ: e.Type, xattr: len(e.Xattrs) > 0, mode: uint16(e.Mode), uid: e.UID, gid: e.GID}
	if o != a.last || len(a.t.owners) == 0 {
		idx, ok := a.ownerOf[o]
		if !ok {
			idx = uint32(len(a.t.owners))
			a.t.owners = append(a.t.owners, o)
			a.ownerOf[o] = idx
		}
		a.last, a.lastIdx = o, idx
	}
	num := uint32(len(a.t.nodes))
	n := node{name: uint32(len(a.names)), parent: parent, owner: a.lastIdx, mtime: e.MtimeNs, links: 1}
	a.names = append(append(a.names, byte(len(elem))), elem...)
	if e.Type == Dir {
		n.links = 2
		if len(e.Xattrs) > 0 {
			a.t.xattrs[num] = e.Xattrs
		}
	}
	a.t.nodes = append(a.t.nodes, n)
	if num == 0 {
		return
	}
	p := &a.t.nodes[parent]
	p.b++
	if e.Type == Dir {
		p.links++
	}
}

// openDir says that the next entries added are the children of dir.
func (a *assembler) openDir(dir uint32) { a.t.nodes[dir].a = uint32(len(a.t.nodes)) }

// payload fills in what the inode of entry num, the first of its group, holds.
func (a *assembler) payload(num uint32, e *Entry) {
	if a.tooLarge {
		return
	}
	n := &a.t.nodes[num]
	n.b = num
	switch e.Type {
	case File:
		n.a = uint32(len(a.t.blobs))
		a.t.blobs = append(a.t.blobs, images.Blob{Digest: e.Digest, Size: e.Size})
		a.t.size += e.Size
	case Symlink:
		n.a = uint32(len(a.targets))
		a.targets = append(a.targets, byte(len(e.Target)>>8), byte(len(e.Target)))
		a.targets = append(a.targets, e.Target...)
	case Block, Char:
		n.a = packDevice(e.Major, e.Minor)
	}
	if len(e.Xattrs) > 0 {
		a.t.xattrs[num] = e.Xattrs
	}
}

// link makes entry num a further name of the inode of entry first.
func (a *assembler) link(num, first uint32) {
	if !a.tooLarge {
		a.t.nodes[num].a, a.t.nodes[num].b = a.t.nodes[first].a, first
	}
}

func (a *assembler) finish() (*Tree, error) {
	if a.tooLarge {
		return nil, errors.New("tree list: more than 4 GiB of names")
	}
	a.t.names, a.t.targets = string(a.names), string(a.targets)
	return a.t, nil
}

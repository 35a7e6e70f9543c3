// SPDX-License-Identifier: GPL-2.0-or-later

// Package tree holds the file list of a version: the tree list, as text in the
// mtree(5) format and as an index in memory that is small and never changes.
//
// The text is canonical: one tree has one text, so the SHA-256 of the text
// names the tree. The first line is "#mtree"; each further line is one entry
// with its full path, keywords in a fixed order, no /set lines:
//
//	. type=dir mode=0755 uid=0 gid=0 time=1700000000.000000000
//	./bin type=link mode=0777 uid=0 gid=0 time=1700000000.000000000 link=usr/bin
//	./usr type=dir …
//	./usr/sh type=file mode=0755 … size=125640 sha256digest=4f29…
//
// Entries come by level: the root, its children, then the children of each
// directory in the order in which the directories came; within a directory by
// the bytes of the names. So the children of a directory are a range of entry
// numbers, and an entry's number is its line in the text.
//
// Bytes other than printable ASCII, and the characters \ # = * ? [ that mtree
// programs treat specially, are written as a backslash and three octal digits.
// Names that share an inode have nlink= and inode=, the latter being the
// number of the first of them. Extended attributes are xattr.NAME= with the
// value in base64, which go-mtree reads; bsdtar 3.6 knows no such keyword and
// wants them cut off before it makes an archive from the list.
package tree

import (
	"iter"
	"sort"
	"strings"
	"sync"

	"slate/images"
)

// Type is the type of an entry. The zero Type is no type.
type Type uint8

// The types of entries.
const (
	File Type = iota + 1
	Dir
	Symlink
	Block
	Char
	Fifo
	Socket
)

var typeNames = [...]string{File: "file", Dir: "dir", Symlink: "link", Block: "block", Char: "char", Fifo: "fifo", Socket: "socket"}

// String returns the word that the tree list uses.
func (t Type) String() string {
	if int(t) < len(typeNames) && t != 0 {
		return typeNames[t]
	}
	return "unknown"
}

// Limits on what a tree may hold. They keep a hostile list from filling the
// memory, and lie above what Linux file systems and real systems have.
const (
	MaxEntries = 1 << 24
	MaxName    = 255     // bytes in one name
	MaxPath    = 1 << 15 // bytes in the path of an entry
	MaxTarget  = 4095    // bytes in the target of a symbolic link
	MaxXattrs  = 1 << 17 // bytes in all extended attributes of an entry
)

// An Entry is what the tree knows about one name.
type Entry struct {
	Type         Type
	Mode         uint32 // permission, set-id and sticky bits: 07777
	UID, GID     uint32
	Size         int64 // files: bytes of content; symbolic links: of the target; else 0
	MtimeNs      int64 // nanoseconds since 1970
	Nlink        uint32
	Major, Minor uint32        // devices
	Target       string        // symbolic links
	Digest       images.Digest // files
	Xattrs       []Xattr       // sorted by name; shared, do not change
}

// An Xattr is an extended attribute such as security.capability.
type Xattr struct {
	Name  string
	Value []byte
}

// A Tree is an immutable list of entries. Entry 0 is the root directory. It
// is safe for use by several goroutines.
type Tree struct {
	nodes   []node
	owners  []owner
	names   string // for each name: its length in one byte, then the name
	targets string // for each symbolic link: its length in two bytes, then the target
	blobs   []images.Blob
	xattrs  map[uint32][]Xattr // by the first entry of a group of hard links

	size   int64
	once   sync.Once
	digest images.Digest
}

// node is one entry in 32 bytes. What a and b hold depends on the type:
//
//	dir           a first child      b number of children   links 2 + subdirectories
//	file          a index in blobs   b first of its group   links names of the inode
//	symlink       a offset in targets, b and links as for a file
//	block, char   a major<<20|minor, see packDevice; b and links as for a file
type node struct {
	name   uint32 // offset in names
	parent uint32
	a, b   uint32
	links  uint32
	owner  uint32 // index in owners
	mtime  int64
}

// owner is what few combinations of exist in a tree of hundreds of thousands
// of entries.
type owner struct {
	typ      Type
	xattr    bool
	mode     uint16
	uid, gid uint32
}

// Len returns the number of entries, the root included.
func (t *Tree) Len() int { return len(t.nodes) }

// Size returns the sum of the sizes of the files, each inode counted once.
func (t *Tree) Size() int64 { return t.size }

// Digest returns the SHA-256 of the tree list's text.
func (t *Tree) Digest() images.Digest {
	t.once.Do(func() {
		if t.digest.IsZero() {
			t.digest = t.sum()
		}
	})
	return t.digest
}

// Type returns the type of entry i.
func (t *Tree) Type(i uint32) Type { return t.owners[t.nodes[i].owner].typ }

// Entry returns what is known about entry i.
func (t *Tree) Entry(i uint32) Entry {
	n := &t.nodes[i]
	o := &t.owners[n.owner]
	e := Entry{Type: o.typ, Mode: uint32(o.mode), UID: o.uid, GID: o.gid, MtimeNs: n.mtime, Nlink: n.links}
	switch o.typ {
	case File:
		b := &t.blobs[n.a]
		e.Size, e.Digest = b.Size, b.Digest
	case Symlink:
		e.Target = t.target(n.a)
		e.Size = int64(len(e.Target))
	case Block, Char:
		e.Major, e.Minor = unpackDevice(n.a)
	}
	if o.xattr {
		e.Xattrs = t.xattrs[t.Canonical(i)]
	}
	return e
}

// Blob returns digest and size of file i without the rest of the entry. It
// must be a file.
func (t *Tree) Blob(i uint32) images.Blob { return t.blobs[t.nodes[i].a] }

// Name returns the last element of the path of entry i, "" for the root.
func (t *Tree) Name(i uint32) string {
	off := t.nodes[i].name
	n := uint32(t.names[off])
	return t.names[off+1 : off+1+n]
}

func (t *Tree) target(off uint32) string {
	n := uint32(t.targets[off])<<8 | uint32(t.targets[off+1])
	return t.targets[off+2 : off+2+n]
}

// Parent returns the directory that holds entry i; the root's is the root.
func (t *Tree) Parent(i uint32) uint32 { return t.nodes[i].parent }

// Path returns the path of entry i below the root, such as usr/bin/env, and
// "." for the root.
func (t *Tree) Path(i uint32) string {
	if i == 0 {
		return "."
	}
	n := 0
	for j := i; j != 0; j = t.nodes[j].parent {
		n += len(t.Name(j)) + 1
	}
	buf := make([]byte, n)
	for j := i; j != 0; j = t.nodes[j].parent {
		name := t.Name(j)
		n -= len(name)
		copy(buf[n:], name)
		if n--; n >= 0 {
			buf[n] = '/'
		}
	}
	return string(buf[1:])
}

// Canonical returns the first of the entries that share the inode of entry i,
// which is i itself where there is no hard link.
func (t *Tree) Canonical(i uint32) uint32 {
	if t.Type(i) == Dir {
		return i
	}
	return t.nodes[i].b
}

// Range returns the children of directory dir as the entry numbers from first
// up to, but not including, end. They are sorted by the bytes of their names.
// What is no directory has none.
func (t *Tree) Range(dir uint32) (first, end uint32) {
	n := &t.nodes[dir]
	if t.owners[n.owner].typ != Dir {
		return 0, 0
	}
	return n.a, n.a + n.b
}

// Children iterates over the entries in directory dir, sorted by the bytes of
// their names.
func (t *Tree) Children(dir uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		first, end := t.Range(dir)
		for i := first; i < end; i++ {
			if !yield(i) {
				return
			}
		}
	}
}

// Lookup finds name in directory dir. The names . and .. are not looked up.
func (t *Tree) Lookup(dir uint32, name string) (uint32, bool) {
	first, end := t.Range(dir)
	n := int(end - first)
	k := sort.Search(n, func(k int) bool { return t.Name(first+uint32(k)) >= name })
	if k < n && t.Name(first+uint32(k)) == name {
		return first + uint32(k), true
	}
	return 0, false
}

// Blobs iterates over the contents of the tree's files, one for each inode;
// equal content under several inodes comes several times.
func (t *Tree) Blobs() iter.Seq[images.Blob] {
	return func(yield func(images.Blob) bool) {
		for _, b := range t.blobs {
			if !yield(b) {
				return
			}
		}
	}
}

// Bytes returns about how much memory the index takes.
func (t *Tree) Bytes() int64 {
	n := int64(len(t.nodes))*32 + int64(len(t.owners))*12 + int64(len(t.names)) + int64(len(t.targets)) + int64(len(t.blobs))*40
	for _, xs := range t.xattrs {
		for _, x := range xs {
			n += int64(len(x.Name)+len(x.Value)) + 48
		}
	}
	return n
}

// Linux packs a device number into 12 bits of major and 20 of minor.
func packDevice(major, minor uint32) uint32       { return major<<20 | minor }
func unpackDevice(v uint32) (major, minor uint32) { return v >> 20, v & (1<<20 - 1) }

// Device numbers above these do not exist on Linux.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// nextElement cuts the first element off a path, skipping empty ones and ".".
func nextElement(path string) (elem, rest string) {
	for path != "" {
		elem, path, _ = strings.Cut(path, "/")
		if elem != "" && elem != "." {
			return elem, path
		}
	}
	return "", ""
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tree

import (
	"bytes"
	"iter"
	"slices"
)

// ChangeKind says what happened to a path between two trees.
type ChangeKind uint8

// The kinds of changes.
const (
	Added ChangeKind = iota + 1
	Removed
	Changed
)

// String returns the sign that stands before the path in a list of changes.
func (k ChangeKind) String() string {
	return [...]string{"?", "+", "-", "~"}[min(k, 3)]
}

// A Change is a path that is not the same in two trees.
type Change struct {
	Kind     ChangeKind
	Old, New uint32 // entry numbers in the one tree and in the other, where it is there
}

// Diff iterates over what differs from old to new, in the order of a walk
// through both. Below a directory that is there only once, every entry is
// listed. Numbers of entries and, for hard links, which name comes first, make
// no difference; how many names an inode has does.
func Diff(old, new *Tree) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		d := differ{old, new, yield}
		d.both(0, 0)
	}
}

type differ struct {
	old, new *Tree
	yield    func(Change) bool
}

// both compares an entry that is in both trees, and what lies below it.
func (d *differ) both(o, n uint32) bool {
	if !d.same(o, n) && !d.yield(Change{Changed, o, n}) {
		return false
	}
	oi, oe := d.old.Range(o)
	ni, ne := d.new.Range(n)
	for oi < oe || ni < ne {
		var ok bool
		switch {
		case ni == ne || oi < oe && d.old.Name(oi) < d.new.Name(ni):
			ok = d.one(d.old, oi, Removed)
			oi++
		case oi == oe || d.new.Name(ni) < d.old.Name(oi):
			ok = d.one(d.new, ni, Added)
			ni++
		default:
			ok = d.both(oi, ni)
			oi++
			ni++
		}
		if !ok {
			return false
		}
	}
	return true
}

// one lists an entry that is in one tree only, and all below it.
func (d *differ) one(t *Tree, i uint32, kind ChangeKind) bool {
	c := Change{Kind: kind, New: i}
	if kind == Removed {
		c = Change{Kind: kind, Old: i}
	}
	if !d.yield(c) {
		return false
	}
	for kid := range t.Children(i) {
		if !d.one(t, kid, kind) {
			return false
		}
	}
	return true
}

func (d *differ) same(o, n uint32) bool {
	a, b := d.old.Entry(o), d.new.Entry(n)
	if a.Type == Dir {
		a.Nlink, b.Nlink = 0, 0 // subdirectories are listed themselves
	}
	xa, xb := a.Xattrs, b.Xattrs
	return a.Type == b.Type && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Size == b.Size &&
		a.MtimeNs == b.MtimeNs && a.Nlink == b.Nlink && a.Major == b.Major && a.Minor == b.Minor &&
		a.Target == b.Target && a.Digest == b.Digest &&
		slices.EqualFunc(xa, xb, func(x, y Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

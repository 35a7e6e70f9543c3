// SPDX-License-Identifier: GPL-2.0-or-later

package tree

import (
	"io/fs"
	"syscall"
)

// maxLinks is how many symbolic links one path may lead through: the kernel's
// own limit.
const maxLinks = 40

// Find returns the entry at path, following no symbolic link. A leading slash
// and the elements "." and ".." are understood; the root's parent is the root.
func (t *Tree) Find(path string) (uint32, bool) {
	i := uint32(0)
	for elem, rest := nextElement(path); elem != ""; elem, rest = nextElement(rest) {
		if elem == ".." {
			i = t.Parent(i)
			continue
		}
		var ok bool
		if i, ok = t.Lookup(i, elem); !ok {
			return 0, false
		}
	}
	return i, true
}

// Resolve returns the entry that path leads to for a process whose root is
// this tree: all symbolic links are followed and none leads out. The errors
// are *fs.PathError with ENOENT, ENOTDIR or ELOOP.
func (t *Tree) Resolve(path string) (uint32, error) { return t.walk(path, true) }

// ResolveLast is Resolve, but if the last element is a symbolic link, it
// returns the link.
func (t *Tree) ResolveLast(path string) (uint32, error) { return t.walk(path, false) }

func (t *Tree) walk(path string, followLast bool) (uint32, error) {
	links, left := 0, path
	i := uint32(0)
	for elem, rest := nextElement(left); elem != ""; elem, rest = nextElement(rest) {
		if t.Type(i) != Dir {
			return 0, &fs.PathError{Op: "resolve", Path: path, Err: syscall.ENOTDIR}
		}
		if elem == ".." {
			i = t.Parent(i)
			continue
		}
		child, ok := t.Lookup(i, elem)
		if !ok {
			return 0, &fs.PathError{Op: "resolve", Path: path, Err: syscall.ENOENT}
		}
		last := rest == ""
		if t.Type(child) != Symlink || last && !followLast {
			i = child
			continue
		}
		if links++; links > maxLinks {
			return 0, &fs.PathError{Op: "resolve", Path: path, Err: syscall.ELOOP}
		}
		target := t.target(t.nodes[child].a)
		if target[0] == '/' {
			i = 0
		}
		if last {
			rest = target
		} else {
			rest = target + "/" + rest
		}
	}
	return i, nil
}

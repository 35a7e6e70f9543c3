// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/willscott/go-nfs/file"
	"golang.org/x/sys/unix"

	"slate/images/tree"
)

// roFS shows a view, or what is below one of its directories, to go-nfs. That
// reads no contents here: those procedures are answered by ourselves.
type roFS struct {
	v    *view
	root uint32
}

var errReadOnly = &os.PathError{Op: "change", Path: "export", Err: unix.EROFS}

func (f roFS) find(elems []string) (uint32, bool) {
	entry := f.root
	for _, e := range elems {
		var ok bool
		if entry, ok = f.v.tree.Lookup(entry, e); !ok {
			return 0, false
		}
	}
	return entry, true
}

// pathOf lists the names on the way from the root to an entry. Its capacity is
// its length, because go-nfs appends to it.
func pathOf(t *tree.Tree, entry uint32) []string {
	depth := 0
	for e := entry; e != 0; e = t.Parent(e) {
		depth++
	}
	names := make([]string, depth)
	for e := entry; e != 0; e = t.Parent(e) {
		depth--
		names[depth] = t.Name(e)
	}
	return names
}

// Capabilities without the one to write make go-nfs answer EROFS.
func (f roFS) Capabilities() billy.Capability { return billy.ReadCapability | billy.SeekCapability }

func (f roFS) Join(elem ...string) string { return strings.Join(elem, "/") }

func (f roFS) Root() string { return "/" }

func (f roFS) Stat(name string) (os.FileInfo, error) { return f.Lstat(name) }

func (f roFS) Lstat(name string) (os.FileInfo, error) {
	var elems []string
	if name != "" {
		elems = strings.Split(name, "/")
	}
	entry, ok := f.find(elems)
	if !ok {
		return nil, &os.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	}
	return entryInfo{f.v, entry, path.Base(name)}, nil
}

func (f roFS) ReadDir(name string) ([]os.FileInfo, error)   { return nil, notHere("readdir", name) }
func (f roFS) Readlink(name string) (string, error)         { return "", notHere("readlink", name) }
func (f roFS) Open(name string) (billy.File, error)         { return nil, notHere("open", name) }
func (f roFS) Chroot(name string) (billy.Filesystem, error) { return nil, notHere("chroot", name) }

func (f roFS) OpenFile(name string, _ int, _ os.FileMode) (billy.File, error) {
	return nil, notHere("open", name)
}

func (f roFS) Create(string) (billy.File, error)        { return nil, errReadOnly }
func (f roFS) Rename(_, _ string) error                 { return errReadOnly }
func (f roFS) Remove(string) error                      { return errReadOnly }
func (f roFS) MkdirAll(string, os.FileMode) error       { return errReadOnly }
func (f roFS) Symlink(_, _ string) error                { return errReadOnly }
func (f roFS) TempFile(_, _ string) (billy.File, error) { return nil, errReadOnly }

// notHere is for what is never asked of this filesystem.
func notHere(op, name string) error {
	return &os.PathError{Op: op, Path: name, Err: unix.ENOTSUP}
}

// entryInfo is an entry as go-nfs wants to see it.
type entryInfo struct {
	v     *view
	entry uint32
	name  string
}

func (i entryInfo) Name() string { return i.name }
func (i entryInfo) Size() int64  { return int64(i.v.size(i.entry)) }
func (i entryInfo) IsDir() bool  { return i.v.kind(i.entry) == typeDir }

// Mode is the plain Unix mode: go-nfs puts the number on the wire as it is.
func (i entryInfo) Mode() os.FileMode { return os.FileMode(i.v.attr32(i.entry, attrMode)) }

func (i entryInfo) ModTime() time.Time {
	return time.Unix(0, i.v.tree.Entry(i.entry).MtimeNs)
}

func (i entryInfo) Sys() any {
	e := i.v.tree.Entry(i.entry)
	return &file.FileInfo{Nlink: e.Nlink, UID: e.UID, GID: e.GID, Major: e.Major, Minor: e.Minor,
		Fileid: i.v.attr64(i.entry, attrFile)}
}

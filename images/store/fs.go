// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"slate/images/tree"
)

// A TreeFS shows a tree as a file system that can be read: directories and
// names from the tree, contents from the blobs. Symbolic links are followed
// inside the tree's root, wherever they point. It implements fs.FS and the
// interfaces for StatFS, ReadFileFS, ReadDirFS and ReadLinkFS. Unlike fs.FS
// demands, a leading slash is understood and names may have any bytes.
type TreeFS struct {
	s *Store
	t *tree.Tree
}

var (
	_ fs.ReadLinkFS = TreeFS{}
	_ fs.ReadDirFS  = TreeFS{}
	_ fs.ReadFileFS = TreeFS{}
	_ fs.StatFS     = TreeFS{}
)

// FS returns a view of t, whose blobs are in the store.
func (s *Store) FS(t *tree.Tree) TreeFS { return TreeFS{s: s, t: t} }

// Open opens a file or directory.
func (f TreeFS) Open(name string) (fs.File, error) {
	i, err := f.t.Resolve(name)
	if err != nil {
		return nil, err
	}
	switch info := f.info(name, i); f.t.Type(i) {
	case tree.File:
		blob, err := f.s.OpenBlob(f.t.Blob(i).Digest)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return &openFile{File: blob, info: info}, nil
	case tree.Dir:
		list, err := f.ReadDir(name)
		return &openDir{info: info, rest: list}, err
	default:
		return &openDir{info: info}, nil // a device or pipe: nothing can be read
	}
}

// ReadFile returns the content of a file.
func (f TreeFS) ReadFile(name string) ([]byte, error) {
	i, err := f.t.Resolve(name)
	if err != nil {
		return nil, err
	}
	if f.t.Type(i) != tree.File {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid}
	}
	data, err := os.ReadFile(f.s.BlobPath(f.t.Blob(i).Digest))
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

// ReadDir lists a directory, sorted by name.
func (f TreeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	i, err := f.t.Resolve(name)
	if err != nil {
		return nil, err
	}
	if f.t.Type(i) != tree.Dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	first, end := f.t.Range(i)
	list := make([]fs.DirEntry, 0, end-first)
	for c := range f.t.Children(i) {
		list = append(list, fs.FileInfoToDirEntry(&treeInfo{f.t.Name(c), f.t.Entry(c)}))
	}
	return list, nil
}

// Stat describes what name leads to.
func (f TreeFS) Stat(name string) (fs.FileInfo, error) {
	i, err := f.t.Resolve(name)
	if err != nil {
		return nil, err
	}
	return f.info(name, i), nil
}

// Lstat describes name, which may be a symbolic link.
func (f TreeFS) Lstat(name string) (fs.FileInfo, error) {
	i, err := f.t.ResolveLast(name)
	if err != nil {
		return nil, err
	}
	return f.info(name, i), nil
}

// ReadLink returns the target of a symbolic link.
func (f TreeFS) ReadLink(name string) (string, error) {
	i, err := f.t.ResolveLast(name)
	if err != nil {
		return "", err
	}
	if f.t.Type(i) != tree.Symlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return f.t.Entry(i).Target, nil
}

func (f TreeFS) info(name string, i uint32) *treeInfo {
	return &treeInfo{path.Base(name), f.t.Entry(i)}
}

// treeInfo is an fs.FileInfo whose Sys is the tree.Entry.
type treeInfo struct {
	name string
	e    tree.Entry
}

func (i *treeInfo) Name() string       { return i.name }
func (i *treeInfo) Size() int64        { return i.e.Size }
func (i *treeInfo) ModTime() time.Time { return time.Unix(0, i.e.MtimeNs) }
func (i *treeInfo) IsDir() bool        { return i.e.Type == tree.Dir }
func (i *treeInfo) Sys() any           { return i.e }

var typeBits = map[tree.Type]fs.FileMode{
	tree.Dir: fs.ModeDir, tree.Symlink: fs.ModeSymlink, tree.Block: fs.ModeDevice,
	tree.Char: fs.ModeDevice | fs.ModeCharDevice, tree.Fifo: fs.ModeNamedPipe, tree.Socket: fs.ModeSocket,
}

func (i *treeInfo) Mode() fs.FileMode {
	m := typeBits[i.e.Type] | fs.FileMode(i.e.Mode&0o777)
	if i.e.Mode&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if i.e.Mode&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if i.e.Mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// openFile is a blob under the name it has in the tree.
type openFile struct {
	*os.File
	info *treeInfo
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }

type openDir struct {
	info *treeInfo
	rest []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: fs.ErrInvalid}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.rest) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.rest) {
		n = len(d.rest)
	}
	list := d.rest[:n]
	d.rest = d.rest[n:]
	return list, nil
}

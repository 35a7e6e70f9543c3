// SPDX-License-Identifier: GPL-2.0-or-later

// Package rootfs reads a directory as the root of another system: a symbolic
// link, absolute ones included, is followed as it would be with that directory
// as "/", and nothing outside the directory is ever opened. It only reads.
package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// maxLinks is the kernel's own limit of symbolic links in one lookup.
const maxLinks = 40

// FS is a directory seen as a root. It implements fs.FS, fs.ReadDirFS,
// fs.ReadFileFS, fs.StatFS and fs.ReadLinkFS.
type FS struct {
	root *os.Root
}

// Open opens the directory dir as a root.
func Open(dir string) (*FS, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &FS{root: r}, nil
}

// Close gives the directory back.
func (f *FS) Close() error { return f.root.Close() }

// Open opens the file or directory that name leads to.
func (f *FS) Open(name string) (fs.File, error) { return f.open("open", name) }

func (f *FS) open(op, name string) (*os.File, error) {
	p, err := Resolve(f, op, name)
	if err != nil {
		return nil, err
	}
	fi, err := f.root.Lstat(p)
	if err != nil {
		return nil, named(op, name, err)
	}
	// A pipe would block us, a device could do worse.
	if !fi.Mode().IsRegular() && !fi.IsDir() {
		return nil, &fs.PathError{Op: op, Path: name, Err: errors.New("not a regular file or directory")}
	}
	file, err := f.root.OpenFile(p, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, named(op, name, err)
	}
	return file, nil
}

// ReadDir lists the directory name leads to, sorted by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	d, err := f.open("readdir", name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

// ReadFile returns the content of the file name leads to.
func (f *FS) ReadFile(name string) ([]byte, error) {
	p, err := Resolve(f, "read", name)
	if err != nil {
		return nil, err
	}
	fi, err := f.root.Lstat(p)
	if err != nil {
		return nil, named("read", name, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	b, err := f.root.ReadFile(p)
	return b, named("read", name, err)
}

// Stat describes what name leads to.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	p, err := Resolve(f, "stat", name)
	if err != nil {
		return nil, err
	}
	fi, err := f.root.Lstat(p)
	return fi, named("stat", name, err)
}

// Lstat describes name itself; only the directories before it are followed.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	p, err := f.parent("lstat", name)
	if err != nil {
		return nil, err
	}
	fi, err := f.root.Lstat(p)
	return fi, named("lstat", name, err)
}

// ReadLink returns the target of the symbolic link name as it is written there.
func (f *FS) ReadLink(name string) (string, error) {
	p, err := f.parent("readlink", name)
	if err != nil {
		return "", err
	}
	s, err := f.root.Readlink(p)
	return s, named("readlink", name, err)
}

// parent resolves all of name but its last element.
func (f *FS) parent(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	dir, err := Resolve(f, op, path.Dir(name))
	if err != nil {
		return "", err
	}
	return path.Join(dir, path.Base(name)), nil
}

// Resolve returns the path without symbolic links that name leads to in fsys,
// with fsys as the root of all absolute links and of "..". It works with any
// fs.ReadLinkFS whose Lstat and ReadLink take such a path; what the last
// element is, or whether it exists, is not looked at.
func Resolve(fsys fs.FS, op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	lstat, readlink := raw(fsys)
	var done []string
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		el := todo[0]
		todo = todo[1:]
		switch el {
		case "", ".":
			continue
		case "..":
			if len(done) > 0 {
				done = done[:len(done)-1]
			}
			continue
		}
		p := path.Join(path.Join(done...), el)
		fi, err := lstat(p)
		if err != nil && len(todo) > 0 {
			return "", named(op, name, err)
		}
		if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
			done = append(done, el)
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: op, Path: name, Err: syscall.ELOOP}
		}
		target, err := readlink(p)
		if err != nil {
			return "", named(op, name, err)
		}
		if strings.HasPrefix(target, "/") {
			done = nil
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	if len(done) == 0 {
		return ".", nil
	}
	return path.Join(done...), nil
}

// raw returns the functions that Resolve walks with. Our own FS must not go
// through its public ones: they resolve again.
func raw(fsys fs.FS) (func(string) (fs.FileInfo, error), func(string) (string, error)) {
	if f, ok := fsys.(*FS); ok {
		return f.root.Lstat, f.root.Readlink
	}
	return func(p string) (fs.FileInfo, error) { return fs.Lstat(fsys, p) },
		func(p string) (string, error) { return fs.ReadLink(fsys, p) }
}

// named gives err the name the caller used; os.Root's errors name the resolved path.
func named(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Exists reports whether name leads to anything in fsys.
func Exists(fsys fs.FS, name string) bool {
	_, err := fs.Stat(fsys, name)
	return err == nil
}

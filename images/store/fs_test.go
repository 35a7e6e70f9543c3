// SPDX-License-Identifier: GPL-2.0-or-later

package store_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"

	"slate/images/store"
)

func TestFS(t *testing.T) {
	s := open(t, store.Options{})
	tr, _, err := s.AddTar(t.Context(), bytes.NewReader(makeTar(t,
		reg("usr/lib/modules/6.1/vmlinuz", "kernel"), special(tar.TypeSymlink, "lib", "usr/lib"), reg("etc/os-release", "ID=debian\n"),
		special(tar.TypeSymlink, "vmlinuz", "/boot/vmlinuz"), special(tar.TypeSymlink, "boot/vmlinuz", "../../lib/modules/6.1/vmlinuz"))), "fs.tar")
	if err != nil {
		t.Fatal(err)
	}
	view := s.FS(tr)
	for _, path := range []string{"vmlinuz", "lib/modules/6.1/vmlinuz", "/boot/vmlinuz"} {
		if data, err := fs.ReadFile(view, path); err != nil || string(data) != "kernel" {
			t.Errorf("ReadFile(%s) = %q, %v", path, data, err)
		}
	}
	if target, err := fs.ReadLink(view, "boot/vmlinuz"); err != nil || target != "../../lib/modules/6.1/vmlinuz" {
		t.Errorf("ReadLink = %q, %v", target, err)
	}
	if fi, err := fs.Stat(view, "lib"); err != nil || !fi.IsDir() {
		t.Errorf("Stat(lib) = %v, %v, want a directory", fi, err)
	}
	if fi, err := fs.Lstat(view, "lib"); err != nil || fi.Mode().Type() != fs.ModeSymlink {
		t.Errorf("Lstat(lib) = %v, %v, want a symbolic link", fi, err)
	}
	if _, err := fs.ReadFile(view, "nope"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile(nope) = %v", err)
	}
	if _, err := fs.ReadFile(view, "usr"); err == nil {
		t.Error("ReadFile of a directory: no error")
	}
	plain, _, err := s.AddTar(t.Context(), bytes.NewReader(makeTar(t, reg("a/b", "1"), reg("a/c", "2"), reg("d", "3"))), "plain.tar")
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(onlyValid{s.FS(plain)}, "a/b", "a/c", "d"); err != nil {
		t.Error(err)
	}
}

// onlyValid refuses the paths that fs.FS wants refused and TreeFS accepts.
type onlyValid struct{ store.TreeFS }

func (f onlyValid) valid(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

func (f onlyValid) Open(name string) (fs.File, error) {
	if err := f.valid("open", name); err != nil {
		return nil, err
	}
	return f.TreeFS.Open(name)
}

func (f onlyValid) ReadFile(name string) ([]byte, error) {
	if err := f.valid("read", name); err != nil {
		return nil, err
	}
	return f.TreeFS.ReadFile(name)
}

func (f onlyValid) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.valid("readdir", name); err != nil {
		return nil, err
	}
	return f.TreeFS.ReadDir(name)
}

func (f onlyValid) Stat(name string) (fs.FileInfo, error) {
	if err := f.valid("stat", name); err != nil {
		return nil, err
	}
	return f.TreeFS.Stat(name)
}

func (f onlyValid) Lstat(name string) (fs.FileInfo, error) {
	if err := f.valid("lstat", name); err != nil {
		return nil, err
	}
	return f.TreeFS.Lstat(name)
}

func (f onlyValid) ReadLink(name string) (string, error) {
	if err := f.valid("readlink", name); err != nil {
		return "", err
	}
	return f.TreeFS.ReadLink(name)
}

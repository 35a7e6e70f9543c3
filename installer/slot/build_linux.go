// SPDX-License-Identifier: GPL-2.0-or-later

package slot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/tree"
)

// build makes the tree in dir out of contents that lie in files named by their
// digests, on the same file system. The first file with a content becomes a further
// name of it, so that nothing is written twice and all of it is still there if the
// power fails; any other is a copy.
func build(ctx context.Context, t *tree.Tree, blobs, dir string) error {
	root, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return err
	}
	defer root.Close()
	from, err := openDir(unix.AT_FDCWD, blobs)
	if err != nil {
		return err
	}
	defer from.Close()
	b := &builder{ctx: ctx, t: t, root: int(root.Fd()), blobs: int(from.Fd()), made: map[uint32]uint32{}, used: map[images.Digest]bool{}}
	return b.fill(root, 0)
}

type builder struct {
	ctx         context.Context
	t           *tree.Tree
	root, blobs int
	made        map[uint32]uint32 // the name by which an inode with several was made, by its first name
	used        map[images.Digest]bool
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// fill makes what lies in directory d and then gives d its attributes: making names
// in it changes its time.
func (b *builder) fill(f *os.File, d uint32) error {
	for i := range b.t.Children(d) {
		if b.ctx.Err() != nil {
			return context.Cause(b.ctx)
		}
		if err := b.entry(int(f.Fd()), i); err != nil {
			var deeper *EntryError
			if errors.As(err, &deeper) {
				return err
			}
			return &EntryError{b.t.Path(i), err}
		}
	}
	return attributes(f, b.t.Entry(d))
}

// EntryError names the entry of a tree that something is wrong with.
type EntryError struct {
	Path string
	Err  error
}

func (e *EntryError) Error() string { return "/" + e.Path + ": " + e.Err.Error() }
func (e *EntryError) Unwrap() error { return e.Err }

func (b *builder) entry(at int, i uint32) error {
	e, name := b.t.Entry(i), b.t.Name(i)
	if e.Type == tree.Dir {
		if err := unix.Mkdirat(at, name, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		f, err := openDir(at, name)
		if err != nil {
			return err
		}
		defer f.Close()
		return b.fill(f, i)
	}
	if e.Nlink > 1 {
		if made, ok := b.made[b.t.Canonical(i)]; ok {
			return unix.Linkat(b.root, b.t.Path(made), at, name, 0)
		}
		b.made[b.t.Canonical(i)] = i
	}
	if e.Type == tree.File {
		return b.file(at, name, e)
	}
	return special(at, name, e)
}

func (b *builder) file(at int, name string, e tree.Entry) error {
	flags := unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	first := !b.used[e.Digest]
	b.used[e.Digest] = true
	if first {
		if err := unix.Linkat(b.blobs, e.Digest.String(), at, name, 0); err != nil {
			return fmt.Errorf("give the content its name: %w", err)
		}
	} else {
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	fd, err := unix.Openat(at, name, flags, 0o600)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if !first {
		err = b.copyTo(f, e)
	}
	if err == nil {
		err = attributes(f, e)
	}
	return errors.Join(err, f.Close())
}

// copyTo copies a content that has its name elsewhere already. That may have no
// permission to be read by its owner, but root needs none.
func (b *builder) copyTo(f *os.File, e tree.Entry) error {
	fd, err := unix.Openat(b.blobs, e.Digest.String(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), e.Digest.String())
	defer in.Close()
	_, err = io.Copy(f, in)
	return err
}

// attributes gives an open file or directory what its entry says. The order
// matters: a new owner takes set-id bits and capabilities away.
func attributes(f *os.File, e tree.Entry) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(e.UID), int(e.GID)); err != nil {
		return fmt.Errorf("give to %d:%d: %w", e.UID, e.GID, err)
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return fmt.Errorf("set mode %o: %w", e.Mode, err)
	}
	for _, x := range e.Xattrs {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
	}
	ts := timespecs(e)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), ts[:], 0); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// rootAttributes gives the slot's root its own once more: our directory has changed
// its time.
func rootAttributes(dir string, t *tree.Tree) error {
	f, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return attributes(f, t.Entry(0))
}

func timespecs(e tree.Entry) [2]unix.Timespec {
	sec, ns := e.MtimeNs/1e9, e.MtimeNs%1e9
	if ns < 0 {
		sec, ns = sec-1, ns+1e9
	}
	ts := unix.Timespec{Sec: sec, Nsec: ns}
	return [2]unix.Timespec{ts, ts}
}

var typeBits = map[tree.Type]uint32{tree.File: unix.S_IFREG, tree.Dir: unix.S_IFDIR, tree.Symlink: unix.S_IFLNK,
	tree.Block: unix.S_IFBLK, tree.Char: unix.S_IFCHR, tree.Fifo: unix.S_IFIFO, tree.Socket: unix.S_IFSOCK}

// special makes what is neither file nor directory.
func special(at int, name string, e tree.Entry) error {
	var err error
	if e.Type == tree.Symlink {
		err = unix.Symlinkat(e.Target, at, name)
	} else {
		err = unix.Mknodat(at, name, typeBits[e.Type]|0o600, int(unix.Mkdev(e.Major, e.Minor)))
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", e.Type, err)
	}
	if err := unix.Fchownat(at, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("give to %d:%d: %w", e.UID, e.GID, err)
	}
	if e.Type != tree.Symlink {
		if err := unix.Fchmodat(at, name, e.Mode, 0); err != nil {
			return fmt.Errorf("set mode %o: %w", e.Mode, err)
		}
	}
	ts := timespecs(e)
	return unix.UtimesNanoAt(at, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

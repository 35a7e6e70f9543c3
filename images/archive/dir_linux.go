// SPDX-License-Identifier: GPL-2.0-or-later

package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"slate/images/tree"
)

// ErrNotEmpty says that the directory to write to has something in it.
var ErrNotEmpty = errors.New("the directory is not empty")

// Dir writes a tree into a directory, which must be empty or not there. Only
// root can give owners, devices and capabilities. If it fails, the directory
// holds a part of the tree.
func Dir(ctx context.Context, blobs Blobs, t *tree.Tree, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if list, err := os.ReadDir(dir); err != nil {
		return err
	} else if len(list) > 0 {
		return &os.PathError{Op: "export", Path: dir, Err: ErrNotEmpty}
	}
	// Every name is made below a descriptor and no link is followed, so
	// nothing lands elsewhere, and paths may be longer than the kernel takes.
	root, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer root.Close()
	w := &dirWriter{ctx: ctx, blobs: blobs, t: t, root: int(root.Fd()), made: map[uint32]uint32{}, buf: make([]byte, 1<<18)}
	return w.fill(root, 0)
}

type dirWriter struct {
	ctx   context.Context
	blobs Blobs
	t     *tree.Tree
	root  int
	made  map[uint32]uint32 // the name by which an inode with several was made, by its first name
	buf   []byte
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// fill makes what lies in directory d and then gives d its attributes: making
// names in it changes its time.
func (w *dirWriter) fill(f *os.File, d uint32) error {
	for i := range w.t.Children(d) {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if err := w.entry(int(f.Fd()), i); err != nil {
			var deeper *exportError
			if errors.As(err, &deeper) {
				return err
			}
			return &exportError{w.t.Path(i), err}
		}
	}
	return w.attributes(f, d)
}

// exportError names the entry, once.
type exportError struct {
	path string
	err  error
}

func (e *exportError) Error() string { return e.path + ": " + e.err.Error() }
func (e *exportError) Unwrap() error { return e.err }

// Hint says why a user other than root gets this.
func (e *exportError) Hint() string {
	if errors.Is(e.err, unix.EPERM) && os.Geteuid() != 0 {
		return "owners, devices and capabilities can only be written by root; or export a tar archive"
	}
	return ""
}

func (w *dirWriter) entry(at int, i uint32) error {
	e, name := w.t.Entry(i), w.t.Name(i)
	if e.Type == tree.Dir {
		if err := unix.Mkdirat(at, name, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		f, err := openDir(at, name)
		if err != nil {
			return err
		}
		defer f.Close()
		return w.fill(f, i)
	}
	if e.Nlink > 1 {
		// A walk can come by another name of the inode before its first.
		if made, ok := w.made[w.t.Canonical(i)]; ok {
			if err := unix.Linkat(w.root, w.t.Path(made), at, name, 0); err != nil {
				return fmt.Errorf("link to %s: %w", w.t.Path(made), err)
			}
			return nil
		}
		w.made[w.t.Canonical(i)] = i
	}
	if e.Type == tree.File {
		return w.file(at, name, i)
	}
	return special(at, name, e)
}

func (w *dirWriter) file(at int, name string, i uint32) error {
	fd, err := unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	err = copyBlob(w.blobs, w.t.Entry(i), f, w.buf)
	if err == nil {
		err = w.attributes(f, i)
	}
	return errors.Join(err, f.Close())
}

// attributes gives an open file or directory what its entry says. The order
// matters: a new owner takes set-id bits and capabilities away.
func (w *dirWriter) attributes(f *os.File, i uint32) error {
	e, fd := w.t.Entry(i), int(f.Fd())
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
	// Not by way of the path, which may be too long.
	ts := timespecs(e)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), ts[:], 0); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

func timespecs(e tree.Entry) [2]unix.Timespec {
	sec, ns := e.MtimeNs/1e9, e.MtimeNs%1e9
	if ns < 0 {
		sec, ns = sec-1, ns+1e9
	}
	ts := unix.Timespec{Sec: sec, Nsec: ns}
	return [2]unix.Timespec{ts, ts}
}

var typeBits = map[tree.Type]uint32{tree.Block: unix.S_IFBLK, tree.Char: unix.S_IFCHR, tree.Fifo: unix.S_IFIFO, tree.Socket: unix.S_IFSOCK}

// special makes what is neither file nor directory.
func special(at int, name string, e tree.Entry) error {
	var err error
	if e.Type == tree.Symlink {
		err = unix.Symlinkat(e.Target, at, name)
	} else {
		err = unix.Mknodat(at, name, typeBits[e.Type]|0o600, int(unix.Mkdev(e.Major, e.Minor)))
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", strings.Replace(e.Type.String(), "link", "symbolic link", 1), err)
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
	if err := unix.UtimesNanoAt(at, name, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

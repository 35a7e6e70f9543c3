// SPDX-License-Identifier: GPL-2.0-or-later

package slot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/tree"
)

// Verify reads all that lies in a slot, from the disk and not from memory, and
// compares it with the tree: contents, owners, modes, links, devices, attributes,
// and that nothing else is there but our directory. It ends with the first thing that is
// wrong. progress may be nil.
func Verify(ctx context.Context, dir string, t *tree.Tree, progress func(done, all int)) error {
	v := &verifier{ctx: ctx, t: t, progress: progress}
	return v.run(dir)
}

// Fault is something wrong in a slot.
type Fault struct {
	Path  string // without a slash before it
	Err   error
	entry uint32 // of the tree; 0: the tree has no such entry
}

func (f Fault) String() string { return "/" + f.Path + ": " + f.Err.Error() }

// Check is Verify that finds all that is wrong. The contents of those files are read
// that read, by their number in the tree, says; nil: of all of them.
func Check(ctx context.Context, dir string, t *tree.Tree, read func(uint32) bool, progress func(done, all int)) ([]Fault, error) {
	v := &verifier{ctx: ctx, t: t, progress: progress, read: read, collect: true}
	err := v.run(dir)
	return v.faults, err
}

// Share picks every parts-th file, beginning with the part that is given.
func Share(part, parts int) func(uint32) bool {
	return func(i uint32) bool { return parts <= 1 || int(i)%parts == part%parts }
}

type verifier struct {
	ctx      context.Context
	t        *tree.Tree
	progress func(done, all int)
	read     func(uint32) bool
	collect  bool // faults, instead of ending with the first
	faults   []Fault
	done     int
	inodes   map[uint32]uint64 // of names that share one, by the first name
}

func (v *verifier) run(dir string) error {
	v.inodes = map[uint32]uint64{}
	root, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return v.dir(root, 0)
}

// bad takes a fault down, or ends with it.
func (v *verifier) bad(i uint32, path string, err error) error {
	if v.ctx.Err() != nil {
		return context.Cause(v.ctx)
	}
	if !v.collect {
		return &EntryError{path, err}
	}
	v.faults = append(v.faults, Fault{path, err, i})
	if len(v.faults) > maxFaults {
		return fmt.Errorf("more than %d files are not the image's", maxFaults)
	}
	return nil
}

// maxFaults is how many are listed: a tree with more is not mended file by file.
const maxFaults = 10000

func (v *verifier) dir(f *os.File, d uint32) error {
	names, err := f.Readdirnames(-1)
	if err != nil {
		return v.bad(d, v.t.Path(d), err)
	}
	for i := range v.t.Children(d) {
		fault, err := v.entry(int(f.Fd()), i)
		if err == nil && fault != nil {
			err = v.bad(i, v.t.Path(i), fault)
		}
		if err != nil {
			return err
		}
	}
	for _, n := range names {
		if d == 0 && (n == Dir || n == "lost+found") {
			continue
		}
		if _, ok := v.t.Lookup(d, n); !ok {
			if err := v.bad(0, strings.TrimPrefix(filepath.Join(v.t.Path(d), n), "./"), errors.New("is not of the image")); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry looks at an entry: what is wrong with it, and an error if that is the end.
func (v *verifier) entry(at int, i uint32) (fault, err error) {
	if v.ctx.Err() != nil {
		return nil, context.Cause(v.ctx)
	}
	e, name := v.t.Entry(i), v.t.Name(i)
	fault = v.attributes(at, i, e, name)
	if fault != nil && !(v.collect && e.Type == tree.Dir) {
		return fault, nil
	}
	switch e.Type {
	case tree.Symlink:
		buf := make([]byte, tree.MaxTarget+1)
		n, err := unix.Readlinkat(at, name, buf)
		if err != nil || string(buf[:max(n, 0)]) != e.Target {
			return fmt.Errorf("it leads to %q, not to %q (%v)", buf[:max(n, 0)], e.Target, err), nil
		}
	case tree.Dir:
		f, err := openDir(at, name)
		if err != nil {
			return err, nil
		}
		defer f.Close()
		return fault, v.dir(f, i)
	case tree.File:
		return v.file(at, name, i, e), nil
	}
	return nil, nil
}

// attributes compares what stat(2) says, and that names of one file are of one file.
func (v *verifier) attributes(at int, i uint32, e tree.Entry, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	mode := typeBits[e.Type] | e.Mode
	if e.Type == tree.Symlink {
		mode = st.Mode&^unix.S_IFMT | unix.S_IFLNK
	}
	switch {
	case st.Mode != mode:
		return fmt.Errorf("its mode is %o, not %o", st.Mode, mode)
	case st.Uid != e.UID || st.Gid != e.GID:
		return fmt.Errorf("it belongs to %d:%d, not to %d:%d", st.Uid, st.Gid, e.UID, e.GID)
	case (e.Type == tree.Block || e.Type == tree.Char) && st.Rdev != unix.Mkdev(e.Major, e.Minor):
		return errors.New("it is another device")
	case e.Type == tree.File && st.Size != e.Size:
		return fmt.Errorf("it has %d bytes, not %d", st.Size, e.Size)
	case st.Mtim.Nano() != e.MtimeNs:
		return errors.New("its time is another")
	}
	if e.Type != tree.Dir && e.Nlink > 1 {
		c := v.t.Canonical(i)
		if ino, ok := v.inodes[c]; ok && ino != st.Ino {
			return errors.New("it is not the same file under another name")
		}
		v.inodes[c] = st.Ino
	}
	return nil
}

func (v *verifier) file(at int, name string, i uint32, e tree.Entry) error {
	if v.done++; v.progress != nil {
		v.progress(v.done, v.t.Len())
	}
	if v.read != nil && !v.read(i) || e.Nlink > 1 && v.t.Canonical(i) != i {
		return nil
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	// What is in memory is what was written, not what the disk has of it.
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if images.Digest(h.Sum(nil)) != e.Digest {
		return errors.New("its content is another")
	}
	for _, x := range e.Xattrs {
		buf := make([]byte, len(x.Value)+1)
		if n, err := unix.Fgetxattr(fd, x.Name, buf); err != nil || string(buf[:n]) != string(x.Value) {
			return fmt.Errorf("its attribute %s is another (%v)", x.Name, err)
		}
	}
	return nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/tree"
)

// AddDir stores the files below dir and their tree list. The directory is read
// with file descriptors only, so paths may be longer than the kernel takes in
// one piece. Other file systems mounted below it, and sockets, are left out. Files
// that have not changed since the directory was added before are not read again.
func (s *Store) AddDir(ctx context.Context, dir string) (*tree.Tree, images.Digest, error) {
	return s.addDir(ctx, dir, true)
}

// AddDirAfresh does the same but reads every file, and remembers none: for a
// directory that will not come again, or whose time stamps are not to be believed.
func (s *Store) AddDirAfresh(ctx context.Context, dir string) (*tree.Tree, images.Digest, error) {
	return s.addDir(ctx, dir, false)
}

func (s *Store) addDir(ctx context.Context, dir string, remember bool) (*tree.Tree, images.Digest, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, images.Digest{}, err
	}
	defer root.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return nil, images.Digest{}, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, images.Digest{}, &os.PathError{Op: "import", Path: dir, Err: unix.ENOTDIR}
	}
	g, err := s.newGatherer(ctx, "reading")
	if err != nil {
		return nil, images.Digest{}, err
	}
	w := &walker{g: g, top: dir, dev: st.Dev, seen: map[inodeKey]string{}}
	if remember {
		if w.cache, err = s.openStatCache(root, &st); err != nil {
			g.in.abort()
			return nil, images.Digest{}, err
		}
	}
	t, d, err := g.finish(w.dir(root, ".", &st))
	if err == nil {
		w.cache.save(s)
		s.log.Debug("directory read", "dir", dir, "entries", t.Len(), "unchanged", w.unread)
	}
	return t, d, err
}

// inodeKey tells inodes apart.
type inodeKey struct{ dev, ino uint64 }

type walker struct {
	g    *gatherer
	top  string
	dev  uint64
	seen map[inodeKey]string // first path of inodes with several names

	cache  *statCache // nil: nothing is known
	unread int        // files that were not read, as they have not changed
}

func (w *walker) fail(path, op string, err error) error {
	return &os.PathError{Op: op, Path: filepath.Join(w.top, path), Err: err}
}

// dir adds a directory that is open as f, and all below it.
func (w *walker) dir(f *os.File, path string, st *unix.Stat_t) error {
	e := entryOf(st)
	var err error
	if e.Xattrs, err = fileXattrs(int(f.Fd())); err != nil {
		return w.fail(path, "read attributes of", err)
	}
	w.g.add(path, e)
	names, err := f.Readdirnames(-1)
	if err != nil {
		return w.fail(path, "list", err)
	}
	for _, name := range names {
		if w.g.ctx.Err() != nil {
			return context.Cause(w.g.ctx)
		}
		sub := name
		if path != "." {
			sub = path + "/" + name
		}
		if err := w.entry(int(f.Fd()), name, sub); err != nil {
			return err
		}
	}
	return nil
}

// entry adds what is called name in the directory dirfd.
func (w *walker) entry(dirfd int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.fail(path, "stat", err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		w.g.s.log.Debug("socket left out", "path", path)
		return nil
	}
	if kind == unix.S_IFDIR {
		return w.subdir(dirfd, name, path, &st)
	}
	if w.g.s.leavesOut(path, st.Size) {
		return nil
	}
	if st.Nlink > 1 {
		key := inodeKey{st.Dev, st.Ino}
		if first, ok := w.seen[key]; ok {
			w.g.link(path, first)
			return nil
		}
		w.seen[key] = path
	}
	if kind == unix.S_IFREG {
		if known, err := w.known(path, &st); known || err != nil {
			return err
		}
		return w.file(dirfd, name, path)
	}
	e := entryOf(&st)
	if kind == unix.S_IFLNK {
		var err error
		if e.Target, err = readlinkat(dirfd, name); err != nil {
			return w.fail(path, "readlink", err)
		}
	}
	w.g.add(path, e)
	return nil
}

func (w *walker) subdir(dirfd int, name, path string, st *unix.Stat_t) error {
	if st.Dev != w.dev {
		w.g.s.log.Debug("other file system left out", "path", path)
		w.g.add(path, entryOf(st))
		return nil
	}
	f, err := openat(dirfd, name, unix.O_DIRECTORY)
	if err != nil {
		return w.fail(path, "open", err)
	}
	defer f.Close()
	return w.dir(f, path, st)
}

// known adds a file whose content is in the store and known not to have changed.
func (w *walker) known(path string, st *unix.Stat_t) (bool, error) {
	if st.Dev != w.dev {
		return false, nil
	}
	c, ok := w.cache.find(st)
	if !ok {
		return false, nil
	}
	if there, err := w.g.s.has(w.g.in.blobs, c.digest); err != nil || !there {
		return false, err
	}
	e := entryOf(st)
	e.Size, e.Digest, e.Xattrs = st.Size, c.digest, c.xattrs
	w.g.done(w.g.add(path, e))
	w.unread++
	return true, nil
}

func (w *walker) file(dirfd int, name, path string) error {
	f, err := openat(dirfd, name, unix.O_NONBLOCK)
	if err != nil {
		return w.fail(path, "open", err)
	}
	st := w.g.add(path, tree.Entry{Type: tree.File})
	w.g.group.Go(func() error {
		defer f.Close()
		if err := w.read(f, st); err != nil {
			return w.fail(path, "read", err)
		}
		w.g.done(st)
		return nil
	})
	return nil
}

// errChanging says that a file was written to while it was read.
var errChanging = errors.New("the file changes while it is read")

// read stores the file's content and fills in its entry. A file that is
// written to meanwhile is read anew a few times.
func (w *walker) read(f *os.File, st *step) error {
	for range 3 {
		var before, after unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &before); err != nil {
			return err
		}
		if before.Mode&unix.S_IFMT != unix.S_IFREG {
			return errChanging
		}
		memorable := before.Dev == w.dev && w.cache.prepare(&before, w.g.s.now())
		e := entryOf(&before)
		var err error
		if e.Xattrs, err = fileXattrs(int(f.Fd())); err != nil {
			return err
		}
		if err := w.store(f, before.Size, &e); err != nil && !errors.Is(err, errChanging) {
			return err
		} else if err == nil {
			if err := unix.Fstat(int(f.Fd()), &after); err != nil {
				return err
			}
			if e.Size == before.Size && stampOf(&before) == stampOf(&after) {
				st.e = e
				if memorable {
					w.cache.learn(&before, &e)
				}
				return nil
			}
		}
		if w.g.ctx.Err() != nil {
			return context.Cause(w.g.ctx)
		}
	}
	return errChanging
}

// store hashes the file and stores it if it is new. Small files are read into
// memory. Large ones are hashed first, since most of them are in the store
// already, and read again, from the page cache, only if they are not.
func (w *walker) store(f *os.File, size int64, e *tree.Entry) error {
	buf := getBuffer()
	defer putBuffer(buf)
	if size < bufferSize {
		n, err := readAllAt(f, *buf)
		if err != nil {
			return err
		}
		data := (*buf)[:n]
		e.Size, e.Digest = int64(n), sha256.Sum256(data)
		return w.g.in.bytesBlob(e.Digest, data)
	}
	sum := func(also io.Writer) (d images.Digest, n int64, err error) {
		h := sha256.New()
		var to io.Writer = h
		if also != nil {
			to = io.MultiWriter(h, also)
		}
		src := &ctxReader{w.g.ctx, io.NewSectionReader(f, 0, 1<<62)}
		n, err = io.CopyBuffer(onlyWriter{to}, onlyReader{src}, *buf)
		h.Sum(d[:0])
		return d, n, err
	}
	var err error
	if e.Digest, e.Size, err = sum(nil); err != nil {
		return err
	}
	return w.g.in.write(e.Digest, e.Size, func(out *os.File) error {
		sw := &sparseWriter{f: out}
		d, _, err := sum(sw)
		if err == nil && d != e.Digest {
			err = errChanging
		}
		if err == nil {
			err = sw.finish()
		}
		return err
	})
}

// readAllAt reads from the beginning until the end of f or of buf.
func readAllAt(f *os.File, buf []byte) (int, error) {
	n, err := f.ReadAt(buf, 0)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func openat(dirfd int, name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

func readlinkat(dirfd int, name string) (string, error) {
	buf := make([]byte, tree.MaxTarget+2)
	n, err := unix.Readlinkat(dirfd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

var statTypes = map[uint32]tree.Type{
	unix.S_IFREG: tree.File, unix.S_IFDIR: tree.Dir, unix.S_IFLNK: tree.Symlink, unix.S_IFBLK: tree.Block,
	unix.S_IFCHR: tree.Char, unix.S_IFIFO: tree.Fifo, unix.S_IFSOCK: tree.Socket,
}

func entryOf(st *unix.Stat_t) tree.Entry {
	e := tree.Entry{
		Type: statTypes[st.Mode&unix.S_IFMT], Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MtimeNs: nanoseconds(time.Unix(st.Mtim.Unix())),
	}
	if e.Type == tree.Block || e.Type == tree.Char {
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	return e
}

// fileXattrs reads the extended attributes that belong to an image.
func fileXattrs(fd int) ([]tree.Xattr, error) {
	list, err := growing(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if errors.Is(err, unix.ENOTSUP) || len(list) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var xs []tree.Xattr
	for name := range strings.SplitSeq(string(bytes.TrimSuffix(list, []byte{0})), "\x00") {
		if !keepXattr(name) {
			continue
		}
		value, err := growing(func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // gone since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		xs = append(xs, tree.Xattr{Name: name, Value: value})
	}
	return xs, nil
}

// growing calls get with a buffer that is large enough. Asked with an empty
// one, get says how much it has.
func growing(get func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := get(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = get(buf)
		if errors.Is(err, unix.ERANGE) {
			continue // it grew in between
		}
		return buf[:max(n, 0)], err
	}
}

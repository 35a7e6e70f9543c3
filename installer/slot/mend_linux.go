// SPDX-License-Identifier: GPL-2.0-or-later

package slot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/durable"
	"slate/images/transfer"
	"slate/images/tree"
)

// Mend replaces what is wrong in the slot that is mounted at Dir. While it is at it the
// slot is none, and stays so if it is interrupted, until EndMend.
type Mend struct {
	Dir    string
	Tree   *tree.Tree
	Faults []Fault // as Check found them
	// Fetch brings contents to the sink, which tells those that are not needed as there.
	Fetch func(context.Context, transfer.Sink) error
	Note  func(string, ...any)
}

// Run mends. When it returns nil, what was wrong is as it should be, on the disk.
func (m Mend) Run(ctx context.Context) error {
	ours := filepath.Join(m.Dir, Dir)
	if err := durable.WriteFile(filepath.Join(ours, mendFile), nil, 0o600); err != nil {
		return err
	}
	blobs := filepath.Join(ours, blobDir)
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		return err
	}
	make, dirs := m.plan()
	s := &sink{dir: blobs, sure: map[images.Digest]bool{}}
	need := m.contents(make)
	if _, err := s.sift(ctx, need); err != nil {
		return err
	}
	if len(need) > len(s.sure) {
		if err := m.Fetch(ctx, needed{s, need}); err != nil {
			return err
		}
	}
	for d := range need {
		if !s.Has(d) {
			return fmt.Errorf("the content %s cannot be had", d.Short())
		}
	}
	for _, f := range m.Faults {
		if f.entry == 0 {
			if err := os.RemoveAll(filepath.Join(m.Dir, f.Path)); err != nil {
				return err
			}
			if i, ok := m.Tree.Find(filepath.Dir(f.Path)); ok {
				dirs[i] = true
			}
		}
	}
	if err := m.make(ctx, make, blobs); err != nil {
		return err
	}
	if err := m.attributes(dirs); err != nil {
		return err
	}
	return m.verify(ctx, make, s.dir)
}

// EndMend makes a slot that was mended one again.
func EndMend(dir string) error { return durable.Remove(filepath.Join(dir, Dir, mendFile)) }

// plan tells what has to be made anew, in the order of the tree, and the directories
// whose attributes have to be set.
func (m Mend) plan() (anew []uint32, dirs map[uint32]bool) {
	dirs = map[uint32]bool{}
	want := map[uint32]bool{}
	for _, f := range m.Faults {
		if f.entry == 0 {
			continue
		}
		info, err := os.Lstat(filepath.Join(m.Dir, f.Path))
		if m.Tree.Type(f.entry) == tree.Dir && err == nil && info.IsDir() {
			dirs[f.entry] = true
			continue
		}
		want[f.entry] = true
		if e := m.Tree.Entry(f.entry); e.Type != tree.Dir && e.Nlink > 1 { // all its names
			for i := range uint32(m.Tree.Len()) {
				if m.Tree.Type(i) != tree.Dir && m.Tree.Canonical(i) == m.Tree.Canonical(f.entry) {
					want[i] = true
				}
			}
		}
	}
	for i := range want {
		if !m.below(i, want) {
			anew = append(anew, i)
			dirs[m.Tree.Parent(i)] = true
		}
	}
	slices.Sort(anew)
	return anew, dirs
}

// below tells whether an entry lies in a directory that is made anew.
func (m Mend) below(i uint32, want map[uint32]bool) bool {
	for i != 0 {
		if i = m.Tree.Parent(i); want[i] {
			return true
		}
	}
	return false
}

// contents are those of the files that are made anew.
func (m Mend) contents(anew []uint32) map[images.Digest]int64 {
	out := map[images.Digest]int64{}
	var add func(uint32)
	add = func(i uint32) {
		switch m.Tree.Type(i) {
		case tree.File:
			b := m.Tree.Blob(i)
			out[b.Digest] = b.Size
		case tree.Dir:
			for c := range m.Tree.Children(i) {
				add(c)
			}
		}
	}
	for _, i := range anew {
		add(i)
	}
	return out
}

func (m Mend) make(ctx context.Context, anew []uint32, blobs string) error {
	root, err := openDir(unix.AT_FDCWD, m.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	from, err := openDir(unix.AT_FDCWD, blobs)
	if err != nil {
		return err
	}
	defer from.Close()
	b := &builder{ctx: ctx, t: m.Tree, root: int(root.Fd()), blobs: int(from.Fd()), made: map[uint32]uint32{}, used: map[images.Digest]bool{}}
	for _, i := range anew {
		path := m.Tree.Path(i)
		m.Note("mending /%s", path)
		if err := os.RemoveAll(filepath.Join(m.Dir, path)); err != nil {
			return err
		}
		parent, err := openDir(unix.AT_FDCWD, filepath.Join(m.Dir, filepath.Dir(path)))
		if err != nil {
			return err
		}
		err = b.entry(int(parent.Fd()), i)
		parent.Close()
		if err != nil {
			return &EntryError{path, err}
		}
	}
	return nil
}

func (m Mend) attributes(dirs map[uint32]bool) error {
	for i := range dirs {
		f, err := openDir(unix.AT_FDCWD, filepath.Join(m.Dir, m.Tree.Path(i)))
		if err != nil {
			return err
		}
		err = attributes(f, m.Tree.Entry(i))
		f.Close()
		if err != nil {
			return &EntryError{m.Tree.Path(i), err}
		}
	}
	return nil
}

// verify looks at the whole tree, and reads from the disk what was made anew.
func (m Mend) verify(ctx context.Context, anew []uint32, blobs string) error {
	if err := syncfs(m.Dir); err != nil {
		return err
	}
	read := map[uint32]bool{}
	for _, i := range anew {
		read[i] = true
	}
	faults, err := Check(ctx, m.Dir, m.Tree, func(i uint32) bool { return read[i] || m.below(i, read) }, nil)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return fmt.Errorf("mended, and still not as it should be: %s", faults[0])
	}
	if err := os.RemoveAll(blobs); err != nil {
		return err
	}
	if err := rootAttributes(m.Dir, m.Tree); err != nil {
		return err
	}
	return syncfs(m.Dir)
}

// needed is a sink that wants only some contents.
type needed struct {
	*sink
	want map[images.Digest]int64
}

func (n needed) Has(d images.Digest) bool {
	_, ok := n.want[d]
	return !ok || n.sink.Has(d)
}

// Source is a slot as a place where contents can be had.
type Source struct {
	dir   string
	tree  *tree.Tree
	files map[images.Digest]string
}

// NewSource makes a source of the slot mounted at dir, which holds a tree or did.
func NewSource(dir string, t *tree.Tree) *Source {
	s := &Source{dir: dir, tree: t, files: map[images.Digest]string{}}
	for i := range uint32(t.Len()) {
		if t.Type(i) == tree.File {
			if d := t.Blob(i).Digest; s.files[d] == "" {
				s.files[d] = t.Path(i)
			}
		}
	}
	return s
}

// Tree is what the source holds.
func (s *Source) Tree() *tree.Tree { return s.tree }

// Open opens a content of the source. It may turn out to be damaged.
func (s *Source) Open(d images.Digest) (*os.File, error) {
	path, ok := s.files[d]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return os.Open(filepath.Join(s.dir, path))
}

// Give brings those contents to the sink that it lacks and the source has, each
// verified, and tells how many and how many bytes. What the source has wrong is left out.
func (s *Source) Give(ctx context.Context, blobs func(func(images.Blob) bool), to transfer.Sink) (n int, bytes int64, err error) {
	for b := range blobs {
		if ctx.Err() != nil {
			return n, bytes, context.Cause(ctx)
		}
		path, ok := s.files[b.Digest]
		if !ok || to.Has(b.Digest) {
			continue
		}
		ok, err := s.give(ctx, path, b, to)
		if err != nil {
			return n, bytes, err
		}
		if ok {
			n, bytes = n+1, bytes+b.Size
		}
	}
	return n, bytes, nil
}

// give copies one content. On a file system that can, the copy shares the data.
func (s *Source) give(ctx context.Context, path string, b images.Blob, to transfer.Sink) (bool, error) {
	f, err := os.Open(filepath.Join(s.dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if k, ok := to.(cloner); ok {
		return k.clone(f, b)
	}
	h := sha256.New()
	if n, err := io.Copy(h, f); err != nil || n != b.Size || images.Digest(h.Sum(nil)) != b.Digest {
		return false, nil // damaged here too
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	return true, to.Put(ctx, b, f)
}

// cloner is a sink that can take a file's data without copying them.
type cloner interface {
	clone(*os.File, images.Blob) (bool, error)
}

// clone takes a content out of a file of the same file system, or copies it. It is
// counted as there only if it is what it should be.
func (s *sink) clone(from *os.File, b images.Blob) (bool, error) {
	name := filepath.Join(s.dir, b.Digest.String())
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return false, err
	}
	if err := unix.IoctlFileClone(int(out.Fd()), int(from.Fd())); err != nil {
		if _, err := io.Copy(out, from); err != nil {
			out.Close()
			os.Remove(name)
			return false, err
		}
	}
	if err := out.Close(); err != nil {
		return false, err
	}
	if !holds(name, b.Digest, b.Size) {
		return false, os.Remove(name)
	}
	s.mu.Lock()
	s.sure[b.Digest] = true
	s.mu.Unlock()
	return true, nil
}

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
	"sync"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/durable"
	"slate/images/transfer"
	"slate/images/tree"
)

// Fill fills the slot that is mounted at dir with a version. What an earlier try
// has fetched is verified and used. Extra contents, such as the kernel, are fetched
// too and handed to take before the slot is marked complete.
type Fill struct {
	Dir    string
	Signed transfer.Signed
	Tree   *tree.Tree
	Fetch  func(context.Context, *tree.Tree, []images.Blob, transfer.Sink) error
	Note   func(string, ...any)
	// Extra are contents beside the tree. Take gets them once they are verified, by
	// the files that hold them.
	Extra []images.Blob
	Take  func(open func(images.Digest) (*os.File, error)) error
	// Progress is told how many files of the tree are verified; may be nil.
	Progress func(done, all int)
	// Clear: what is in the slot goes before anything is fetched, to make room.
	Clear bool
}

// Run fills the slot. When it returns nil the slot is whole, verified, and on the disk.
func (f Fill) Run(ctx context.Context) error {
	ours := filepath.Join(f.Dir, Dir)
	if err := os.MkdirAll(filepath.Join(ours, blobDir), 0o700); err != nil {
		return err
	}
	// From here on the slot is none, whatever it was before.
	if err := RemoveFlag(f.Dir); err != nil {
		return err
	}
	if err := durable.Remove(filepath.Join(ours, completeFile)); err != nil {
		return err
	}
	if err := durable.RemoveTemps(ours); err != nil {
		return err
	}
	s := &sink{dir: filepath.Join(ours, blobDir), sure: map[images.Digest]bool{}}
	if n, err := s.sift(ctx, f.wanted()); err != nil {
		return err
	} else if n > 0 {
		f.Note("%d files are there from an earlier try", n)
	}
	if f.Clear {
		if err := clearTree(f.Dir); err != nil {
			return err
		}
	}
	if err := writeMeta(f.Dir, f.Signed.Text, f.Signed.Signature, f.Tree); err != nil {
		return err
	}
	if err := f.Fetch(ctx, f.Tree, f.Extra, s); err != nil {
		return err
	}
	if f.Take != nil {
		if err := f.Take(s.OpenBlob); err != nil {
			return err
		}
	}
	f.Note("making the tree")
	if err := clearTree(f.Dir); err != nil {
		return err
	}
	if err := build(ctx, f.Tree, s.dir, f.Dir); err != nil {
		return err
	}
	f.Note("writing to the disk")
	if err := syncfs(f.Dir); err != nil {
		return err
	}
	f.Note("verifying")
	if err := Verify(ctx, f.Dir, f.Tree, f.Progress); err != nil {
		return err
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	if err := EndMend(f.Dir); err != nil {
		return err
	}
	if err := rootAttributes(f.Dir, f.Tree); err != nil {
		return err
	}
	if err := syncfs(f.Dir); err != nil {
		return err
	}
	return MarkComplete(f.Dir, f.Tree)
}

// MarkComplete marks the slot mounted at dir as one that holds all of a tree.
func MarkComplete(dir string, t *tree.Tree) error {
	return durable.WriteFile(filepath.Join(dir, Dir, completeFile), []byte(t.Digest().String()+"\n"), 0o600)
}

func (f Fill) wanted() map[images.Digest]int64 {
	out := map[images.Digest]int64{}
	for b := range f.Tree.Blobs() {
		out[b.Digest] = b.Size
	}
	for _, b := range f.Extra {
		out[b.Digest] = b.Size
	}
	return out
}

// syncfs waits until all of a file system is on its disk. A write that the drive
// refused meanwhile is an error here (since Linux 5.8).
func syncfs(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("write %s to its disk: %w", dir, err)
	}
	return nil
}

// clearTree removes all but our directory from a slot.
func clearTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == Dir || e.Name() == "lost+found" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(dir, "lost+found")) // e2fsck makes it anew where it needs it
}

// sink keeps contents in files named by their digests.
type sink struct {
	dir  string
	mu   sync.Mutex
	sure map[images.Digest]bool // that are there and verified
}

// sift looks at what an earlier try left: what is whole and wanted stays.
func (s *sink) sift(ctx context.Context, wanted map[images.Digest]int64) (int, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		d, err := images.ParseDigest(e.Name())
		name := filepath.Join(s.dir, e.Name())
		if size, ok := wanted[d]; err == nil && ok && holds(name, d, size) {
			s.sure[d] = true
			continue
		}
		if err := os.Remove(name); err != nil {
			return 0, err
		}
	}
	return len(s.sure), nil
}

func holds(name string, d images.Digest, size int64) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	// It may have been a file of another version, with attributes that it must not have in this.
	if n, err := unix.Flistxattr(int(f.Fd()), nil); err == nil && n > 0 {
		return false
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	return err == nil && n == size && images.Digest(h.Sum(nil)) == d
}

func (s *sink) Has(d images.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sure[d]
}

func (s *sink) OpenBlob(d images.Digest) (*os.File, error) {
	return os.Open(filepath.Join(s.dir, d.String()))
}

// Put writes a content. Nothing is synchronised here: what a power cut leaves is
// verified before it is used.
func (s *sink) Put(_ context.Context, b images.Blob, r io.Reader) error {
	name := filepath.Join(s.dir, b.Digest.String())
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	err = errors.Join(err, f.Close())
	if err == nil && n != b.Size {
		err = fmt.Errorf("%d bytes, not %d", n, b.Size)
	}
	if err != nil {
		os.Remove(name)
		return err
	}
	s.mu.Lock()
	s.sure[b.Digest] = true
	s.mu.Unlock()
	return nil
}

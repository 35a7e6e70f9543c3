// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/durable"
)

// BlobPath returns where the blob is kept, whether or not it is there.
func (s *Store) BlobPath(d images.Digest) string {
	h := d.String()
	return s.dir + "/blobs/sha256/" + h[:2] + "/" + h // filepath.Join costs more than opening the file
}

// OpenBlob opens a blob for reading.
func (s *Store) OpenBlob(d images.Digest) (*os.File, error) {
	f, err := os.Open(s.BlobPath(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &MissingBlobError{Digest: d}
	}
	return f, err
}

// PutBlob stores what r holds.
func (s *Store) PutBlob(ctx context.Context, r io.Reader) (images.Blob, error) {
	in, err := s.newIntake(ctx)
	if err != nil {
		return images.Blob{}, err
	}
	defer in.abort()
	b, err := in.stream(&ctxReader{ctx, r})
	if err != nil {
		return images.Blob{}, err
	}
	return b, in.finish()
}

// ctxReader ends with the context's error once it is done.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// freshFor is how old the time stamp of a blob may get before finding it again
// renews it. It must be far below what gc takes for young.
const freshFor = time.Hour

// openBlobs opens the directory of blobs. What is found by blobName relative to
// it costs half of what a whole path does.
func (s *Store) openBlobs() (*os.File, error) { return os.Open(s.path("blobs", "sha256")) }

func blobName(d images.Digest) string {
	h := d.String()
	return h[:2] + "/" + h
}

// has reports whether the blob is in the directory of blobs, and keeps gc off it
// for a while.
func (s *Store) has(blobs *os.File, d images.Digest) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(blobs.Fd()), blobName(d), &st, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "stat", Path: s.BlobPath(d), Err: err}
	}
	if now := s.now(); now.Sub(time.Unix(st.Mtim.Unix())) > freshFor {
		if err := os.Chtimes(s.BlobPath(d), now, now); err != nil {
			return false, err
		}
	}
	return true, nil
}

// An intake brings blobs into the store. Its methods may be called from
// several goroutines, except settle, finish and abort, which come last.
//
// An fsync for each of ten thousand small files takes minutes. So files are
// gathered in a directory of their own, the file system is synced once for
// many of them, and then they are renamed to where they belong.
type intake struct {
	s      *Store
	dir    string
	blobs  *os.File // the directory of blobs
	unlock func()

	gate    sync.RWMutex // held shared while a file is written, alone to flush
	mu      sync.Mutex
	pending map[images.Digest]bool // staged under their digest, or being so
	bytes   int64                  // staged since the last flush
	written atomic.Int64
	dirty   bool // renamed something: the names need a sync
	closed  bool
}

// After so much has been staged it is flushed.
const (
	flushFiles = 8192
	flushBytes = 1 << 30
)

func (s *Store) newIntake(ctx context.Context) (*intake, error) {
	unlock, err := s.lock(ctx, "staging", false)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.path("staging"), "in-*")
	if err != nil {
		unlock()
		return nil, err
	}
	blobs, err := s.openBlobs()
	if err != nil {
		os.Remove(dir)
		unlock()
		return nil, err
	}
	return &intake{s: s, dir: dir, blobs: blobs, unlock: unlock, pending: map[images.Digest]bool{}}, nil
}

// claim reports whether the caller must write the blob: it is neither in the
// store nor staged by somebody else.
func (in *intake) claim(d images.Digest) (bool, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.pending[d] {
		return false, nil
	}
	if ok, err := in.s.has(in.blobs, d); ok || err != nil {
		return false, err
	}
	in.pending[d] = true
	return true, nil
}

// bytesBlob stores data, whose digest is d.
func (in *intake) bytesBlob(d images.Digest, data []byte) error {
	return in.write(d, int64(len(data)), func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// write stores a blob unless it is there: fill writes it into a file.
func (in *intake) write(d images.Digest, size int64, fill func(*os.File) error) error {
	in.gate.RLock()
	mine, err := in.claim(d)
	if err == nil && mine {
		var f *os.File
		if f, err = os.OpenFile(in.staged(d), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444); err == nil {
			err = errors.Join(fill(f), f.Close())
		}
		if err == nil {
			in.count(size)
		} else {
			in.drop(d)
		}
	}
	in.gate.RUnlock()
	if err != nil {
		return err
	}
	return in.flushIfFull()
}

// stream stores what r holds, of which neither digest nor size is known.
func (in *intake) stream(r io.Reader) (images.Blob, error) {
	in.gate.RLock()
	b, err := in.streamChecked(r, images.Digest{})
	in.gate.RUnlock()
	if err != nil {
		return images.Blob{}, err
	}
	return b, in.flushIfFull()
}

// streamChecked does so while the gate is held. If want is not zero, nothing
// else is kept.
func (in *intake) streamChecked(r io.Reader, want images.Digest) (images.Blob, error) {
	f, err := os.CreateTemp(in.dir, "stream-*")
	if err != nil {
		return images.Blob{}, err
	}
	defer os.Remove(f.Name()) // fails once it has been renamed
	h := sha256.New()
	sw := &sparseWriter{f: f}
	buf := getBuffer()
	defer putBuffer(buf)
	n, err := io.CopyBuffer(onlyWriter{io.MultiWriter(h, sw)}, onlyReader{r}, *buf)
	if err == nil {
		err = sw.finish()
	}
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return images.Blob{}, err
	}
	b := images.Blob{Size: n}
	h.Sum(b.Digest[:0])
	if !want.IsZero() && want != b.Digest {
		return b, nil
	}
	mine, err := in.claim(b.Digest)
	if err != nil || !mine {
		return b, err
	}
	if err := os.Rename(f.Name(), in.staged(b.Digest)); err != nil {
		in.drop(b.Digest)
		return images.Blob{}, err
	}
	in.count(n)
	return b, nil
}

func (in *intake) staged(d images.Digest) string { return filepath.Join(in.dir, d.String()) }

func (in *intake) count(size int64) {
	in.written.Add(size)
	in.mu.Lock()
	in.bytes += size
	in.mu.Unlock()
}

func (in *intake) drop(d images.Digest) {
	os.Remove(in.staged(d))
	in.mu.Lock()
	delete(in.pending, d)
	in.mu.Unlock()
}

func (in *intake) flushIfFull() error {
	in.mu.Lock()
	full := len(in.pending) >= flushFiles || in.bytes >= flushBytes
	in.mu.Unlock()
	if !full {
		return nil
	}
	return in.flush()
}

// flush makes the staged blobs lasting and gives them their names.
func (in *intake) flush() error {
	in.gate.Lock()
	defer in.gate.Unlock()
	if len(in.pending) == 0 {
		return nil
	}
	if err := syncFS(in.dir); err != nil {
		return err
	}
	for d := range in.pending {
		to := in.s.BlobPath(d)
		err := os.Rename(in.staged(d), to)
		if errors.Is(err, os.ErrNotExist) {
			if err = durable.MkdirAll(filepath.Dir(to), 0o755); err == nil {
				err = os.Rename(in.staged(d), to)
			}
		}
		if err != nil {
			return err
		}
	}
	in.pending, in.bytes, in.dirty = map[images.Digest]bool{}, 0, true
	return nil
}

// finish brings all staged blobs into the store for good.
func (in *intake) finish() error {
	defer in.abort()
	return in.settle()
}

// settle does the same, but goes on keeping gc out.
func (in *intake) settle() error {
	if err := in.flush(); err != nil {
		return err
	}
	if in.dirty {
		return syncFS(in.dir)
	}
	return nil
}

// abort drops what is staged; after finish that is nothing.
func (in *intake) abort() {
	if in.closed {
		return
	}
	in.closed = true
	os.RemoveAll(in.dir)
	in.blobs.Close()
	in.unlock()
}

// syncFS syncs the file system that holds dir.
func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", dir, err)
	}
	return nil
}

// onlyReader and onlyWriter hide everything else, so that io.CopyBuffer uses
// the buffer it was given.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

// A sparseWriter leaves out blocks of zeros, so that a sparse file stays one.
type sparseWriter struct {
	f    *os.File
	off  int64
	hole bool // the file ends in a hole and needs its size set
}

const sparseBlock = 4096

var zeros [sparseBlock]byte

func (w *sparseWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		run, zero := w.run(p[done:])
		if !zero {
			if _, err := w.f.WriteAt(p[done:done+run], w.off); err != nil {
				return done, err
			}
		}
		w.hole = zero
		w.off += int64(run)
		done += run
	}
	return done, nil
}

// run returns how long the beginning of p is all zero blocks, or none. Only
// whole blocks at their place in the file can be holes.
func (w *sparseWriter) run(p []byte) (n int, zero bool) {
	for n < len(p) {
		size := min(sparseBlock-int((w.off+int64(n))%sparseBlock), len(p)-n)
		z := size == sparseBlock && string(p[n:n+size]) == string(zeros[:])
		if n == 0 {
			zero = z
		} else if z != zero {
			break
		}
		n += size
	}
	return n, zero
}

func (w *sparseWriter) finish() error {
	if w.hole {
		return w.f.Truncate(w.off)
	}
	return nil
}

// bufferSize is for copying, and the largest file that is read whole.
const bufferSize = 1 << 20

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

func getBuffer() *[]byte  { return buffers.Get().(*[]byte) }
func putBuffer(b *[]byte) { buffers.Put(b) }

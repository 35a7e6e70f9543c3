// SPDX-License-Identifier: GPL-2.0-or-later

// Package logs keeps what machines write while they start and run: one file for
// each boot, below a directory for each node. The newest boot's file grows; older
// ones are compressed, and the oldest go. It knows nothing of what a log says.
package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Limits of what is kept when the store's fields are zero.
const (
	DefaultBoots = 20      // for each node
	DefaultBytes = 1 << 20 // of one boot, before compression
)

// Store keeps logs below a directory.
type Store struct {
	Boots int   // logs kept for each node; 0: DefaultBoots
	Bytes int64 // most of one log, in bytes; 0: DefaultBytes

	root *os.Root

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when any log grows
}

// Open opens the store in a directory, which it makes if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Store{root: root, changed: make(chan struct{})}, nil
}

// Close closes the store's directory.
func (s *Store) Close() error { return s.root.Close() }

// Entry is one log that is kept.
type Entry struct {
	Boot    string    // id of the boot
	Changed time.Time // when it grew last
	number  int       // of the node's boots that sent a log; its file's name begins with it
	packed  bool
}

const (
	plain  = ".log"
	packed = ".log.zst"
)

func (e Entry) file(node string) string {
	form := plain
	if e.packed {
		form = packed
	}
	return path.Join(node, fmt.Sprintf("%08d-%s%s", e.number, e.Boot, form))
}

// List gives the logs of a node, the newest first.
func (s *Store) List(node string) ([]Entry, error) {
	d, err := s.root.Open(node)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	files, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, f := range files {
		name, isPacked := strings.CutSuffix(f.Name(), packed)
		name, isPlain := strings.CutSuffix(name, plain)
		count, boot, isOurs := strings.Cut(name, "-")
		number, err := strconv.Atoi(count)
		if err != nil || !isOurs || !isPacked && !isPlain {
			continue
		}
		info, err := f.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, Entry{Boot: boot, Changed: info.ModTime(), number: number, packed: isPacked})
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(b.number, a.number) })
	return out, nil
}

// Append adds text to the log of a boot, where text is what the log holds from
// the offset from on. It returns how much of the log is here now. If that is less
// than from nothing is added, and the sender goes on from there; what is here
// already is not added twice. Past the limit of one log the text is left out, and
// counts as here.
func (s *Store) Append(node, boot string, from int64, text []byte) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file, size, err := s.open(node, boot)
	if err != nil {
		return 0, fmt.Errorf("log of %s: %w", node, err)
	}
	limit := or(s.Bytes, DefaultBytes)
	end := from + int64(len(text))
	switch {
	case size >= limit:
		return max(size, end), nil
	case from > size || end <= size:
		return size, nil
	}
	text = text[size-from:]
	text = text[:min(int64(len(text)), limit-size)]
	f, err := s.root.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return size, err
	}
	if _, err := f.Write(text); err != nil {
		f.Close()
		return size, err
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return end, f.Close()
}

// open finds the file that the log of a boot goes to, and its size. A boot that is
// packed already has a late word to say. For a new boot room is made: the logs of
// older ones are packed, the oldest go.
func (s *Store) open(node, boot string) (file string, size int64, err error) {
	if err := s.root.Mkdir(node, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", 0, err
	}
	old, err := s.List(node)
	if err != nil {
		return "", 0, err
	}
	if i := slices.IndexFunc(old, func(e Entry) bool { return e.Boot == boot }); i >= 0 {
		e := old[i]
		if e.packed {
			if err := s.unpack(node, e); err != nil {
				return "", 0, err
			}
			e.packed = false
		}
		info, err := s.root.Lstat(e.file(node))
		if err != nil {
			return "", 0, err
		}
		return e.file(node), info.Size(), nil
	}
	next := Entry{Boot: boot, number: 1}
	if len(old) > 0 {
		next.number = old[0].number + 1
	}
	for i, e := range old {
		switch {
		case i+1 >= int(or(int64(s.Boots), DefaultBoots)):
			err = s.root.Remove(e.file(node))
		case !e.packed:
			err = s.pack(node, e)
		}
		if err != nil {
			return "", 0, err
		}
	}
	return next.file(node), 0, nil
}

func (s *Store) pack(node string, e Entry) error {
	return s.convert(node, e, func(w io.Writer, r io.Reader) error {
		z, err := zstd.NewWriter(w)
		if err != nil {
			return err
		}
		if _, err := io.Copy(z, r); err != nil {
			z.Close()
			return err
		}
		return z.Close()
	})
}

func (s *Store) unpack(node string, e Entry) error {
	return s.convert(node, e, func(w io.Writer, r io.Reader) error {
		z, err := zstd.NewReader(r)
		if err != nil {
			return err
		}
		defer z.Close()
		_, err = io.Copy(w, z)
		return err
	})
}

// convert replaces a log by its other form, with the same time.
func (s *Store) convert(node string, e Entry, do func(io.Writer, io.Reader) error) error {
	in, err := s.root.Open(e.file(node))
	if err != nil {
		return err
	}
	defer in.Close()
	other := Entry{Boot: e.Boot, number: e.number, packed: !e.packed}.file(node)
	out, err := s.root.Create(other + ".new")
	if err != nil {
		return err
	}
	err = errors.Join(do(out, in), out.Close())
	if err == nil {
		err = s.root.Chtimes(other+".new", e.Changed, e.Changed)
	}
	if err == nil {
		err = s.root.Rename(other+".new", other)
	}
	if err != nil {
		s.root.Remove(other + ".new")
		return err
	}
	return s.root.Remove(e.file(node))
}

// ReadFrom gives what the log of a boot holds from an offset on, and a channel
// that is closed when any log has grown since. The error is fs.ErrNotExist if
// there is no such log.
func (s *Store) ReadFrom(node, boot string, from int64) ([]byte, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := s.List(node)
	if err != nil {
		return nil, s.changed, err
	}
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.Boot == boot })
	if i < 0 {
		return nil, s.changed, fmt.Errorf("log of boot %s: %w", boot, fs.ErrNotExist)
	}
	text, err := s.read(node, entries[i])
	if err != nil {
		return nil, s.changed, fmt.Errorf("log of boot %s: %w", boot, err)
	}
	return text[min(from, int64(len(text))):], s.changed, nil
}

func (s *Store) read(node string, e Entry) ([]byte, error) {
	f, err := s.root.Open(e.file(node))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !e.packed {
		return io.ReadAll(f)
	}
	z, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(z)
}

// Rename gives the logs of a node that has another name now to that name. There must
// be none of that name yet.
func (s *Store) Rename(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.root.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it never sent one
	}
	return err
}

// Forget removes all logs of a node.
func (s *Store) Forget(node string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.root.RemoveAll(node)
}

func or(v, def int64) int64 {
	if v == 0 {
		return def
	}
	return v
}

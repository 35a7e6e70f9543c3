// SPDX-License-Identifier: GPL-2.0-or-later

// Package store keeps the images of an appliance: the contents of files as
// blobs under their SHA-256, the tree lists, the records of versions and the
// channels. It knows nothing of how a tree is built or served.
//
//	<dir>/blobs/sha256/ab/abcd…       content of one file, mode 0444
//	<dir>/trees/<sha256>.mtree.zst    tree lists
//	<dir>/images/<name>/<n>.toml      records, with <n>.toml.sig beside them
//	<dir>/images/<name>/channels.toml channels and their history
//	<dir>/staging/                    what is being written
//
// What is new is written to staging, synced, and only then renamed to the name
// it keeps; the record comes last. So whatever has its name is whole, and a
// crash leaves at most blobs that no version uses, which gc collects.
//
// Several processes may use one store. Adding holds a shared lock on
// staging/.lock, which gc takes alone; records and channels change under
// images/.lock. Blobs that are found to be there already get a new time stamp,
// and gc leaves what is young, so a blob cannot vanish between being added and
// being committed.
package store

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slate/images/durable"
)

// Options are how a store is used. The zero value works: unsigned and silent.
type Options struct {
	Key      ed25519.PrivateKey                 // signs records on commit; nil: they stay unsigned
	Log      *slog.Logger                       // nil: silent
	Progress func(Progress)                     // called often, one call at a time; nil: not at all
	Who      string                             // for the history of channels; "": the user who runs the process
	LeaveOut func(path string, size int64) bool // says of files and links what does not become part of a tree; nil: everything does
	Workers  int                                // how many files are hashed at once; 0: one for each CPU
}

// Progress says how far a long operation is.
type Progress struct {
	Stage   string // what is going on: reading, verifying, …
	Name    string // the file at hand
	Files   int64  // done
	Bytes   int64  // done
	Total   int64  // bytes in all, 0 if not known
	Written int64  // bytes of blobs that were new
}

// A Store is an open store. It is safe for use by several goroutines.
type Store struct {
	dir string
	o   Options
	log *slog.Logger
	now func() time.Time

	progressMu sync.Mutex
	trees      treeCache
}

// Open opens the store in dir and makes what is missing of it.
func Open(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.NumCPU()
	}
	s := &Store{dir: dir, o: o, log: o.Log, now: time.Now}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		path string
		perm os.FileMode
	}{
		// Blobs hold the likes of /etc/shadow: not for other users of this machine.
		{s.path("blobs"), 0o700}, {s.path("blobs/sha256"), 0o755}, {s.path("trees"), 0o755},
		{s.path("images"), 0o755}, {s.path("staging"), 0o700},
	} {
		if err := durable.MkdirAll(d.path, d.perm); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	return s, nil
}

// Dir returns the store's directory.
func (s *Store) Dir() string { return s.dir }

// WorkDir returns a directory in which a transfer may keep parts of large
// files until it is taken up again. A gc that deletes empties it.
func (s *Store) WorkDir() string { return s.path("staging") }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// OnProgress sets Options.Progress after the fact.
func (s *Store) OnProgress(f func(Progress)) {
	s.progressMu.Lock()
	defer s.progressMu.Unlock()
	s.o.Progress = f
}

// OnLeaveOut sets Options.LeaveOut after the fact. It must not be called while
// something is added.
func (s *Store) OnLeaveOut(f func(path string, size int64) bool) { s.o.LeaveOut = f }

// leavesOut reports whether a file or link does not become part of a tree.
func (s *Store) leavesOut(name string, size int64) bool {
	return s.o.LeaveOut != nil && s.o.LeaveOut(strings.TrimPrefix(path.Clean("/"+name), "/"), size)
}

func (s *Store) progress(p Progress) {
	s.progressMu.Lock()
	defer s.progressMu.Unlock()
	if s.o.Progress != nil {
		s.o.Progress(p)
	}
}

// who names the person for the history. sudo hides who typed the command, but
// says so.
func (s *Store) who() string {
	if s.o.Who != "" {
		return s.o.Who
	}
	if u := os.Getenv("SUDO_USER"); u != "" {
		return u
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// lockPoll is how often a lock that somebody else holds is asked for again.
// flock itself cannot be given a context.
const lockPoll = 20 * time.Millisecond

// lock takes the lock in the given directory of the store, alone or shared
// with others, and returns the function that gives it back.
func (s *Store) lock(ctx context.Context, dir string, alone bool) (unlock func(), err error) {
	path := s.path(dir, ".lock")
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH
	if alone {
		how = unix.LOCK_EX
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s, held by another process: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package leases

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var bucketLeases = []byte("leases")

// Store holds all leases of the appliance in memory and, if it was opened on a
// file, on disk. One process at a time has the file. Its methods may be called
// from several goroutines.
type Store struct {
	log *slog.Logger
	db  *bbolt.DB // nil: memory only

	// writing is held by whoever writes what waits. It guards: while one journal
	// fills, the other is put into the database; saving is that work, nil if there
	// is none.
	writing        sync.Mutex
	filling, other *journal
	saving         chan error

	now func() time.Time

	mu     sync.Mutex
	addrs  map[netip.Addr]*entry
	held   map[string][]*entry // by client; its addresses in different subnets, rarely more than one
	pools  []*Pool
	next   batch // changes that wait to be written
	closed bool
}

// entry is a lease in memory and its place in its pool's queue.
type entry struct {
	Lease
	pool *Pool // nil: outside all ranges, such as a fixed address
	pos  int   // in pool.queue, -1: not in it
}

// batch is a set of changes that reach the disk together.
type batch struct {
	changes []change
	written []func(error) // who wants to know when they have, or have not
}

type change struct{ key, value []byte }

// ErrClosed is what Bind returns after Close.
var ErrClosed = errors.New("lease store is closed")

// fileError is a lease file that cannot be used, with what to do.
type fileError struct {
	path, hint string
	err        error
}

func (e *fileError) Error() string { return fmt.Sprintf("lease file %s: %v", e.path, e.err) }
func (e *fileError) Unwrap() error { return e.err }
func (e *fileError) Hint() string  { return e.hint }

// Open opens or creates the lease file and reads it. log nil: silent. An entry
// that cannot be read is left out and logged; the rest counts.
func Open(path string, log *slog.Logger) (_ *Store, err error) {
	db, err := openFile(path)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, &fileError{path, "only one slate serve can run on a data directory; end the other one first", errors.New("in use by another process")}
	case err != nil && !isPathError(err):
		return nil, &fileError{path, damagedHint, err}
	case err != nil:
		return nil, fmt.Errorf("lease file: %w", err)
	}
	s := NewMemory()
	s.db = db
	if log != nil {
		s.log = log
	}
	if err := s.recover(path); err != nil {
		s.closeFiles()
		return nil, err
	}
	if err := s.load(); err != nil {
		s.closeFiles()
		return nil, &fileError{path, damagedHint, err}
	}
	return s, nil
}

// openFile opens the database. bbolt panics on pages that make no sense; the
// free list is kept in the file because without it bbolt would walk all pages in
// a goroutine of its own, where a panic ends the process.
func openFile(path string) (db *bbolt.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not readable: %v", r)
		}
	}()
	return bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
}

const damagedHint = "the file is damaged: move it away and start again; machines keep their addresses and report them when they renew"

func isPathError(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe)
}

// NewMemory makes a store that forgets everything when the process ends.
func NewMemory() *Store {
	return &Store{
		log:   slog.New(slog.DiscardHandler),
		now:   time.Now,
		addrs: map[netip.Addr]*entry{},
		held:  map[string][]*entry{},
	}
}

// recover opens the journals and puts into the database what a crash left in
// them, the older one first.
func (s *Store) recover(path string) error {
	for _, j := range []**journal{&s.filling, &s.other} {
		jrn, err := openJournal(fmt.Sprintf("%s.journal%d", path, btoi(j == &s.other)), journalSize)
		if err != nil {
			return fmt.Errorf("lease journal: %w", err)
		}
		*j = jrn
	}
	first, second := s.filling, s.other
	if second.gen < first.gen {
		first, second = second, first
	}
	if err := errors.Join(s.checkpoint(first), s.checkpoint(second)); err != nil {
		return &fileError{path, damagedHint, err}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *Store) closeFiles() error {
	errs := []error{s.db.Close()}
	for _, j := range []*journal{s.filling, s.other} {
		if j != nil {
			errs = append(errs, j.f.Close())
		}
	}
	return errors.Join(errs...)
}

// checkpoint puts what is in the journal into the database and empties it.
func (s *Store) checkpoint(j *journal) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("lease file damaged: %v", r)
		}
	}()
	err = s.db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(bucketLeases)
		if err != nil {
			return err
		}
		for _, key := range slices.SortedFunc(maps.Keys(j.unsaved), func(a, b [4]byte) int { return bytes.Compare(a[:], b[:]) }) {
			if err := bucket.Put(key[:], j.unsaved[key]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return j.reset()
}

// turn goes on with the other journal and has the full one put into the database
// meanwhile.
func (s *Store) turn() error {
	if err := s.saved(); err != nil {
		return err
	}
	s.filling, s.other = s.other, s.filling
	full, done := s.other, make(chan error, 1)
	s.saving = done
	go func() { done <- s.checkpoint(full) }()
	return nil
}

// saved waits until the other journal is empty.
func (s *Store) saved() error {
	if s.saving != nil {
		err := <-s.saving
		s.saving = nil
		if err == nil {
			return nil
		}
		s.log.Error("leases stay in the journal", "err", err)
	}
	if len(s.other.unsaved) == 0 {
		return nil
	}
	return s.checkpoint(s.other)
}

// load reads the file. bbolt panics on pages that make no sense.
func (s *Store) load() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not readable: %v", r)
		}
	}()
	now := s.now()
	return s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketLeases).ForEach(func(k, v []byte) error {
			l, err := decode(v)
			if err != nil {
				s.log.Warn("lease left out", "key", fmt.Sprintf("%x", k), "err", err)
				return nil
			}
			if l.Start.After(now) {
				// The clock went back since. Without this the lease would outlive its
				// client by as much.
				l.Start, l.Expires = now, now.Add(l.Expires.Sub(l.Start))
			}
			s.put(l)
			return nil
		})
	})
}

// Close writes what is pending and closes the files. Offers are forgotten.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.Flush()
	if s.db == nil {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	err := s.saved() // older than what follows
	if err == nil {
		err = s.checkpoint(s.filling)
	}
	return errors.Join(err, s.closeFiles())
}

// Flush writes what waits, and tells those who wait for it. Several goroutines may
// call it: one writes, all that gathers meanwhile is written by the next one in
// one go. So the cost of a sync is shared by all clients that wait for it.
func (s *Store) Flush() {
	s.writing.Lock()
	s.mu.Lock()
	b := s.next
	s.next = batch{}
	s.mu.Unlock()
	var err error
	if len(b.changes) > 0 {
		if err = s.commit(b.changes); err != nil {
			s.log.Error("leases not written", "leases", len(b.changes), "err", err)
		}
	}
	s.writing.Unlock()
	for _, f := range b.written {
		f(err)
	}
}

// maxFrame is how many changes go into one frame: it must fit into a journal.
const maxFrame = 500

// commit makes the changes durable.
func (s *Store) commit(changes []change) error {
	for part := range slices.Chunk(changes, maxFrame) {
		err := s.filling.append(part)
		if errors.Is(err, errFull) {
			if err := s.turn(); err != nil {
				return err
			}
			err = s.filling.append(part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// save queues the lease for the next Flush; s.mu is held. written, if not nil, is
// called then.
func (s *Store) save(l Lease, written func(error)) error {
	if s.closed {
		return ErrClosed
	}
	if s.db != nil {
		value, err := l.encode()
		if err != nil {
			return err
		}
		key := l.Addr.As4()
		s.next.changes = append(s.next.changes, change{key[:], value})
	}
	if written != nil {
		s.next.written = append(s.next.written, written)
	}
	return nil
}

// put makes l the lease of its address in memory; s.mu is held.
func (s *Store) put(l Lease) *entry {
	e := s.addrs[l.Addr]
	if e == nil {
		e = &entry{pos: -1}
		s.addrs[l.Addr] = e
		for _, p := range s.pools {
			if p.inRange(l.Addr) {
				e.pool = p
			}
		}
	}
	if e.Client != l.Client {
		s.unhold(e)
		s.held[l.Client] = append(s.held[l.Client], e)
	}
	e.Lease = l
	if e.pool != nil {
		e.pool.queue.update(e)
	}
	return e
}

func (s *Store) unhold(e *entry) {
	if e.Client == "" {
		return
	}
	list := slices.DeleteFunc(s.held[e.Client], func(x *entry) bool { return x == e })
	if len(list) == 0 {
		delete(s.held, e.Client)
		return
	}
	s.held[e.Client] = list
}

// All lists all leases by address, expired ones included.
func (s *Store) All() []Lease {
	s.mu.Lock()
	list := make([]Lease, 0, len(s.addrs))
	for _, e := range s.addrs {
		list = append(list, e.Lease)
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return list
}

// Lookup is the lease of an address.
func (s *Store) Lookup(addr netip.Addr) (Lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.addrs[addr]; e != nil {
		return e.Lease, true
	}
	return Lease{}, false
}

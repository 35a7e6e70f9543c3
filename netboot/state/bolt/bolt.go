// SPDX-License-Identifier: GPL-2.0-or-later

// Package bolt keeps state in one local file, by go.etcd.io/bbolt. It is the
// store of an appliance that is alone at its site.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"slate/images/durable"
	"slate/netboot/state"
)

// lockWait is how long another process may take to let go of the file: enough
// for one that is just ending.
const lockWait = 2 * time.Second

// mapSize is the part of the address space set aside for the file. An update
// that makes the file outgrow it waits until no view is open, and all later views
// wait for the update; below it, the two never wait for each other.
const mapSize = 256 << 20

// Store is an open state file.
type Store struct{ db *bbolt.DB }

var _ state.Store = (*Store)(nil)

// InUseError says that another process has the state file open.
type InUseError struct{ File string }

func (e *InUseError) Error() string { return e.File + ": in use by another process" }

// Hint says who that will be.
func (e *InUseError) Hint() string { return "is another slate serve running with this data directory?" }

// Open opens a state file, and makes it if there is none.
func Open(file string) (*Store, error) { return open(file, lockWait) }

func open(file string, wait time.Duration) (*Store, error) {
	_, err := os.Stat(file)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err := check(file, wait); err != nil && !isNew {
		return nil, explain(file, err)
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: wait, InitialMmapSize: mapSize})
	if err != nil {
		return nil, explain(file, err)
	}
	if isNew {
		if err := durable.SyncDir(filepath.Dir(file)); err != nil {
			db.Close()
			return nil, explain(file, err)
		}
	}
	return &Store{db}, nil
}

// check finds out whether the file has the length it says it has. The library
// maps it into memory and believes it: reading what is missing would end the
// whole process. Opened for reading only, it looks at no more than the head.
func check(file string, wait time.Duration) error {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: wait, ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(t *bbolt.Tx) error {
		st, err := os.Stat(file)
		if err == nil && st.Size() < t.Size() {
			err = fmt.Errorf("damaged: %d bytes long, should be %d", st.Size(), t.Size())
		}
		return err
	})
}

func explain(file string, err error) error {
	if errors.Is(err, berrors.ErrTimeout) {
		return &InUseError{file}
	}
	if perr := (*fs.PathError)(nil); errors.As(err, &perr) {
		err = perr.Err // it would name the file again
	}
	return fmt.Errorf("state file %s: %w", file, err)
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// View implements state.Store.
func (s *Store) View(ctx context.Context, fn func(state.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.View(func(t *bbolt.Tx) error { return fn(tx{ctx, t}) })
}

// Update implements state.Store. Updates of several goroutines that come at the
// same time share one synchronisation with the disk.
func (s *Store) Update(ctx context.Context, fn func(state.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Batch(func(t *bbolt.Tx) error {
		if err := fn(tx{ctx, t}); err != nil {
			return err
		}
		return ctx.Err() // nothing is written for a caller who has left
	})
}

type tx struct {
	ctx context.Context
	t   *bbolt.Tx
}

func (x tx) Get(bucket, key string) ([]byte, error) {
	if b := x.t.Bucket([]byte(bucket)); b != nil {
		if v := b.Get([]byte(key)); v != nil {
			return v, nil
		}
	}
	return nil, fmt.Errorf("%s %q: %w", bucket, key, state.ErrNotFound)
}

func (x tx) Put(bucket, key string, value []byte) error {
	b, err := x.t.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return fmt.Errorf("%s: %w", bucket, err)
	}
	// A copy, and never nil, which Get would take for absence.
	if err := b.Put([]byte(key), append([]byte{}, value...)); err != nil {
		return fmt.Errorf("%s %q: %w", bucket, key, err)
	}
	return nil
}

func (x tx) Delete(bucket, key string) error {
	if b := x.t.Bucket([]byte(bucket)); b != nil {
		if err := b.Delete([]byte(key)); err != nil {
			return fmt.Errorf("%s %q: %w", bucket, key, err)
		}
	}
	return nil
}

func (x tx) Each(bucket, prefix string, fn func(string, []byte) error) error {
	b := x.t.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		if err := fn(string(k), v); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package bolt keeps state in one local file, by go.etcd.io/bbolt. It is the
// store of an appliance that is alone at its site.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"slate/netboot/state"
)

// lockWait is how long another process may take to let go of the file: enough
// for one that is just ending.
const lockWait = 2 * time.Second

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
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: wait})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, &InUseError{file}
	case err != nil:
		return nil, fmt.Errorf("state file %s: %w", file, err)
	}
	return &Store{db}, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// View implements state.Store.
func (s *Store) View(ctx context.Context, fn func(state.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.View(func(t *bbolt.Tx) error { return fn(tx{t}) })
}

// Update implements state.Store. Updates of several goroutines that come at the
// same time share one synchronisation with the disk.
func (s *Store) Update(ctx context.Context, fn func(state.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Batch(func(t *bbolt.Tx) error { return fn(tx{t}) })
}

type tx struct{ t *bbolt.Tx }

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
	if err := b.Put([]byte(key), slices.Clone(value)); err != nil {
		return fmt.Errorf("%s %q: %w", bucket, key, err)
	}
	return nil
}

func (x tx) Delete(bucket, key string) error {
	if b := x.t.Bucket([]byte(bucket)); b != nil {
		return b.Delete([]byte(key))
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
		if err := fn(string(k), v); err != nil {
			return err
		}
	}
	return nil
}

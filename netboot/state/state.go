// SPDX-License-Identifier: GPL-2.0-or-later

// Package state is the small key-value interface through which the appliance
// keeps what must outlive it: nodes, later leases and settings. The stores
// behind it are in packages below; statetest holds the contract they all meet.
package state

import (
	"context"
	"errors"
)

// ErrNotFound says that a bucket has no such key.
var ErrNotFound = errors.New("not found")

// Store is a set of buckets, each an ordered map from keys to values. It is safe
// for concurrent use.
type Store interface {
	// View runs fn on one unchanging state of the store.
	View(ctx context.Context, fn func(Tx) error) error
	// Update runs fn and makes all its changes durable, or none if fn returns an
	// error or ctx ends before it does. Changes of one Update are visible to its own
	// reads. fn may be run more than once for one Update: it must begin anew each
	// time, and change nothing but the store.
	Update(ctx context.Context, fn func(Tx) error) error
	// Close waits for what is running. A second Close does nothing.
	Close() error
}

// Tx is a transaction, valid only inside the function it was given to. The
// values it hands out are too; they must not be modified.
type Tx interface {
	// Get returns the value of a key, or ErrNotFound.
	Get(bucket, key string) ([]byte, error)
	// Put sets the value of a key; the bucket is made when it has none.
	Put(bucket, key string, value []byte) error
	// Delete removes a key; one that is not there is no error.
	Delete(bucket, key string) error
	// Each calls fn for the keys that start with prefix, in byte order, until fn
	// returns an error, and returns that error. fn must not change the bucket.
	Each(bucket, prefix string, fn func(key string, value []byte) error) error
}

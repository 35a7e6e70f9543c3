// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"slate/images"
	"slate/images/tree"
)

// An Intake takes in a version that comes from elsewhere: contents in any
// order, then the tree list, then the signed record. As long as it is open no
// gc runs. Put and Has may be called from several goroutines.
type Intake struct {
	in *intake
	s  *Store
}

// NewIntake opens an intake. It must be closed.
func (s *Store) NewIntake(ctx context.Context) (*Intake, error) {
	in, err := s.newIntake(ctx)
	if err != nil {
		return nil, err
	}
	return &Intake{in, s}, nil
}

// Has reports whether a content is in the store or has been put.
func (i *Intake) Has(d images.Digest) bool {
	i.in.mu.Lock()
	defer i.in.mu.Unlock()
	if i.in.pending[d] {
		return true
	}
	ok, err := i.s.has(i.in.blobs, d)
	return ok && err == nil
}

// Put stores a content, which must be the one that b names.
func (i *Intake) Put(ctx context.Context, b images.Blob, r io.Reader) error {
	i.in.gate.RLock()
	got, err := i.in.streamChecked(&ctxReader{ctx, r}, b.Digest)
	i.in.gate.RUnlock()
	if err == nil && got != b {
		err = fmt.Errorf("content has digest %s and %d bytes, want %s and %d", got.Digest, got.Size, b.Digest, b.Size)
	}
	if err != nil {
		return err
	}
	return i.in.flushIfFull()
}

// Close brings what was put into the store for good, whether or not a version
// of it follows: a transfer that is taken up again need not bring it again.
func (i *Intake) Close() error { return i.in.finish() }

// Accept makes a version of a signed record from elsewhere, whose contents have
// all been put. Text and signature stay as they are, number included. The same
// record again changes nothing; another one under the same number is an error.
func (i *Intake) Accept(ctx context.Context, t *tree.Tree, text, sig []byte) (images.Record, error) {
	rec, err := images.ParseRecord(text)
	if err != nil {
		return rec, err
	}
	if t.Digest() != rec.Tree {
		return rec, fmt.Errorf("%s: record says tree %s, the tree is %s", rec.Ref(), rec.Tree.Short(), t.Digest().Short())
	}
	if err := i.in.settle(); err != nil {
		return rec, err
	}
	if err := i.s.complete(ctx, t, &rec); err != nil {
		return rec, fmt.Errorf("%s: %w", rec.Ref(), err)
	}
	if err := i.s.putTree(t); err != nil {
		return rec, err
	}
	unlock, err := i.s.lock(ctx, "images", true)
	if err != nil {
		return rec, err
	}
	defer unlock()
	have, _, err := i.s.SignedRecord(rec.Name, rec.Number)
	switch {
	case err == nil && sha256.Sum256(have) == sha256.Sum256(text):
		return rec, nil
	case err == nil:
		return rec, &ConflictError{Ref: rec.Ref()}
	case !errors.Is(err, fs.ErrNotExist):
		return rec, err
	}
	return rec, i.s.writeSigned(rec, text, sig)
}

// A ConflictError says that a version from elsewhere has the number of another
// one that is here.
type ConflictError struct{ Ref string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("there is another version %s here, with other contents", e.Ref)
}

// Hint says what can be done.
func (e *ConflictError) Hint() string {
	return "two appliances numbered versions of one image on their own; remove the one here, or build on one of them only"
}

// Signed returns the text of the record of the version that ref names, and the
// signature on it.
func (s *Store) Signed(ref images.Ref) (text, sig []byte, err error) {
	rec, err := s.Resolve(ref)
	if err != nil {
		return nil, nil, err
	}
	return s.SignedRecord(rec.Name, rec.Number)
}

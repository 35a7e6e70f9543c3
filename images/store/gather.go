// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"slate/images"
	"slate/images/tree"
)

// A gatherer turns a source, directory or archive, into blobs and a tree. The
// source's goroutine calls add and link in its order; contents are hashed and
// stored beside it.
type gatherer struct {
	s     *Store
	in    *intake
	stage string
	total int64

	group *errgroup.Group
	ctx   context.Context
	mem   *semaphore.Weighted // bounds the contents waiting in memory

	steps []*step
	files atomic.Int64
	bytes atomic.Int64
}

// A step is an entry as the source gave it, in its order. The digest comes
// later than the rest.
type step struct {
	path string
	e    tree.Entry
	link string // if not empty: path is a further name of it
	undo undo
	over bool // replaces whatever is there, directories included
}

// undo says what a step takes away instead of adding something.
type undo uint8

const (
	undoEntry    undo = iota + 1 // path and all below it
	undoChildren                 // all below path
)

// memLimit is how many bytes of contents may wait for a worker.
const memLimit = 64 << 20

func (s *Store) newGatherer(ctx context.Context, stage string) (*gatherer, error) {
	in, err := s.newIntake(ctx)
	if err != nil {
		return nil, err
	}
	g := &gatherer{s: s, in: in, stage: stage, mem: semaphore.NewWeighted(memLimit)}
	g.group, g.ctx = errgroup.WithContext(ctx)
	g.group.SetLimit(s.o.Workers + 1)
	return g, nil
}

// add appends an entry and returns it, for its digest to be filled in until
// the workers are done.
func (g *gatherer) add(path string, e tree.Entry) *step {
	st := &step{path: path, e: e}
	g.steps = append(g.steps, st)
	return st
}

func (g *gatherer) link(path, target string) {
	g.steps = append(g.steps, &step{path: path, link: target})
}

// content hashes and stores a file's content that has been read already. It
// is done in the background; free gives data back.
func (g *gatherer) content(st *step, data []byte, free func()) {
	g.group.Go(func() error {
		defer free()
		st.e.Size, st.e.Digest = int64(len(data)), sha256.Sum256(data)
		if err := g.in.bytesBlob(st.e.Digest, data); err != nil {
			return fmt.Errorf("%s: %w", st.path, err)
		}
		g.done(st)
		return nil
	})
}

func (g *gatherer) done(st *step) {
	files, bytes := g.files.Add(1), g.bytes.Add(st.e.Size)
	g.s.progress(Progress{Stage: g.stage, Name: st.path, Files: files, Bytes: bytes, Total: g.total, Written: g.in.written.Load()})
}

// finish waits for the workers, and makes blobs and tree list lasting.
func (g *gatherer) finish(sourceErr error) (*tree.Tree, images.Digest, error) {
	defer g.in.abort()
	err := g.group.Wait() // first, or abort would pull the directory from under a worker
	if err == nil {
		err = sourceErr
	}
	if err != nil {
		return nil, images.Digest{}, err
	}
	t, err := g.build()
	if err != nil {
		return nil, images.Digest{}, err
	}
	// The lock of the intake is still held, so no gc comes in between.
	if err := g.in.settle(); err != nil {
		return nil, images.Digest{}, err
	}
	if err := g.s.putTree(t); err != nil {
		return nil, images.Digest{}, err
	}
	return t, t.Digest(), nil
}

func (g *gatherer) build() (*tree.Tree, error) {
	var b tree.Builder
	for _, st := range g.steps {
		if err := st.apply(&b); err != nil {
			return nil, err
		}
	}
	return b.Build()
}

func (st *step) apply(b *tree.Builder) error {
	switch {
	case st.undo == undoEntry:
		b.Remove(st.path)
		return nil
	case st.undo == undoChildren:
		for _, name := range b.List(st.path) {
			b.Remove(st.path + "/" + name)
		}
		return nil
	case st.over:
		// A file of a higher layer hides a whole directory below it.
		if e, ok := b.Get(st.path); ok && e.Type == tree.Dir && st.e.Type != tree.Dir {
			b.Remove(st.path)
		}
	}
	if st.link != "" {
		return b.Link(st.path, st.link)
	}
	return b.Add(st.path, st.e)
}

// keepXattr says which extended attributes belong to an image: capabilities,
// access lists and what users set. Labels of the building machine's security
// modules and overlayfs's notes do not.
func keepXattr(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.")
}

// nanoseconds clamps a time to what the tree list can hold, 1677 to 2262.
func nanoseconds(t time.Time) int64 {
	const lo, hi = -1 << 63, 1<<63 - 1
	switch {
	case t.Before(time.Unix(0, lo)):
		return lo
	case t.After(time.Unix(0, hi)):
		return hi
	}
	return t.UnixNano()
}

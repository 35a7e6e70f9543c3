// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"weak"

	"github.com/klauspost/compress/zstd"

	"slate/images"
	"slate/images/durable"
	"slate/images/tree"
)

// TreePath returns where a tree list is kept, whether or not it is there.
func (s *Store) TreePath(d images.Digest) string {
	return s.path("trees", d.String()+".mtree.zst")
}

// putTree stores a tree list. It must come after the blobs it names.
func (s *Store) putTree(t *tree.Tree) error {
	d := t.Digest()
	path := s.TreePath(d)
	if _, err := os.Stat(path); err == nil {
		s.trees.add(d, t)
		now := s.now()
		return os.Chtimes(path, now, now) // keep gc off it, as for blobs
	}
	err := durable.Write(path, 0o444, func(w io.Writer) error {
		enc, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		if _, err := t.WriteTo(enc); err != nil {
			return err
		}
		return enc.Close()
	})
	if err != nil {
		return fmt.Errorf("tree list %s: %w", d.Short(), err)
	}
	s.trees.add(d, t)
	return nil
}

// Tree returns the tree with the given digest. It is read and verified once
// and then shared among all who ask.
func (s *Store) Tree(ctx context.Context, d images.Digest) (*tree.Tree, error) {
	return s.trees.get(ctx, d, s.readTree)
}

func (s *Store) readTree(d images.Digest) (*tree.Tree, error) {
	path := s.TreePath(d)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &MissingTreeError{Digest: d}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dec, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	t, err := tree.Parse(dec)
	if err != nil {
		return nil, &DamageError{Path: path, Reason: err.Error()}
	}
	if got := t.Digest(); got != d {
		return nil, &DamageError{Path: path, Reason: fmt.Sprintf("its digest is %s", got)}
	}
	return t, nil
}

// A treeCache keeps every tree that somebody uses, and the few last asked for.
type treeCache struct {
	mu     sync.Mutex
	all    map[images.Digest]weak.Pointer[tree.Tree]
	recent [4]*tree.Tree
	next   int
	load   map[images.Digest]chan struct{} // being read; closed when done
}

func (c *treeCache) get(ctx context.Context, d images.Digest, read func(images.Digest) (*tree.Tree, error)) (*tree.Tree, error) {
	for {
		c.mu.Lock()
		if t := c.all[d].Value(); t != nil {
			c.mu.Unlock()
			return t, nil
		}
		wait, busy := c.load[d]
		if !busy {
			break
		}
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if c.load == nil {
		c.load = map[images.Digest]chan struct{}{}
	}
	done := make(chan struct{})
	c.load[d] = done
	c.mu.Unlock()

	t, err := read(d)
	if err == nil {
		c.add(d, t)
	}
	c.mu.Lock()
	delete(c.load, d)
	c.mu.Unlock()
	close(done)
	return t, err
}

func (c *treeCache) add(d images.Digest, t *tree.Tree) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[images.Digest]weak.Pointer[tree.Tree]{}
	}
	for old, p := range c.all {
		if p.Value() == nil {
			delete(c.all, old)
		}
	}
	c.all[d] = weak.Make(t)
	c.recent[c.next] = t
	c.next = (c.next + 1) % len(c.recent)
}

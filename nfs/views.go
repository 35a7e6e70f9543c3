// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"slate/images"
	"slate/images/tree"
)

// viewCache keeps the views in use. Looking one up takes no lock: every call
// of every client does it.
type viewCache struct {
	exports Exports
	max     int

	known atomic.Pointer[map[prefix]*view]
	mu    sync.Mutex // of what follows, and of changing known
	age   []prefix   // oldest first
	loads map[prefix]*viewLoad
}

// viewLoad is a view being made, so that a room of clients that come back at
// once after a restart costs one.
type viewLoad struct {
	done chan struct{}
	view *view
	err  error
}

// cached returns the view if it is there.
func (c *viewCache) cached(p *prefix) *view {
	if m := c.known.Load(); m != nil {
		return (*m)[*p]
	}
	return nil
}

// get is cached, and makes the view if need be, which may take long.
func (c *viewCache) get(ctx context.Context, p prefix) (*view, error) {
	return c.load(ctx, p, func() (images.Digest, *tree.Tree, error) {
		// Others wait for it too: it outlives the connection that asked.
		t, err := c.exports.ByPrefix(context.WithoutCancel(ctx), p)
		if err != nil {
			return images.Digest{}, nil, err
		}
		return t.Digest(), t, nil
	})
}

// put returns the view of a tree that is known already.
func (c *viewCache) put(ctx context.Context, d images.Digest, t *tree.Tree) (*view, error) {
	return c.load(ctx, prefix(d[:prefixLen]), func() (images.Digest, *tree.Tree, error) { return d, t, nil })
}

func (c *viewCache) load(ctx context.Context, p prefix, find func() (images.Digest, *tree.Tree, error)) (*view, error) {
	c.mu.Lock()
	if v := c.cached(&p); v != nil {
		c.mu.Unlock()
		return v, nil
	}
	if l := c.loads[p]; l != nil {
		c.mu.Unlock()
		select {
		case <-l.done:
			return l.view, l.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	l := &viewLoad{done: make(chan struct{})}
	if c.loads == nil {
		c.loads = make(map[prefix]*viewLoad)
	}
	c.loads[p] = l
	c.mu.Unlock()

	d, t, err := find()
	if err == nil && prefix(d[:prefixLen]) == p {
		l.view = newView(d, t)
	} else if err == nil {
		err = errStale
	}
	l.err = err

	c.mu.Lock()
	delete(c.loads, p)
	if l.view != nil {
		c.add(l.view)
	}
	c.mu.Unlock()
	close(l.done)
	return l.view, l.err
}

// add makes a view known, in place of the oldest if there are too many.
func (c *viewCache) add(v *view) {
	known := map[prefix]*view{}
	if m := c.known.Load(); m != nil {
		known = maps.Clone(*m)
	}
	known[v.prefix] = v
	c.age = append(c.age, v.prefix)
	if len(c.age) > c.max {
		delete(known, c.age[0])
		c.age = c.age[1:]
	}
	c.known.Store(&known)
}

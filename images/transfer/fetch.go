// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"slate/images"
	"slate/images/tree"
)

// Sink is where contents go, and what the receiver has already. Its methods
// are called from several goroutines.
type Sink interface {
	// Has reports whether a content is there and needs not be fetched.
	Has(images.Digest) bool
	// OpenBlob opens a content that is there. It may turn out to be damaged.
	OpenBlob(images.Digest) (*os.File, error)
	// Put stores what r holds. If r ends with an error other than io.EOF the
	// content is not the right one and must not be kept.
	Put(ctx context.Context, b images.Blob, r io.Reader) error
}

// A ContentError says that a server sent something else than asked for.
type ContentError struct {
	Blob images.Blob
	Base string // URL of the server
}

func (e *ContentError) Error() string {
	return fmt.Sprintf("%s sent something that is not the content %s", e.Base, e.Blob.Digest)
}

// Hint says where to look.
func (e *ContentError) Hint() string {
	return "the server's store may be damaged: slate image verify there"
}

// Fetch brings all contents of new, and those in extra, to the sink, leaving out
// what it has. The trees in olds are those whose contents the sink has or may
// have; they make the way shorter and may be none. What has arrived when Fetch
// fails is in the sink, and need not be fetched when it is called again.
func (c *Client) Fetch(ctx context.Context, new *tree.Tree, extra []images.Blob, olds []*tree.Tree, sink Sink) error {
	c.init()
	f := &fetch{c: c, sink: sink, missing: map[images.Digest]int64{}, mem: semaphore.NewWeighted(c.Memory)}
	for b := range new.Blobs() {
		f.want(b)
	}
	for _, b := range extra {
		f.want(b)
	}
	if len(f.missing) == 0 {
		return nil
	}
	return f.run(ctx, new, bestBase(new, olds), extra)
}

// bestBase returns the tree that shares the most bytes with new, or nil.
func bestBase(new *tree.Tree, olds []*tree.Tree) *tree.Tree {
	var best *tree.Tree
	most := int64(0)
	for _, old := range olds {
		have := map[images.Digest]bool{}
		for b := range old.Blobs() {
			have[b.Digest] = true
		}
		shared := int64(0)
		for b := range new.Blobs() {
			if have[b.Digest] {
				shared += b.Size
			}
		}
		if shared > most {
			best, most = old, shared
		}
	}
	return best
}

// A fetch is one call of Fetch.
type fetch struct {
	c    *Client
	sink Sink
	mem  *semaphore.Weighted

	mu      sync.Mutex
	missing map[images.Digest]int64 // sizes of what has not arrived
	total   int64
	have    atomic.Int64
}

func (f *fetch) want(b images.Blob) {
	if _, ok := f.missing[b.Digest]; !ok && !f.sink.Has(b.Digest) {
		f.missing[b.Digest] = b.Size
		f.total += b.Size
	}
}

func (f *fetch) lacks(d images.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.missing[d]
	return ok
}

func (f *fetch) run(ctx context.Context, new, old *tree.Tree, extra []images.Blob) error {
	p := makePlan(new, old)
	base := noTree
	if old != nil {
		base = old.Digest().String()
	}
	path := func(n int) string { return "pack/" + new.Digest().String() + "/" + base + "/" + strconv.Itoa(n) }
	if err := f.packs(ctx, p, path, old != nil); err != nil {
		if old != nil && errors.Is(err, fs.ErrNotExist) {
			return f.run(ctx, new, nil, extra) // the server does not have our tree
		}
		return err
	}
	// What is in no pack, or in one that was not worth it, comes one by one.
	var large []item
	for _, it := range p.large {
		if f.lacks(it.Digest) {
			large = append(large, it)
		}
	}
	planned := map[images.Digest]bool{}
	for _, it := range large {
		planned[it.Digest] = true
	}
	var small []images.Blob
	for d, size := range f.missing {
		switch b := (images.Blob{Digest: d, Size: size}); {
		case size <= maxItem:
			small = append(small, b)
		case !planned[d]:
			large = append(large, item{Blob: b})
		}
	}
	if err := f.singles(ctx, small); err != nil {
		return err
	}
	for _, it := range large {
		if f.delta(ctx, it) {
			continue
		}
		if err := f.large(ctx, it); err != nil {
			return fmt.Errorf("content %s: %w", it.Digest.Short(), err)
		}
	}
	return nil
}

// worthPack is which part of a pack must be wanted for it to be fetched.
const worthPack = 4

// packs fetches those packs of the plan of which enough is wanted. The first
// tells whether the server knows the plan at all.
func (f *fetch) packs(ctx context.Context, p *plan, path func(int) string, update bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.c.Connections)
	first := true
	for n, items := range p.packs {
		all, wanted, base := int64(0), int64(0), int64(0)
		for _, it := range items {
			all += it.Size
			base = max(base, it.base.Size)
			if f.lacks(it.Digest) {
				wanted += it.Size + 1
			}
		}
		if wanted*worthPack <= all {
			continue
		}
		cost := 2*all + base
		if update {
			cost += maxSolid // for what is taken apart
		}
		cost = min(cost, f.c.Memory)
		if err := f.mem.Acquire(ctx, cost); err != nil {
			break
		}
		one := func() error {
			defer f.mem.Release(cost)
			return f.pack(ctx, path(n), items, all)
		}
		if first {
			first = false
			if err := one(); err != nil {
				return err
			}
			continue
		}
		g.Go(one)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return nil
}

func (f *fetch) pack(ctx context.Context, path string, items []item, size int64) error {
	// Compression never adds more than a little.
	pack, err := f.c.get(ctx, path, size+size/8+int64(len(items))*64+1<<16)
	if err != nil {
		return err
	}
	err = decodePack(pack, items, f.read, func(it item) bool { return f.lacks(it.Digest) }, func(it item, data []byte) error {
		if sha256.Sum256(data) != it.Digest {
			return nil // our base may be damaged; it is fetched whole later
		}
		return f.put(ctx, it.Blob, bytes.NewReader(data))
	})
	if errors.Is(err, errPack) {
		return nil // so is what was in this one
	}
	return err
}

func (f *fetch) read(d images.Digest) ([]byte, error) {
	file, err := f.sink.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	return readAll(file)
}

// put hands a verified content on.
func (f *fetch) put(ctx context.Context, b images.Blob, r io.Reader) error {
	if err := f.sink.Put(ctx, b, r); err != nil {
		return fmt.Errorf("store content %s: %w", b.Digest.Short(), err)
	}
	f.mu.Lock()
	delete(f.missing, b.Digest)
	f.mu.Unlock()
	f.c.stats.blobs.Add(1)
	f.progress(b.Size)
	return nil
}

func (f *fetch) progress(n int64) {
	have := f.have.Add(n)
	if f.c.Progress == nil {
		return
	}
	f.c.progMu.Lock()
	defer f.c.progMu.Unlock()
	f.c.Progress(Progress{Have: have, Total: f.total, Fetched: f.c.stats.bytes.Load()})
}

// singles fetches contents one by one.
func (f *fetch) singles(ctx context.Context, list []images.Blob) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.c.Connections)
	for _, b := range list {
		cost := min(2*b.Size, f.c.Memory)
		if err := f.mem.Acquire(ctx, cost); err != nil {
			break
		}
		g.Go(func() error {
			defer f.mem.Release(cost)
			return f.single(ctx, b)
		})
	}
	return g.Wait()
}

func (f *fetch) single(ctx context.Context, b images.Blob) error {
	var data []byte
	if b.Size > 0 {
		var err error
		if data, err = f.c.getRange(ctx, b.Digest, 0, b.Size); err != nil {
			return err
		}
	}
	if sha256.Sum256(data) != b.Digest {
		return &ContentError{Blob: b, Base: f.c.Server()}
	}
	return f.put(ctx, b, bytes.NewReader(data))
}

// getRange fetches a part of a content, unverified.
func (c *Client) getRange(ctx context.Context, d images.Digest, from, to int64) ([]byte, error) {
	n := to - from
	frame, err := c.get(ctx, "range/"+d.String()+"/"+formatRange(from, to), n+n/8+1<<16)
	if err != nil {
		return nil, err
	}
	return decompress(frame, nil, n)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"container/list"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"slate/images"
)

// blob is an open blob. Its file stays open while anybody holds it.
type blob struct {
	file   *os.File
	fd     int
	size   int64
	digest images.Digest
	refs   atomic.Int32 // one for the cache, one for each holder
	// How the pages of it can be had without waiting; see cached.
	nowait nowait
}

func (b *blob) release() {
	if b.refs.Add(-1) == 0 {
		b.file.Close()
	}
}

// blobCache keeps the blobs used last open, so that a READ needs no open, and
// bounds how many descriptors that takes.
type blobCache struct {
	open func(images.Digest) (*os.File, error)
	max  int

	mu    sync.Mutex
	known map[images.Digest]*list.Element // of *blob
	order list.List                       // front: used last
}

// cached returns the blob if it is open. The caller releases it.
func (c *blobCache) cached(d images.Digest) *blob {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.known[d]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	b := e.Value.(*blob)
	b.refs.Add(1)
	return b
}

// get is cached, and opens the blob if need be, which may wait for the disk.
func (c *blobCache) get(d images.Digest, size int64) (*blob, error) {
	if b := c.cached(d); b != nil {
		return b, nil
	}
	f, err := c.open(d)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("blob %s: %d bytes, the tree list says %d", d, info.Size(), size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	b := &blob{file: f, fd: int(f.Fd()), size: size, digest: d, nowait: probeNowait(f)}
	b.refs.Store(2)

	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.known[d]; e != nil {
		f.Close() // somebody else was faster
		b = e.Value.(*blob)
		b.refs.Add(1)
		return b, nil
	}
	if c.known == nil {
		c.known = make(map[images.Digest]*list.Element)
	}
	c.known[d] = c.order.PushFront(b)
	for c.order.Len() > c.max {
		e := c.order.Back()
		c.order.Remove(e)
		old := e.Value.(*blob)
		delete(c.known, old.digest)
		old.release()
	}
	return b, nil
}

// closeAll gives up the cache's hold on all blobs.
func (c *blobCache) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil; e = e.Next() {
		e.Value.(*blob).release()
	}
	c.order.Init()
	clear(c.known)
}

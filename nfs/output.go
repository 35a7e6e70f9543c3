// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import "sync"

// Sizes of the buffers of a connection at work. A connection without work has
// none.
const (
	inSize  = 64 << 10 // bounds a request
	outSize = 72 << 10 // replies written at once
	outRoom = 18 << 10 // room that each request finds: a READ that is copied, and headers
	copyMax = 16 << 10 // a READ of more goes from the page cache to the socket: cheaper from about 24 KiB on
	smallIn = 4 << 10  // read at once, and what a connection keeps while its client is slow
	smallOu = 8 << 10  // the same for replies: more than those to what is read at once, contents aside
	workMem = inSize + outSize
)

// buffers is what a connection at work holds.
type buffers struct {
	in  [inSize]byte
	out [outSize]byte
}

// smallBuffers stand in for buffers while the client takes its time.
type smallBuffers struct {
	in  [smallIn]byte
	out [smallOu]byte
}

// pools are shared by all connections of a server.
type pools struct{ work, small sync.Pool }

func (p *pools) getWork() *buffers {
	if b, ok := p.work.Get().(*buffers); ok {
		return b
	}
	return new(buffers)
}

func (p *pools) getSmall() *smallBuffers {
	if b, ok := p.small.Get().(*smallBuffers); ok {
		return b
	}
	return new(smallBuffers)
}

// output collects replies: bytes, and parts of files that go out between them
// without ever being in our memory.
type output struct {
	buf   []byte
	files []filePart
	// How far sending has come.
	pos  int
	part int
}

// filePart is sent when the bytes of the buffer before at are.
type filePart struct {
	at   int
	blob *blob
	off  int64
	n    int
}

// use empties the output and lets it fill a buffer.
func (o *output) use(buf []byte) {
	o.buf, o.files, o.pos, o.part = buf[:0], o.files[:0], 0, 0
}

func (o *output) empty() bool { return len(o.buf) == 0 }

func (o *output) room() int { return cap(o.buf) - len(o.buf) }

// move copies what is unsent to another buffer if it fits there.
func (o *output) move(buf []byte) bool {
	rest := o.buf[o.pos:]
	if len(rest) > len(buf) {
		return false
	}
	for i := range o.files[o.part:] {
		o.files[o.part+i].at -= o.pos
	}
	o.buf = buf[:copy(buf, rest)]
	o.pos = 0
	return true
}

// drop lets go of the files that were not sent.
func (o *output) drop() {
	for i := o.part; i < len(o.files); i++ {
		o.files[i].blob.release()
	}
	clear(o.files)
	o.files, o.part = o.files[:0], 0
}

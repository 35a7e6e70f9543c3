// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"slate/nfs/internal/rpc"
)

// conn is one client connection. Its goroutine reads what has arrived, answers
// every call in it that needs no waiting, and writes all those answers at
// once. Calls that have to wait, for the disk mostly, get a goroutine each and
// answer when they can.
type conn struct {
	s      *Server
	ctx    context.Context
	nc     net.Conn
	raw    syscall.RawConn
	remote netip.AddrPort

	in    rpc.Records
	bufs  *buffers
	small *smallBuffers
	out   output
	req   request

	// Set by the functions handed to raw.
	readN   int
	readErr error
	sendErr error
	sending *output
	fill    func(uintptr) bool
	push    func(uintptr) bool

	write sync.Mutex     // held while a reply is written
	slow  sync.WaitGroup // calls with a goroutine of their own
	slots slots          // bounds them

	using    atomic.Pointer[view] // tree of the last call
	lastCall atomic.Int64         // when the last whole call had come
	partial  atomic.Int64         // since when a call has come in part only; 0: none has
	waiting  atomic.Int32         // calls in slow
	holds    atomic.Int32         // slots taken of those that all connections share
	blocked  atomic.Int64         // since when the client takes nothing; 0: it does
}

func newConn(ctx context.Context, s *Server, nc net.Conn) (*conn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.New("connection has no descriptor: TCP and unix sockets are served")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{s: s, ctx: ctx, nc: nc, raw: raw, slots: make(slots, maxSlow)}
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		c.remote = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	c.fill, c.push = c.onReadable, c.onWritable
	c.req = request{c: c, out: &c.out}
	c.lastCall.Store(s.now())
	return c, nil
}

// localPort is the port that the client has connected to.
func (c *conn) localPort() int {
	if a, ok := c.nc.LocalAddr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// maxSlow is how many calls of one connection may wait for the disk.
const maxSlow = 64

// serve answers calls until the connection ends.
func (c *conn) serve() {
	err := c.loop()
	if errors.Is(err, io.EOF) {
		c.slow.Wait() // who asks no more may still want the answers
	}
	c.nc.Close()
	c.slow.Wait()
	c.out.drop()
	c.putBuffers()
	var bad *rpc.RecordError
	if errors.As(err, &bad) || errors.Is(err, errNotRPC) {
		c.s.log.Warn("connection closed: what came is no NFS request", "addr", c.remote, "err", err)
	} else if err != nil && !errors.Is(err, io.EOF) {
		c.s.log.Debug("connection closed", "addr", c.remote, "err", err)
	}
}

var errNotRPC = errors.New("not an RPC call")

func (c *conn) loop() error {
	for {
		if err := c.raw.Read(c.fill); err != nil {
			return err
		}
		if c.readErr != nil {
			return c.readErr
		}
		c.in.Filled(c.readN)
		calls := 0
		for {
			record, err := c.in.Next()
			if err != nil {
				c.flush() // what came before is answered still
				return err
			}
			if record == nil {
				break
			}
			calls++
			if err := c.handle(record); err != nil {
				c.flush()
				return err
			}
			if c.out.room() < outRoom {
				if err := c.flush(); err != nil {
					return err
				}
			}
		}
		c.note(calls > 0, c.in.Pending() > 0)
		if err := c.flush(); err != nil {
			return err
		}
	}
}

// note keeps the times that overdue judges by.
func (c *conn) note(called, pending bool) {
	now := c.s.now()
	if called {
		c.lastCall.Store(now)
	}
	if !pending {
		c.partial.Store(0)
	} else if called || c.partial.Load() == 0 {
		c.partial.Store(now)
	}
}

// onReadable takes buffers only when there is something to put into them, so
// that ten thousand connections without work cost little.
func (c *conn) onReadable(fd uintptr) bool {
	if c.readErr = c.getBuffers(); c.readErr != nil {
		return true
	}
	free := c.in.Free()
	if ahead := smallIn - c.in.Pending(); ahead > 0 {
		free = free[:ahead] // what lies here unanswered can be kept in little memory
	}
	for {
		n, errno := receiveNowait(int(fd), free)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			if c.in.Pending() == 0 {
				c.putBuffers()
			} else {
				c.shrink()
			}
			return false
		case errno != 0:
			c.readErr = errno
		case n == 0:
			c.readErr = io.EOF
		}
		c.readN = n
		return true
	}
}

// getBuffers sees to it that there are buffers to work with. The output must be empty.
func (c *conn) getBuffers() error {
	if c.bufs != nil {
		return nil
	}
	if err := c.s.work.take(c.ctx); err != nil {
		return err
	}
	c.holds.Add(1)
	c.bufs = c.s.pools.getWork()
	c.in.Move(c.bufs.in[:])
	c.out.use(c.bufs.out[:])
	c.putSmall()
	return nil
}

func (c *conn) putBuffers() {
	c.putWork()
	c.putSmall()
	c.in.Use(nil)
	c.out.use(nil)
}

func (c *conn) putWork() {
	if c.bufs != nil {
		c.s.pools.work.Put(c.bufs)
		c.bufs = nil
		c.holds.Add(-1)
		c.s.work.give()
	}
}

func (c *conn) putSmall() {
	if c.small != nil {
		c.s.pools.small.Put(c.small)
		c.small = nil
	}
}

// shrink changes to small buffers, because the client may take long. What does
// not fit stays where it is, and counts. getBuffers undoes it.
func (c *conn) shrink() {
	if c.bufs == nil || c.in.Pending() > smallIn || len(c.out.buf)-c.out.pos > smallOu {
		return
	}
	c.small = c.s.pools.getSmall()
	c.in.Move(c.small.in[:])
	c.out.move(c.small.out[:])
	c.putWork()
}

// flush sends the answers collected so far. It waits for a client that does
// not take them: that is what keeps it from asking for more.
func (c *conn) flush() error {
	if c.out.empty() {
		return nil
	}
	if !c.write.TryLock() {
		c.shrink()
		c.write.Lock()
	}
	err := c.transmit(&c.out)
	c.write.Unlock()
	if err != nil {
		return err
	}
	if err := c.getBuffers(); err != nil {
		return err
	}
	c.out.use(c.bufs.out[:])
	return nil
}

// transmit sends an output; the caller holds the write lock.
func (c *conn) transmit(o *output) error {
	c.sending, c.sendErr = o, nil
	err := c.raw.Write(c.push)
	c.sending = nil
	c.blocked.Store(0)
	if err == nil {
		err = c.sendErr
	}
	o.drop()
	return err
}

func (c *conn) onWritable(fd uintptr) bool {
	o := c.sending
	pos, part, off := o.pos, o.part, int64(0)
	if part < len(o.files) {
		off = o.files[part].off
	}
	blocked, err := o.send(int(fd))
	if !blocked {
		c.sendErr = err
		return true
	}
	moved := o.pos != pos || o.part != part || part < len(o.files) && o.files[part].off != off
	if moved || c.blocked.Load() == 0 {
		c.blocked.Store(c.s.now())
	}
	if o == &c.out {
		c.shrink()
	}
	return false
}

// handle answers one call, or has it answered later.
func (c *conn) handle(record []byte) error {
	q := &c.req
	q.record = record
	switch rpc.ParseCall(record, &q.call) {
	case rpc.Garbage:
		return errNotRPC
	case rpc.BadVersion:
		c.out.buf = rpc.AppendMismatch(c.out.buf, q.call.XID)
		return nil
	case rpc.BadVerf:
		c.out.buf = rpc.AppendAuthError(c.out.buf, q.call.XID, rpc.AuthBadVerf)
		return nil
	}
	if q.answer() {
		return nil
	}
	return c.later(record)
}

// later answers a call in a goroutine of its own. If too many calls are
// waiting already, of this connection or of all, this connection waits too.
func (c *conn) later(record []byte) error {
	record = slices.Clone(record)
	for _, limit := range [...]slots{c.slots, c.s.slow} {
		if limit.try() {
			continue
		}
		// What is answered already need not wait, and others may have the
		// buffers meanwhile.
		if err := c.flush(); err != nil {
			return err
		}
		c.shrink()
		if err := limit.take(c.ctx); err != nil {
			return err
		}
		if err := c.getBuffers(); err != nil {
			return err
		}
	}
	c.holds.Add(1)
	c.waiting.Add(1)
	c.slow.Go(func() {
		defer c.slots.give()
		defer c.waiting.Add(-1)
		if err := c.answerLater(record); err != nil {
			c.nc.Close() // ends the loop too, which says why
		}
	})
	return nil
}

// answerLater answers one call, which has a slot among those that wait. It
// gives the slot back when the answer needs no memory worth counting.
func (c *conn) answerLater(record []byte) error {
	bufs := c.s.pools.getWork()
	var out output
	out.use(bufs.out[:])
	q := &request{c: c, record: record, out: &out, mayWait: true}
	rpc.ParseCall(record, &q.call) // has been seen to work
	q.answer()
	done := func() {
		c.s.pools.work.Put(bufs)
		c.holds.Add(-1)
		c.s.slow.give()
	}
	if len(out.buf) <= smallOu {
		small := c.s.pools.getSmall()
		defer c.s.pools.small.Put(small)
		out.move(small.out[:])
		done()
	} else {
		defer done()
	}
	c.write.Lock()
	defer c.write.Unlock()
	return c.transmit(&out)
}

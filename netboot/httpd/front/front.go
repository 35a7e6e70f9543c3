// SPDX-License-Identifier: GPL-2.0-or-later

// Package front answers what an HTTP server is asked most, GET and HEAD of files
// named by their digest, before net/http sees the connection: it parses such a
// request strictly, and sends the file with one write, or by sendfile. Whatever
// else a client sends, its connection goes on to net/http from that request on, as
// if nothing had been read. So there is one place for all that is rare.
package front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"slate/images"
)

// A Server answers for files and hands on all else. Set the fields, then call Serve.
type Server struct {
	Prefix string                     // of the paths that are answered; a digest in hex follows
	Path   func(images.Digest) string // where the file with the digest is, if it is there

	HeaderTimeout time.Duration // for a request once it has begun; 0: 10 s
	IdleTimeout   time.Duration // between requests; 0: 2 minutes
	SlowTimeout   time.Duration // for a client to take the next MiB; 0: 1 minute

	once sync.Once
	rest rest
	date atomic.Pointer[date]

	mu    sync.Mutex
	conns map[*conn]bool
	until time.Time // not zero: the end has come, and this is when the last answer must be out
	ended atomic.Bool

	forgot func() // called when a connection is gone; set in tests
}

func (s *Server) init() {
	s.once.Do(func() {
		for _, d := range []struct {
			to      *time.Duration
			without time.Duration
		}{{&s.HeaderTimeout, 10 * time.Second}, {&s.IdleTimeout, 2 * time.Minute}, {&s.SlowTimeout, time.Minute}} {
			if *d.to == 0 {
				*d.to = d.without
			}
		}
		s.rest = rest{conns: make(chan net.Conn), closed: make(chan struct{})}
		s.conns = map[*conn]bool{}
	})
}

// Rest returns the listener from which net/http gets the connections that are
// handed on.
func (s *Server) Rest(addr net.Addr) net.Listener {
	s.init()
	s.rest.addr = addr
	return &s.rest
}

// Serve accepts connections until ctx ends; the answers that are under way then
// have until stop has passed.
func (s *Server) Serve(ctx context.Context, l net.Listener, stop time.Duration) error {
	s.init()
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := context.AfterFunc(ctx, func() {
		l.Close()
		s.end(stop)
	})
	defer end()
	for pause := time.Duration(0); ; {
		nc, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			s.end(stop)
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // out of descriptors, most likely: it passes
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		tc, ok := nc.(*net.TCPConn)
		if !ok {
			s.rest.give(nc)
			continue
		}
		conns.Go(func() {
			c := &conn{s: s, tcp: tc}
			s.remember(c)
			defer s.forget(c)
			c.serve()
		})
	}
}

// wait notes that a connection waits for its next request; false if it is to end.
// It is asked for every request, so it takes no lock.
func (s *Server) wait(c *conn) bool {
	c.idle.Store(true)
	return !s.ended.Load()
}

// within sets by when a connection must have sent its request.
func (s *Server) within(c *conn, limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until.IsZero() {
		c.tcp.SetReadDeadline(time.Now().Add(limit))
	}
}

// allow gives a connection time to take what is sent to it.
func (s *Server) allow(c *conn, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until.IsZero() {
		c.tcp.SetWriteDeadline(now.Add(s.SlowTimeout))
	}
}

func (s *Server) remember(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = true
	if !s.until.IsZero() {
		s.hurry(c)
	}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if s.forgot != nil {
		s.forgot()
	}
}

// end ends the connections that have nothing under way, and the others after it.
func (s *Server) end(stop time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() {
		return
	}
	s.until = time.Now().Add(stop)
	s.ended.Store(true) // before it is asked who is idle: who becomes so later, sees it
	for c := range s.conns {
		s.hurry(c)
	}
}

func (s *Server) hurry(c *conn) {
	c.tcp.SetWriteDeadline(s.until)
	if c.idle.Load() {
		c.tcp.SetReadDeadline(time.Unix(1, 0))
	} else {
		c.tcp.SetReadDeadline(s.until)
	}
}

// rest is a listener that accepts what is handed on to it.
type rest struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (r *rest) give(c net.Conn) {
	select {
	case r.conns <- c:
	case <-r.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (r *rest) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (r *rest) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// Addr implements net.Listener.
func (r *rest) Addr() net.Addr { return r.addr }

// handedOn is a connection of which something was read already. As it is a
// TCPConn in all else, net/http goes on using sendfile.
type handedOn struct {
	*net.TCPConn
	read []byte
}

func (h *handedOn) Read(p []byte) (int, error) {
	if len(h.read) == 0 {
		return h.TCPConn.Read(p)
	}
	n := copy(p, h.read)
	h.read = h.read[n:]
	return n, nil
}

// WriteTo hides TCPConn's, which would leave out what was read.
func (h *handedOn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{h})
}

// date is the Date header of one second.
type date struct {
	second int64
	text   []byte
}

func (s *Server) appendDate(b []byte, now time.Time) []byte {
	d := s.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().AppendFormat(nil, "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")}
		s.date.Store(d)
	}
	return append(b, d.text...)
}

// complete returns the length of the first request in b with its empty line, 0 if
// there is none yet.
func complete(b []byte) int {
	i := bytes.Index(b, []byte("\r\n\r\n"))
	if i < 0 {
		return 0
	}
	return i + 4
}

// bareLF reports whether lines end otherwise than RFC 9112 says, so that the end of
// the request cannot be told here.
func bareLF(b []byte) bool {
	return bytes.Count(b, []byte("\n")) != bytes.Count(b, []byte("\r\n"))
}

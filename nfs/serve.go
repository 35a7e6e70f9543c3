// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"slate/images"
)

// Serve answers clients that connect to ln, which carries TCP or is a unix
// socket, until the context ends: then it closes ln and all connections and
// returns nil. One Server may serve several listeners.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.once.Do(s.init)
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer func() {
		cancel()
		owned.Wait()
		s.stop()
	}()
	s.start()
	defer context.AfterFunc(ctx, func() {
		ln.Close()
		s.closeConns(func(c *conn) bool { return c.ctx == ctx })
	})()
	owned.Go(func() { s.watch(ctx) })
	for {
		nc, err := accept(ctx, ln)
		if err != nil {
			ln.Close()
			cancel()
			s.closeConns(func(c *conn) bool { return c.ctx == ctx })
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		c, err := s.admit(ctx, nc)
		if err != nil {
			s.log.Warn("connection refused", "addr", nc.RemoteAddr(), "err", err)
			nc.Close()
			continue
		}
		owned.Go(func() {
			c.serve()
			s.forget(c)
		})
	}
}

// accept waits for a connection. Running out of descriptors passes, and must
// not end the service.
func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	pause := 5 * time.Millisecond
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			return nc, nil
		case ctx.Err() != nil:
			return nil, context.Canceled
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
			errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ECONNABORTED):
		default:
			return nil, err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-ctx.Done():
			return nil, context.Canceled
		}
	}
}

var errTooMany = errors.New("too many connections")

func (s *Server) admit(ctx context.Context, nc net.Conn) (*conn, error) {
	c, err := newConn(ctx, s, nc)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err() // closing all connections must not miss this one
	}
	if len(s.conns) >= s.MaxConns {
		return nil, errTooMany
	}
	s.conns[c] = struct{}{}
	return c, nil
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

func (s *Server) closeConns(which func(*conn) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if which(c) {
			c.nc.Close()
		}
	}
}

func (s *Server) start() {
	s.mu.Lock()
	s.serving++
	s.mu.Unlock()
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving--; s.serving == 0 {
		s.blobs.closeAll()
	}
}

// now is a clock that costs nothing to read and is as exact as the time-outs
// need. It is never 0.
func (s *Server) now() int64 { return s.clock.Load() }

// watch keeps the clock and closes connections whose time is up.
func (s *Server) watch(ctx context.Context) {
	every := min(max(min(s.IdleTimeout, s.SlowTimeout)/8, time.Millisecond), time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := int64(time.Since(s.epoch)) + 1
		s.clock.Store(now)
		slow := s.SlowTimeout
		scarce := s.work.full() || s.slow.full()
		s.closeConns(func(c *conn) bool {
			limit := slow
			if scarce && c.holds.Load() > 0 {
				limit = slow / 10
			}
			why := c.overdue(now, limit)
			if why != "" {
				s.log.Debug("connection closed", "addr", c.remote, "why", why)
			}
			return why != ""
		})
	}
}

// overdue says why a connection has to be closed, if it has. A client that is slow
// has the time slow: less if others wait for what it keeps.
func (c *conn) overdue(now int64, slow time.Duration) string {
	longer := func(since int64, limit time.Duration) bool { return time.Duration(now-since) > limit }
	if since := c.blocked.Load(); since != 0 {
		if longer(since, slow) {
			return "the client takes no reply"
		}
		return ""
	}
	if c.waiting.Load() > 0 {
		return "" // for us
	}
	if since := c.partial.Load(); since != 0 && longer(since, slow) {
		return "a call was left half sent"
	}
	if longer(c.lastCall.Load(), c.s.IdleTimeout) {
		return "idle"
	}
	return ""
}

// Use tells that a client is connected and which tree it used last.
type Use struct {
	Client netip.AddrPort
	Tree   images.Digest
}

// InUse lists the connections that have used a tree: what must not be
// collected as garbage.
func (s *Server) InUse() []Use {
	s.mu.Lock()
	defer s.mu.Unlock()
	var uses []Use
	for c := range s.conns {
		if v := c.using.Load(); v != nil {
			uses = append(uses, Use{c.remote, v.digest})
		}
	}
	return uses
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package redirect has another server answer what the kernel asks of the one that it
// has mounted from. The kernel cannot move an NFS mount of version 3; but its handles
// mean the same on every server of the site, so that it is enough to have its
// connections end elsewhere.
//
// Nothing stands between kernel and server before Open. That makes connections to one
// port of one server local, by a rule of policy routing (ip-rule(8)) and a socket for
// foreign addresses (IP_TRANSPARENT, ip(7)), and passes them on. Everything else that
// goes to the server still goes there.
package redirect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// table is the routing table that makes the server's address local, and priority the
// place of the rule that leads there: before all but the kernel's own.
const (
	table    = 0x51a7e
	priority = 51
)

// How long a server may be silent before its connection is given up, and how long one
// may take to come about. The kernel asks again by itself.
const (
	silence     = 20 * time.Second
	dialTimeout = 10 * time.Second
)

// Redirect passes on what goes to a port of a server.
type Redirect struct {
	from     netip.AddrPort
	listener net.Listener
	ctx      context.Context // until Close
	end      context.CancelFunc
	undo     []func() error
	work     sync.WaitGroup

	mu    sync.Mutex
	to    netip.AddrPort
	conns map[net.Conn]bool // to the server that is passed to
}

// Open has connections to from passed on to another server. Those that there are break,
// and whoever holds one connects anew. It needs CAP_NET_ADMIN.
func Open(from, to netip.AddrPort) (*Redirect, error) {
	lc := net.ListenConfig{Control: transparent}
	l, err := lc.Listen(context.Background(), "tcp", from.String())
	if err != nil {
		return nil, err
	}
	r := &Redirect{from: from, to: to, listener: l, conns: map[net.Conn]bool{}}
	r.ctx, r.end = context.WithCancel(context.Background())
	r.work.Go(r.serve)
	if err := r.route(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// transparent lets a socket have an address that is not this machine's.
func transparent(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		}
	})
	return errors.Join(cerr, err)
}

// route leads to this machine what goes to the port.
func (r *Redirect) route() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addr := r.from.Addr()
	host := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
	// The kernel would take the server's own address for the other end, too.
	src := net.IPv4(127, 0, 0, 1)
	if addr.Is6() {
		src = net.IPv6loopback
	}
	route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: host, Src: src, Table: table, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("a local route to %s: %w", addr, err)
	}
	r.undo = append(r.undo, func() error { return netlink.RouteDel(route) })
	rule := netlink.NewRule()
	rule.Family = unix.AF_INET
	if addr.Is6() {
		rule.Family = unix.AF_INET6
	}
	rule.Dst, rule.IPProto, rule.Dport = host, unix.IPPROTO_TCP, netlink.NewRulePortRange(r.from.Port(), r.from.Port())
	rule.Table, rule.Priority = table, priority
	if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("a routing rule for %s: %w", r.from, err)
	}
	r.undo = append(r.undo, func() error { return netlink.RuleDel(rule) })
	return nil
}

// Target is the server that connections are passed on to.
func (r *Redirect) Target() netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.to
}

// To passes connections on to another server from now on. Those that there are break.
func (r *Redirect) To(to netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	r.cut()
}

// cut ends all connections.
func (r *Redirect) cut() {
	for c := range r.conns {
		c.Close()
	}
}

// Close has connections go to the server itself again.
func (r *Redirect) Close() error {
	var errs []error
	for i := len(r.undo) - 1; i >= 0; i-- {
		errs = append(errs, r.undo[i]())
	}
	errs = append(errs, r.listener.Close())
	r.end()
	r.mu.Lock()
	r.cut()
	r.mu.Unlock()
	r.work.Wait()
	return errors.Join(errs...)
}

func (r *Redirect) serve() {
	for {
		in, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of memory or of files: whoever asks does so again
			select {
			case <-time.After(time.Second):
			case <-r.ctx.Done():
			}
			continue
		}
		r.work.Go(func() {
			defer in.Close()
			if out := r.dial(); out != nil {
				r.pass(in, out)
			}
		})
	}
}

// dial connects to the server; nil: it cannot be reached, or is no longer wanted.
func (r *Redirect) dial() net.Conn {
	to := r.Target()
	d := net.Dialer{Timeout: dialTimeout, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
		})
	}, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence / 4, Interval: silence / 4, Count: 3}}
	out, err := d.DialContext(r.ctx, "tcp", to.String())
	if err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != to || r.ctx.Err() != nil {
		out.Close()
		return nil
	}
	r.conns[out] = true
	return out
}

// pass passes on in both directions, until either side ends.
func (r *Redirect) pass(in, out net.Conn) {
	var both sync.WaitGroup
	half := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // in the kernel, by splice(2)
		to.Close()
		from.Close()
	}
	both.Go(func() { half(out, in) })
	both.Go(func() { half(in, out) })
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, out)
}

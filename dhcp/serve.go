// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// The ports of DHCP and PXE.
const (
	portServer = 67
	portClient = 68
	portPXE    = 4011
)

// maxWaiting is how many requests may wait for something at once, over all
// connections: an ARP answer, or the booter. When all places are taken the rest
// waits in the sockets' buffers.
const maxWaiting = 1024

// crew bounds the work that is not done at once.
type crew struct {
	places chan struct{}
	wg     sync.WaitGroup
}

func newCrew() *crew { return &crew{places: make(chan struct{}, maxWaiting)} }

// run calls f in a goroutine once there is a place.
func (c *crew) run(ctx context.Context, f func()) {
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		return
	}
	c.wg.Go(func() {
		defer func() { <-c.places }()
		f()
	})
}

// request is a packet and how it came.
type request struct {
	packet *dhcpv4.DHCPv4
	src    netip.AddrPort
	dst    netip.Addr // ours or a broadcast; invalid if unknown
	port   int        // ours: 67 or 4011
}

// link is the way to the clients on one interface: a Conn, or a fake in tests.
type link interface {
	Name() string
	// Addr is our first address there, invalid if there is none.
	Addr() netip.Addr
	// InUse asks on the wire who has addr. Nil: nobody answered.
	InUse(ctx context.Context, addr netip.Addr) (net.HardwareAddr, error)
	// Send sends from our address self.
	Send(b []byte, to destination, self netip.Addr) error
}

// destination is where a reply goes.
type destination struct {
	netip.AddrPort

	// MAC, if set, is where the frame goes: the client cannot answer ARP, because
	// it does not know yet that the address is its own.
	MAC net.HardwareAddr
}

// handler is an engine's work on requests.
type handler struct {
	one  func(context.Context, link, request) // must not wait: what does goes to the crew
	all  func()                               // called after requests have been handled, many at once; may wait; may be nil
	crew *crew
}

// after calls all each time that it is due, in a goroutine of its own: while the
// disk makes a handful of leases durable, the next requests are handled, and what
// they need of the disk gathers.
type after struct {
	due  chan struct{}
	done chan struct{}
}

func newAfter(all func()) *after {
	a := &after{make(chan struct{}, 1), make(chan struct{})}
	go func() {
		defer close(a.done)
		for range a.due {
			if all != nil {
				all()
			}
		}
	}()
	return a
}

// want says that all is due. It waits for its turn only if it must, so that a disk
// that stalls cannot make requests pile up in memory. False: all has not begun yet
// since the last time, and will see these requests too.
func (a *after) want(must bool) bool {
	if must {
		a.due <- struct{}{}
		return true
	}
	select {
	case a.due <- struct{}{}:
		return true
	default:
		return false
	}
}

// end returns when all has been called for what was due.
func (a *after) end() {
	close(a.due)
	<-a.done
}

// serve reads all connections and hands every request to the handler, until ctx
// is cancelled and the crew has gone.
func serve(ctx context.Context, out *outlet, conns []*Conn, h handler) error {
	if len(conns) == 0 {
		return errors.New("DHCP: no connection to serve")
	}
	g, gctx := errgroup.WithContext(ctx)
	then := newAfter(h.all)
	for _, c := range conns {
		stop := context.AfterFunc(gctx, func() { c.interrupt() })
		defer stop()
		g.Go(func() error {
			return c.read(gctx, out, h, then)
		})
		if c.port == portServer && c.raw != nil {
			g.Go(func() error { return c.watch(gctx, out) })
			g.Go(func() error { return c.arp.read(gctx, out) })
		}
	}
	err := g.Wait()
	then.end()
	h.crew.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// How much is read before the answers that wait for the disk are seen to: as many
// packets as there are, up to readRounds times readPackets. Larger packets than
// readSize are no DHCP.
const (
	readPackets = 32
	readRounds  = 8
	readSize    = 4 << 10

	// maxUnsaved is how many requests of one connection may wait for the disk.
	maxUnsaved = 4096
)

// read takes packets off the UDP socket.
func (c *Conn) read(ctx context.Context, out *outlet, h handler, then *after) error {
	unsaved := 0 // requests since all was due for the first time
	pc := ipv4.NewPacketConn(c.udp)
	ms := make([]ipv4.Message, readPackets)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, readSize)}, make([]byte, 128)
	}
	for {
		n, err := pc.ReadBatch(ms, 0)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			if !pause(ctx, out, c.iface, err) {
				return ctx.Err()
			}
			continue
		}
		for round := 1; n > 0; round++ {
			c.take(ctx, out, h, ms[:n])
			unsaved += n
			if round == readRounds {
				break
			}
			// What came in meanwhile shares the way to the disk. No error here that
			// the next round does not meet again.
			if n, err = pc.ReadBatch(ms, unix.MSG_DONTWAIT); err != nil {
				break
			}
		}
		if then.want(unsaved > maxUnsaved) {
			unsaved = 0
		}
	}
}

// take hands packets to the handler.
func (c *Conn) take(ctx context.Context, out *outlet, h handler, ms []ipv4.Message) {
	for _, m := range ms {
		from, ok := m.Addr.(*net.UDPAddr)
		if !ok {
			continue
		}
		p, err := parsePacket(m.Buffers[0][:m.N])
		if err != nil {
			out.garbage(c.iface, c.port, from.AddrPort(), m.N, err)
			continue
		}
		r := request{packet: p, src: from.AddrPort(), port: c.port}
		var cm ipv4.ControlMessage
		if cm.Parse(m.OOB[:m.NN]) == nil {
			r.dst, _ = netip.AddrFromSlice(cm.Dst.To4())
		}
		h.one(ctx, c, r)
	}
}

// pause waits a moment after a read error: an interface that goes down makes one
// at once for each try, and comes back later. False: ctx is cancelled.
func pause(ctx context.Context, out *outlet, iface string, err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err() == nil
	}
	if out.quiet.Allow() {
		out.log.Warn("DHCP socket", "interface", iface, "err", err)
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// parsePacket decodes a packet from the wire, options that were put into the
// sname and file fields included (option 52, RFC 2132 9.3).
func parsePacket(b []byte) (*dhcpv4.DHCPv4, error) {
	const sname, file, end = 44, 108, 236
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, err
	}
	if over := p.Options.Get(dhcpv4.OptionOptionOverload); len(over) == 1 {
		if over[0]&1 != 0 {
			p.BootFileName = ""
			mergeOptions(p.Options, b[file:end])
		}
		if over[0]&2 != 0 {
			p.ServerHostName = ""
			mergeOptions(p.Options, b[sname:file])
		}
	}
	return p, nil
}

// mergeOptions appends options as RFC 3396 joins them: in the order of the
// fields. What does not parse is left out.
func mergeOptions(into dhcpv4.Options, b []byte) {
	more := dhcpv4.Options{}
	if more.FromBytes(b) != nil {
		return
	}
	for code, v := range more {
		into[code] = append(into[code], v...)
	}
}

// outlet is where an engine's words go: the log and the events. Everything that
// comes from strangers is limited in rate.
type outlet struct {
	log    *slog.Logger
	events func(Event)
	quiet  *rate.Limiter // for log lines that anyone on the network can cause
	rivals *rivals
	beside bool // we are a proxy: a server that gives addresses is as it should be

	suppressed atomic.Int64
}

func newOutlet(log *slog.Logger, events func(Event)) *outlet {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &outlet{log: log, events: events, quiet: rate.NewLimiter(rate.Every(5*time.Second), 5), rivals: newRivals()}
}

func (o *outlet) event(e Event) {
	if o.events == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	o.events(e)
}

func (o *outlet) garbage(iface string, port int, src netip.AddrPort, n int, err error) {
	if !o.quiet.Allow() {
		o.suppressed.Add(1)
		return
	}
	o.log.Warn("not a DHCP packet", "interface", iface, "port", port, "addr", src, "bytes", n, "err", err,
		"unlogged", o.suppressed.Swap(0))
}

// warn logs something a client can provoke at will.
func (o *outlet) warn(msg string, args ...any) {
	if !o.quiet.Allow() {
		o.suppressed.Add(1)
		return
	}
	o.log.Warn(msg, args...)
}

// debugging reports whether the lines that each packet makes are read by anybody:
// putting them together costs as much as a packet.
func (o *outlet) debugging(ctx context.Context) bool { return o.log.Enabled(ctx, slog.LevelDebug) }

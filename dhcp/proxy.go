// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Proxy tells machines what to boot, beside a DHCP server that gives them their
// addresses (proxyDHCP, PXE specification 2.1). It answers boot clients only,
// and never with an address. Serve it on ports 67 and 4011: UEFI asks again there.
type Proxy struct {
	Addr   netip.Addr   // our address as clients reach it; invalid: that of the interface they are heard on
	Booter Booter       // decides; required
	Events func(Event)  // called for each step of boot clients, from several goroutines; must be quick. Nil: nobody looks
	Log    *slog.Logger // nil: silent
}

// Serve answers what comes in on the connections until ctx is cancelled, and
// then returns nil. It does not close them.
func (p *Proxy) Serve(ctx context.Context, conns ...*Conn) error {
	out, handle := p.handler()
	crew := newCrew()
	return serve(ctx, out, conns, handler{crew: crew, one: func(ctx context.Context, l link, r request) {
		if class := r.packet.Options.Get(dhcpv4.OptionClassIdentifier); len(class) > 0 { // all others are for the real server
			crew.run(ctx, func() { handle(ctx, l, r) })
		}
	}})
}

func (p *Proxy) handler() (*outlet, func(context.Context, link, request)) {
	out := newOutlet(p.Log, p.Events)
	out.beside = true
	return out, func(ctx context.Context, l link, r request) {
		x := proxyExchange{Proxy: p, out: out, ctx: ctx, link: l, request: r}
		x.handle()
	}
}

// proxyExchange is the work on one request.
type proxyExchange struct {
	*Proxy
	out  *outlet
	ctx  context.Context
	link link
	request
	client Client
}

func (x *proxyExchange) handle() {
	t := x.packet.MessageType()
	kind, ok := kindOf[t]
	if x.packet.OpCode != dhcpv4.OpcodeBootRequest || !ok {
		return
	}
	x.client = parseClient(x.packet)
	x.client.Interface = x.link.Name()
	if !x.client.PXE && !x.client.HTTPClient {
		return // an address is all it wants, and not ours to give
	}
	x.event(kind, Boot{}, "")
	answer, from := dhcpv4.MessageTypeAck, fromProxy4011
	switch {
	case x.port == portPXE && (t == dhcpv4.MessageTypeRequest || t == dhcpv4.MessageTypeInform):
	case x.port == portPXE && t == dhcpv4.MessageTypeDiscover:
		answer = dhcpv4.MessageTypeOffer
	case x.port == portServer && t == dhcpv4.MessageTypeDiscover:
		answer, from = dhcpv4.MessageTypeOffer, fromProxy
	case x.port == portServer && t == dhcpv4.MessageTypeInform:
		from = fromProxy
	default:
		return // a REQUEST on port 67 is for the server that gives the address
	}
	x.answer(answer, from)
}

func (x *proxyExchange) answer(t dhcpv4.MessageType, from answerAs) {
	self := x.Addr
	if !self.IsValid() {
		self = x.link.Addr()
	}
	if !self.IsValid() {
		x.silence("interface %s has no address that the client could load from", x.link.Name())
		return
	}
	boot, ok := x.Booter.Boot(x.ctx, x.client)
	if !ok {
		x.silence("nothing to boot: %s", boot.Reason)
		return
	}
	r := newReply(x.packet, t, self)
	if t == dhcpv4.MessageTypeAck {
		r.ClientIPAddr = x.packet.ClientIPAddr
	}
	setBoot(r, x.packet, x.client, boot, self, from)
	to := route(x.packet, r)
	if from == fromProxy4011 {
		to = destination{AddrPort: x.src} // PXE 2.1: to the port it came from
	}
	b, _ := fit(r, x.packet)
	if err := x.link.Send(b, to, self); err != nil {
		if x.ctx.Err() == nil {
			x.out.warn("answer not sent", "kind", "proxy", "client", x.client.MAC.String(), "addr", to.AddrPort, "err", err)
			x.silence("the answer could not be sent: %v", err)
		}
		return
	}
	x.out.log.Debug("answer", "kind", "proxy", "client", x.client.MAC.String(), "file", boot.File, "url", boot.URL)
	x.event(EventProxy, boot, boot.Reason)
}

// event tells the timeline what happened. A client that takes an address of another
// server names it.
func (x *proxyExchange) event(kind Kind, boot Boot, reason string) {
	addr := x.client.IP
	if a := addrOf(x.packet.RequestedIPAddress()); a.IsValid() && kind == EventRequest {
		addr = a
	}
	x.out.event(Event{Time: time.Now(), Kind: kind, Interface: x.link.Name(), Client: x.client, Addr: addr, Boot: boot, Reason: reason})
}

func (x *proxyExchange) silence(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	x.out.log.Debug("no answer", "client", x.client.MAC.String(), "reason", why)
	x.event(EventSilence, Boot{}, why)
}

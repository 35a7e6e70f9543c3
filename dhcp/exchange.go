// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slate/dhcp/leases"
)

// exchange is the work on one request.
type exchange struct {
	*engine
	ctx  context.Context
	link link
	request
	client Client
	subnet *subnet
	host   Host
	mac    string
	key    string // who the client is to the lease store
	placed bool   // it has a place in the crew, and may wait
}

var kindOf = map[dhcpv4.MessageType]Kind{
	dhcpv4.MessageTypeDiscover: EventDiscover,
	dhcpv4.MessageTypeOffer:    EventOffer,
	dhcpv4.MessageTypeRequest:  EventRequest,
	dhcpv4.MessageTypeDecline:  EventDecline,
	dhcpv4.MessageTypeAck:      EventAck,
	dhcpv4.MessageTypeNak:      EventNak,
	dhcpv4.MessageTypeRelease:  EventRelease,
	dhcpv4.MessageTypeInform:   EventInform,
}

// handle answers one request. It does not wait for anything: not for the disk
// nor for an ARP answer, and what needs the booter is left to the crew.
func (e *engine) handle(ctx context.Context, l link, r request) {
	kind, ok := kindOf[r.packet.MessageType()]
	if r.packet.OpCode != dhcpv4.OpcodeBootRequest || !ok {
		return // a reply of another server, or BOOTP
	}
	x := &exchange{engine: e, ctx: ctx, link: l, request: r, client: parseClient(r.packet)}
	x.client.Interface = l.Name()
	x.mac = x.client.MAC.String()
	x.key = clientKey(x.client, x.mac, e.ByClientID)
	x.event(kind, x.named(), Boot{}, "")
	if x.key == "" {
		x.silence("the request has neither a hardware address nor a client identifier")
		return
	}
	if x.subnet = e.subnetOf(l, r); x.subnet == nil {
		x.silence("no subnet for %s", x.whence())
		return
	}
	if e.Hosts != nil {
		x.host, _ = e.Hosts.Host(ctx, x.client)
	}
	if x.host.Ignore != "" {
		x.silence("ignored: %s", x.host.Ignore)
		return
	}
	if e.Booter != nil && x.client.WantsBoot() {
		x.later(func() { x.dispatch(kind) })
		return
	}
	x.dispatch(kind)
}

// later calls f where it may wait.
func (x *exchange) later(f func()) {
	if x.placed {
		f()
		return
	}
	x.crew.run(x.ctx, func() {
		x.placed = true
		f()
	})
}

func (x *exchange) dispatch(kind Kind) {
	switch {
	case x.port == portPXE:
		x.bootOnly()
	case kind == EventDiscover:
		x.discover()
	case kind == EventRequest:
		x.requested()
	case kind == EventDecline:
		x.decline()
	case kind == EventRelease:
		if !x.subnet.pool.Release(x.key, addrOf(x.packet.ClientIPAddr)) {
			x.silence("gave back an address that is not its own")
		}
	case kind == EventInform:
		x.inform()
	default:
		x.silence("a client does not send this")
	}
}

// clientKey is who a client is to the lease store; "" if it cannot be told.
func clientKey(c Client, mac string, byID bool) string {
	if c.ClientID != "" && (byID || len(c.MAC) == 0) {
		return "id " + c.ClientID
	}
	return mac
}

// named is the address that a request is about.
func (x *exchange) named() netip.Addr {
	if a := addrOf(x.packet.RequestedIPAddress()); a.IsValid() {
		return a
	}
	return addrOf(x.packet.ClientIPAddr)
}

func (x *exchange) whence() string {
	if x.client.Relay.IsValid() {
		return "relay " + x.client.Relay.String()
	}
	return "interface " + x.link.Name()
}

// subnetOf finds the network the client is in: the one its relay names, or the
// one of the interface it is heard on. A client that is behind a relay and
// renews talks to us directly; its own address tells.
func (e *engine) subnetOf(l link, r request) *subnet {
	ciaddr, giaddr := addrOf(r.packet.ClientIPAddr), addrOf(r.packet.GatewayIPAddr)
	if giaddr.IsValid() {
		return e.subnetWith(linkSelection(r.packet, giaddr))
	}
	if ciaddr.IsValid() && r.dst.IsValid() && r.dst != broadcastAddr {
		if n := e.subnetWith(ciaddr); n != nil {
			return n
		}
	}
	return e.subnetOn(l.Name())
}

func (e *engine) subnetOn(iface string) *subnet {
	for _, n := range e.subnets {
		if n.Interface != "" && n.Interface == iface {
			return n
		}
	}
	return nil
}

func (e *engine) subnetWith(a netip.Addr) *subnet {
	for _, n := range e.subnets {
		if n.Prefix.Contains(a) {
			return n
		}
	}
	return nil
}

// linkSelection is the address that names a relayed client's network: what the
// relay says in option 82.5 (RFC 3527), the client in option 118 (RFC 3011), or
// the relay's own.
func linkSelection(p *dhcpv4.DHCPv4, giaddr netip.Addr) netip.Addr {
	if sub := parseSub(p.Options.Get(dhcpv4.OptionRelayAgentInformation))[5]; len(sub) == 4 {
		return netip.AddrFrom4([4]byte(sub))
	}
	if v := p.Options.Get(dhcpv4.OptionSubnetSelection); len(v) == 4 {
		return netip.AddrFrom4([4]byte(v))
	}
	return giaddr
}

func (x *exchange) discover() { x.offer(x.named(), maxConflicts) }

// maxConflicts is how many addresses may turn out to be in use before a client
// is left waiting for its next try.
const maxConflicts = 4

// offer chooses an address and offers it, or the next one if it turns out to be
// in use; tries is how often.
func (x *exchange) offer(want netip.Addr, tries int) {
	if tries == 0 {
		x.silence("%d addresses in a row are in use by machines that did not get them here", maxConflicts)
		return
	}
	addr, changed, fixed := x.hold(want)
	if !addr.IsValid() {
		return
	}
	if x.SkipProbe || x.client.Relay.IsValid() || !changed && !x.probes.asking(addr) {
		x.give(dhcpv4.MessageTypeOffer, addr) // ARP does not pass a relay
		return
	}
	x.later(func() {
		if x.clear(addr, changed) {
			x.give(dhcpv4.MessageTypeOffer, addr)
			return
		}
		x.subnet.pool.Decline(x.key, addr, x.now().Add(declineTime))
		if fixed {
			x.out.warn("fixed address cannot be given, another is", "client", x.mac, "addr", addr)
		}
		x.offer(netip.Addr{}, tries-1)
	})
}

// hold finds an address for the client and holds it: its fixed one, if that can
// be had, else one of the range. Invalid: there is none, which has been told.
func (x *exchange) hold(want netip.Addr) (addr netip.Addr, changed, fixed bool) {
	if f := x.host.Addr; f.IsValid() && x.subnet.Prefix.Contains(f) {
		changed, err := x.subnet.pool.OfferFixed(x.key, f)
		if err == nil {
			return f, changed, true
		}
		x.out.warn("fixed address cannot be given, another is", "client", x.mac, "addr", f, "err", err)
	}
	addr, changed, err := x.subnet.pool.Offer(x.key, want)
	if err != nil {
		if errors.Is(err, leases.ErrExhausted) {
			x.out.warn("no address left", "subnet", x.subnet.Prefix.Masked(), "client", x.mac, "err", err)
		}
		x.silence("%v", err)
	}
	return addr, changed, false
}

// clear reports whether nobody else uses the address. It asks on the wire if the
// client is new to it; if that very question is open because of an earlier packet
// of the client, it waits for the answer to that.
func (x *exchange) clear(addr netip.Addr, changed bool) bool {
	holder, err := x.probes.do(addr, changed, func() (string, error) {
		mac, err := x.link.InUse(x.ctx, addr)
		return mac.String(), err
	})
	if err != nil && x.ctx.Err() == nil {
		x.out.warn("ARP probe", "addr", addr, "err", err)
	}
	if holder == "" || holder == x.mac {
		return true
	}
	x.conflict(addr, "in use by "+holder)
	return false
}

func (x *exchange) conflict(addr netip.Addr, why string) {
	x.out.warn("address conflict", "addr", addr, "client", x.mac, "reason", why)
	x.event(EventConflict, addr, Boot{}, why)
}

// requested answers a REQUEST, by the state the client is in (RFC 2131, 4.3.2).
func (x *exchange) requested() {
	server := addrOf(x.packet.ServerIdentifier())
	asked, has := addrOf(x.packet.RequestedIPAddress()), addrOf(x.packet.ClientIPAddr)
	switch {
	case server.IsValid() && !x.ours(server):
		x.subnet.pool.Withdraw(x.key)
		x.out.rivals.report(x.out, Rival{Interface: x.link.Name(), Server: server}, x.client)
		x.silence("it took the offer of the server %v", server)
	case server.IsValid() && asked.IsValid():
		x.bind(asked)
	case server.IsValid() && has.IsValid(): // against the RFC, but seen
		x.bind(has)
	case asked.IsValid() && !has.IsValid():
		x.reboot(asked)
	case has.IsValid():
		x.renew(has)
	default:
		x.silence("the request names no address")
	}
}

func (x *exchange) ours(server netip.Addr) bool {
	for _, n := range x.subnets {
		if n.Server == server {
			return true
		}
	}
	return false
}

// reboot answers a client that comes back and would like its old address.
func (x *exchange) reboot(addr netip.Addr) {
	if !x.subnet.Prefix.Contains(addr) {
		x.nak(addr, "the address is not of this network")
		return
	}
	if why := x.movedAway(addr); why != "" {
		x.nak(addr, why)
		return
	}
	old, known := x.subnet.pool.Find(x.key)
	switch {
	case !known && addr != x.host.Addr:
		// RFC 2131: silent, the address may be another server's.
		x.silence("it asks for %v again, of which nothing is known here", addr)
	case known && old.Addr != addr && addr != x.host.Addr:
		x.nak(addr, fmt.Sprintf("its address is %v", old.Addr))
	default:
		x.bind(addr)
	}
}

// renew answers a client that has the address and wants to keep it. One that
// nothing is known of keeps it too, if it is free and ours to give: so machines
// stay up when the lease file was lost.
func (x *exchange) renew(addr netip.Addr) {
	rebinding := !x.dst.IsValid() || x.dst == broadcastAddr
	if rebinding && !x.subnet.Prefix.Contains(addr) {
		x.silence("it wants to keep %v, which is not of this network", addr)
		return
	}
	if why := x.movedAway(addr); why != "" {
		x.nak(addr, why)
		return
	}
	x.bindOr(addr, func(err error) {
		if rebinding && errors.Is(err, leases.ErrOutside) {
			x.silence("it wants to keep %v, which another server gave it", addr)
			return
		}
		x.nak(addr, err.Error())
	})
}

// movedAway says why a client may not keep an address, "" if it may: it has a
// fixed one now, and that can be had.
func (x *exchange) movedAway(addr netip.Addr) string {
	f := x.host.Addr
	if !f.IsValid() || f == addr || !x.subnet.Prefix.Contains(f) {
		return ""
	}
	if _, err := x.subnet.pool.OfferFixed(x.key, f); err != nil {
		return ""
	}
	return fmt.Sprintf("its fixed address is %v", f)
}

func (x *exchange) bind(addr netip.Addr) {
	x.bindOr(addr, func(err error) { x.nak(addr, err.Error()) })
}

// bindOr makes the address the client's and acknowledges it once that is on disk.
// refused is called if the address is not to be had.
func (x *exchange) bindOr(addr netip.Addr, refused func(error)) {
	fixed := addr == x.host.Addr
	if fixed {
		if _, err := x.subnet.pool.OfferFixed(x.key, addr); err != nil {
			refused(err)
			return
		}
	}
	err := x.keep(leases.Lease{
		Addr: addr, Client: x.key, MAC: x.mac, Name: x.name(), Fixed: fixed,
		Expires: x.now().Add(x.leaseTime()),
	})
	switch {
	case err == nil:
	case errors.Is(err, leases.ErrTaken), errors.Is(err, leases.ErrOutside):
		refused(err)
	default:
		x.bound(addr, err)
	}
}

// keep makes the lease and sees to it that bound is called in the end: at once,
// if it may wait, or with the Flush after a handful of requests.
func (x *exchange) keep(l leases.Lease) error {
	if x.placed {
		err := x.subnet.pool.Bind(l)
		if err == nil {
			x.bound(l.Addr, nil)
		}
		return err
	}
	return x.subnet.pool.BindThen(l, func(err error) { x.bound(l.Addr, err) })
}

// bound acknowledges a lease that is on disk; without the disk there is none.
func (x *exchange) bound(addr netip.Addr, err error) {
	if err != nil && x.ctx.Err() != nil {
		return
	}
	if err != nil {
		x.out.log.Error("lease not stored, client not answered", "client", x.mac, "addr", addr, "err", err)
		x.silence("the lease could not be stored: %v", err)
		return
	}
	x.give(dhcpv4.MessageTypeAck, addr)
}

func (x *exchange) name() string {
	if x.host.Name != "" {
		return x.host.Name
	}
	return x.client.HostName
}

// leaseTime is for how long the client gets its address: what it asks for, at
// most what it may.
func (x *exchange) leaseTime() time.Duration {
	most := x.subnet.LeaseTime
	if x.host.LeaseTime > 0 {
		most = x.host.LeaseTime
	}
	if want := x.packet.IPAddressLeaseTime(0); want >= time.Minute && want < most {
		return want
	}
	return most
}

func (x *exchange) decline() {
	addr := x.named()
	server := addrOf(x.packet.ServerIdentifier())
	l, ok := x.subnet.pool.Find(x.key)
	if server.IsValid() && !x.ours(server) || !ok || l.Addr != addr {
		x.silence("it refuses %v, which is not an address it got here", addr)
		return
	}
	x.subnet.pool.Decline(x.key, addr, x.now().Add(declineTime))
	x.conflict(addr, "the client found it in use")
}

// event tells the timeline what happened.
func (x *exchange) event(kind Kind, addr netip.Addr, boot Boot, reason string) {
	x.out.event(Event{Time: x.now(), Kind: kind, Interface: x.link.Name(), Client: x.client, Addr: addr, Boot: boot, Reason: reason})
}

// silence tells why there is no answer.
func (x *exchange) silence(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	x.out.log.Debug("no answer", "client", x.mac, "reason", why)
	x.event(EventSilence, netip.Addr{}, Boot{}, why)
}

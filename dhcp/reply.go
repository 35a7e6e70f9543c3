// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var broadcastAddr = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// newReply is a reply with what every reply has: RFC 2131 table 3, the relay's
// option 82 (RFC 3046) and the client's identifier (RFC 6842) given back.
func newReply(req *dhcpv4.DHCPv4, t dhcpv4.MessageType, self netip.Addr) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        req.HWType,
		TransactionID: req.TransactionID,
		Flags:         req.Flags,
		GatewayIPAddr: req.GatewayIPAddr,
		ClientHWAddr:  req.ClientHWAddr,
		Options: dhcpv4.Options{
			dhcpv4.OptionDHCPMessageType.Code():  {byte(t)},
			dhcpv4.OptionServerIdentifier.Code(): self.AsSlice(),
		},
	}
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionRelayAgentInformation, dhcpv4.OptionClientIdentifier} {
		if v, ok := req.Options[code.Code()]; ok {
			r.Options[code.Code()] = v
		}
	}
	return r
}

// give sends an OFFER or ACK with the address.
func (x *exchange) give(t dhcpv4.MessageType, addr netip.Addr) {
	r := newReply(x.packet, t, x.subnet.Server)
	r.YourIPAddr = addr.AsSlice()
	if t == dhcpv4.MessageTypeAck {
		r.ClientIPAddr = x.packet.ClientIPAddr
	}
	x.setNetwork(r)
	lease := x.leaseTime()
	setSeconds(r, dhcpv4.OptionIPAddressLeaseTime, lease)
	if r.Options[uint8(dhcpv4.OptionRenewTimeValue)] == nil {
		setSeconds(r, dhcpv4.OptionRenewTimeValue, lease/2)
	}
	if r.Options[uint8(dhcpv4.OptionRebindingTimeValue)] == nil {
		setSeconds(r, dhcpv4.OptionRebindingTimeValue, lease/8*7)
	}
	x.client.IP = addr
	boot := x.setBootOf(r, fromServer)
	x.send(r, addr, boot, "")
}

// inform answers a client that has an address from elsewhere.
func (x *exchange) inform() {
	has := addrOf(x.packet.ClientIPAddr)
	if !has.IsValid() {
		x.silence("it asks for settings and does not say what its address is")
		return
	}
	r := newReply(x.packet, dhcpv4.MessageTypeAck, x.subnet.Server)
	r.ClientIPAddr = x.packet.ClientIPAddr
	x.setNetwork(r)
	boot := x.setBootOf(r, fromServer)
	x.send(r, has, boot, "")
}

// bootOnly answers on port 4011, where firmware asks that took our address for
// that of a boot server.
func (x *exchange) bootOnly() {
	if !x.client.WantsBoot() {
		x.silence("it asks on port 4011 and is not a boot client")
		return
	}
	r := newReply(x.packet, dhcpv4.MessageTypeAck, x.subnet.Server)
	r.ClientIPAddr = x.packet.ClientIPAddr
	boot := x.setBootOf(r, fromProxy4011)
	if boot.File == "" && boot.URL == "" {
		x.silence("nothing to boot: %s", boot.Reason)
		return
	}
	x.sendTo(r, destination{AddrPort: x.src}, x.client.IP, boot, "")
}

func (x *exchange) nak(addr netip.Addr, why string) {
	r := newReply(x.packet, dhcpv4.MessageTypeNak, x.subnet.Server)
	r.Options[dhcpv4.OptionMessage.Code()] = []byte(why)
	if x.client.Relay.IsValid() {
		r.SetBroadcast() // the relay then broadcasts it: the client may not have the address
	}
	x.out.log.Info("address refused", "client", x.mac, "addr", addr, "reason", why)
	x.send(r, addr, Boot{}, why)
}

// setBootOf asks the booter and puts its answer into the reply.
func (x *exchange) setBootOf(r *dhcpv4.DHCPv4, from answerAs) Boot {
	if x.Booter == nil || !x.client.WantsBoot() {
		return Boot{}
	}
	boot, ok := x.Booter.Boot(x.ctx, x.client)
	if !ok {
		return Boot{Reason: boot.Reason}
	}
	setBoot(r, x.packet, x.client, boot, x.subnet.Server, from)
	return boot
}

// setNetwork puts the settings of the subnet and of the host into the reply.
func (x *exchange) setNetwork(r *dhcpv4.DHCPv4) {
	n, h := x.subnet, x.host
	for _, extra := range []map[uint8][]byte{h.Options, n.Options} {
		for code, v := range extra {
			if _, taken := r.Options[code]; !taken && asked(x.packet, dhcpv4.GenericOptionCode(code)) {
				r.Options[code] = v
			}
		}
	}
	r.Options[dhcpv4.OptionSubnetMask.Code()] = net.CIDRMask(n.Prefix.Bits(), 32)
	setAddrs(r, dhcpv4.OptionRouter, either(h.Gateway, n.Gateway))
	setAddrs(r, dhcpv4.OptionDomainNameServer, eitherList(h.DNS, n.DNS)...)
	setText(r, dhcpv4.OptionDomainName, eitherText(h.Domain, n.Domain))
	if asked(x.packet, dhcpv4.OptionNTPServers) {
		setAddrs(r, dhcpv4.OptionNTPServers, eitherList(h.NTP, n.NTP)...)
	}
	if asked(x.packet, dhcpv4.OptionHostName) {
		setText(r, dhcpv4.OptionHostName, h.Name)
	}
}

func either(a, b netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return b
}

func eitherList(a, b []netip.Addr) []netip.Addr {
	if len(a) > 0 {
		return a
	}
	return b
}

func eitherText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func setAddrs(r *dhcpv4.DHCPv4, code dhcpv4.OptionCode, addrs ...netip.Addr) {
	var b []byte
	for _, a := range addrs {
		if a.Is4() {
			b = append(b, a.AsSlice()...)
		}
	}
	if b != nil {
		r.Options[code.Code()] = b
	}
}

func setText(r *dhcpv4.DHCPv4, code dhcpv4.OptionCode, s string) {
	if s != "" {
		r.Options[code.Code()] = []byte(s)
	}
}

func setSeconds(r *dhcpv4.DHCPv4, code dhcpv4.OptionCode, d time.Duration) {
	r.Options[code.Code()] = binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))
}

// send sends the reply to where its client can take it.
func (x *exchange) send(r *dhcpv4.DHCPv4, addr netip.Addr, boot Boot, reason string) {
	x.sendTo(r, route(x.packet, r), addr, boot, reason)
}

func (x *exchange) sendTo(r *dhcpv4.DHCPv4, to destination, addr netip.Addr, boot Boot, reason string) {
	b, dropped := fit(r, x.packet)
	kind := kindOf[r.MessageType()]
	if len(dropped) > 0 {
		x.out.log.Debug("options left out: the client takes no larger answer", "client", x.mac, "options", dropped)
	}
	if err := x.link.Send(b, to, x.subnet.Server); err != nil {
		if x.ctx.Err() == nil {
			x.out.warn("answer not sent", "kind", string(kind), "client", x.mac, "addr", to.AddrPort, "err", err)
			x.silence("the answer could not be sent: %v", err)
		}
		return
	}
	if x.out.debugging(x.ctx) {
		x.out.log.Debug("answer", "kind", string(kind), "client", x.mac, "addr", addr, "file", boot.File, "url", boot.URL)
	}
	x.event(kind, addr, boot, reason)
}

// route is where a reply goes (RFC 2131, 4.1).
func route(req, r *dhcpv4.DHCPv4) destination {
	giaddr, ciaddr, yiaddr := addrOf(req.GatewayIPAddr), addrOf(req.ClientIPAddr), addrOf(r.YourIPAddr)
	switch {
	case giaddr.IsValid():
		return destination{AddrPort: netip.AddrPortFrom(giaddr, portServer)}
	case r.MessageType() == dhcpv4.MessageTypeNak:
		return destination{AddrPort: netip.AddrPortFrom(broadcastAddr, portClient)}
	case ciaddr.IsValid():
		return destination{AddrPort: netip.AddrPortFrom(ciaddr, portClient)}
	case req.IsBroadcast() || !yiaddr.IsValid() || len(req.ClientHWAddr) != 6:
		return destination{AddrPort: netip.AddrPortFrom(broadcastAddr, portClient)}
	}
	return destination{AddrPort: netip.AddrPortFrom(yiaddr, portClient), MAC: req.ClientHWAddr}
}

// Sizes of a DHCP message, without IP and UDP headers.
const (
	minMessage = 576 - ipHeader - udpHeader  // every client takes this much
	maxMessage = 1500 - ipHeader - udpHeader // one Ethernet frame
)

// spare is what is left out of a reply that is too large for its client, the
// least needed first.
var spare = []uint8{
	uint8(dhcpv4.OptionEtherboot), uint8(dhcpv4.OptionNTPServers), uint8(dhcpv4.OptionHostName), uint8(dhcpv4.OptionClientMachineIdentifier),
	uint8(dhcpv4.OptionTFTPServerName), uint8(dhcpv4.OptionDomainName), uint8(dhcpv4.OptionRebindingTimeValue),
	uint8(dhcpv4.OptionRenewTimeValue), uint8(dhcpv4.OptionDomainNameServer),
}

// needed is what a reply makes no sense without.
var needed = map[uint8]bool{
	uint8(dhcpv4.OptionSubnetMask): true, uint8(dhcpv4.OptionRouter): true, uint8(dhcpv4.OptionVendorSpecificInformation): true,
	uint8(dhcpv4.OptionIPAddressLeaseTime): true, uint8(dhcpv4.OptionDHCPMessageType): true,
	uint8(dhcpv4.OptionServerIdentifier): true, uint8(dhcpv4.OptionMessage): true, uint8(dhcpv4.OptionClassIdentifier): true,
	uint8(dhcpv4.OptionClientIdentifier): true, uint8(dhcpv4.OptionBootfileName): true, uint8(dhcpv4.OptionRelayAgentInformation): true,
}

// fit encodes the reply so that it is no larger than the client takes (option
// 57), leaving out options if it must: first those of the admin, by code from the
// highest, then the spare ones. An answer that is too large even so goes out: it
// has better chances than none.
func fit(r, req *dhcpv4.DHCPv4) (b []byte, dropped []uint8) {
	limit := minMessage
	if v := req.Options.Get(dhcpv4.OptionMaximumDHCPMessageSize); len(v) == 2 {
		// The option counts the headers too (RFC 2132, 9.10).
		limit = min(max(limit, int(binary.BigEndian.Uint16(v))-ipHeader-udpHeader), maxMessage)
	}
	drop := func(code uint8) bool {
		if _, ok := r.Options[code]; ok {
			delete(r.Options, code)
			dropped = append(dropped, code)
			b = r.ToBytes()
		}
		return len(b) <= limit
	}
	if b = r.ToBytes(); len(b) <= limit {
		return b, nil
	}
	known := map[uint8]bool{}
	for _, code := range spare {
		known[code] = true
	}
	for code := 254; code > 0; code-- {
		if c := uint8(code); !needed[c] && !known[c] && drop(c) {
			return b, dropped
		}
	}
	for _, code := range spare {
		if drop(code) {
			return b, dropped
		}
	}
	return b, dropped
}

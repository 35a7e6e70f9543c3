// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Sent is a reply as a FakeLink took it.
type Sent struct {
	Packet *dhcpv4.DHCPv4
	Size   int
	To     netip.AddrPort
	MAC    string // not empty: a frame to this hardware address
	Self   netip.Addr
}

// FakeLink is an interface without a network.
type FakeLink struct {
	Iface   string
	Address netip.Addr
	Holders map[netip.Addr]string // who answers ARP for which address
	Ask     func(netip.Addr)      // called for each ARP question, if set

	mu    sync.Mutex
	sent  []Sent
	asked []netip.Addr
}

func (l *FakeLink) Name() string     { return l.Iface }
func (l *FakeLink) Addr() netip.Addr { return l.Address }

func (l *FakeLink) InUse(_ context.Context, a netip.Addr) (net.HardwareAddr, error) {
	l.mu.Lock()
	l.asked = append(l.asked, a)
	l.mu.Unlock()
	if l.Ask != nil {
		l.Ask(a)
	}
	if l.Holders[a] == "" {
		return nil, nil
	}
	return net.ParseMAC(l.Holders[a])
}

func (l *FakeLink) Send(b []byte, to destination, self netip.Addr) error {
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, Sent{p, len(b), to.AddrPort, to.MAC.String(), self})
	return nil
}

// Take returns what was sent since the last call.
func (l *FakeLink) Take() []Sent {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sent
	l.sent = nil
	return s
}

// Asked lists the addresses that were asked for by ARP.
func (l *FakeLink) Asked() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]netip.Addr(nil), l.asked...)
}

// How is how a packet comes in; zero: a broadcast to port 67.
type How struct {
	Port int
	Src  netip.AddrPort
	Dst  netip.Addr
}

func (h How) request(p *dhcpv4.DHCPv4) request {
	if h.Port == 0 {
		h.Port = portServer
	}
	if !h.Src.IsValid() {
		h.Src = netip.MustParseAddrPort("0.0.0.0:68")
	}
	if !h.Dst.IsValid() {
		h.Dst = broadcastAddr
	}
	return request{packet: p, src: h.Src, dst: h.Dst, port: h.Port}
}

// Handler returns what answers one packet, without sockets.
func (s *Server) Handler(t testing.TB) func(l *FakeLink, p *dhcpv4.DHCPv4, how How) {
	t.Helper()
	e, err := s.engine()
	if err != nil {
		t.Fatal(err)
	}
	return func(l *FakeLink, p *dhcpv4.DHCPv4, how How) {
		e.handle(t.Context(), l, how.request(p))
		e.store.Flush()
		e.crew.wg.Wait()
	}
}

// Handler returns what answers one packet, without sockets.
func (p *Proxy) Handler(t testing.TB) func(l *FakeLink, p *dhcpv4.DHCPv4, how How) {
	_, handle := p.handler()
	return func(l *FakeLink, p *dhcpv4.DHCPv4, how How) { handle(t.Context(), l, how.request(p)) }
}

// For tests of the parts.
var (
	ParsePacket = parsePacket
	ParseClient = parseClient
	ParseSub    = parseSub
	UDPPacket   = udpPacket
	UDPPayload  = udpPayload
	PortHolders = portHolders
	FromServers = fromServers
)

// After makes what calls all in a goroutine of its own.
func After(all func()) (want func(must bool) bool, end func()) {
	a := newAfter(all)
	return a.want, a.end
}

// SPDX-License-Identifier: GPL-2.0-or-later

package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// wire is the client's end of a network on which servers answer each packet.
type wire struct {
	servers []func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4
	in      chan []byte
	once    sync.Once
	closed  chan struct{}

	mu   sync.Mutex
	sent []*dhcpv4.DHCPv4
}

func newWire(servers ...func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4) *wire {
	return &wire{servers: servers, in: make(chan []byte, 64), closed: make(chan struct{})}
}

func (w *wire) WriteTo(b []byte, _ net.Addr) (int, error) {
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	w.sent = append(w.sent, p)
	w.mu.Unlock()
	for _, s := range w.servers {
		if r := s(p); r != nil {
			w.in <- r.ToBytes()
		}
	}
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-w.in:
		return copy(b, p), &net.UDPAddr{}, nil
	case <-w.closed:
		return 0, nil, net.ErrClosed
	}
}

func (w *wire) Close() error                     { w.once.Do(func() { close(w.closed) }); return nil }
func (w *wire) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// types lists what the client sent.
func (w *wire) types() (out []dhcpv4.MessageType) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.sent {
		out = append(out, p.MessageType())
	}
	return out
}

func reply(to *dhcpv4.DHCPv4, typ dhcpv4.MessageType, server, yours net.IP) *dhcpv4.DHCPv4 {
	r, err := dhcpv4.NewReplyFromRequest(to, dhcpv4.WithMessageType(typ), dhcpv4.WithYourIP(yours),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(60))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return r
}

var (
	server  = net.IPv4(10, 77, 0, 1)
	rival   = net.IPv4(10, 77, 0, 2)
	address = net.IPv4(10, 77, 0, 52)
)

// proper is a DHCP server; it answers only requests made to it.
func proper(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	switch {
	case p.MessageType() == dhcpv4.MessageTypeDiscover:
		return reply(p, dhcpv4.MessageTypeOffer, server, address)
	case p.ServerIdentifier() == nil || p.ServerIdentifier().Equal(server):
		return reply(p, dhcpv4.MessageTypeAck, server, address)
	}
	return nil
}

// proxy is a proxyDHCP server: offers without an address, faster than anybody.
func proxy(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	if p.MessageType() != dhcpv4.MessageTypeDiscover {
		return nil
	}
	return reply(p, dhcpv4.MessageTypeOffer, rival, net.IPv4zero)
}

func client(w *wire) Client {
	return Client{Interface: Interface{Name: "eth0", Index: 3, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}, Hostname: "n1",
		Conn: func() (net.PacketConn, error) { return w, nil }, First: 200 * time.Millisecond}
}

func TestAcquireSkipsOffersWithoutAnAddress(t *testing.T) {
	l, err := client(newWire(proxy, proper)).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if l.Address != netip.MustParsePrefix("10.77.0.52/24") || l.Server != netip.MustParseAddr("10.77.0.1") || l.Index != 3 || l.Duration != time.Minute {
		t.Errorf("lease %+v", l)
	}
}

func TestAcquireSaysWhoItIs(t *testing.T) {
	w := newWire(proper)
	if _, err := client(w).Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range w.sent {
		if p.ClassIdentifier() != VendorClass || p.HostName() != "n1" || !slices.Equal(p.GetOneOption(dhcpv4.OptionClientIdentifier), []byte{1, 2, 0, 0, 0, 0, 1}) {
			t.Errorf("%v: class %q, host name %q, client identifier %x", p.MessageType(), p.ClassIdentifier(), p.HostName(), p.GetOneOption(dhcpv4.OptionClientIdentifier))
		}
	}
}

func TestAcquireTriesAgain(t *testing.T) {
	lost := 2
	w := newWire(func(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		if lost > 0 {
			lost--
			return nil
		}
		return proper(p)
	})
	if _, err := client(w).Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.types(); len(got) != 4 {
		t.Errorf("sent %v, want 3 discovers and a request", got)
	}
}

func TestAcquireRepeatsTheRequest(t *testing.T) {
	lost := 2
	w := newWire(func(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		if p.MessageType() == dhcpv4.MessageTypeRequest && lost > 0 {
			lost--
			return nil
		}
		return proper(p)
	})
	if _, err := client(w).Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeRequest}
	if got := w.types(); !slices.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

func TestAcquireStartsAnewAfterNak(t *testing.T) {
	refuse := true
	w := newWire(func(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		if p.MessageType() == dhcpv4.MessageTypeRequest && refuse {
			refuse = false
			return reply(p, dhcpv4.MessageTypeNak, server, net.IPv4zero)
		}
		return proper(p)
	})
	if _, err := client(w).Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest}
	if got := w.types(); !slices.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

func TestAcquireGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client(newWire(proxy)).Acquire(ctx); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("Acquire() with a proxy alone = %v, want %v", err, ErrNoAnswer)
	}
}

func TestAcquireLivesWithNonsense(t *testing.T) {
	w := newWire(func(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { // an address nobody can have
		if p.MessageType() == dhcpv4.MessageTypeDiscover {
			return reply(p, dhcpv4.MessageTypeOffer, rival, net.IPv4(127, 0, 0, 1))
		}
		return nil
	}, proper)
	w.in <- []byte("garbage")
	w.in <- nil
	if _, err := client(w).Acquire(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestExtend(t *testing.T) {
	l, err := client(newWire(proper)).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []Action{Renew, Rebind} {
		w := newWire(proper)
		n, err := client(w).Extend(t.Context(), l, a)
		if err != nil || n.Address != l.Address || n.Index != l.Index {
			t.Errorf("Extend(%v) = %+v, %v", a, n, err)
		}
		// RFC 2131, 4.3.6: the own address in ciaddr, no server and no requested address.
		if p := w.sent[0]; !p.ClientIPAddr.Equal(address) || p.ServerIdentifier() != nil || p.RequestedIPAddress() != nil {
			t.Errorf("Extend(%v) sent %v", a, p.Summary())
		}
	}
	nak := func(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return reply(p, dhcpv4.MessageTypeNak, server, net.IPv4zero) }
	if _, err := client(newWire(nak)).Extend(t.Context(), l, Renew); !errors.Is(err, ErrRefused) {
		t.Errorf("Extend() answered by NAK = %v, want %v", err, ErrRefused)
	}
	other := func(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		return reply(p, dhcpv4.MessageTypeAck, server, net.IPv4(10, 77, 0, 53))
	}
	if _, err := client(newWire(other)).Extend(t.Context(), l, Renew); !errors.Is(err, ErrRefused) {
		t.Errorf("Extend() answered by another address = %v, want %v", err, ErrRefused)
	}
	stranger := func(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		return reply(p, dhcpv4.MessageTypeNak, rival, net.IPv4zero)
	}
	if n, err := client(newWire(stranger, proper)).Extend(t.Context(), l, Renew); err != nil || n.Address != l.Address {
		t.Errorf("Extend() with a stranger's NAK = %v, want it passed over", err)
	}
}

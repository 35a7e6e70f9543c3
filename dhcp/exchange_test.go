// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slate/dhcp"
	"slate/dhcp/leases"
)

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

// room is a server with a fake link.
type room struct {
	*testing.T
	*dhcp.Server
	link   *dhcp.FakeLink
	handle func(*dhcp.FakeLink, *dhcpv4.DHCPv4, dhcp.How)

	mu     sync.Mutex
	events []dhcp.Event
}

func newRoom(t *testing.T, change func(*dhcp.Server)) *room {
	t.Helper()
	r := &room{T: t, link: &dhcp.FakeLink{Iface: "lan0", Address: addr("10.0.0.1"), Holders: map[netip.Addr]string{}}}
	r.Server = &dhcp.Server{
		Subnets: []dhcp.Subnet{{
			Interface: "lan0", Server: addr("10.0.0.1"), Prefix: netip.MustParsePrefix("10.0.0.0/24"),
			First: addr("10.0.0.100"), Last: addr("10.0.0.110"), Gateway: addr("10.0.0.254"),
			DNS: []netip.Addr{addr("10.0.0.53"), addr("10.0.0.54")}, Domain: "lab.example", LeaseTime: time.Hour,
		}},
		Events: func(e dhcp.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
	}
	if change != nil {
		change(r.Server)
	}
	r.handle = r.Handler(t)
	return r
}

// send hands the packet in and returns the only answer, nil for silence.
func (r *room) send(p *dhcpv4.DHCPv4, how dhcp.How) *dhcp.Sent {
	r.Helper()
	r.handle(r.link, p, how)
	sent := r.link.Take()
	if len(sent) > 1 {
		r.Fatalf("%d answers to one packet", len(sent))
	}
	if len(sent) == 0 {
		return nil
	}
	return &sent[0]
}

// want checks the kind of the answer and the address in it, "" for none.
func (r *room) want(s *dhcp.Sent, kind dhcpv4.MessageType, yiaddr string) {
	r.Helper()
	switch {
	case s == nil && kind == dhcpv4.MessageTypeNone:
	case s == nil:
		r.Fatalf("no answer (%s), want %s", r.lastReason(), kind)
	case kind == dhcpv4.MessageTypeNone:
		r.Fatalf("answer %s, want silence", s.Packet.MessageType())
	case s.Packet.MessageType() != kind:
		r.Fatalf("answer %s %q, want %s", s.Packet.MessageType(), s.Packet.Message(), kind)
	case yiaddr == "" && !s.Packet.YourIPAddr.IsUnspecified(), yiaddr != "" && s.Packet.YourIPAddr.String() != yiaddr:
		r.Fatalf("%s of %v, want %q", kind, s.Packet.YourIPAddr, yiaddr)
	}
}

func (r *room) lastReason() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == 0 {
		return ""
	}
	return r.events[len(r.events)-1].Reason
}

func (r *room) kinds() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var k []string
	for _, e := range r.events {
		k = append(k, string(e.Kind))
	}
	r.events = nil
	return strings.Join(k, " ")
}

func ip(s string) string { return string(addr(s).AsSlice()) }

func discover(opts map[uint8]string) *dhcpv4.DHCPv4 {
	return message(dhcpv4.MessageTypeDiscover, opts)
}

// selecting is the REQUEST after an offer.
func selecting(a, server string) *dhcpv4.DHCPv4 {
	return message(dhcpv4.MessageTypeRequest, map[uint8]string{50: ip(a), 54: ip(server)})
}

// renewing is the REQUEST of a client that has the address.
func renewing(a string) *dhcpv4.DHCPv4 {
	p := message(dhcpv4.MessageTypeRequest, nil)
	p.ClientIPAddr = addr(a).AsSlice()
	return p
}

func rebooting(a string) *dhcpv4.DHCPv4 {
	return message(dhcpv4.MessageTypeRequest, map[uint8]string{50: ip(a)})
}

var (
	none  = dhcpv4.MessageTypeNone
	offer = dhcpv4.MessageTypeOffer
	ack   = dhcpv4.MessageTypeAck
	nak   = dhcpv4.MessageTypeNak

	unicast = dhcp.How{Dst: netip.MustParseAddr("10.0.0.1"), Src: netip.MustParseAddrPort("10.0.0.100:68")}
)

func TestLeaseFromStartToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, nil)
		o := r.send(discover(map[uint8]string{55: "\x01\x03\x06\x0f\x1c", 61: "\x01abc"}), dhcp.How{})
		r.want(o, offer, "10.0.0.100")
		if o.MAC != testMAC.String() || o.To != netip.MustParseAddrPort("10.0.0.100:68") || o.Self != addr("10.0.0.1") {
			t.Errorf("offer to %v %s from %v, want a frame to the client", o.To, o.MAC, o.Self)
		}
		p := o.Packet
		for code, want := range map[uint8]string{
			1: "\xff\xff\xff\x00", 3: ip("10.0.0.254"), 6: ip("10.0.0.53") + ip("10.0.0.54"), 15: "lab.example", 54: ip("10.0.0.1"),
			51: "\x00\x00\x0e\x10", 58: "\x00\x00\x07\x08", 59: "\x00\x00\x0c\x4e", 61: "\x01abc",
		} {
			if got := string(p.Options[code]); got != want {
				t.Errorf("option %d = %x, want %x", code, got, want)
			}
		}
		if p.TransactionID != (dhcpv4.TransactionID{1, 2, 3, 4}) || p.OpCode != dhcpv4.OpcodeBootReply {
			t.Errorf("reply %v", p)
		}
		r.want(r.send(selecting("10.0.0.100", "10.0.0.1"), dhcp.How{}), ack, "10.0.0.100")
		time.Sleep(30 * time.Minute)
		a := r.send(renewing("10.0.0.100"), unicast)
		r.want(a, ack, "10.0.0.100")
		if a.MAC != "" || a.To != netip.MustParseAddrPort("10.0.0.100:68") {
			t.Errorf("answer to a renewal to %v %s, want plain UDP to the client", a.To, a.MAC)
		}
		time.Sleep(55 * time.Minute)
		r.want(r.send(renewing("10.0.0.100"), dhcp.How{}), ack, "10.0.0.100") // rebinding
		rel := message(dhcpv4.MessageTypeRelease, map[uint8]string{54: ip("10.0.0.1")})
		rel.ClientIPAddr = addr("10.0.0.100").AsSlice()
		r.want(r.send(rel, unicast), none, "")
		if got, want := r.kinds(), "discover offer request ack request ack request ack release"; got != want {
			t.Errorf("events %s\nwant %s", got, want)
		}
		// It comes back and gets the same again, without an ARP question.
		r.want(r.send(discover(nil), dhcp.How{}), offer, "10.0.0.100")
		if got := r.link.Asked(); len(got) != 1 {
			t.Errorf("asked by ARP for %v, want one question in all", got)
		}
	})
}

func TestRequestStates(t *testing.T) {
	other := map[uint8]string{50: ip("10.0.0.100"), 54: ip("10.0.0.9")}
	for _, c := range []struct {
		name   string
		leased bool // the client has 10.0.0.100
		taken  bool // another has 10.0.0.105
		packet *dhcpv4.DHCPv4
		how    dhcp.How
		kind   dhcpv4.MessageType
		addr   string
		reason string
	}{
		{"selecting another server", true, false, message(dhcpv4.MessageTypeRequest, other), dhcp.How{}, none, "", "it took the offer of the server 10.0.0.9"},
		{"selecting without an offer, after our restart", false, false, selecting("10.0.0.107", "10.0.0.1"), dhcp.How{}, ack, "10.0.0.107", ""},
		{"selecting what another has", false, true, selecting("10.0.0.105", "10.0.0.1"), dhcp.How{}, nak, "", "address belongs to another machine"},
		{"selecting what is not ours to give", false, false, selecting("10.0.0.9", "10.0.0.1"), dhcp.How{}, nak, "", "address is not ours to give"},
		{"reboot with its lease", true, false, rebooting("10.0.0.100"), dhcp.How{}, ack, "10.0.0.100", ""},
		{"reboot with another address than its lease", true, false, rebooting("10.0.0.101"), dhcp.How{}, nak, "", "its address is 10.0.0.100"},
		{"reboot in a wrong network", false, false, rebooting("192.168.7.7"), dhcp.How{}, nak, "", "the address is not of this network"},
		{"reboot of a stranger", false, false, rebooting("10.0.0.100"), dhcp.How{}, none, "", "it asks for 10.0.0.100 again, of which nothing is known here"},
		{"renew", true, false, renewing("10.0.0.100"), unicast, ack, "10.0.0.100", ""},
		{"renew a lease we forgot", false, false, renewing("10.0.0.103"), unicast, ack, "10.0.0.103", ""},
		{"renew what another has", false, true, renewing("10.0.0.105"), unicast, nak, "", "address belongs to another machine"},
		{"renew what is outside the range", false, false, renewing("10.0.0.9"), unicast, nak, "", "address is not ours to give"},
		{"rebind a lease we forgot", false, false, renewing("10.0.0.103"), dhcp.How{}, ack, "10.0.0.103", ""},
		{"rebind what another server gave", false, false, renewing("10.0.0.9"), dhcp.How{}, none, "", "it wants to keep 10.0.0.9, which another server gave it"},
		{"rebind in another network", false, false, renewing("192.168.7.7"), dhcp.How{}, none, "", "it wants to keep 192.168.7.7, which is not of this network"},
		{"nothing said", false, false, message(dhcpv4.MessageTypeRequest, nil), dhcp.How{}, none, "", "the request names no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoom(t, nil)
			if c.leased {
				r.want(r.send(selecting("10.0.0.100", "10.0.0.1"), dhcp.How{}), ack, "10.0.0.100")
			}
			if c.taken {
				p := selecting("10.0.0.105", "10.0.0.1")
				p.ClientHWAddr = []byte{2, 0, 0, 0, 0, 9}
				r.want(r.send(p, dhcp.How{}), ack, "10.0.0.105")
			}
			s := r.send(c.packet, c.how)
			r.want(s, c.kind, c.addr)
			if got := r.lastReason(); got != c.reason {
				t.Errorf("reason %q, want %q", got, c.reason)
			}
			if c.kind == nak && (s.To != netip.MustParseAddrPort("255.255.255.255:68") || s.Packet.Message() != c.reason) {
				t.Errorf("NAK to %v, %q: want a broadcast with the reason", s.To, s.Packet.Message())
			}
		})
	}
}

// Where replies go, RFC 2131 4.1.
func TestReplyGoesWhereTheClientCanTakeIt(t *testing.T) {
	r := newRoom(t, nil)
	p := discover(nil)
	p.SetBroadcast()
	if s := r.send(p, dhcp.How{}); s.To.String() != "255.255.255.255:68" || s.MAC != "" || !s.Packet.IsBroadcast() {
		t.Errorf("client that asks for broadcast: reply to %v %s", s.To, s.MAC)
	}
	p = discover(map[uint8]string{82: "\x01\x04eth7\x02\x02sw"})
	p.GatewayIPAddr = addr("10.0.0.254").AsSlice()
	p.HopCount = 1
	s := r.send(p, dhcp.How{Src: netip.MustParseAddrPort("10.9.9.9:1234"), Dst: addr("10.0.0.1")})
	if s.To.String() != "10.0.0.254:67" || s.MAC != "" {
		t.Errorf("relayed request: reply to %v %s, want the relay's server port", s.To, s.MAC)
	}
	if got := string(s.Packet.Options[82]); got != "\x01\x04eth7\x02\x02sw" {
		t.Errorf("option 82 given back as %q", got)
	}
	p = rebooting("192.168.0.1")
	p.GatewayIPAddr = addr("10.0.0.254").AsSlice()
	if s := r.send(p, dhcp.How{}); s.To.String() != "10.0.0.254:67" || !s.Packet.IsBroadcast() {
		t.Errorf("NAK through a relay to %v, broadcast flag %v; want the relay, with the flag", s.To, s.Packet.IsBroadcast())
	}
	p = message(dhcpv4.MessageTypeInform, nil)
	p.ClientIPAddr = addr("10.0.0.77").AsSlice()
	s = r.send(p, unicast)
	r.want(s, ack, "")
	if s.To.String() != "10.0.0.77:68" || s.Packet.Options[51] != nil || s.Packet.Options[6] == nil {
		t.Errorf("INFORM answered to %v with %v: want the settings without a lease, to the client", s.To, s.Packet.Options)
	}
}

func TestSubnetOfTheClient(t *testing.T) {
	r := newRoom(t, func(s *dhcp.Server) {
		s.Subnets = append(s.Subnets, dhcp.Subnet{
			Server: addr("10.0.0.1"), Prefix: netip.MustParsePrefix("10.5.0.0/24"), First: addr("10.5.0.10"), Last: addr("10.5.0.20"),
		}, dhcp.Subnet{
			Interface: "lan1", Server: addr("10.6.0.1"), Prefix: netip.MustParsePrefix("10.6.0.0/24"), First: addr("10.6.0.10"), Last: addr("10.6.0.20"),
		})
	})
	relayed := func(giaddr string, opts map[uint8]string) *dhcpv4.DHCPv4 {
		p := discover(opts)
		p.GatewayIPAddr = addr(giaddr).AsSlice()
		return p
	}
	r.want(r.send(relayed("10.5.0.254", nil), dhcp.How{}), offer, "10.5.0.10")
	r.want(r.send(relayed("10.0.0.254", map[uint8]string{82: "\x05\x04" + ip("10.6.0.0")}), dhcp.How{}), offer, "10.6.0.10")
	r.want(r.send(relayed("10.0.0.254", map[uint8]string{118: ip("10.5.0.0")}), dhcp.How{}), offer, "10.5.0.10")
	r.want(r.send(relayed("172.16.0.1", nil), dhcp.How{}), none, "")
	if got := r.lastReason(); got != "no subnet for relay 172.16.0.1" {
		t.Errorf("reason %q", got)
	}
	// A client behind the relay renews directly, through a router.
	r.want(r.send(renewing("10.5.0.10"), unicast), ack, "10.5.0.10")

	r.link.Iface = "lan1"
	s := r.send(discover(nil), dhcp.How{})
	r.want(s, offer, "10.6.0.10")
	if got := s.Packet.ServerIdentifier().String(); got != "10.6.0.1" {
		t.Errorf("server identifier %s on the second interface, want its own address", got)
	}
	r.link.Iface = "wan0"
	r.want(r.send(discover(nil), dhcp.How{}), none, "")
}

func TestAddressInUseIsNotOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, nil)
		r.link.Holders[addr("10.0.0.100")] = "02:00:00:00:00:01"
		r.link.Holders[addr("10.0.0.101")] = testMAC.String() // the client itself, from before
		r.want(r.send(discover(nil), dhcp.How{}), offer, "10.0.0.101")
		if got := r.kinds(); got != "discover conflict offer" {
			t.Errorf("events %s", got)
		}
		p := discover(map[uint8]string{50: ip("10.0.0.100")})
		p.ClientHWAddr = []byte{2, 0, 0, 0, 0, 5}
		r.want(r.send(p, dhcp.How{}), offer, "10.0.0.102") // .100 rests, whoever wants it
		time.Sleep(time.Hour)
		delete(r.link.Holders, addr("10.0.0.100"))
		p.ClientHWAddr = []byte{2, 0, 0, 0, 0, 6}
		r.want(r.send(p, dhcp.How{}), offer, "10.0.0.100")

		for i := 103; i <= 106; i++ {
			r.link.Holders[netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})] = "02:00:00:00:00:01"
		}
		p = discover(nil)
		p.ClientHWAddr = []byte{2, 0, 0, 0, 0, 7}
		r.want(r.send(p, dhcp.How{}), none, "")
		r.want(r.send(p, dhcp.How{}), offer, "10.0.0.107")
	})
}

// A client that repeats its DISCOVER while the ARP question is open must not get
// the answer earlier than that.
func TestRepeatedDiscoverWaitsForTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, nil)
		r.link.Ask = func(netip.Addr) { time.Sleep(300 * time.Millisecond) }
		r.link.Holders[addr("10.0.0.100")] = "02:00:00:00:00:01"
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { r.handle(r.link, discover(nil), dhcp.How{}) })
			time.Sleep(50 * time.Millisecond)
		}
		wg.Wait()
		sent := r.link.Take()
		if len(sent) != 3 {
			t.Errorf("%d answers to 3 packets", len(sent))
		}
		for _, s := range sent {
			if got := s.Packet.YourIPAddr.String(); got != "10.0.0.101" {
				t.Errorf("offered %s, want 10.0.0.101: .100 is in use", got)
			}
		}
		if got := len(r.link.Asked()); got != 2 {
			t.Errorf("%d ARP questions, want 2", got)
		}
	})
}

func TestDecline(t *testing.T) {
	r := newRoom(t, nil)
	r.want(r.send(selecting("10.0.0.100", "10.0.0.1"), dhcp.How{}), ack, "10.0.0.100")
	r.kinds()
	foreign := message(dhcpv4.MessageTypeDecline, map[uint8]string{50: ip("10.0.0.105"), 54: ip("10.0.0.1")})
	r.want(r.send(foreign, dhcp.How{}), none, "")
	if got := r.kinds(); got != "decline silence" {
		t.Errorf("events after declining what it does not have: %s", got)
	}
	r.want(r.send(message(dhcpv4.MessageTypeDecline, map[uint8]string{50: ip("10.0.0.100"), 54: ip("10.0.0.1")}), dhcp.How{}), none, "")
	if got := r.kinds(); got != "decline conflict" {
		t.Errorf("events %s", got)
	}
	r.want(r.send(discover(map[uint8]string{50: ip("10.0.0.100")}), dhcp.How{}), offer, "10.0.0.101")
}

func TestHosts(t *testing.T) {
	r := newRoom(t, func(s *dhcp.Server) {
		s.Subnets[0].Options = map[uint8][]byte{26: {5, 0xdc}, 252: []byte("http://wpad/"), 53: {9}}
		s.Hosts = dhcp.HostTable{
			{ClientID: "00aa", Host: dhcp.Host{Ignore: "not wanted here"}},
			{UUID: "4C4C4544-0051-3510-8052-B4C04F4A3332", Host: dhcp.Host{Name: "by-uuid", Addr: addr("10.0.0.7")}},
			{MAC: "52:54:00:12:34:56", Host: dhcp.Host{
				Name: "pc-1", Addr: addr("10.0.0.100"), Domain: "other.example", DNS: []netip.Addr{addr("9.9.9.9")},
				Gateway: addr("10.0.0.253"), LeaseTime: 10 * time.Minute, NTP: []netip.Addr{addr("10.0.0.2")},
				Options: map[uint8][]byte{26: {2, 0x40}},
			}},
		}
	})
	p := discover(nil)
	p.ClientHWAddr = []byte{2, 0, 0, 0, 0, 5}
	r.want(r.send(p, dhcp.How{}), offer, "10.0.0.101") // .100 is pc-1's

	s := r.send(discover(nil), dhcp.How{})
	r.want(s, offer, "10.0.0.100")
	for code, want := range map[uint8]string{
		12: "pc-1", 15: "other.example", 6: ip("9.9.9.9"), 3: ip("10.0.0.253"), 42: ip("10.0.0.2"),
		51: "\x00\x00\x02\x58", 26: "\x02\x40", 252: "http://wpad/", 53: "\x02",
	} {
		if got := string(s.Packet.Options[code]); got != want {
			t.Errorf("option %d = %q, want %q", code, got, want)
		}
	}
	s = r.send(discover(map[uint8]string{55: "\x01\x03", 97: string(uuidOption)}), dhcp.How{})
	r.want(s, offer, "10.0.0.7")
	if s.Packet.Options[12] != nil || s.Packet.Options[252] != nil {
		t.Errorf("options %v: a client that does not ask for 12 and 252 got them", s.Packet.Options)
	}
	r.want(r.send(discover(map[uint8]string{61: "\x00\xaa"}), dhcp.How{}), none, "")
	if got := r.lastReason(); got != "ignored: not wanted here" {
		t.Errorf("reason %q", got)
	}
}

// A machine with a lease gets a fixed address: it moves at its next renewal.
func TestFixedAddressArrivesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := &changing{}
		r := newRoom(t, func(s *dhcp.Server) { s.Hosts = hosts })
		r.want(r.send(selecting("10.0.0.100", "10.0.0.1"), dhcp.How{}), ack, "10.0.0.100")
		hosts.set(dhcp.HostTable{{MAC: testMAC.String(), Host: dhcp.Host{Addr: addr("10.0.0.50")}}})
		r.want(r.send(renewing("10.0.0.100"), unicast), nak, "")
		r.want(r.send(discover(nil), dhcp.How{}), offer, "10.0.0.50")
		r.want(r.send(selecting("10.0.0.50", "10.0.0.1"), dhcp.How{}), ack, "10.0.0.50")
		r.want(r.send(renewing("10.0.0.50"), unicast), ack, "10.0.0.50")
		r.want(r.send(rebooting("10.0.0.50"), dhcp.How{}), ack, "10.0.0.50")

		// Another machine has the fixed address: it is left alone until it goes.
		hosts.set(dhcp.HostTable{{MAC: "02:00:00:00:00:05", Host: dhcp.Host{Addr: addr("10.0.0.50")}}})
		p := discover(nil)
		p.ClientHWAddr = []byte{2, 0, 0, 0, 0, 5}
		r.want(r.send(p, dhcp.How{}), offer, "10.0.0.101")
		r.want(r.send(renewing("10.0.0.50"), unicast), nak, "")
		time.Sleep(time.Hour)
		r.want(r.send(p, dhcp.How{}), offer, "10.0.0.50")
	})
}

type changing struct {
	mu sync.Mutex
	t  dhcp.HostTable
}

func (c *changing) set(t dhcp.HostTable) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func (c *changing) Host(ctx context.Context, cl dhcp.Client) (dhcp.Host, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t.Host(ctx, cl)
}

func (c *changing) Reserved(a netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t.Reserved(a)
}

func TestWhoIsWho(t *testing.T) {
	ids := []map[uint8]string{{61: "\x00firmware"}, nil, {61: "\xffsystem"}}
	for _, c := range []struct {
		byID bool
		want []string
	}{
		{false, []string{"10.0.0.100", "10.0.0.100", "10.0.0.100"}},
		{true, []string{"10.0.0.100", "10.0.0.101", "10.0.0.102"}},
	} {
		r := newRoom(t, func(s *dhcp.Server) { s.ByClientID = c.byID })
		for i, opts := range ids {
			r.want(r.send(discover(opts), dhcp.How{}), offer, c.want[i])
		}
	}
	r := newRoom(t, nil)
	p := discover(nil)
	p.ClientHWAddr = nil
	r.want(r.send(p, dhcp.How{}), none, "")
}

func TestLeaseTimeAskedFor(t *testing.T) {
	r := newRoom(t, nil)
	for _, c := range []struct{ asked, want uint32 }{{600, 600}, {7200, 3600}, {5, 3600}, {0xffffffff, 3600}} {
		b := binary.BigEndian.AppendUint32(nil, c.asked)
		s := r.send(discover(map[uint8]string{51: string(b)}), dhcp.How{})
		if got := binary.BigEndian.Uint32(s.Packet.Options[51]); got != c.want {
			t.Errorf("asked for %d s, got %d, want %d", c.asked, got, c.want)
		}
	}
}

func TestPoolRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, nil)
		for i := range 12 {
			p := discover(nil)
			p.ClientHWAddr = []byte{2, 0, 0, 0, 1, byte(i)}
			s := r.send(p, dhcp.How{})
			if i == 11 {
				r.want(s, none, "")
				if got := r.lastReason(); !strings.Contains(got, "no free address left") {
					t.Errorf("reason %q", got)
				}
				break
			}
			p = selecting(s.Packet.YourIPAddr.String(), "10.0.0.1")
			p.ClientHWAddr = []byte{2, 0, 0, 0, 1, byte(i)}
			r.want(r.send(p, dhcp.How{}), ack, s.Packet.YourIPAddr.String())
		}
		time.Sleep(time.Hour)
		r.want(r.send(discover(nil), dhcp.How{}), offer, "10.0.0.100")
	})
}

// A lease that cannot be stored is not given.
func TestNoAckWithoutTheDisk(t *testing.T) {
	store := leases.NewMemory()
	r := newRoom(t, func(s *dhcp.Server) { s.Leases = store })
	r.want(r.send(discover(nil), dhcp.How{}), offer, "10.0.0.100")
	store.Close()
	r.want(r.send(selecting("10.0.0.100", "10.0.0.1"), dhcp.How{}), none, "")
	if got := r.lastReason(); !strings.Contains(got, "could not be stored") {
		t.Errorf("reason %q", got)
	}
}

func TestServerRefusesNonsense(t *testing.T) {
	good := newRoom(t, nil).Subnets[0]
	for name, change := range map[string]func(*dhcp.Subnet){
		"IPv6":              func(n *dhcp.Subnet) { n.Prefix = netip.MustParsePrefix("fd00::/64") },
		"no server address": func(n *dhcp.Subnet) { n.Server = netip.Addr{} },
		"server elsewhere":  func(n *dhcp.Subnet) { n.Server = addr("10.1.0.1") },
		"gateway elsewhere": func(n *dhcp.Subnet) { n.Gateway = addr("10.1.0.1") },
		"range elsewhere":   func(n *dhcp.Subnet) { n.First = addr("10.1.0.1") },
		"short lease":       func(n *dhcp.Subnet) { n.LeaseTime = time.Second },
	} {
		n := good
		change(&n)
		if err := (&dhcp.Server{Subnets: []dhcp.Subnet{n}}).Serve(t.Context()); err == nil {
			t.Errorf("%s: Serve succeeded", name)
		}
	}
	for name, list := range map[string][]dhcp.Subnet{"none": nil, "twice": {good, good}, "nothing listens": {good}} {
		if err := (&dhcp.Server{Subnets: list}).Serve(t.Context()); err == nil {
			t.Errorf("%s: Serve succeeded", name)
		}
	}
}

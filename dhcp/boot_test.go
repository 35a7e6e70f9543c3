// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slate/dhcp"
)

// booter answers as the appliance would, by kind of client.
type booter struct{ url string }

func (b booter) Boot(_ context.Context, c dhcp.Client) (dhcp.Boot, bool) {
	switch {
	case c.UserClass == "ignored":
		return dhcp.Boot{Reason: "unknown nodes are ignored"}, false
	case c.IPXE:
		return dhcp.Boot{URL: b.url + "/boot.ipxe", Reason: "iPXE asks"}, true
	case c.HTTPClient:
		return dhcp.Boot{URL: b.url + "/snponly.efi"}, true
	case c.Arch.UEFI():
		return dhcp.Boot{File: "snponly.efi"}, true
	}
	return dhcp.Boot{File: "undionly.kpxe", NextServer: addr("10.0.0.2")}, true
}

const (
	biosClass = "PXEClient:Arch:00000:UNDI:002001"
	uefiClass = "PXEClient:Arch:00007:UNDI:003016"
	httpClass = "HTTPClient:Arch:00016:UNDI:003016"
	pxeList   = "\x01\x03\x2b\x36\x3c\x42\x43"
	site      = "http://10.0.0.1:8070"
)

var longURL = "http://10.0.0.1:8070/" + strings.Repeat("long/", 40)

// Where each kind of client finds what to boot, from a server, from a proxy and
// from a proxy on port 4011.
func TestBootAnswers(t *testing.T) {
	bios := map[uint8]string{60: biosClass, 93: "\x00\x00", 97: string(uuidOption), 55: pxeList}
	uefi := map[uint8]string{60: uefiClass, 93: "\x00\x07", 97: string(uuidOption), 55: pxeList}
	ipxe := map[uint8]string{60: uefiClass, 93: "\x00\x07", 77: "iPXE", 55: pxeList}
	plain := map[uint8]string{60: biosClass, 93: "\x00\x00", 55: "\x01"} // a ROM that asks for no options
	item := map[uint8]string{60: biosClass, 93: "\x00\x00", 55: pxeList, 43: "\x47\x04\x80\x00\x00\x00\xff"}
	const direct, biosName = "\x06\x01\x08\xff", "undionly.kpxe\x00"
	type want struct {
		siaddr, file string
		opts         map[uint8]string // "" : must be absent
	}
	for _, c := range []struct {
		name    string
		opts    map[uint8]string
		url     string
		server  want
		proxy   want
		port4k  want
		noSname bool
	}{
		{
			"BIOS", bios, site,
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{60: "PXEClient", 43: direct, 66: "10.0.0.2\x00", 67: biosName, 97: string(uuidOption)}},
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{60: "PXEClient", 43: direct, 66: "10.0.0.2\x00", 67: biosName, 97: string(uuidOption)}},
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{60: "PXEClient", 43: direct}},
			false,
		}, {
			"BIOS that wants the header only", plain, site,
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{43: direct, 66: "", 67: ""}},
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{43: direct, 66: "", 67: ""}},
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{43: direct, 66: "", 67: ""}},
			false,
		}, {
			"boot item of a discovery", item, site,
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{43: direct}},
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{43: direct}},
			want{"10.0.0.2", "undionly.kpxe", map[uint8]string{43: "\x06\x01\x08\x47\x04\x80\x00\x00\x00\xff"}},
			false,
		}, {
			"UEFI", uefi, site,
			want{"10.0.0.1", "snponly.efi", map[uint8]string{60: "PXEClient", 43: direct, 67: "snponly.efi\x00"}},
			want{"10.0.0.1", "snponly.efi", map[uint8]string{60: "PXEClient", 43: "", 67: "snponly.efi\x00"}},
			want{"10.0.0.1", "snponly.efi", map[uint8]string{60: "PXEClient", 43: ""}},
			false,
		}, {
			"iPXE", ipxe, site,
			want{"10.0.0.1", site + "/boot.ipxe", map[uint8]string{60: "PXEClient", 67: site + "/boot.ipxe", 43: "", 175: "\xb0\x01\x01"}},
			want{"10.0.0.1", site + "/boot.ipxe", map[uint8]string{60: "PXEClient", 67: site + "/boot.ipxe", 43: "", 175: ""}},
			want{"10.0.0.1", site + "/boot.ipxe", map[uint8]string{60: "PXEClient", 67: site + "/boot.ipxe"}},
			true,
		}, {
			"iPXE with a URL that the header does not hold", ipxe, longURL,
			want{"10.0.0.1", "", map[uint8]string{67: longURL + "/boot.ipxe"}},
			want{"10.0.0.1", "", map[uint8]string{67: longURL + "/boot.ipxe"}},
			want{"10.0.0.1", "", map[uint8]string{67: longURL + "/boot.ipxe"}},
			true,
		}, {
			"UEFI HTTP boot", map[uint8]string{60: httpClass, 93: "\x00\x10", 55: pxeList}, site,
			want{"10.0.0.1", site + "/snponly.efi", map[uint8]string{60: "HTTPClient", 67: site + "/snponly.efi", 43: "", 175: ""}},
			want{"10.0.0.1", site + "/snponly.efi", map[uint8]string{60: "HTTPClient", 67: site + "/snponly.efi", 43: ""}},
			want{"10.0.0.1", site + "/snponly.efi", map[uint8]string{60: "HTTPClient", 67: site + "/snponly.efi"}},
			true,
		},
	} {
		check := func(t *testing.T, s *dhcp.Sent, w want) {
			t.Helper()
			if s == nil {
				t.Fatal("no answer")
			}
			if got := s.Packet.ServerIPAddr.String(); got != w.siaddr {
				t.Errorf("next server %s, want %s", got, w.siaddr)
			}
			if s.Packet.BootFileName != w.file {
				t.Errorf("file %q, want %q", s.Packet.BootFileName, w.file)
			}
			if got := s.Packet.ServerHostName; got != w.siaddr && !c.noSname {
				t.Errorf("server name %q, want %q", got, w.siaddr)
			}
			for code, v := range w.opts {
				if got := string(s.Packet.Options[code]); got != v {
					t.Errorf("option %d = %q, want %q", code, got, v)
				}
			}
		}
		t.Run(c.name, func(t *testing.T) {
			r := newRoom(t, func(s *dhcp.Server) { s.Booter, s.SkipProbe = booter{c.url}, true })
			p := proxyRoom(t, booter{c.url})

			s := r.send(discover(c.opts), dhcp.How{})
			r.want(s, offer, "10.0.0.100")
			check(t, s, c.server)

			s = p.send(discover(c.opts), dhcp.How{})
			p.want(s, offer, "")
			check(t, s, c.proxy)
			if s.To.String() != "255.255.255.255:68" || s.Packet.Options[51] != nil || s.Packet.Options[1] != nil {
				t.Errorf("proxy offer to %v with %v: want a broadcast without anything about addresses", s.To, s.Packet.Options)
			}

			ask := message(dhcpv4.MessageTypeRequest, c.opts)
			ask.ClientIPAddr = addr("10.0.0.100").AsSlice()
			how := dhcp.How{Port: 4011, Src: netip.MustParseAddrPort("10.0.0.100:4011"), Dst: addr("10.0.0.1")}
			s = p.send(ask, how)
			p.want(s, ack, "")
			check(t, s, c.port4k)
			if s.To != how.Src {
				t.Errorf("answer on port 4011 to %v, want %v where it was asked from", s.To, how.Src)
			}
			s = r.send(ask, how) // a full server that listens there answers the same
			r.want(s, ack, "")
			check(t, s, c.port4k)
		})
	}
}

// proxyRoom is a room whose engine is a Proxy.
func proxyRoom(t *testing.T, b dhcp.Booter) *room {
	r := &room{T: t, link: &dhcp.FakeLink{Iface: "lan0", Address: addr("10.0.0.1")}}
	p := &dhcp.Proxy{Booter: b, Events: func(e dhcp.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}}
	r.handle = p.Handler(t)
	return r
}

func TestProxyKnowsItsPlace(t *testing.T) {
	pxe := map[uint8]string{60: uefiClass, 93: "\x00\x07"}
	for _, c := range []struct {
		name   string
		packet *dhcpv4.DHCPv4
		port   int
		kind   dhcpv4.MessageType
		events string
	}{
		{"a system wants an address", discover(nil), 67, none, ""},
		{"a boot client discovers", discover(pxe), 67, offer, "discover proxy"},
		{"a boot client takes its address from the server", message(dhcpv4.MessageTypeRequest, pxe), 67, none, "request"},
		{"a boot client informs", message(dhcpv4.MessageTypeInform, pxe), 67, ack, "inform proxy"},
		{"a boot client informs on 4011", message(dhcpv4.MessageTypeInform, pxe), 4011, ack, "inform proxy"},
		{"a boot client discovers on 4011", discover(pxe), 4011, offer, "discover proxy"},
		{"a system on 4011", message(dhcpv4.MessageTypeRequest, nil), 4011, none, ""},
		{"a release", message(dhcpv4.MessageTypeRelease, pxe), 67, none, "release"},
		{"one whom the booter ignores", discover(map[uint8]string{60: uefiClass, 77: "ignored"}), 67, none, "discover silence"},
		{"an answer of another server", message(dhcpv4.MessageTypeOffer, pxe), 67, none, "offer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := proxyRoom(t, booter{site})
			r.want(r.send(c.packet, dhcp.How{Port: c.port, Src: netip.MustParseAddrPort("10.0.0.9:68")}), c.kind, "")
			if got := r.kinds(); got != c.events {
				t.Errorf("events %q, want %q", got, c.events)
			}
		})
	}
	r := proxyRoom(t, booter{site})
	r.send(message(dhcpv4.MessageTypeRequest, map[uint8]string{50: ip("10.0.0.77"), 54: ip("10.0.0.9"), 60: uefiClass}), dhcp.How{})
	if got := r.events[len(r.events)-1].Addr; got != addr("10.0.0.77") {
		t.Errorf("it takes the address %v, want the one that it asks the server for", got)
	}
	r.link.Address = netip.Addr{}
	r.want(r.send(discover(pxe), dhcp.How{}), none, "")
	if got := r.lastReason(); !strings.Contains(got, "lan0 has no address") {
		t.Errorf("reason %q", got)
	}
}

// Without something to boot a server gives the address all the same.
func TestAddressWithoutBoot(t *testing.T) {
	r := newRoom(t, func(s *dhcp.Server) { s.Booter = booter{site} })
	s := r.send(discover(map[uint8]string{60: biosClass, 77: "ignored"}), dhcp.How{})
	r.want(s, offer, "10.0.0.100")
	if s.Packet.BootFileName != "" || s.Packet.Options[60] != nil || s.Packet.Options[67] != nil {
		t.Errorf("offer with boot settings: %v", s.Packet.Summary())
	}
	if got := r.events[len(r.events)-1].Boot.Reason; got != "unknown nodes are ignored" {
		t.Errorf("reason in the timeline %q", got)
	}
	s = r.send(discover(nil), dhcp.How{})
	if s.Packet.BootFileName != "" || s.Packet.ServerHostName != "" {
		t.Errorf("a system that only wants an address is told to boot %q", s.Packet.BootFileName)
	}
}

// A client says how large an answer it takes (option 57); what does not fit is
// left out, the needed options last of all.
func TestAnswerFitsTheClient(t *testing.T) {
	r := newRoom(t, func(s *dhcp.Server) {
		s.Booter = booter{longURL}
		s.Subnets[0].Options = map[uint8][]byte{}
		for code := range 20 {
			s.Subnets[0].Options[uint8(200+code)] = make([]byte, 40)
		}
	})
	for _, c := range []struct {
		option57 string
		limit    int
		all      bool
	}{{"", 548, false}, {"\x00\x10", 548, false}, {"\x03\x00", 740, false}, {"\x05\xdc", 1472, true}, {"\xff\xff", 1472, true}} {
		opts := map[uint8]string{60: uefiClass, 77: "iPXE", 82: strings.Repeat("r", 30)}
		if c.option57 != "" {
			opts[57] = c.option57
		}
		s := r.send(discover(opts), dhcp.How{})
		r.want(s, offer, "10.0.0.100")
		o := s.Packet.Options
		if s.Size > c.limit {
			t.Errorf("option 57 %x: answer of %d bytes, want at most %d", c.option57, s.Size, c.limit)
		}
		if string(o[67]) != longURL+"/boot.ipxe" || o[1] == nil || o[51] == nil || o[82] == nil {
			t.Errorf("option 57 %x: a needed option is missing: %v", c.option57, o)
		}
		if got := len(o[200]) > 0 && len(o[219]) > 0; got != c.all {
			t.Errorf("option 57 %x: all options there: %v, want %v", c.option57, got, c.all)
		}
	}
}

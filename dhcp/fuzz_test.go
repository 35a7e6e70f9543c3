// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slate/dhcp"
)

// FuzzRequest throws bytes from the wire at a server and a proxy, on both ports:
// no panic, an answer that parses, and never an address from the proxy.
func FuzzRequest(f *testing.F) {
	for _, p := range []*dhcpv4.DHCPv4{
		discover(nil), selecting("10.0.0.100", "10.0.0.1"), renewing("10.0.0.100"), rebooting("10.0.0.100"),
		discover(map[uint8]string{60: biosClass, 93: "\x00\x00", 97: string(uuidOption), 55: pxeList, 57: "\x05\xdc"}),
		discover(map[uint8]string{60: httpClass, 93: "\x00\x10"}),
		discover(map[uint8]string{60: uefiClass, 77: "iPXE", 175: "\xeb\x03\x01\x15\x01\x13\x01\x01", 82: "\x05\x04\x0a\x00\x00\x00"}),
		message(dhcpv4.MessageTypeRequest, map[uint8]string{60: biosClass, 43: "\x47\x04\x80\x00\x00\x00\xff", 52: "\x03"}),
		message(dhcpv4.MessageTypeInform, nil), message(dhcpv4.MessageTypeDecline, map[uint8]string{50: ip("10.0.0.100")}),
		message(dhcpv4.MessageTypeRelease, nil),
	} {
		f.Add(p.ToBytes(), false)
		f.Add(p.ToBytes(), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, port4011 bool) {
		p, err := dhcp.ParsePacket(b)
		if err != nil {
			return
		}
		how := dhcp.How{Src: netip.MustParseAddrPort("10.0.0.9:68")}
		if port4011 {
			how.Port = 4011
		}
		server := newRoom(t, func(s *dhcp.Server) { s.Booter = booter{site} })
		server.handle(server.link, p, how)
		server.link.Take() // the fake link has parsed it
		proxy := proxyRoom(t, booter{site})
		proxy.handle(proxy.link, p, how)
		for _, s := range proxy.link.Take() {
			if !s.Packet.YourIPAddr.IsUnspecified() || s.Packet.Options[51] != nil {
				t.Errorf("the proxy gave the address %v", s.Packet.YourIPAddr)
			}
		}
	})
}

// FuzzFacts reads options 43, 77, 93, 97, 175 made of any bytes.
func FuzzFacts(f *testing.F) {
	f.Add([]byte("\x47\x04\x80\x00\x00\x00\xff"), []byte("iPXE"), []byte("\x00\x07"), uuidOption, "PXEClient:Arch:00007:UNDI:003016")
	f.Add([]byte("\x06\x01\x08\xff"), []byte("\x04iPXE\x03abc"), []byte("\x00"), []byte{}, "HTTPClient")
	f.Fuzz(func(t *testing.T, vendor, user, arch, uuid []byte, class string) {
		p := message(dhcpv4.MessageTypeDiscover, nil)
		p.Options[43], p.Options[77], p.Options[93], p.Options[97], p.Options[175], p.Options[60] = vendor, user, arch, uuid, vendor, []byte(class)
		c := dhcp.ParseClient(p)
		for _, s := range append([]string{c.UserClass, c.VendorClass, c.UUID, c.IPXEVersion}, c.IPXEFeatures...) {
			if bytes.ContainsFunc([]byte(s), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("control character in %q", s)
			}
		}
		if c.UUID != "" && len(c.UUID) != 36 {
			t.Errorf("UUID %q", c.UUID)
		}
		total := 0
		for _, v := range dhcp.ParseSub(vendor) {
			total += len(v)
		}
		if total > len(vendor) {
			t.Errorf("sub-options of %d bytes in %d", total, len(vendor))
		}
	})
}

// FuzzUDP reads frames of the packet socket.
func FuzzUDP(f *testing.F) {
	f.Add(dhcp.UDPPacket(netip.MustParseAddrPort("10.0.0.1:67"), netip.MustParseAddrPort("255.255.255.255:68"), []byte("hello")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if src, payload, ok := dhcp.UDPPayload(b); ok && (!src.Is4() || len(payload) > len(b)-28) {
			t.Errorf("UDPPayload(%x) = %v, %x", b, src, payload)
		}
	})
}

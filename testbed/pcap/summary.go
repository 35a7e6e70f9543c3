// SPDX-License-Identifier: GPL-2.0-or-later

package pcap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// EtherTypes, IP protocols and ports that get more than a number.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherVLAN = 0x8100
	etherIPv6 = 0x86dd

	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17

	portDHCPServer = 67
	portDHCPClient = 68
	portTFTP       = 69
	portProxyDHCP  = 4011
)

// Summary describes an Ethernet frame in one line: addresses, and what DHCP, TFTP
// and HTTP say. Nothing in a frame makes it fail.
func Summary(frame []byte) string {
	if len(frame) < 14 {
		return fmt.Sprintf("short frame of %d bytes", len(frame))
	}
	dst, src := net.HardwareAddr(frame[0:6]), net.HardwareAddr(frame[6:12])
	kind, b := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	if kind == etherVLAN && len(b) >= 4 {
		kind, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	switch kind {
	case etherIPv4:
		if s := ipv4(b); s != "" {
			return s
		}
	case etherARP:
		if s := arp(b); s != "" {
			return s
		}
	case etherIPv6:
		return fmt.Sprintf("%s > %s IPv6", src, dst)
	}
	return fmt.Sprintf("%s > %s type 0x%04x", src, dst, kind)
}

func arp(b []byte) string {
	if len(b) < 28 {
		return ""
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	if binary.BigEndian.Uint16(b[6:]) == 1 {
		return fmt.Sprintf("ARP who has %s, tell %s", target, sender)
	}
	return fmt.Sprintf("ARP %s is at %s", sender, net.HardwareAddr(b[8:14]))
}

func ipv4(b []byte) string {
	if len(b) < 20 || b[0]>>4 != 4 {
		return ""
	}
	size := int(b[0]&15) * 4
	if size < 20 || len(b) < size {
		return ""
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	payload := b[size:]
	if total := int(binary.BigEndian.Uint16(b[2:])); total >= size && total < len(b) {
		payload = b[size:total] // short frames are padded
	}
	fragment := binary.BigEndian.Uint16(b[6:]) & 0x1fff
	switch {
	case fragment != 0:
		return fmt.Sprintf("%s > %s fragment at %d", src, dst, int(fragment)*8)
	case b[9] == protoUDP && len(payload) >= 8:
		return udp(src, dst, payload)
	case b[9] == protoTCP && len(payload) >= 20:
		return tcp(src, dst, payload)
	case b[9] == protoICMP && len(payload) >= 2:
		return fmt.Sprintf("%s > %s ICMP type %d code %d", src, dst, payload[0], payload[1])
	}
	return fmt.Sprintf("%s > %s IP protocol %d", src, dst, b[9])
}

func udp(src, dst netip.Addr, b []byte) string {
	sport, dport := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	ends := fmt.Sprintf("%s > %s", netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport))
	b = b[8:]
	for _, p := range []uint16{sport, dport} {
		switch p {
		case portDHCPServer, portDHCPClient, portProxyDHCP:
			if m, err := dhcpv4.FromBytes(b); err == nil {
				return ends + " " + dhcp(m)
			}
		}
	}
	if s := tftp(b); s != "" && (dport == portTFTP || sport > 1023 && dport > 1023) {
		return ends + " TFTP " + s
	}
	return fmt.Sprintf("%s UDP %d bytes", ends, len(b))
}

// dhcp names the fields that matter for booting; addresses that are zero and
// options that are absent are left out.
func dhcp(m *dhcpv4.DHCPv4) string {
	s := []string{"DHCP", m.MessageType().String(), m.ClientHWAddr.String()}
	add := func(name, value string) {
		if value != "" && value != "0.0.0.0" && value != "<nil>" {
			s = append(s, name+"="+value)
		}
	}
	add("yiaddr", m.YourIPAddr.String())
	add("ciaddr", m.ClientIPAddr.String())
	add("giaddr", m.GatewayIPAddr.String())
	add("siaddr", m.ServerIPAddr.String())
	add("request", m.RequestedIPAddress().String())
	add("server", m.ServerIdentifier().String())
	add("class", m.ClassIdentifier())
	add("user", strings.Join(m.UserClass(), ","))
	for _, a := range m.ClientArch() {
		add("arch", fmt.Sprint(uint16(a)))
	}
	add("file", m.BootFileName)
	add("bootfile", m.BootFileNameOption())
	return strings.Join(s, " ")
}

// tftp describes a TFTP packet (RFC 1350, 2347), or returns "".
func tftp(b []byte) string {
	if len(b) < 2 || b[0] != 0 {
		return ""
	}
	words := func(b []byte) []string {
		return strings.Split(string(bytes.TrimSuffix(b, []byte{0})), "\x00")
	}
	number := uint16(0)
	if len(b) >= 4 {
		number = binary.BigEndian.Uint16(b[2:])
	}
	switch op := b[1]; {
	case op == 1 || op == 2:
		return map[byte]string{1: "RRQ ", 2: "WRQ "}[op] + strings.Join(words(b[2:]), " ")
	case op == 3 && len(b) >= 4:
		return fmt.Sprintf("DATA %d, %d bytes", number, len(b)-4)
	case op == 4 && len(b) == 4:
		return fmt.Sprintf("ACK %d", number)
	case op == 5 && len(b) >= 5:
		return fmt.Sprintf("ERROR %d %s", number, strings.Join(words(b[4:]), " "))
	case op == 6 && len(b) > 2:
		return "OACK " + strings.Join(words(b[2:]), " ")
	}
	return ""
}

func tcp(src, dst netip.Addr, b []byte) string {
	sport, dport := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	ends := fmt.Sprintf("%s > %s", netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport))
	size := int(b[12]>>4) * 4
	if size >= 20 && len(b) > size {
		line, _, _ := bytes.Cut(b[size:], []byte("\r\n"))
		for _, start := range []string{"GET ", "HEAD ", "POST ", "HTTP/1."} {
			if bytes.HasPrefix(line, []byte(start)) {
				return ends + " " + string(line)
			}
		}
	}
	var flags []string
	for i, name := range []string{"FIN", "SYN", "RST"} {
		if b[13]&(1<<i) != 0 {
			flags = append(flags, name)
		}
	}
	if flags == nil {
		return ends + " TCP"
	}
	return ends + " TCP " + strings.Join(flags, " ")
}

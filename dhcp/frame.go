// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipHeader  = 20
	udpHeader = 8
)

// udpPacket is an IPv4 packet with a UDP datagram in it, checksums filled in.
func udpPacket(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, ipHeader+udpHeader+len(payload))
	b[0] = 0x45 // version 4, five words of header
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8] = 64 // time to live
	b[9] = 17 // UDP
	if src.Addr().Is4() {
		copy(b[12:16], src.Addr().AsSlice())
	}
	copy(b[16:20], dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b[:ipHeader], 0))

	u := b[ipHeader:]
	binary.BigEndian.PutUint16(u[0:], src.Port())
	binary.BigEndian.PutUint16(u[2:], dst.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	copy(u[udpHeader:], payload)
	sum := checksum(u, sum16(b[12:20])+17+uint32(len(u))) // with the pseudo header
	if sum == 0 {
		sum = 0xffff // 0 would mean: no checksum
	}
	binary.BigEndian.PutUint16(u[6:], sum)
	return b
}

// udpPayload is the sender and content of an IPv4 packet with a whole UDP
// datagram in it.
func udpPayload(b []byte) (src netip.Addr, payload []byte, ok bool) {
	if len(b) < ipHeader || b[0]>>4 != 4 || b[9] != 17 {
		return netip.Addr{}, nil, false
	}
	head := int(b[0]&15) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if head < ipHeader || total > len(b) || total < head+udpHeader {
		return netip.Addr{}, nil, false
	}
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 { // a fragment
		return netip.Addr{}, nil, false
	}
	n := int(binary.BigEndian.Uint16(b[head+4:]))
	if n < udpHeader || head+n > total {
		return netip.Addr{}, nil, false
	}
	return netip.AddrFrom4([4]byte(b[12:16])), b[head+udpHeader : head+n], true
}

// checksum is the internet checksum (RFC 1071) of b and a partial sum.
func checksum(b []byte, partial uint32) uint16 {
	sum := sum16(b) + partial
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func sum16(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

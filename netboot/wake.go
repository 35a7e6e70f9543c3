// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
)

// portDiscard is where magic packets are customarily sent: no card looks at the
// port, and what listens there throws it away.
const portDiscard = 9

// magicPacket is what wakes a sleeping card: six bytes 0xff and its address 16
// times (AMD publication 20213, "Magic Packet Technology").
func magicPacket(mac net.HardwareAddr) []byte {
	return append(bytes.Repeat([]byte{0xff}, 6), bytes.Repeat(mac, 16)...)
}

// sendMagic sends a magic packet to all of the appliance's subnet: a card that
// sleeps answers no ARP.
func sendMagic(ctx context.Context, from netip.Addr, subnet netip.Prefix, mac net.HardwareAddr) error {
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	conn, err := d.DialContext(ctx, "udp4", netip.AddrPortFrom(broadcastOf(subnet), portDiscard).String())
	if err != nil {
		return fmt.Errorf("magic packet: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write(magicPacket(mac)); err != nil {
		return fmt.Errorf("magic packet: %w", err)
	}
	return nil
}

// broadcastOf is the last address of an IPv4 subnet.
func broadcastOf(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(a)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// echoRequest makes an ICMP echo request (RFC 792).
func echoRequest(id, seq uint16) []byte {
	b := make([]byte, 16)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func cmdPing(ctx context.Context, _ *Boot, w io.Writer, args []string) error {
	if len(args) != 1 {
		return errors.New("want an address")
	}
	to, err := netip.ParseAddr(args[0])
	if err != nil || !to.Is4() {
		return fmt.Errorf("%q is not an IPv4 address", args[0])
	}
	conn, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer conn.Close()
	const id = 0x51a7
	answered := 0
	for seq := uint16(1); seq <= 3 && ctx.Err() == nil; seq++ {
		start := time.Now()
		if _, err := conn.WriteTo(echoRequest(id, seq), &net.IPAddr{IP: to.AsSlice()}); err != nil {
			return err
		}
		if waitEcho(conn, to, id, seq, start.Add(time.Second)) {
			answered++
			fmt.Fprintf(w, "%v answers in %v\n", to, time.Since(start).Round(10*time.Microsecond))
		} else {
			fmt.Fprintf(w, "%v: no answer within 1 s\n", to)
		}
	}
	if answered == 0 {
		return fmt.Errorf("%v does not answer", to)
	}
	return nil
}

func waitEcho(conn net.PacketConn, from netip.Addr, id, seq uint16, until time.Time) bool {
	buf := make([]byte, 1500)
	for {
		if conn.SetReadDeadline(until) != nil {
			return false
		}
		n, peer, err := conn.ReadFrom(buf)
		if err != nil {
			return false
		}
		if peer.String() == from.String() && n >= 8 && buf[0] == 0 && binary.BigEndian.Uint16(buf[4:]) == id && binary.BigEndian.Uint16(buf[6:]) == seq {
			return true
		}
	}
}

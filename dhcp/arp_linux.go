// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// How long and how often an ARP probe asks. RFC 5227 takes seconds; a machine
// that is up answers in a millisecond, and firmware does not wait for offers
// much longer than one second.
const (
	arpTries = 2
	arpWait  = 150 * time.Millisecond // for each try
)

const arpLen = 28 // for Ethernet and IPv4

// prober asks by ARP who has an address.
type prober struct {
	conn *packet.Conn
	mac  net.HardwareAddr

	mu      sync.Mutex
	waiting map[netip.Addr][]chan net.HardwareAddr
}

// arpFrames passes ARP for Ethernet and IPv4 that others send.
var arpFrames = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 3},
	bpf.LoadAbsolute{Off: 2, Size: 4}, // protocol IPv4, address lengths 6 and 4
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x0800_0604, SkipTrue: 1},
	bpf.RetConstant{Val: 65535},
	bpf.RetConstant{Val: 0},
}

func newProber(ifi *net.Interface) (*prober, error) {
	filter, err := bpf.Assemble(arpFrames)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(ifi, packet.Datagram, unix.ETH_P_ARP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	return &prober{conn: conn, mac: ifi.HardwareAddr, waiting: map[netip.Addr][]chan net.HardwareAddr{}}, nil
}

// read hands what others say on the wire to those who wait for it.
func (p *prober) read(ctx context.Context, out *outlet) error {
	buf := make([]byte, 128)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			if !pause(ctx, out, "ARP", err) {
				return ctx.Err()
			}
			continue
		}
		if n < arpLen {
			continue
		}
		addr := netip.AddrFrom4([4]byte(buf[14:18]))
		p.mu.Lock()
		for _, ch := range p.waiting[addr] {
			select {
			case ch <- bytes.Clone(buf[8:14]):
			default: // it has an answer already
			}
		}
		p.mu.Unlock()
	}
}

// ask returns who has addr, nil if nobody said so in time.
func (p *prober) ask(ctx context.Context, addr netip.Addr) (net.HardwareAddr, error) {
	ch := make(chan net.HardwareAddr, 1)
	p.mu.Lock()
	p.waiting[addr] = append(p.waiting[addr], ch)
	p.mu.Unlock()
	defer p.forget(addr, ch)

	// The sender's address is left zero, so that nobody learns a wrong one from it
	// (RFC 5227, 2.1.1).
	q := make([]byte, arpLen)
	binary.BigEndian.PutUint16(q[0:], 1) // Ethernet
	binary.BigEndian.PutUint16(q[2:], unix.ETH_P_IP)
	q[4], q[5] = 6, 4
	binary.BigEndian.PutUint16(q[6:], 1) // request
	copy(q[8:14], p.mac)
	copy(q[24:28], addr.AsSlice())

	t := time.NewTicker(arpWait)
	defer t.Stop()
	for range arpTries {
		if _, err := p.conn.WriteTo(q, &packet.Addr{HardwareAddr: broadcastMAC}); err != nil {
			return nil, err
		}
		select {
		case mac := <-ch:
			return mac, nil
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

func (p *prober) forget(addr netip.Addr, ch chan net.HardwareAddr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.waiting[addr]
	for i, c := range list {
		if c == ch {
			list[i] = list[len(list)-1]
			list = list[:len(list)-1]
			break
		}
	}
	if len(list) == 0 {
		delete(p.waiting, addr)
		return
	}
	p.waiting[addr] = list
}

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// InUse asks on the wire who has addr. It needs Serve to run on the connection.
func (c *Conn) InUse(ctx context.Context, addr netip.Addr) (net.HardwareAddr, error) {
	if c.arp == nil {
		return nil, nil
	}
	return c.arp.ask(ctx, addr)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ProbeClass is the user class (option 77) of the questions that Ask sends, by
// which a booter can tell them from a machine that boots.
const ProbeClass = "slate-probe"

// Ask asks the server of this very machine, which Probe cannot reach, as a UEFI
// PXE client would, and returns what it answers. self is the server's address on
// the interface. Nothing is leased.
//
// The question goes out through a UDP socket as a broadcast, of which the kernel
// gives a copy to the local sockets of the interface. The answer is a frame to a
// made-up hardware address; it is picked up as it leaves, for which the interface
// must have a link.
func Ask(ctx context.Context, iface string, self netip.Addr) (Rival, error) {
	fail := func(err error) (Rival, error) {
		return Rival{}, fmt.Errorf("ask the DHCP server on %s: %w", iface, err)
	}
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return fail(errNoInterface)
	}
	if len(ifi.HardwareAddr) != 6 {
		return fail(errors.New("not an Ethernet interface"))
	}
	list, err := questions(ifi.HardwareAddr)
	if err != nil {
		return fail(err)
	}
	q := list[len(list)-1]
	q.Options[dhcpv4.OptionUserClassInformation.Code()] = []byte(ProbeClass)

	filter, err := bpf.Assemble(toClients)
	if err != nil {
		return fail(err)
	}
	in, err := packet.Listen(ifi, packet.Datagram, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	if err != nil {
		return fail(cause(err))
	}
	defer in.Close()
	defer context.AfterFunc(ctx, func() { in.SetReadDeadline(time.Unix(1, 0)) })()

	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var serr error
		err := rc.Control(func(fd uintptr) {
			serr = errors.Join(unix.BindToDevice(int(fd), iface), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		})
		return errors.Join(err, serr)
	}}
	out, err := lc.ListenPacket(ctx, "udp4", netip.AddrPortFrom(self, 0).String())
	if err != nil {
		return fail(cause(err))
	}
	defer out.Close()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(broadcastAddr, portServer))
	if _, err := out.WriteTo(q.ToBytes(), to); err != nil {
		return fail(err)
	}
	r, err := answerFrom(in, q, self)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fail(err)
	}
	r.Interface = iface
	return r, nil
}

// answerFrom waits for what the server self answers to q.
func answerFrom(in *packet.Conn, q *dhcpv4.DHCPv4, self netip.Addr) (Rival, error) {
	buf := make([]byte, 4<<10)
	for {
		n, _, err := in.ReadFrom(buf)
		if err != nil {
			return Rival{}, err
		}
		src, payload, ok := udpPayload(buf[:n])
		if !ok {
			continue
		}
		p, err := parsePacket(payload)
		if err != nil || p.OpCode != dhcpv4.OpcodeBootReply || p.TransactionID != q.TransactionID {
			continue
		}
		if r := rivalOf(p, src, nil); r.Server == self {
			return r, nil
		}
	}
}

// toClients passes what any DHCP server sends to clients, our own included.
var toClients = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4}, // a later fragment
	bpf.LoadMemShift{Off: 0},
	bpf.LoadIndirect{Off: 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: portClient, SkipTrue: 1},
	bpf.RetConstant{Val: 65535},
	bpf.RetConstant{Val: 0},
}

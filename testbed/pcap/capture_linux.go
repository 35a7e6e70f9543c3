// SPDX-License-Identifier: GPL-2.0-or-later

package pcap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How much of a frame is kept. Of TCP the beginning is enough for the first line
// of a request; the rest is an image's contents, by the hundred megabytes.
const (
	snapTCP   = 256
	snapOther = 65535
)

// Source is a packet socket on an interface.
type Source struct{ file *os.File }

// Open listens on an interface of the calling thread's network namespace. On a
// bridge it sees what is forwarded between the ports, too. Frames are kept from
// now on, so that nothing is missed before Record.
func Open(iface string) (*Source, error) {
	// Protocol 0: nothing is received before filter and interface are set.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", iface, err)
	}
	s := &Source{os.NewFile(uintptr(fd), "packet socket")}
	if err := s.setup(fd, iface); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("capture on %s: %w", iface, err)
	}
	return s, nil
}

func (s *Source) setup(fd int, iface string) error {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	f := snapFilter()
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	// A large image read goes by in bursts.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
	mreq := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
		return fmt.Errorf("promiscuous mode: %w", err)
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // in network order
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index})
}

// snapFilter is a program of the classic packet filter: accept all, cut TCP.
func snapFilter() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: etherIPv4, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 9},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: protoTCP, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: snapTCP},
		{Code: unix.BPF_RET | unix.BPF_K, K: snapOther},
	}
}

// Record writes frames to w until ctx ends, then what has arrived by then.
func (s *Source) Record(ctx context.Context, w io.Writer) error {
	out, err := NewWriter(w)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.file.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, snapOther)
	for {
		n, err := s.file.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return s.drain(out, buf)
		}
		if errors.Is(err, unix.ENETDOWN) {
			continue // said once when the interface goes down; it may come back
		}
		if err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		if err := out.Write(Packet{time.Now(), wireLength(buf[:n]), buf[:n]}); err != nil {
			return err
		}
	}
}

// drain writes what waits in the socket.
func (s *Source) drain(out *Writer, buf []byte) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var werr error
	err = raw.Control(func(fd uintptr) {
		for werr == nil {
			n, err := unix.Read(int(fd), buf)
			if err != nil {
				return // nothing more
			}
			werr = out.Write(Packet{time.Now(), wireLength(buf[:n]), buf[:n]})
		}
	})
	return errors.Join(err, werr)
}

// wireLength is the length of a frame that may have been cut: the one its IP
// header states.
func wireLength(b []byte) int {
	if len(b) >= 18 && b[12] == etherIPv4>>8 && b[13] == etherIPv4&0xff {
		return max(len(b), 14+int(b[16])<<8+int(b[17]))
	}
	return len(b)
}

// Close ends the capture. Record must have returned.
func (s *Source) Close() error { return s.file.Close() }

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PortError says why the server's port cannot be had.
type PortError struct {
	Addr netip.AddrPort
	Err  error
}

func (e *PortError) Error() string {
	switch {
	case errors.Is(e.Err, unix.EADDRINUSE):
		return fmt.Sprintf("TFTP port %s (UDP) is taken by another program", e.Addr)
	case errors.Is(e.Err, unix.EACCES):
		return fmt.Sprintf("TFTP port %s (UDP): not allowed to open it", e.Addr)
	case errors.Is(e.Err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("TFTP port %s (UDP): no interface of this machine has that address", e.Addr)
	}
	return fmt.Sprintf("TFTP port %s (UDP): %v", e.Addr, e.Err)
}

func (e *PortError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *PortError) Hint() string {
	switch {
	case errors.Is(e.Err, unix.EADDRINUSE):
		return fmt.Sprintf("`ss -lunp sport = :%d` names it; often tftpd-hpa, atftpd or dnsmasq", e.Addr.Port())
	case errors.Is(e.Err, unix.EACCES):
		return "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
	}
	return ""
}

// Listen opens a socket for Serve. An error is a [*PortError].
func Listen(ctx context.Context, addr netip.AddrPort) (*net.UDPConn, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp"
	}
	pc, err := new(net.ListenConfig).ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, &PortError{addr, err}
	}
	conn := pc.(*net.UDPConn)
	// Room for the requests of a room that is switched on at once. The kernel may
	// give less.
	_ = conn.SetReadBuffer(1 << 20)
	return conn, nil
}

// wantArrival makes the kernel say to which of our addresses a request came, so
// that the answer comes from there, whatever the routes: firmware ignores others.
func wantArrival(conn *net.UDPConn) error {
	return control(conn, func(fd int) error {
		err4 := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		err6 := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		if err4 != nil && err6 != nil {
			return os.NewSyscallError("setsockopt IP_PKTINFO", err4)
		}
		return nil
	})
}

// arrivalAddr reads the answer of the kernel. It is the zero Addr if the kernel
// can choose as well.
func arrivalAddr(oob []byte) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// Spec_dst and not Addr: also right for a request to a broadcast address.
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0]))
			return netip.AddrFrom4(info.Spec_dst)
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&m.Data[0]))
			addr := netip.AddrFrom16(info.Addr).Unmap()
			if addr.IsMulticast() {
				return netip.Addr{}
			}
			if addr.IsLinkLocalUnicast() {
				addr = addr.WithZone(strconv.Itoa(int(info.Ifindex)))
			}
			return addr
		}
	}
	return netip.Addr{}
}

// udpLink is a socket connected to one client. The kernel keeps other senders
// away from it and reports a closed port of the client.
type udpLink struct {
	conn  *net.UDPConn
	block int
	armed time.Time // the deadline the socket has

	// segment is the packet size that the kernel cuts large sends into (UDP GSO);
	// 0: not tried yet, -1: it can not.
	segment int
}

func dialClient(local netip.Addr, client netip.AddrPort) (*udpLink, error) {
	var from *net.UDPAddr
	if local.IsValid() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(client))
	if err != nil {
		return nil, err
	}
	l := &udpLink{conn: conn, block: defaultBlockSize}
	err = control(conn, func(fd int) error {
		mtu, headers, err := 0, 20+8+headerLen, error(nil)
		if client.Addr().Is4() {
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		} else {
			headers += 20
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
		}
		l.block = min(max(mtu-headers, defaultBlockSize), maxBlockSize)
		return os.NewSyscallError("getsockopt IP_MTU", err)
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

func (l *udpLink) maxBlock() int { return l.block }
func (l *udpLink) close()        { l.conn.Close() }

// The kernel's limits for one send that it cuts.
const (
	maxSegments = 64
	maxSend     = 65000
)

func (l *udpLink) send(buf []byte, size int) error {
	for len(buf) > 0 {
		n := min(len(buf), size)
		if many := min(maxSegments, maxSend/size) * size; len(buf) > size && many > size && l.canCut(size) {
			n = min(len(buf), many)
		}
		_, err := l.conn.Write(buf[:n])
		if err != nil && n > size && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)) {
			// A device without checksums, or a path whose MTU has shrunk.
			l.stopCutting()
			continue
		}
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

// canCut asks the kernel to cut sends into packets of size bytes.
func (l *udpLink) canCut(size int) bool {
	if l.segment == 0 {
		l.segment = size
		if l.setSegment(size) != nil {
			l.segment = -1
		}
	}
	return l.segment == size
}

func (l *udpLink) stopCutting() {
	_ = l.setSegment(0)
	l.segment = -1
}

func (l *udpLink) setSegment(size int) error {
	return control(l.conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size)
	})
}

// receive leaves a deadline that lies before the wanted one as it is, and looks
// at the clock when it fires: setting one for each block costs more than the
// rest of the wait.
func (l *udpLink) receive(buf []byte, deadline time.Time) (int, error) {
	for {
		if l.armed.IsZero() || l.armed.After(deadline) {
			if err := l.conn.SetReadDeadline(deadline); err != nil {
				return 0, err
			}
			l.armed = deadline
		}
		n, err := l.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			l.armed = time.Time{}
			if time.Now().Before(deadline) {
				continue
			}
		}
		return n, err
	}
}

func control(conn syscall.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

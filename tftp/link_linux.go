// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// link is a socket connected to one client. The kernel keeps other senders away
// from it and reports a closed port of the client. It is not known to the
// runtime's poller: see loop.
type link struct {
	fd    int
	block int // the largest that fits the path in one piece

	// segment is the packet size that the kernel cuts large sends into (UDP GSO);
	// 0: not tried yet, -1: it can not.
	segment int
}

// dialClient opens a socket on the address that a request came to.
func dialClient(to arrival, client netip.AddrPort) (*link, error) {
	family, local := unix.AF_INET6, to.addr
	if client.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	l := &link{fd: fd}
	if local.IsValid() && local.Is4() == client.Addr().Is4() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(local, 0), to.index)); err != nil {
			l.close()
			return nil, os.NewSyscallError("bind "+local.String(), err)
		}
	}
	if err := unix.Connect(fd, sockaddr(client, to.index)); err != nil {
		l.close()
		return nil, os.NewSyscallError("connect", err)
	}
	mtu, headers := 0, 20+8+headerLen
	if family == unix.AF_INET {
		mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
	} else {
		headers += 20
		mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
	}
	if err != nil {
		l.close()
		return nil, os.NewSyscallError("getsockopt IP_MTU", err)
	}
	l.block = min(max(mtu-headers, defaultBlockSize), maxBlockSize)
	return l, nil
}

// sockaddr puts an address into the form of the system call; link-local ones
// need the interface with it.
func sockaddr(a netip.AddrPort, index int) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if a.Addr().IsLinkLocalUnicast() {
		sa.ZoneId = uint32(index)
	}
	return sa
}

func (l *link) close() { unix.Close(l.fd) }

// receive reads one packet if there is one; unix.EAGAIN: there is none.
func (l *link) receive(buf []byte) (int, error) {
	for {
		n, err := unix.Read(l.fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// The kernel's limits for one send that it cuts.
const (
	maxSegments = 64
	maxSend     = 65000
)

// send transmits buf as packets of size bytes, the last one being shorter. It
// does not wait: what does not fit the socket's buffer counts as lost.
func (l *link) send(buf []byte, size int) error {
	for len(buf) > 0 {
		n := min(len(buf), size)
		if many := min(maxSegments, maxSend/size) * size; len(buf) > size && many > size && l.canCut(size) {
			n = min(len(buf), many)
		}
		_, err := unix.Write(l.fd, buf[:n])
		if err == unix.EINTR {
			continue
		}
		if n > size && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)) {
			// A device without checksums, or a path whose MTU has shrunk.
			_ = l.setSegment(0)
			l.segment = -1
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
func (l *link) canCut(size int) bool {
	if l.segment == 0 {
		l.segment = size
		if l.setSegment(size) != nil {
			l.segment = -1
		}
	}
	return l.segment == size
}

func (l *link) setSegment(size int) error {
	return unix.SetsockoptInt(l.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
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
	// Before the first packet can arrive: the kernel notes its address only if
	// that was asked for by then.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return wantArrival(raw) }}
	pc, err := config.ListenPacket(ctx, network, addr.String())
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
func wantArrival(raw syscall.RawConn) error {
	var err4, err6 error
	err := raw.Control(func(fd uintptr) {
		err4 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		err6 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	if err == nil && err4 != nil && err6 != nil {
		err = os.NewSyscallError("setsockopt IP_PKTINFO", err4)
	}
	return err
}

// arrival is where a request came to.
type arrival struct {
	addr  netip.Addr // ours; the zero Addr if the kernel can choose as well
	index int        // of the interface
}

func parseArrival(oob []byte) arrival {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return arrival{}
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// Spec_dst and not Addr: also right for a request to a broadcast address.
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0]))
			to := arrival{netip.AddrFrom4(info.Spec_dst), int(info.Ifindex)}
			if to.addr.IsUnspecified() { // came before IP_PKTINFO was set
				to.addr = netip.Addr{}
			}
			return to
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&m.Data[0]))
			to := arrival{netip.AddrFrom16(info.Addr).Unmap(), int(info.Ifindex)}
			if to.addr.IsMulticast() {
				to.addr = netip.Addr{}
			}
			return to
		}
	}
	return arrival{}
}

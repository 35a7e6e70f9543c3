// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ICMPv6 messages of RFC 4861.
const (
	routerSolicitation  = 133
	routerAdvertisement = 134
)

// quietRouter answers those who ask for an IPv6 router on the main bridge that
// there is none to be used and nothing to be configured. Without it, iPXE waits
// about 15 s for an answer, at each boot of each machine, before it goes on with
// the IPv4 address that it has.
func (l *Lab) quietRouter() error {
	var c net.PacketConn
	err := l.ns.Do(func() error {
		// An address of ours must not have to wait until nobody objects.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+MainBridge+"/accept_dad", []byte("0"), 0)
		ifi, err := net.InterfaceByName(MainBridge)
		if err != nil {
			return err
		}
		if c, err = net.ListenPacket("ip6:ipv6-icmp", "::"); err != nil {
			return err
		}
		return onMulticast(c.(*net.IPConn), ifi.Index)
	})
	if err != nil {
		if c != nil {
			c.Close()
		}
		return fmt.Errorf("IPv6 router: %w", err)
	}
	l.owned.Go(func() {
		stop := context.AfterFunc(l.ctx, func() { c.Close() })
		defer stop()
		answer := make([]byte, 16) // lifetime 0, no flags, no options
		answer[0], answer[4] = routerAdvertisement, 64
		buf := make([]byte, 1500)
		for {
			n, _, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				l.log.Warn("IPv6 router", "err", err)
				return
			}
			if n >= 8 && buf[0] == routerSolicitation {
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				// Without the address there is nobody to tell; they ask again.
				_, _ = c.WriteTo(answer, &net.IPAddr{IP: net.IPv6linklocalallnodes})
			}
		}
	})
	return nil
}

// onMulticast prepares a socket to hear and speak to groups on an interface.
func onMulticast(c *net.IPConn, ifindex int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		routers := unix.IPv6Mreq{Interface: uint32(ifindex)}
		copy(routers.Multiaddr[:], net.IPv6linklocalallrouters)
		serr = errors.Join(
			unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &routers),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifindex),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255), // others are ignored
		)
	})
	return errors.Join(err, serr)
}

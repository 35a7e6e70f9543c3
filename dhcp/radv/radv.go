// SPDX-License-Identifier: GPL-2.0-or-later

// Package radv answers the IPv6 router solicitations of machines that are about
// to boot, so that they do not wait for a router that is not there.
//
// iPXE asks for an IPv6 router whenever it has a network, and goes on only after
// an answer or some 16 seconds without one, even if IPv4 has been ready all the
// time. The answer given here is a router advertisement (RFC 4861, section 4.2)
// that says: no router, no prefixes, nothing to configure. It goes to the
// machine that asked and to nobody else, so it cannot disturb other hosts or a
// router that does exist.
package radv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
)

// Responder answers solicitations.
type Responder struct {
	// Wants says whether the machine is to be answered. It is called for each
	// solicitation and must be quick.
	Wants func(mac net.HardwareAddr) bool
	Log   *slog.Logger // nil: silent
}

// Conn is the socket of one interface.
type Conn struct {
	conn  *icmp.PacketConn
	iface *net.Interface
}

// allRouters is where hosts send solicitations (RFC 4291, section 2.7.1).
var allRouters = netip.MustParseAddr("ff02::2")

// ErrNoIPv6 says that the interface has no IPv6: nobody can be answered there.
var ErrNoIPv6 = errors.New("the interface has no IPv6 link-local address")

// Listen opens a socket on the interface. It needs CAP_NET_RAW.
func Listen(iface string) (*Conn, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("router advertisements on %s: %w", iface, err)
	}
	if !hasLinkLocal(ifi) {
		return nil, fmt.Errorf("router advertisements on %s: %w", iface, ErrNoIPv6)
	}
	c, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("router advertisements on %s: %w", iface, err)
	}
	p := c.IPv6PacketConn()
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(
		p.SetICMPFilter(&filter),
		p.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true),
		p.SetHopLimit(hopLimit),
		p.JoinGroup(ifi, &net.UDPAddr{IP: allRouters.AsSlice()}),
	)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("router advertisements on %s: %w", iface, err)
	}
	return &Conn{c, ifi}, nil
}

func hasLinkLocal(ifi *net.Interface) bool {
	addrs, err := ifi.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			return true
		}
	}
	return false
}

// Close closes the socket.
func (c *Conn) Close() error { return c.conn.Close() }

// hopLimit is what neighbour discovery is sent with; a packet with less came
// through a router and does not count (RFC 4861, section 6.1.1).
const hopLimit = 255

// Serve answers what comes in until ctx ends, and then returns nil. It closes c.
func (r *Responder) Serve(ctx context.Context, c *Conn) error {
	log := r.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	p := c.conn.IPv6PacketConn()
	buf := make([]byte, 1500)
	for {
		n, cm, from, err := p.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("router advertisements on %s: %w", c.iface.Name, err)
		}
		if cm == nil || cm.IfIndex != c.iface.Index || cm.HopLimit != hopLimit {
			continue
		}
		src, ok := source(from)
		if !ok {
			continue
		}
		mac, ok := solicitor(buf[:n], src)
		if !ok || !r.Wants(mac) {
			continue
		}
		if _, err := p.WriteTo(nothing, &ipv6.ControlMessage{IfIndex: c.iface.Index, HopLimit: hopLimit}, from); err != nil {
			log.Debug("router advertisement", "mac", mac, "err", err)
			continue
		}
		log.Debug("told a machine that there is no IPv6 router", "mac", mac)
	}
}

// nothing is a router advertisement that advertises nothing: hop limit
// unspecified, no flags, lifetime 0 ("not a default router"), no timers and no
// options. The kernel fills in the checksum (RFC 3542, section 3.1).
var nothing = func() []byte {
	b := make([]byte, 16)
	b[0] = byte(ipv6.ICMPTypeRouterAdvertisement)
	return b
}()

func source(from net.Addr) (netip.Addr, bool) {
	a, ok := from.(*net.IPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	src, ok := netip.AddrFromSlice(a.IP)
	return src, ok && src.IsLinkLocalUnicast()
}

const (
	solicitationLen   = 8 // type, code, checksum, reserved
	optSourceLinkAddr = 1 // RFC 4861, section 4.6.1
)

// solicitor tells whose solicitation it is: by its source link-layer address
// option, else by a link-local address that was made from the MAC.
func solicitor(b []byte, src netip.Addr) (net.HardwareAddr, bool) {
	if len(b) < solicitationLen || b[0] != byte(ipv6.ICMPTypeRouterSolicitation) || b[1] != 0 {
		return nil, false
	}
	for o := b[solicitationLen:]; len(o) >= 8; {
		size := int(o[1]) * 8
		if size == 0 || size > len(o) {
			return nil, false // RFC 4861, section 6.1.1: the whole packet is invalid
		}
		if o[0] == optSourceLinkAddr && size == 8 {
			return net.HardwareAddr(append([]byte(nil), o[2:8]...)), true
		}
		o = o[size:]
	}
	a := src.As16()
	if a[11] != 0xff || a[12] != 0xfe { // RFC 4291, appendix A
		return nil, false
	}
	return net.HardwareAddr{a[8] ^ 2, a[9], a[10], a[13], a[14], a[15]}, true
}

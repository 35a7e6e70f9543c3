// SPDX-License-Identifier: GPL-2.0-or-later

package network

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Up sets interfaces up, so that their links negotiate side by side.
func Up(ifaces []Interface) error {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	for _, i := range ifaces {
		l, err := netlink.LinkByIndex(i.Index)
		if err != nil {
			return fmt.Errorf("%s: %w", i, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("%s: cannot be set up: %w", i, err)
		}
	}
	return nil
}

// Apply gives the interface the lease's address, MTU and routes. Applying the
// same lease again changes nothing.
func Apply(l Lease) error {
	link, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return fmt.Errorf("%s: %w", l.Interface, err)
	}
	if l.MTU > 0 && link.Attrs().MTU != l.MTU {
		// A card that cannot do what the network asks for works with its own size.
		_ = netlink.LinkSetMTU(link, l.MTU)
	}
	// The kernel must not take the address away by itself: the root hangs on it.
	// The agent renews the lease and changes the address when the server says so.
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(l.Address), Broadcast: broadcast(l.Address)}); err != nil {
		return fmt.Errorf("%s: address %v: %w", l.Interface, l.Address, err)
	}
	for _, r := range l.Routes {
		if err := addRoute(l, r); err != nil {
			return fmt.Errorf("%s: route to %v via %v: %w", l.Interface, r.To, r.Via, err)
		}
	}
	return nil
}

func addRoute(l Lease, r Route) error {
	nr := netlink.Route{LinkIndex: l.Index, Dst: ipNet(r.To), Src: l.Address.Addr().AsSlice(), Protocol: 16} // RTPROT_DHCP
	if !r.Via.IsValid() {
		nr.Scope = netlink.SCOPE_LINK
		return netlink.RouteReplace(&nr)
	}
	nr.Gw = r.Via.AsSlice()
	if !l.Address.Contains(r.Via) {
		// A router outside the own network (a /32 address at some providers) is on the link all the same.
		nr.Flags = int(netlink.FLAG_ONLINK)
	}
	return netlink.RouteReplace(&nr)
}

// Remove takes a lease's address off the interface; its routes go with it.
func Remove(l Lease) error {
	link, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return fmt.Errorf("%s: %w", l.Interface, err)
	}
	if err := netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(l.Address)}); err != nil {
		return fmt.Errorf("%s: address %v: %w", l.Interface, l.Address, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func broadcast(p netip.Prefix) net.IP {
	if p.Bits() >= 31 {
		return nil
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b[:]
}

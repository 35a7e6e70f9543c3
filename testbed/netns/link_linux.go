// SPDX-License-Identifier: GPL-2.0-or-later

package netns

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth makes a pair of connected interfaces, link here and peerLink in peer,
// both up.
func (n *NS) Veth(link string, peer *NS, peerLink string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	v := &netlink.Veth{LinkAttrs: attrs, PeerName: peerLink, PeerNamespace: netlink.NsFd(peer.Fd())}
	if err := n.handle.LinkAdd(v); err != nil {
		return fmt.Errorf("make veth pair %s and %s: %w", link, peerLink, err)
	}
	return errors.Join(n.Up(link), peer.Up(peerLink))
}

// Bridge makes a bridge that forwards at once, up, with the given ports.
func (n *NS) Bridge(name string, ports ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	// A bridge otherwise takes the lowest address of its ports, and changes it
	// under its users' feet when ports come and go.
	h := fnv.New32a()
	h.Write([]byte(name))
	attrs.HardwareAddr = h.Sum([]byte{0x02, 's'})
	snooping := false // its querier would be one more voice on the wire
	if err := n.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	if err := n.Up(name); err != nil {
		return err
	}
	for _, p := range ports {
		if err := n.Attach(p, name); err != nil {
			return err
		}
	}
	return nil
}

// Attach makes link a port of bridge.
func (n *NS) Attach(link, bridge string) error {
	l, err := n.link(link)
	if err != nil {
		return err
	}
	b, err := n.link(bridge)
	if err != nil {
		return err
	}
	if err := n.handle.LinkSetMaster(l, b); err != nil {
		return fmt.Errorf("attach %s to bridge %s: %w", link, bridge, err)
	}
	return nil
}

// Detach takes link off its bridge.
func (n *NS) Detach(link string) error {
	l, err := n.link(link)
	if err != nil {
		return err
	}
	if err := n.handle.LinkSetNoMaster(l); err != nil {
		return fmt.Errorf("detach %s: %w", link, err)
	}
	return nil
}

// Up brings link up.
func (n *NS) Up(link string) error {
	l, err := n.link(link)
	if err != nil {
		return err
	}
	if err := n.handle.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up %s: %w", link, err)
	}
	return nil
}

// Down brings link down.
func (n *NS) Down(link string) error {
	l, err := n.link(link)
	if err != nil {
		return err
	}
	if err := n.handle.LinkSetDown(l); err != nil {
		return fmt.Errorf("bring down %s: %w", link, err)
	}
	return nil
}

// Delete removes link.
func (n *NS) Delete(link string) error {
	l, err := n.link(link)
	if err != nil {
		return err
	}
	if err := n.handle.LinkDel(l); err != nil {
		return fmt.Errorf("delete %s: %w", link, err)
	}
	return nil
}

// Address gives link the address p, with its network.
func (n *NS) Address(link string, p netip.Prefix) error {
	l, err := n.link(link)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // tests must not wait for duplicates to speak up
	}
	if err := n.handle.AddrAdd(l, a); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link, p, err)
	}
	return nil
}

// Route sends packets for dst through the router via.
func (n *NS) Route(dst netip.Prefix, via netip.Addr) error {
	if err := n.handle.RouteAdd(&netlink.Route{Dst: ipNet(dst.Masked()), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route %s via %s: %w", dst, via, err)
	}
	return nil
}

// Forward lets the namespace route IPv4 packets between its interfaces.
func (n *NS) Forward() error {
	return n.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	})
}

// HardwareAddr returns the MAC address of link.
func (n *NS) HardwareAddr(link string) (net.HardwareAddr, error) {
	l, err := n.link(link)
	if err != nil {
		return nil, err
	}
	return l.Attrs().HardwareAddr, nil
}

// Links lists the names of the interfaces.
func (n *NS) Links() ([]string, error) {
	links, err := n.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	return names, nil
}

func (n *NS) link(name string) (netlink.Link, error) {
	l, err := n.handle.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return l, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

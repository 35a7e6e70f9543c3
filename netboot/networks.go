// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"fmt"
	"net/netip"
	"time"

	"slate/dhcp"
	"slate/netboot/config"
)

// network is one that nodes are on: the settings of its pool, and our address
// towards it. The first one is that of network.interface.
type network struct {
	iface  string // empty: behind a relay
	prefix netip.Prefix
	addr   netip.Addr
	pool   PoolSettings
}

// findNetworks finds our addresses on all networks.
func (s *Server) findNetworks() error {
	set := s.Settings
	want := set.Network.Address
	first, err := findNetwork(set.Network.Interface, "address "+want.String(), func(p netip.Prefix) bool { return !want.IsValid() || p.Addr() == want })
	if err != nil {
		return err
	}
	first.pool = set.DHCP.PoolSettings
	s.networks = []network{first}
	for _, n := range set.DHCP.Subnets {
		nw := network{prefix: n.Subnet, addr: first.addr}
		if n.Interface != "" {
			if nw, err = findNetwork(n.Interface, "subnet "+n.Subnet.String(), func(p netip.Prefix) bool { return !n.Subnet.IsValid() || p.Masked() == n.Subnet }); err != nil {
				return err
			}
			n.Subnet = nw.prefix
		}
		nw.pool = n.PoolSettings
		s.networks = append(s.networks, nw)
	}
	for _, nw := range s.networks {
		n := SubnetSettings{Subnet: nw.prefix, PoolSettings: nw.pool}
		if err := n.checkInside(); err != nil && set.DHCP.Mode == DHCPServer {
			return &settingsError{fmt.Errorf("dhcp.%w", err), fmt.Sprintf("choose a part of %s", nw.prefix)}
		}
	}
	return nil
}

func (n network) String() string {
	if n.iface == "" {
		return n.prefix.String()
	}
	return fmt.Sprintf("%s on %s", n.prefix, n.iface)
}

// findNetwork finds the first address of an interface that fits what is wanted.
func findNetwork(iface, want string, fits func(netip.Prefix) bool) (network, error) {
	ifc, err := InterfaceByName(iface)
	if err != nil {
		return network{}, err
	}
	for _, p := range ifc.Prefixes {
		if fits(p) {
			return network{iface: iface, prefix: p.Masked(), addr: p.Addr()}, nil
		}
	}
	if len(ifc.Prefixes) > 0 {
		return network{}, &settingsError{fmt.Errorf("interface %s does not have the %s", iface, want), "it has: " + joinPrefixes(ifc.Prefixes)}
	}
	return network{}, &settingsError{fmt.Errorf("network.interface: %s has no IPv4 address", iface),
		fmt.Sprintf("give it one, for instance: ip addr add 10.77.0.1/24 dev %s", iface)}
}

// addr is the address that most nodes know the appliance by.
func (s *Server) addr() netip.Addr { return s.networks[0].addr }

// towards is our address as the machine with the given one reaches us.
func (s *Server) towards(client netip.Addr) netip.Addr {
	for _, n := range s.networks {
		if n.prefix.Contains(client) {
			return n.addr
		}
	}
	return s.addr()
}

// towardsText is towards for an address in text; empty or wrong: the first network.
func (s *Server) towardsText(client string) netip.Addr {
	a, _ := netip.ParseAddr(client)
	return s.towards(a)
}

// on is our address on an interface.
func (s *Server) on(iface string) netip.Addr {
	for _, n := range s.networks {
		if n.iface == iface {
			return n.addr
		}
	}
	return s.addr()
}

// local are the networks that the appliance is on itself.
func (s *Server) local() []network {
	var out []network
	for _, n := range s.networks {
		if n.iface != "" {
			out = append(out, n)
		}
	}
	return out
}

// subnets are the networks as the DHCP server takes them.
func (s *Server) subnets() ([]dhcp.Subnet, error) {
	var out []dhcp.Subnet
	for _, n := range s.networks {
		options, err := config.ParseOptions(n.pool.Options)
		if err != nil {
			return nil, fmt.Errorf("dhcp.options: %w", err)
		}
		out = append(out, dhcp.Subnet{
			Interface: n.iface, Server: n.addr, Prefix: n.prefix, First: n.pool.Range.First, Last: n.pool.Range.Last,
			Gateway: n.pool.Gateway, DNS: n.pool.DNS, Domain: n.pool.Domain, NTP: n.pool.NTP,
			LeaseTime: time.Duration(n.pool.Lease), Options: options,
		})
	}
	return out, nil
}

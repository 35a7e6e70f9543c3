// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

// Interface is a network interface of this machine.
type Interface struct {
	Name     string
	MAC      net.HardwareAddr
	Up       bool
	Loopback bool
	Prefixes []netip.Prefix // its IPv4 addresses
}

// Interfaces lists the interfaces of this machine.
func Interfaces() ([]Interface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var out []Interface
	for _, ifc := range list {
		i := Interface{Name: ifc.Name, MAC: ifc.HardwareAddr, Up: ifc.Flags&net.FlagUp != 0, Loopback: ifc.Flags&net.FlagLoopback != 0}
		addrs, err := ifc.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", ifc.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				i.Prefixes = append(i.Prefixes, p)
			}
		}
		out = append(out, i)
	}
	return out, nil
}

// InterfaceByName finds an interface. The error names those that there are.
func InterfaceByName(name string) (Interface, error) {
	list, err := Interfaces()
	if err != nil {
		return Interface{}, err
	}
	var names []string
	for _, i := range list {
		if i.Name == name {
			return i, nil
		}
		if !i.Loopback {
			names = append(names, i.Name)
		}
	}
	return Interface{}, &settingsError{fmt.Errorf("network.interface: there is no interface %q", name), "this machine has: " + strings.Join(names, ", ")}
}

func joinPrefixes(ps []netip.Prefix) string {
	var s []string
	for _, p := range ps {
		s = append(s, p.String())
	}
	if len(s) == 0 {
		return "no IPv4 address"
	}
	return strings.Join(s, ", ")
}

// PortError explains why a port could not be opened.
func PortError(service, proto string, port int, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		flag := map[string]string{"tcp": "-ltnp", "udp": "-lunp"}[proto]
		return &settingsError{fmt.Errorf("%s: %s port %d is taken by another program", service, proto, port),
			fmt.Sprintf("see by which: ss %s 'sport = :%d'; stop it, or set %s.port in slate.toml", flag, port, service)}
	case errors.Is(err, syscall.EACCES):
		return &settingsError{fmt.Errorf("%s: no permission to open %s port %d", service, proto, port), "run slate serve as root, or through its systemd unit"}
	}
	return fmt.Errorf("%s: %w", service, err)
}

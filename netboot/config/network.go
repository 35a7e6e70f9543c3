// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// What configures the other interfaces on a node (Network.Manager).
const (
	ManagerAuto     = "auto" // what the image has
	ManagerNetworkd = "networkd"
	ManagerIfupdown = "ifupdown"
	ManagerNM       = "networkmanager"
	ManagerNetifrc  = "netifrc"
	ManagerNone     = "none" // nothing: the image's own files stay as they are
)

// How an interface gets its address (Interface.Method).
const (
	MethodDHCP   = "dhcp"
	MethodStatic = "static"
	MethodOff    = "off" // it is left down
)

// Network is system/network.conf: names, and the interfaces beside the one that
// the node booted from. That one stays as the controller set it up.
type Network struct {
	Manager   string      `toml:"manager"` // one of the Manager constants; empty: auto
	DNS       []string    `toml:"dns"`     // empty: those that DHCP gave
	Search    []string    `toml:"search"`  // likewise
	Interface []Interface `toml:"interface"`
	Host      []Host      `toml:"host"`
}

// Interface is the configuration of the interfaces that match.
type Interface struct {
	Match   string   `toml:"match"` // name with * and ?, or MAC address
	Method  string   `toml:"method"`
	Address []string `toml:"address"` // with prefix length
	Gateway string   `toml:"gateway"`
	MTU     int      `toml:"mtu"` // 0: as it is
	Remove  bool     `toml:"remove"`
}

// Host is a line of /etc/hosts.
type Host struct {
	Name    string   `toml:"name"`
	Address string   `toml:"address"`
	Aliases []string `toml:"aliases"`
	Remove  bool     `toml:"remove"`
}

func (i Interface) id() string    { return i.Match }
func (i Interface) removed() bool { return i.Remove }
func (h Host) id() string         { return h.Name }
func (h Host) removed() bool      { return h.Remove }

// Matches tells whether the configuration is for an interface.
func (i Interface) Matches(name string, mac net.HardwareAddr) bool {
	if want, err := net.ParseMAC(i.Match); err == nil {
		return want.String() == mac.String()
	}
	ok, _ := path.Match(i.Match, name)
	return ok
}

func (n *Network) lists() []keyedList {
	return []keyedList{entries[Interface]{"interface", &n.Interface}, entries[Host]{"host", &n.Host}}
}

const networkFile = "system/network.conf"

func defaultNetwork() Network { return Network{Manager: ManagerAuto} }

func (n *Network) check(d *Doc) (errs []error) {
	if n.Manager == "" {
		n.Manager = ManagerAuto
	}
	if all := []string{ManagerAuto, ManagerNetworkd, ManagerIfupdown, ManagerNM, ManagerNetifrc, ManagerNone}; !slices.Contains(all, n.Manager) {
		errs = append(errs, d.Errorf("manager", "%q is not one of %s", n.Manager, strings.Join(all, ", ")))
	}
	for _, a := range n.DNS {
		if _, err := netip.ParseAddr(a); err != nil {
			errs = append(errs, d.Errorf("dns", "%q is not an IP address", a))
		}
	}
	for _, s := range n.Search {
		if !isHostName(s) {
			errs = append(errs, d.Errorf("search", "%q is not a domain", s))
		}
	}
	for i, e := range n.Interface {
		errs = append(errs, e.check(d, i)...)
	}
	for i, h := range n.Host {
		if !isHostName(h.Name) {
			errs = append(errs, d.at("host", i, "name", "%q is not a host name", h.Name))
		}
		if _, err := netip.ParseAddr(h.Address); err != nil && !h.Remove {
			errs = append(errs, d.at("host", i, "address", "%q is not an IP address", h.Address))
		}
		for _, a := range h.Aliases {
			if !isHostName(a) {
				errs = append(errs, d.at("host", i, "aliases", "%q is not a host name", a))
			}
		}
	}
	return errs
}

func (e Interface) check(d *Doc, i int) (errs []error) {
	bad := func(key, format string, args ...any) { errs = append(errs, d.at("interface", i, key, format, args...)) }
	if _, err := path.Match(e.Match, ""); err != nil || e.Match == "" || strings.ContainsAny(e.Match, "/ \t\n\"'") {
		bad("match", "%q is neither a name, such as enp*, nor a MAC address", e.Match)
	}
	if e.Remove {
		return errs
	}
	switch e.Method {
	case MethodDHCP, MethodOff:
		if len(e.Address) > 0 || e.Gateway != "" {
			bad("method", "address and gateway go with method = %q only", MethodStatic)
		}
	case MethodStatic:
		if len(e.Address) == 0 {
			bad("address", "a static interface needs an address, such as \"10.1.2.3/24\"")
		}
	default:
		bad("method", "%q is not one of %s, %s, %s", e.Method, MethodDHCP, MethodStatic, MethodOff)
	}
	for _, a := range e.Address {
		if _, err := netip.ParsePrefix(a); err != nil {
			bad("address", "%q is not an address with a prefix length, such as \"10.1.2.3/24\"", a)
		}
	}
	if e.Gateway != "" {
		if _, err := netip.ParseAddr(e.Gateway); err != nil {
			bad("gateway", "%q is not an IP address", e.Gateway)
		}
	}
	if e.MTU != 0 && (e.MTU < 576 || e.MTU > 65535) {
		bad("mtu", "%d is not between 576 and 65535", e.MTU)
	}
	return errs
}

func isHostName(s string) bool {
	return s != "" && len(s) < 254 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

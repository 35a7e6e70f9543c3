// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"text/template"
	"time"
)

// SetupFacts are what slate init found out about the machine.
type SetupFacts struct {
	Interfaces []Interface
	Interface  string   // asked for by the admin; "" to choose
	Mode       DHCPMode // asked for by the admin; "" to choose
	Gateway    netip.Addr
	DNS        []netip.Addr
	// Rivals describe the other DHCP servers that answered on the interface;
	// RivalsGive says that one of them gives addresses.
	Rivals     []string
	RivalsGive bool
}

// ChooseInterface decides which interface the nodes are on: the one asked for,
// or the only one that can be it.
func ChooseInterface(f SetupFacts) (Interface, error) {
	var usable []Interface
	var seen []string
	for _, i := range f.Interfaces {
		if i.Loopback {
			continue
		}
		seen = append(seen, fmt.Sprintf("%s (%s)", i.Name, joinPrefixes(i.Prefixes)))
		if f.Interface != "" && i.Name == f.Interface {
			if len(i.Prefixes) == 0 {
				return i, &settingsError{fmt.Errorf("interface %s has no IPv4 address", i.Name),
					fmt.Sprintf("give it one, for instance: ip addr add 10.77.0.1/24 dev %s", i.Name)}
			}
			return i, nil
		}
		if i.Up && len(i.Prefixes) > 0 && !isVirtual(i.Name) {
			usable = append(usable, i)
		}
	}
	all := "this machine has: " + strings.Join(seen, ", ")
	switch {
	case f.Interface != "":
		return Interface{}, &settingsError{fmt.Errorf("there is no interface %q", f.Interface), all}
	case len(usable) == 1:
		return usable[0], nil
	case len(usable) == 0:
		return Interface{}, &settingsError{errors.New("no interface is up and has an IPv4 address"),
			all + "; configure the one that the nodes are on"}
	}
	return Interface{}, &settingsError{errors.New("several interfaces could be the one that the nodes are on"),
		all + "; name one with --interface"}
}

// isVirtual recognizes the bridges of container and VM managers by their
// customary names: no room of machines is behind them.
func isVirtual(name string) bool {
	for _, p := range []string{"docker", "virbr", "br-", "veth", "lxc", "lxd", "cni", "podman", "tun", "wg"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// maxRange is the most addresses a derived range has.
const maxRange = 4096

// DeriveRange returns the upper half of a subnet, at most 4096 addresses, without
// the broadcast address. The lower half stays free for machines with fixed addresses.
func DeriveRange(subnet netip.Prefix) (Range, error) {
	hostBits := 32 - subnet.Bits()
	if hostBits < 2 {
		return Range{}, fmt.Errorf("subnet %s is too small to give addresses from", subnet.Masked())
	}
	b := subnet.Masked().Addr().As4()
	base := binary.BigEndian.Uint32(b[:])
	half := uint32(1) << (hostBits - 1)
	first := base + half
	last := base + 2*half - 2
	last = min(last, first+maxRange-1)
	addr := func(v uint32) netip.Addr {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], v)
		return netip.AddrFrom4(a)
	}
	return Range{addr(first), addr(last)}, nil
}

// PlanSettings decides on the settings of a new appliance, and says why, one
// sentence for each decision.
func PlanSettings(f SetupFacts) (s Settings, why []string, err error) {
	ifc, err := ChooseInterface(f)
	if err != nil {
		return s, nil, err
	}
	prefix := ifc.Prefixes[0]
	s = Settings{Network: NetworkSettings{ifc.Name, prefix.Addr()}, DHCP: DHCPSettings{Mode: f.Mode, PoolSettings: PoolSettings{Lease: Duration(DefaultLease)}}}
	why = append(why, fmt.Sprintf("The nodes are on %s, where this machine is %s.", ifc.Name, prefix))
	if len(f.Rivals) == 0 {
		why = append(why, "No other DHCP server answered there.")
	}
	for _, r := range f.Rivals {
		why = append(why, fmt.Sprintf("Another DHCP server is there: %s.", r))
	}
	if s.DHCP.Mode == "" {
		s.DHCP.Mode = DHCPServer
		if f.RivalsGive {
			s.DHCP.Mode = DHCPProxy
		}
	}
	switch s.DHCP.Mode {
	case DHCPServer:
		if s.DHCP.Range, err = DeriveRange(prefix); err != nil {
			return s, nil, err
		}
		why = append(why, fmt.Sprintf("So the appliance gives addresses itself (mode server), from the upper half of %s: %s.", prefix.Masked(), s.DHCP.Range))
		if f.Gateway.IsValid() && prefix.Contains(f.Gateway) {
			s.DHCP.Gateway, s.DHCP.DNS = f.Gateway, f.DNS
			why = append(why, fmt.Sprintf("Nodes are told the router that this machine uses, %s.", f.Gateway))
		}
		if f.RivalsGive {
			why = append(why, "WARNING: two servers that give addresses on one network get in each other's way.")
		}
	case DHCPProxy:
		why = append(why, "So the appliance leaves addresses alone and only tells machines what to boot (mode proxy).")
	}
	return s, why, nil
}

//go:embed slate.toml.tmpl
var settingsTemplate string

// Text returns the settings as a commented slate.toml. The paths in it are those
// of a new appliance, relative where they lie beside it.
func (s Settings) Text() ([]byte, error) {
	t, err := template.New("slate.toml").Funcs(template.FuncMap{
		"duration": func(d Duration) string {
			return strings.TrimSuffix(strings.TrimSuffix(time.Duration(d).String(), "0s"), "0m")
		},
	}).Parse(settingsTemplate)
	if err != nil {
		return nil, fmt.Errorf("slate.toml template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return nil, fmt.Errorf("slate.toml template: %w", err)
	}
	return b.Bytes(), nil
}

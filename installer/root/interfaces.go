// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"

	"slate/netboot/config"
)

// Interface is a wired interface of the machine.
type Interface struct {
	Name string
	MAC  string
}

// setting is an interface with what config.d wants of it.
type setting struct {
	Name, MAC string
	config.Interface
}

// interfaces configures the interfaces beside the one that the root hangs on, in
// the way of the program that the image manages networks with.
func interfaces(tree fs.FS, f Facts) (out []Change, problems []string) {
	var list []setting
	for _, i := range f.Others {
		mac, _ := net.ParseMAC(i.MAC)
		for _, c := range f.Config.Network.Interface {
			if c.Matches(i.Name, mac) {
				list = append(list, setting{i.Name, i.MAC, c})
				break
			}
		}
	}
	if len(list) == 0 || f.Config.Network.Manager == config.ManagerNone {
		return nil, nil
	}
	manager := f.Config.Network.Manager
	if manager == config.ManagerAuto {
		manager = networkManager(tree)
	}
	write := map[string]func(fs.FS, Facts, []setting) []Change{
		config.ManagerNetworkd: networkd, config.ManagerNM: networkManagerFiles, config.ManagerIfupdown: ifupdown, config.ManagerNetifrc: netifrc,
	}[manager]
	if write == nil {
		return nil, []string{"system/network.conf: the image has none of networkd, NetworkManager, ifupdown and netifrc to configure interfaces with"}
	}
	for _, s := range list {
		// udev must not rename what is configured by its name.
		out = append(out, Change{Path: "/etc/systemd/network/01-slate-" + s.Name + ".link",
			Text: "[Match]\nMACAddress=" + s.MAC + "\nType=ether\n\n[Link]\nNamePolicy=keep kernel\n"})
	}
	return append(out, write(tree, f, list)...), nil
}

// networkManager tells what the image manages networks with: what is enabled, else
// what is there.
func networkManager(tree fs.FS) string {
	enabled := func(unit string) bool { return exists(tree, "etc/systemd/system/multi-user.target.wants/"+unit) }
	switch {
	case enabled("NetworkManager.service") || exists(tree, "etc/runlevels/default/NetworkManager"):
		return config.ManagerNM
	case enabled("systemd-networkd.service"):
		return config.ManagerNetworkd
	case exists(tree, "sbin/ifup") || exists(tree, "usr/sbin/ifup"):
		return config.ManagerIfupdown
	case exists(tree, "etc/init.d/net.lo"):
		return config.ManagerNetifrc
	case DetectInit(tree) == Systemd && (exists(tree, "usr/lib/systemd/system/systemd-networkd.service") || exists(tree, "lib/systemd/system/systemd-networkd.service")):
		return config.ManagerNetworkd
	}
	return ""
}

func networkd(tree fs.FS, _ Facts, list []setting) (out []Change) {
	for _, s := range list {
		var b strings.Builder
		fmt.Fprintf(&b, "[Match]\nMACAddress=%s\nType=ether\n\n", s.MAC)
		if s.MTU > 0 || s.Method == config.MethodOff {
			b.WriteString("[Link]\n")
			if s.MTU > 0 {
				fmt.Fprintf(&b, "MTUBytes=%d\n", s.MTU)
			}
			if s.Method == config.MethodOff {
				b.WriteString("ActivationPolicy=always-down\nRequiredForOnline=no\n")
			}
			b.WriteString("\n")
		}
		b.WriteString("[Network]\n")
		if s.Method == config.MethodDHCP {
			b.WriteString("DHCP=yes\n")
		}
		for _, a := range s.Address {
			b.WriteString("Address=" + a + "\n")
		}
		if s.Gateway != "" {
			b.WriteString("Gateway=" + s.Gateway + "\n")
		}
		if s.Method == config.MethodDHCP {
			// The way to the root is by the other interface.
			b.WriteString("\n[DHCPv4]\nRouteMetric=2048\n")
		}
		out = append(out, Change{Path: "/etc/systemd/network/50-slate-" + s.Name + ".network", Text: b.String()})
	}
	units, _ := systemdService(tree, "systemd-networkd", true, config.Services{})
	return append(out, units...)
}

func networkManagerFiles(_ fs.FS, _ Facts, list []setting) (out []Change) {
	for _, s := range list {
		var b strings.Builder
		fmt.Fprintf(&b, "[connection]\nid=slate-%s\ntype=ethernet\nautoconnect=%t\n\n[ethernet]\nmac-address=%s\n", s.Name, s.Method != config.MethodOff, s.MAC)
		if s.MTU > 0 {
			fmt.Fprintf(&b, "mtu=%d\n", s.MTU)
		}
		for _, family := range []string{"ipv4", "ipv6"} {
			fmt.Fprintf(&b, "\n[%s]\n", family)
			n, method := 0, map[string]string{config.MethodDHCP: "auto", config.MethodOff: "disabled"}[s.Method]
			for _, a := range s.Address {
				if p := netip.MustParsePrefix(a); p.Addr().Is4() == (family == "ipv4") {
					n++
					fmt.Fprintf(&b, "address%d=%s\n", n, a)
				}
			}
			if g, err := netip.ParseAddr(s.Gateway); err == nil && g.Is4() == (family == "ipv4") {
				b.WriteString("gateway=" + s.Gateway + "\n")
			}
			if method == "" {
				method = "manual"
				if n == 0 {
					method = "disabled"
				}
			}
			b.WriteString("method=" + method + "\n")
		}
		out = append(out, Change{Path: "/etc/NetworkManager/system-connections/slate-" + s.Name + ".nmconnection", Text: b.String(), Mode: 0o600})
	}
	return out
}

func ifupdown(tree fs.FS, f Facts, list []setting) []Change {
	old, _ := read(tree, "etc/network/interfaces")
	old = WithoutInterface(old, f.Interface)
	var b strings.Builder
	for _, s := range list {
		old = WithoutInterface(old, s.Name)
		if s.Method == config.MethodOff {
			continue
		}
		fmt.Fprintf(&b, "\n# slate: config.d\nallow-hotplug %s\nauto %s\n", s.Name, s.Name)
		if s.Method == config.MethodDHCP {
			fmt.Fprintf(&b, "iface %s inet dhcp\n\tmetric 2048\n", s.Name)
			b.WriteString(mtuLine(s))
		}
		for _, a := range s.Address {
			p := netip.MustParsePrefix(a)
			family := map[bool]string{true: "inet", false: "inet6"}[p.Addr().Is4()]
			fmt.Fprintf(&b, "iface %s %s static\n\taddress %s\n", s.Name, family, a)
			if g, err := netip.ParseAddr(s.Gateway); err == nil && g.Is4() == p.Addr().Is4() {
				b.WriteString("\tgateway " + s.Gateway + "\n")
			}
			b.WriteString(mtuLine(s))
		}
	}
	return []Change{{Path: "/etc/network/interfaces", Text: strings.TrimRight(old, "\n") + "\n" + b.String()}}
}

func mtuLine(s setting) string {
	if s.MTU == 0 {
		return ""
	}
	return fmt.Sprintf("\tmtu %d\n", s.MTU)
}

func netifrc(_ fs.FS, _ Facts, list []setting) (out []Change) {
	var b strings.Builder
	b.WriteString("\n# slate: config.d\n")
	for _, s := range list {
		switch s.Method {
		case config.MethodDHCP:
			fmt.Fprintf(&b, "config_%s=\"dhcp\"\nmetric_%s=\"2048\"\n", s.Name, s.Name)
		case config.MethodStatic:
			fmt.Fprintf(&b, "config_%s=\"%s\"\n", s.Name, strings.Join(s.Address, "\n"))
			if s.Gateway != "" {
				fmt.Fprintf(&b, "routes_%s=\"default via %s\"\n", s.Name, s.Gateway)
			}
		case config.MethodOff:
			fmt.Fprintf(&b, "config_%s=\"null\"\n", s.Name)
		}
		if s.MTU > 0 {
			fmt.Fprintf(&b, "mtu_%s=\"%d\"\n", s.Name, s.MTU)
		}
		if s.Method == config.MethodOff {
			out = append(out, Change{Path: "/etc/runlevels/default/net." + s.Name, Remove: true})
			continue
		}
		out = append(out, Change{Path: "/etc/init.d/net." + s.Name, Link: "net.lo"},
			Change{Path: "/etc/runlevels/default/net." + s.Name, Link: "/etc/init.d/net." + s.Name})
	}
	return append(out, Change{Path: "/etc/conf.d/net", Text: b.String(), Append: true})
}

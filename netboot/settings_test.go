// SPDX-License-Identifier: GPL-2.0-or-later

package netboot_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/netboot"
	"slate/testbed/golden"
)

func writeSettings(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "slate.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const goodSettings = "[network]\ninterface = \"eth1\"\n[dhcp]\nrange = \"10.0.0.10-10.0.0.20\"\n"

func TestReadSettings(t *testing.T) {
	file := writeSettings(t, goodSettings)
	s, err := netboot.ReadSettings(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	if s.Data != netboot.DefaultData || s.ConfigD != dir+"/config.d" || s.Key != dir+"/site.key" {
		t.Errorf("paths = %s, %s, %s", s.Data, s.ConfigD, s.Key)
	}
	if s.DHCP.Mode != netboot.DHCPServer || s.HTTP.Port != 8070 || s.NFS.Port != 2049 || s.NFS.Memory != 64 || s.TFTP.Port != 69 || time.Duration(s.DHCP.Lease) != 12*time.Hour {
		t.Errorf("defaults = %+v", s)
	}
	if got := s.DHCP.Range.String(); got != "10.0.0.10-10.0.0.20" {
		t.Errorf("range = %s", got)
	}
}

func TestBadSettingsNameFileLineAndKey(t *testing.T) {
	for _, c := range []struct{ name, text, want, hint string }{
		{"unknown key", goodSettings + "gatway = \"10.0.0.1\"\n", "slate.toml:5: dhcp.gatway: unknown key", "did you mean dhcp.gateway?"},
		{"unknown mode", "[network]\ninterface = \"e\"\n[dhcp]\nmode = \"both\"\n", `slate.toml:4: dhcp.mode: "both" is not one of`, ""},
		{"no range", "[network]\ninterface = \"e\"\n[dhcp]\nmode = \"server\"\n", "slate.toml: dhcp.range: is missing", ""},
		{"range backwards", "[dhcp]\nrange = \"10.0.0.9-10.0.0.1\"\n", "slate.toml:2: dhcp.range: ", ""},
		{"no range at all", "[dhcp]\nrange = \"10.0.0.9\"\n", "write first-last", ""},
		{"port", goodSettings + "[http]\nport = 70000\n", "slate.toml:6: http.port: 70000 is not a port", ""},
		{"port as text", goodSettings + "[http]\nport = \"80\"\n", "slate.toml:6: http.port: ", ""},
		{"lease", goodSettings + "lease = \"3s\"\n", "slate.toml:5: dhcp.lease: 3s is not between", ""},
		{"lease nonsense", goodSettings + "lease = \"long\"\n", "slate.toml:5: dhcp.lease: ", ""},
		{"NFS memory", goodSettings + "[nfs]\nmemory = 0\n", "slate.toml:6: nfs.memory: 0 is not between 1 and", ""},
		{"no interface", "[dhcp]\nmode = \"off\"\n", "slate.toml: network.interface: is empty", ""},
		{"IPv6", "[network]\ninterface = \"e\"\naddress = \"fe80::1\"\n[dhcp]\nmode = \"off\"\n", "slate.toml:3: network.address: fe80::1 is not an IPv4", ""},
		{"option", goodSettings + "[dhcp.options]\n51 = \"60\"\n", "dhcp.options: option 51 cannot be set here: set lease", ""},
		{"gateway", goodSettings + "gateway = \"fd00::1\"\n", "slate.toml:5: dhcp.gateway: fd00::1 is not an IPv4", ""},
		{"subnet of nothing", goodSettings + "[[dhcp.subnet]]\nrange = \"10.1.0.1-10.1.0.2\"\n", "slate.toml:5: dhcp.subnet: number 1: interface is missing; for machines behind a relay, name their subnet", ""},
		{"subnet twice", goodSettings + "[[dhcp.subnet]]\ninterface = \"eth1\"\n", "dhcp.subnet: number 1: interface eth1 has a subnet already", ""},
		{"range of another subnet", goodSettings + "[[dhcp.subnet]]\nsubnet = \"10.2.0.0/24\"\nrange = \"10.1.0.1-10.1.0.2\"\n", "number 1: range: 10.1.0.1-10.1.0.2 is not inside the subnet 10.2.0.0/24", ""},
		{"relay of a proxy", "[network]\ninterface = \"e\"\n[dhcp]\nmode = \"proxy\"\n[[dhcp.subnet]]\nsubnet = \"10.2.0.0/24\"\n", "mode proxy is for networks", ""},
		{"lease of a subnet", goodSettings + "[[dhcp.subnet]]\ninterface = \"eth2\"\nlease = \"1s\"\n", "lease: 1s is not between", ""},
		{"key of a subnet", goodSettings + "[[dhcp.subnet]]\ninterfacee = \"eth2\"\n", "dhcp.subnet.interfacee: unknown key", "did you mean dhcp.subnet.interface?"},
		{"grammar", "[network\n", "slate.toml:2: expected", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := netboot.ReadSettings(writeSettings(t, c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("ReadSettings error = %v, want %q", err, c.want)
			}
			var h interface{ Hint() string }
			if c.hint != "" && (!errors.As(err, &h) || !strings.Contains(h.Hint(), c.hint)) {
				t.Errorf("hint of %v lacks %q", err, c.hint)
			}
		})
	}
	_, err := netboot.ReadSettings(filepath.Join(t.TempDir(), "none.toml"))
	var h interface{ Hint() string }
	if !errors.Is(err, os.ErrNotExist) || !errors.As(err, &h) || !strings.Contains(h.Hint(), "slate init") {
		t.Errorf("missing file: error = %v, want one with the hint slate init", err)
	}
}

func TestSubnetsInherit(t *testing.T) {
	s, err := netboot.ReadSettings(writeSettings(t, goodSettings+`dns = ["10.0.0.1"]
domain = "lab.example"
lease = "4h"
gateway = "10.0.0.1"
[dhcp.options]
150 = "10.0.0.9"
wpad = "a"
[[dhcp.subnet]]
interface = "eth2"
[[dhcp.subnet]]
subnet = "10.2.0.9/24"
range = "10.2.0.10-10.2.0.20"
dns = []
lease = "1h"
[dhcp.subnet.options]
wpad = "b"
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range s.DHCP.Subnets {
		got = append(got, fmt.Sprintf("%s, %v, %v, %v, %v, %s, %v, %v", n.Interface, n.Subnet, n.Range, n.Gateway, n.DNS, n.Domain, time.Duration(n.Lease), n.Options))
	}
	want := []string{
		"eth2, invalid Prefix, , invalid IP, [10.0.0.1], lab.example, 4h0m0s, map[150:10.0.0.9 wpad:a]",
		", 10.2.0.0/24, 10.2.0.10-10.2.0.20, invalid IP, [], lab.example, 1h0m0s, map[150:10.0.0.9 wpad:b]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("subnets (-want +got):\n%s", diff)
	}
}

func iface(name string, up bool, prefixes ...string) netboot.Interface {
	i := netboot.Interface{Name: name, Up: up, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	for _, p := range prefixes {
		i.Prefixes = append(i.Prefixes, netip.MustParsePrefix(p))
	}
	return i
}

func TestDeriveRange(t *testing.T) {
	for _, c := range []struct{ subnet, want string }{
		{"10.77.0.1/24", "10.77.0.128-10.77.0.254"},
		{"192.168.1.200/25", "192.168.1.192-192.168.1.254"},
		{"10.0.0.1/8", "10.128.0.0-10.128.15.255"},
		{"10.0.0.1/30", "10.0.0.2-10.0.0.2"},
		{"10.0.0.1/31", ""},
		{"10.0.0.1/32", ""},
	} {
		r, err := netboot.DeriveRange(netip.MustParsePrefix(c.subnet))
		if r.String() != c.want || (err != nil) != (c.want == "") {
			t.Errorf("DeriveRange(%s) = %s, %v, want %q", c.subnet, r, err, c.want)
		}
	}
}

func TestPlanSettings(t *testing.T) {
	lo := netboot.Interface{Name: "lo", Up: true, Loopback: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}
	lab := iface("eth1", true, "10.77.0.1/24")
	for _, c := range []struct {
		name  string
		facts netboot.SetupFacts
		mode  netboot.DHCPMode
		rng   string
		err   string
		say   string
	}{
		{"alone", netboot.SetupFacts{Interfaces: []netboot.Interface{lo, lab}}, "server", "10.77.0.128-10.77.0.254", "", "upper half of 10.77.0.0/24"},
		{"another server", netboot.SetupFacts{Interfaces: []netboot.Interface{lab}, Rivals: []string{"10.77.0.254"}, RivalsGive: true}, "proxy", "", "", "leaves addresses alone"},
		{"another proxy", netboot.SetupFacts{Interfaces: []netboot.Interface{lab}, Rivals: []string{"10.77.0.254 proxy"}}, "server", "10.77.0.128-10.77.0.254", "", "10.77.0.254 proxy"},
		{"asked for server", netboot.SetupFacts{Interfaces: []netboot.Interface{lab}, Mode: "server", Rivals: []string{"r"}, RivalsGive: true}, "server", "10.77.0.128-10.77.0.254", "", "WARNING"},
		{"docker beside", netboot.SetupFacts{Interfaces: []netboot.Interface{iface("docker0", true, "172.17.0.1/16"), lab, iface("eth0", false, "10.1.1.1/8")}}, "server", "10.77.0.128-10.77.0.254", "", ""},
		{"two", netboot.SetupFacts{Interfaces: []netboot.Interface{iface("eth0", true, "10.1.1.1/8"), lab}}, "", "", "several interfaces", ""},
		{"two, one named", netboot.SetupFacts{Interface: "eth1", Interfaces: []netboot.Interface{iface("eth0", true, "10.1.1.1/8"), lab}}, "server", "10.77.0.128-10.77.0.254", "", ""},
		{"named, not there", netboot.SetupFacts{Interface: "eth9", Interfaces: []netboot.Interface{lab}}, "", "", `no interface "eth9"`, ""},
		{"named, no address", netboot.SetupFacts{Interface: "eth0", Interfaces: []netboot.Interface{iface("eth0", true), lab}}, "", "", "has no IPv4 address", ""},
		{"none", netboot.SetupFacts{Interfaces: []netboot.Interface{lo}}, "", "", "no interface is up", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, why, err := netboot.PlanSettings(c.facts)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("PlanSettings error = %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.DHCP.Mode != c.mode || s.DHCP.Range.String() != c.rng {
				t.Errorf("PlanSettings = mode %s range %q, want %s %q", s.DHCP.Mode, s.DHCP.Range, c.mode, c.rng)
			}
			if text := strings.Join(why, "\n"); !strings.Contains(text, c.say) {
				t.Errorf("the reasons lack %q:\n%s", c.say, text)
			}
		})
	}
}

// What slate init writes must be read back as what it decided.
func TestSettingsTextIsReadBack(t *testing.T) {
	facts := netboot.SetupFacts{
		Interfaces: []netboot.Interface{iface("eth1", true, "10.77.0.1/24")},
		Gateway:    netip.MustParseAddr("10.77.0.254"),
		DNS:        []netip.Addr{netip.MustParseAddr("10.77.0.254"), netip.MustParseAddr("9.9.9.9")},
	}
	for _, mode := range []netboot.DHCPMode{netboot.DHCPServer, netboot.DHCPProxy, netboot.DHCPOff} {
		facts.Mode = mode
		want, _, err := netboot.PlanSettings(facts)
		if err != nil {
			t.Fatal(err)
		}
		want.Data = netboot.DefaultData
		text, err := want.Text()
		if err != nil {
			t.Fatal(err)
		}
		golden.Check(t, "testdata/slate.toml."+string(mode)+".golden", text)
		got, err := netboot.ReadSettings(writeSettings(t, string(text)))
		if err != nil {
			t.Fatalf("mode %s: %v", mode, err)
		}
		if got.Network != want.Network || got.DHCP.Mode != want.DHCP.Mode || got.DHCP.Range != want.DHCP.Range || got.DHCP.Gateway != want.DHCP.Gateway || len(got.DHCP.DNS) != len(want.DHCP.DNS) {
			t.Errorf("mode %s: read back %+v, want %+v", mode, got, want)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"slate/netboot/config"
)

func TestDHCPMergesOptionByOption(t *testing.T) {
	s, err := config.Load(site(map[string]string{
		"system/dhcp.conf":              "unknown = \"ignore\"\nlease = \"4h\"\n[options]\n150 = \"10.0.0.9\"\nwpad = \"http://a/\"\n",
		"groups/room1/system/dhcp.conf": "domain = \"room1.example\"\n[options]\nwpad = \"http://b/\"\n",
		"nodes/pc1/system/dhcp.conf": "mac = [\"52:54:00:AA:BB:CC\"]\nuuid = \"4C4C4544-0051-3510-8052-B4C04F4A3332\"\n" +
			"client-id = \"01:52:54:00:aa:bb:cc\"\naddress = \"10.77.0.50\"\ndns = [\"10.77.0.2\"]\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := s.For(config.Scope{Node: "pc1", Groups: []string{"room1"}}).DHCP
	if got, want := fmt.Sprint(c.Unknown, c.Lease, c.Domain, c.Address, c.DNS, c.Options),
		"ignore4hroom1.example10.77.0.50 [10.77.0.2] map[150:10.0.0.9 wpad:http://b/]"; got != want {
		t.Errorf("DHCP of pc1 = %s, want %s", got, want)
	}
	for _, x := range []struct {
		id   config.Identity
		want string
	}{
		{config.Identity{MAC: "52:54:00:aa:bb:cc"}, "pc1"},
		{config.Identity{MAC: "52:54:00:aa:bb:cd"}, ""},
		{config.Identity{MAC: "02:00:00:00:00:01", UUID: "4c4c4544-0051-3510-8052-b4c04f4a3332"}, "pc1"},
		{config.Identity{ClientID: "01525400aabbcc"}, "pc1"},
		{config.Identity{}, ""},
	} {
		if got := s.NodeOf(x.id); got != x.want {
			t.Errorf("NodeOf(%+v) = %q, want %q", x.id, got, x.want)
		}
	}
	if got := s.FixedTo(netip.MustParseAddr("10.77.0.50")); got != "pc1" {
		t.Errorf("10.77.0.50 is fixed to %q, want pc1", got)
	}
}

func TestBadDHCPNamesFileLineAndKey(t *testing.T) {
	const node = "nodes/pc1/system/dhcp.conf"
	for _, c := range []struct{ name, file, text, want, hint string }{
		{"policy", "system/dhcp.conf", "unknown = \"deny\"\n", `system/dhcp.conf:1: unknown: "deny" is not one of serve, ignore`, ""},
		{"policy of a group", "groups/a/system/dhcp.conf", "unknown = \"serve\"\n", "groups/a/system/dhcp.conf:1: unknown: ", "set it in system/dhcp.conf"},
		{"address of all", "system/dhcp.conf", "\naddress = \"10.0.0.5\"\n", "system/dhcp.conf:2: address: only one node can have it", "nodes/<node>/system/dhcp.conf"},
		{"MAC of a group", "groups/a/system/dhcp.conf", "mac = [\"52:54:00:00:00:01\"]\n", "only one node can have it", ""},
		{"MAC", node, "mac = [\"52:54\"]\n", node + `:1: mac: "52:54" is not a MAC address`, ""},
		{"UUID", node, "uuid = \"4c4c\"\n", "not a UUID", ""},
		{"client identifier", node, "client-id = \"pc1\"\n", "in hex", ""},
		{"address", node, "address = \"10.0.0\"\n", node + ":1: address: ", ""},
		{"IPv6", node, "address = \"fd00::1\"\n", "not an IPv4 address", ""},
		{"name server", node, "dns = [\"fd00::1\"]\n", "not an IPv4 address", ""},
		{"domain", node, "domain = \"a..b\"\n", "not a domain name", ""},
		{"lease", node, "lease = \"12\"\n", "write for instance 12h", ""},
		{"short lease", node, "lease = \"3s\"\n", "between a minute and a year", ""},
		{"unknown option", node, "[options]\nwpadd = \"x\"\n", node + ":2: options.wpadd: no option has this name", ""},
		{"option with a key of its own", node, "[options]\n51 = \"60\"\n", "set lease", ""},
		{"option of the boot answer", node, "[options]\n67 = \"x\"\n", "set loader in system/boot.conf", ""},
		{"number as address", node, "[options]\n150 = \"12\"\n", `options.150: "12" is not an IPv4 address`, ""},
		{"empty option", node, "[options]\n200 = \"\"\n", "it is empty", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Load(site(map[string]string{c.file: c.text}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Load error = %v, want %q", err, c.want)
			}
			var h interface{ Hint() string }
			if c.hint != "" && (!errors.As(err, &h) || !strings.Contains(h.Hint(), c.hint)) {
				t.Errorf("hint of %v lacks %q", err, c.hint)
			}
		})
	}
}

func TestTwoNodesCannotBeOneMachine(t *testing.T) {
	for key, value := range map[string]string{
		"mac": `["52:54:00:00:00:01"]`, "uuid": `"4c4c4544-0051-3510-8052-b4c04f4a3332"`, "client-id": `"0102"`, "address": `"10.0.0.5"`,
	} {
		_, err := config.Load(site(map[string]string{
			"nodes/pc1/system/dhcp.conf": key + " = " + value + "\n",
			"nodes/pc2/system/dhcp.conf": "# the same\n" + key + " = " + strings.ToUpper(value) + "\n",
		}))
		if want := "nodes/pc2/system/dhcp.conf:2: " + key; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "belongs to node pc1") {
			t.Errorf("Load = %v, want %q and the owner", err, want)
		}
	}
}

func TestOptionsOnTheWire(t *testing.T) {
	for _, c := range []struct {
		name, value string
		code        uint8
		want        string
	}{
		{"150", "10.0.0.1, 10.0.0.2", 150, "\n\x00\x00\x01\n\x00\x00\x02"},
		{"tftp-servers", "10.0.0.1", 150, "\n\x00\x00\x01"},
		{"224", "plain text", 224, "plain text"},
		{"224", "10.0.0.1", 224, "\n\x00\x00\x01"},
		{"43", "hex:01 04:0a-00 0001", 43, "\x01\x04\n\x00\x00\x01"},
		{"interface-mtu", "9000", 26, "\x23\x28"},
		{"2", "-3600", 2, "\xff\xff\xf1\xf0"},
		{"23", "64", 23, "@"},
		{"ip-forwarding", "false", 19, "\x00"},
		{"19", "true", 19, "\x01"},
		{"domain-search", "lab.example, a", 119, "\x03lab\x07example\x00\x01a\x00"},
		{"classless-routes", "10.1.0.0/16 10.0.0.254, 0.0.0.0/0 10.0.0.1", 121, "\x10\n\x01\n\x00\x00\xfe\x00\n\x00\x00\x01"},
	} {
		got, err := config.ParseOptions(map[string]string{c.name: c.value})
		if err != nil || string(got[c.code]) != c.want || len(got) != 1 {
			t.Errorf("option %s = %q: %q, %v, want code %d with %q", c.name, c.value, got, err, c.code, c.want)
		}
	}
	for name, value := range map[string]string{"26": "70000", "23": "-200", "19": "yes", "119": "a..b", "121": "10.1.0.0/16", "0": "x", "255": "x", "256": "x", "43": "hex:1"} {
		if got, err := config.ParseOptions(map[string]string{name: value}); err == nil {
			t.Errorf("option %s = %q was taken: %q", name, value, got)
		}
	}
	if _, err := config.ParseOptions(map[string]string{"150": "10.0.0.1", "tftp-servers": "10.0.0.2"}); err == nil {
		t.Error("one option by two names was taken")
	}
}

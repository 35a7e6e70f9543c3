// SPDX-License-Identifier: GPL-2.0-or-later

package network_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"slate/installer/network"
)

func TestOrder(t *testing.T) {
	i := func(name, mac string, carrier bool) network.Interface {
		m, err := net.ParseMAC(mac)
		if err != nil {
			t.Fatal(err)
		}
		return network.Interface{Name: name, MAC: m, Carrier: carrier}
	}
	eth0, eth1, eth2, eth10 := i("eth0", "52:54:00:00:00:00", false), i("eth1", "52:54:00:00:00:01", true), i("eth2", "52:54:00:00:00:02", false), i("eth10", "52:54:00:00:00:0a", true)
	all := []network.Interface{eth10, eth2, eth1, eth0}
	for _, tt := range []struct {
		name string
		boot net.HardwareAddr
		want []string
	}{
		{"the one booted from, link or not", eth2.MAC, []string{"eth2", "eth1", "eth10", "eth0"}},
		{"unknown: links first", nil, []string{"eth1", "eth10", "eth0", "eth2"}},
		{"booted from one that is gone", net.HardwareAddr{1, 2, 3, 4, 5, 6}, []string{"eth1", "eth10", "eth0", "eth2"}},
	} {
		var got []string
		for _, i := range network.Order(all, tt.boot) {
			got = append(got, i.Name)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: Order() = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestListTakesWiredInterfacesOnly(t *testing.T) {
	root := t.TempDir()
	add := func(name, typ, mac string, device bool, extra string) {
		dir := filepath.Join(root, "sys/class/net", name)
		if err := os.MkdirAll(filepath.Join(dir, extra), 0o755); err != nil {
			t.Fatal(err)
		}
		for f, text := range map[string]string{"type": typ, "address": mac, "carrier": "1", "ifindex": "7"} {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if device {
			if err := os.MkdirAll(filepath.Join(dir, "device"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../../../../bus/pci/drivers/e1000e", filepath.Join(dir, "device/driver")); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("eth0", "1", "52:54:00:12:34:56", true, "")
	add("wlan0", "1", "52:54:00:12:34:57", true, "phy80211")
	add("br0", "1", "52:54:00:12:34:58", false, "bridge")
	add("lo", "772", "00:00:00:00:00:00", false, "")
	add("ib0", "32", "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0e:0c:a1", true, "")
	add("odd", "1", "not an address", true, "")
	got := network.List(root)
	if len(got) != 1 || got[0].Name != "eth0" || got[0].Driver != "e1000e" || got[0].Index != 7 || !got[0].Carrier {
		t.Errorf("List() = %+v, want eth0 alone", got)
	}
	if got := network.List(t.TempDir()); got != nil {
		t.Errorf("List() of nothing = %v", got)
	}
}

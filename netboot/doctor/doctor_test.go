// SPDX-License-Identifier: GPL-2.0-or-later

package doctor

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/dhcp"
	"slate/netboot"
	"slate/netboot/api"
)

// healthy is an appliance with nothing to complain about.
func healthy() Facts {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	return Facts{
		Settings: netboot.Settings{
			Data: "/d", Key: "/k", Network: netboot.NetworkSettings{Interface: "lab0"}, DHCP: netboot.DHCPSettings{Mode: netboot.DHCPServer},
			HTTP: netboot.PortSettings{Port: 8070}, HTTPS: netboot.PortSettings{Port: 8443}, TFTP: netboot.PortSettings{Port: 69}, NFS: netboot.NFSSettings{Port: 2049},
		},
		Now: now, Built: now.Add(-time.Hour), Version: "v1", Synced: true,
		Interface: netboot.Interface{Name: "lab0", Up: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}}, Link: true,
		Running: &api.Status{Version: "v1", Started: now}, Ruleset: []byte(`{"nftables":[]}`),
		Loaders: []Loader{{netboot.LoaderFile{Name: "snponly.efi", Path: "/l", Package: "ipxe", Required: true}, "iPXE 1.21.1"}, {netboot.LoaderFile{Name: "grubx64.efi"}, ""}},
		Free:    50e9, Total: 100e9, KeyMode: 0o600,
		Images: []Image{{Ref: "demo@stable = demo/1", Kernel: "6.1", Blobs: 10}},
		Trips:  []Trip{{"TFTP", "fine", nil}},
	}
}

func TestDiagnoseHealthy(t *testing.T) {
	list := Diagnose(healthy())
	for _, f := range list {
		if f.State != OK || f.Fix != "" {
			t.Errorf("finding %+v in a healthy appliance", f)
		}
	}
	if len(list) != 10 || Worst(list) != OK {
		t.Errorf("%d findings, worst %q", len(list), Worst(list))
	}
}

func TestDiagnose(t *testing.T) {
	router := dhcp.Rival{Server: netip.MustParseAddr("10.77.0.254"), Offers: netip.MustParseAddr("10.77.0.9")}
	booting := router
	booting.BootFile = "pxelinux.0"
	for _, c := range []struct {
		name      string
		change    func(f *Facts)
		state     State
		text, fix string
	}{
		{"no interface", func(f *Facts) { f.InterfaceErr = errors.New("there is no interface") }, Problem, "there is no interface", "network.interface"},
		{"down", func(f *Facts) { f.Interface.Up = false }, Problem, "lab0 is down", "ip link set lab0 up"},
		{"no address", func(f *Facts) { f.Interface.Prefixes = nil }, Problem, "no IPv4 address", "ip addr add"},
		{"other address", func(f *Facts) { f.Settings.Network.Address = netip.MustParseAddr("10.1.1.1") }, Problem, "does not have the address 10.1.1.1", "ip addr add 10.1.1.1"},
		{"no cable", func(f *Facts) { f.Link = false }, Warning, "no link", "cable"},
		{"not running", func(f *Facts) { f.Running, f.Ports = nil, []Port{{"http", nil}} }, Warning, "does not run", "slate serve"},
		{"port taken", func(f *Facts) { f.Running, f.Ports = nil, []Port{{"http", errors.New("8070 is taken")}} }, Problem, "8070 is taken", "ss -lntup"},
		{"no second interface", func(f *Facts) { f.More = []Wire{{Name: "lab1", Err: errors.New("there is no interface lab1")}} }, Problem, "no interface lab1", "slate.toml"},
		{"second interface in another subnet", func(f *Facts) {
			f.More = []Wire{{Name: "lab1", Interface: f.Interface, Link: true, Subnet: netip.MustParsePrefix("10.79.0.0/24")}}
		}, Problem, "lab1 has no address in the subnet 10.79.0.0/24", "ip addr add 10.79.0.1/24 dev lab1"},
		{"second interface without a cable", func(f *Facts) { f.More = []Wire{{Name: "lab1", Interface: f.Interface}} }, Warning, "lab1 has no link", "cable"},
		{"images unreadable", func(f *Facts) { f.ImageErr = errors.New("input/output error") }, Problem, "input/output error", "slate image verify"},
		{"other version", func(f *Facts) { f.Running.Version = "v0" }, Warning, "another version", "restart"},
		{"firewall", func(f *Facts) { f.Ruleset = read(t, "drop.json") }, Problem, "HTTP (tcp port 8070 on lab0) is dropped by inet filter input", "nft insert rule inet filter input iifname lab0 tcp dport 8070 accept"},
		{"firewall unreadable", func(f *Facts) { f.RulesErr = errors.New("not root") }, Warning, "not root", "as root"},
		{"firewall garbled", func(f *Facts) { f.Ruleset = []byte("{") }, Warning, "not understood", "nft list ruleset"},
		{"rival", func(f *Facts) { f.Rivals = []dhcp.Rival{router} }, Problem, "10.77.0.254 offers 10.77.0.9", `dhcp.mode = "proxy"`},
		{"proxy alone", func(f *Facts) { f.Settings.DHCP.Mode = netboot.DHCPProxy }, Problem, "none gives addresses", `dhcp.mode = "server"`},
		{"proxy beside one that boots", func(f *Facts) {
			f.Settings.DHCP.Mode, f.Rivals = netboot.DHCPProxy, []dhcp.Rival{booting}
		}, Warning, "pxelinux.0", "66, 67"},
		{"proxy that GRUB does not heed", func(f *Facts) {
			f.Settings.DHCP.Mode, f.Rivals, f.GRUB = netboot.DHCPProxy, []dhcp.Rival{router}, true
		}, Problem, "names nobody as next-server", "set next-server (siaddr) to 10.77.0.1"},
		{"no look", func(f *Facts) { f.RivalsErr = errors.New("no permission") }, Warning, "could not look: no permission", "root"},
		{"no loader", func(f *Facts) { f.Loaders[0].Path = "" }, Problem, "missing", "apt-get install ipxe"},
		{"full", func(f *Facts) { f.Free = 1e6 }, Problem, "/d is full", "image gc"},
		{"nearly full", func(f *Facts) { f.Free = 1e9 }, Warning, "nearly full", "image gc"},
		{"no data", func(f *Facts) { f.DiskErr = errors.New("no such directory") }, Problem, "no such directory", "slate init"},
		{"open key", func(f *Facts) { f.KeyMode = 0o640 }, Problem, "mode 0640", "chmod 600 /k"},
		{"open TLS key", func(f *Facts) { f.TLSMode = 0o644 }, Problem, "/tls.key (mode 0644)", "chmod 600 /tls.key"},
		{"other key", func(f *Facts) { f.KeyErr = errors.New("not the public half") }, Problem, "not the public half", "copy"},
		{"old clock", func(f *Facts) { f.Now = time.Unix(0, 0) }, Problem, "before this program was built", "timesyncd"},
		{"loose clock", func(f *Facts) { f.Synced = false }, Warning, "nothing keeps it right", "chrony"},
		{"no image", func(f *Facts) { f.Images = nil }, Problem, "none is in a channel", "slate build"},
		{"no kernel", func(f *Facts) { f.Images[0].Kernel = "" }, Problem, "has no kernel", "kernel package"},
		{"holes", func(f *Facts) { f.Images[0].Missing = []string{"the kernel"} }, Problem, "1 of 10 files are missing", "slate image verify"},
		{"no tree", func(f *Facts) { f.Images[0].Err = errors.New("tree gone") }, Problem, "tree gone", "slate image verify"},
		{"no answer", func(f *Facts) { f.Trips[0].Err = errors.New("timed out") }, Problem, "timed out", "journalctl"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := healthy()
			c.change(&f)
			list := Diagnose(f)
			var bad []Finding
			for _, x := range list {
				if x.State != OK {
					bad = append(bad, x)
				}
				if (x.State == OK) != (x.Fix == "") {
					t.Errorf("finding %+v: want a fix with what is wrong, and none with what is not", x)
				}
			}
			found := false
			for _, x := range bad {
				found = found || x.State == c.state && strings.Contains(x.Text, c.text) && strings.Contains(x.Fix, c.fix)
			}
			if !found || Worst(list) != c.state {
				t.Errorf("findings %+v, want %s with %q and the fix %q", bad, c.state, c.text, c.fix)
			}
		})
	}
	f := healthy()
	f.Settings.DHCP.Mode, f.Rivals = netboot.DHCPProxy, []dhcp.Rival{router}
	if w := Worst(Diagnose(f)); w != OK {
		t.Errorf("mode proxy beside a plain DHCP server: worst %q, want ok", w)
	}
	f.GRUB, f.Rivals[0].NextBoot = true, netip.MustParseAddr("10.77.0.1")
	if w := Worst(Diagnose(f)); w != OK {
		t.Errorf("mode proxy with GRUB beside a DHCP server that names the appliance: worst %q, want ok", w)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIPXEVersion(t *testing.T) {
	for in, want := range map[string]string{
		"abc\x00iPXE\x001.21.1+git\x00more": "1.21.1+git",
		"abc\x00iPXE\x00\x001.0.0\x00":      "1.0.0",
		"\x00iPXE\x00Open Source\x00":       "",
		"nothing":                           "",
		"\x00iPXE\x00":                      "",
	} {
		if got := ipxeVersion([]byte(in)); got != want {
			t.Errorf("ipxeVersion(%q) = %q, want %q", in, got, want)
		}
	}
}

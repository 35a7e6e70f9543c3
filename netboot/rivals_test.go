// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"slate/dhcp"
	"slate/netboot/api"
)

func TestRivalsAreKeptNewestFirst(t *testing.T) {
	var r rivals
	start := time.Unix(1e9, 0)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	router, proxy := netip.MustParseAddr("10.77.0.254"), netip.MustParseAddr("10.77.0.9")
	r.add(dhcp.Rival{Server: router, MAC: mac, Offers: netip.MustParseAddr("10.77.0.50")}, start)
	r.add(dhcp.Rival{Server: proxy, Proxy: true, BootFile: "pxelinux.0"}, start.Add(time.Second))
	r.add(dhcp.Rival{Server: router, MAC: mac, Offers: netip.MustParseAddr("10.77.0.51")}, start.Add(2*time.Second))
	got := r.list()
	if len(got) != 2 || got[0].Address != "10.77.0.254" || got[0].MAC != mac.String() || !got[0].Gives ||
		got[0].Offers != "offers 10.77.0.51" || !got[0].Seen.Equal(start.Add(2*time.Second)) {
		t.Errorf("list = %+v, want the router first, as seen last", got)
	}
	if len(got) == 2 && (got[1].Gives || got[1].Offers != `answers as proxyDHCP, boot file "pxelinux.0"`) {
		t.Errorf("the proxy is %+v", got[1])
	}
	for i := range 2 * rivalsMax {
		r.add(dhcp.Rival{Server: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}, start)
	}
	if n := len(r.list()); n != rivalsMax {
		t.Errorf("%d servers are remembered, want at most %d", n, rivalsMax)
	}
}

func TestGRUBAstray(t *testing.T) {
	ours := []network{{addr: netip.MustParseAddr("10.77.0.1")}, {addr: netip.MustParseAddr("10.78.0.1")}}
	gives := func(next string) []api.Rival { return []api.Rival{{Address: "10.77.0.254", Gives: true, Next: next}} }
	const why = "GRUB asks %s for its configuration, which the DHCP server 10.77.0.254 names as next-server, not this appliance: set next-server to 10.77.0.1 there"
	for _, c := range []struct {
		name   string
		mode   DHCPMode
		others []api.Rival
		want   string
	}{
		{"named", DHCPProxy, gives("10.77.0.1"), ""},
		{"named by its other address", DHCPProxy, gives("10.78.0.1"), ""},
		{"another named", DHCPProxy, gives("10.77.0.254"), fmt.Sprintf(why, "10.77.0.254")},
		{"nobody named", DHCPProxy, gives(""), fmt.Sprintf(why, "nobody")},
		{"no server seen", DHCPProxy, nil, ""},
		{"another proxy", DHCPProxy, []api.Rival{{Address: "10.77.0.9", Next: "10.77.0.9"}}, ""},
		{"a rival of a server", DHCPServer, gives("10.77.0.254"), ""},
	} {
		if got := grubAstray(c.mode, c.others, ours); got != c.want {
			t.Errorf("%s: grubAstray = %q, want %q", c.name, got, c.want)
		}
	}
}

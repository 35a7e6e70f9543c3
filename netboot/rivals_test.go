// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"slate/dhcp"
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

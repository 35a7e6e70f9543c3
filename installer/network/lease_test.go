// SPDX-License-Identifier: GPL-2.0-or-later

package network_test

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/installer/network"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

var mac = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}

func ack(t testing.TB, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	all := append([]dhcpv4.Modifier{
		dhcpv4.WithReply(&dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, ClientHWAddr: mac}),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithHwAddr(mac),
		dhcpv4.WithYourIP(net.IPv4(10, 77, 0, 52)), dhcpv4.WithServerIP(net.IPv4(10, 77, 0, 1)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 77, 0, 1))),
	}, mods...)
	p, err := dhcpv4.New(all...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var epoch = time.Unix(1_700_000_000, 0).UTC()

func TestNewLease(t *testing.T) {
	base := network.Lease{MAC: mac.String(), Address: netip.MustParsePrefix("10.77.0.52/8"), Server: netip.MustParseAddr("10.77.0.1"), Obtained: epoch, Duration: network.Forever}
	edit := func(f func(*network.Lease)) network.Lease {
		l := base
		l.Address = netip.MustParsePrefix("10.77.0.52/24")
		f(&l)
		return l
	}
	mask := dhcpv4.WithNetmask(net.CIDRMask(24, 32))
	def := netip.MustParsePrefix("0.0.0.0/0")
	for _, tt := range []struct {
		name string
		mods []dhcpv4.Modifier
		want network.Lease
	}{
		{"bare: the class decides the mask", nil, base},
		{"mask with holes", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0))}, base},
		{"everything", []dhcpv4.Modifier{mask, dhcpv4.WithRouter(net.IPv4(10, 77, 0, 1), net.IPv4(10, 77, 0, 2)), dhcpv4.WithDNS(net.IPv4(10, 77, 0, 3)),
			dhcpv4.WithOption(dhcpv4.OptDomainName("lab.test")), dhcpv4.WithLeaseTime(3600), dhcpv4.WithOption(dhcpv4.OptHostName("n1")),
			dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x23, 0x28})},
			edit(func(l *network.Lease) {
				l.Routes = []network.Route{{To: def, Via: netip.MustParseAddr("10.77.0.1")}}
				l.DNS, l.Search, l.Hostname, l.MTU = []netip.Addr{netip.MustParseAddr("10.77.0.3")}, []string{"lab.test"}, "n1", 9000
				l.Duration, l.T1, l.T2 = time.Hour, 30*time.Minute, 52*time.Minute+30*time.Second
			})},
		{"search list beats domain", []dhcpv4.Modifier{mask, dhcpv4.WithOption(dhcpv4.OptDomainName("x.test")),
			dhcpv4.WithOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{"a.test", "b.test"}}))},
			edit(func(l *network.Lease) { l.Search = []string{"a.test", "b.test"} })},
		{"names that would be more than names", []dhcpv4.Modifier{mask, dhcpv4.WithOption(dhcpv4.OptDomainName("x.test\nnameserver")), dhcpv4.WithOption(dhcpv4.OptHostName("a b"))},
			edit(func(l *network.Lease) { l.Search = []string{"x.test", "nameserver"} })},
		{"classless routes replace the router", []dhcpv4.Modifier{mask, dhcpv4.WithRouter(net.IPv4(10, 77, 0, 9)),
			dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 1, 2, 3), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4(10, 77, 0, 1)},
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 9, 0, 0), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4zero}))},
			edit(func(l *network.Lease) {
				l.Routes = []network.Route{{To: netip.MustParsePrefix("10.1.0.0/16"), Via: netip.MustParseAddr("10.77.0.1")}, {To: netip.MustParsePrefix("10.9.0.0/16")}}
			})},
		{"itself as the router", []dhcpv4.Modifier{mask, dhcpv4.WithRouter(net.IPv4(10, 77, 0, 52))}, edit(func(*network.Lease) {})},
		{"T1 behind T2", []dhcpv4.Modifier{mask, dhcpv4.WithLeaseTime(800), dhcpv4.WithGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 3, 0}), dhcpv4.WithGeneric(dhcpv4.OptionRebindingTimeValue, []byte{0, 0, 2, 0})},
			edit(func(l *network.Lease) { l.Duration, l.T1, l.T2 = 800*time.Second, 400*time.Second, 700*time.Second })},
		{"a lease of a second", []dhcpv4.Modifier{mask, dhcpv4.WithLeaseTime(1)},
			edit(func(l *network.Lease) {
				l.Duration, l.T1, l.T2 = 10*time.Second, 5*time.Second, 8*time.Second+750*time.Millisecond
			})},
		{"MTU of nothing", []dhcpv4.Modifier{mask, dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0, 68})}, edit(func(*network.Lease) {})},
		{"DNS of nothing", []dhcpv4.Modifier{mask, dhcpv4.WithDNS(net.IPv4zero, net.IPv4bcast, net.IPv4(127, 0, 0, 1))}, edit(func(*network.Lease) {})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := network.NewLease(ack(t, tt.mods...), epoch)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(network.Lease{}, "ACK"), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("lease (- want, + got):\n%s", d)
			}
		})
	}
}

func TestNewLeaseRefuses(t *testing.T) {
	for name, mod := range map[string]dhcpv4.Modifier{
		"no address":        dhcpv4.WithYourIP(net.IPv4zero),
		"loopback":          dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1)),
		"multicast":         dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1)),
		"broadcast":         dhcpv4.WithYourIP(net.IPv4bcast),
		"no server":         dhcpv4.WithGeneric(dhcpv4.OptionServerIdentifier, nil),
		"server of nothing": dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4zero)),
	} {
		if l, err := network.NewLease(ack(t, mod), epoch); err == nil {
			t.Errorf("%s: NewLease() = %v, want an error", name, l.Address)
		}
	}
}

func TestLeaseNext(t *testing.T) {
	hour := network.Lease{Obtained: epoch, Duration: time.Hour, T1: 30 * time.Minute, T2: 52 * time.Minute}
	short := network.Lease{Obtained: epoch, Duration: 2 * time.Minute, T1: time.Minute, T2: 105 * time.Second}
	for _, tt := range []struct {
		name  string
		lease network.Lease
		age   time.Duration
		act   network.Action
		pause time.Duration
	}{
		{"fresh", hour, 0, network.Wait, 30 * time.Minute},
		{"just before T1", hour, 30*time.Minute - time.Second, network.Wait, time.Second},
		{"T1", hour, 30 * time.Minute, network.Renew, 11 * time.Minute},
		{"near T2: no pause below a minute", hour, 50*time.Minute + 30*time.Second, network.Renew, time.Minute},
		{"at T2 at the latest", hour, 51*time.Minute + 30*time.Second, network.Renew, 30 * time.Second},
		{"T2", hour, 52 * time.Minute, network.Rebind, 4 * time.Minute},
		{"last second", hour, time.Hour - time.Second, network.Rebind, time.Second},
		{"over", hour, time.Hour, network.Discover, time.Minute},
		{"long over", hour, 100 * time.Hour, network.Discover, time.Minute},
		{"clock set back", hour, -time.Hour, network.Renew, time.Minute},
		{"short lease, T1", short, time.Minute, network.Renew, 22*time.Second + 500*time.Millisecond},
		{"short lease, over", short, 3 * time.Minute, network.Discover, 12 * time.Second},
		{"for ever", network.Lease{Obtained: epoch, Duration: network.Forever}, 1e6 * time.Hour, network.Wait, 24 * time.Hour},
	} {
		if act, pause := tt.lease.Next(epoch.Add(tt.age)); act != tt.act || pause != tt.pause {
			t.Errorf("%s: Next() = %v, %v, want %v, %v", tt.name, act, pause, tt.act, tt.pause)
		}
	}
}

func TestLeaseSurvivesItsFile(t *testing.T) {
	l, err := network.NewLease(ack(t, dhcpv4.WithLeaseTime(3600), dhcpv4.WithRouter(net.IPv4(10, 77, 0, 1))), epoch)
	if err != nil {
		t.Fatal(err)
	}
	l.Interface, l.Index = "eth0", 2
	file := filepath.Join(t.TempDir(), "run", "lease.json")
	if err := l.Save(file); err != nil {
		t.Fatal(err)
	}
	got, err := network.LoadLease(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(l, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Error(d)
	}
}

// Whatever a server sends, what comes of it can be applied and written to files.
func FuzzNewLease(f *testing.F) {
	f.Add(ack(f, dhcpv4.WithLeaseTime(60), dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1)), dhcpv4.WithOption(dhcpv4.OptDomainName("a b"))).ToBytes())
	f.Add(ack(f, dhcpv4.WithGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{33, 1, 2, 3})).ToBytes())
	f.Add(ack(f, dhcpv4.WithGeneric(dhcpv4.OptionDNSDomainSearchList, []byte{0xc0, 0})).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		l, err := network.NewLease(p, epoch)
		if err != nil {
			return
		}
		if !l.Address.IsValid() || !l.Address.Addr().Is4() || l.Address.Bits() < 1 || !l.Server.Is4() {
			t.Errorf("address %v, server %v", l.Address, l.Server)
		}
		for _, s := range append(l.Search, l.Hostname) {
			if strings.ContainsAny(s, " \t\n\r\x00\"") || len(s) > 253 {
				t.Errorf("name %q", s)
			}
		}
		for _, r := range l.Routes {
			if !r.To.IsValid() || r.To != r.To.Masked() {
				t.Errorf("route to %v", r.To)
			}
		}
		if l.Duration < 10*time.Second || l.Duration < network.Forever && !(0 < l.T1 && l.T1 < l.T2 && l.T2 < l.Duration) {
			t.Errorf("times %v %v %v", l.T1, l.T2, l.Duration)
		}
		for _, age := range []time.Duration{-1, 0, l.T1, l.T2, l.Duration, 1 << 60} {
			if _, pause := l.Next(epoch.Add(age)); pause <= 0 {
				t.Errorf("Next() at %v of %v/%v/%v pauses %v", age, l.T1, l.T2, l.Duration, pause)
			}
		}
	})
}

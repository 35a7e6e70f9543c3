// SPDX-License-Identifier: GPL-2.0-or-later

package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Route is a route of a lease. A zero Via means the network is on the link.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"`
}

// Lease is what a DHCP server granted, checked and in our own terms. It is written
// to a file for the agent and for people, so it holds the ACK itself too: a
// renewal is made from it.
type Lease struct {
	Interface string        `json:"interface"`
	Index     int           `json:"index"`
	MAC       string        `json:"mac"`
	Address   netip.Prefix  `json:"address"`
	Server    netip.Addr    `json:"server"`
	Routes    []Route       `json:"routes,omitempty"`
	DNS       []netip.Addr  `json:"dns,omitempty"`
	Search    []string      `json:"search,omitempty"`
	NTP       []netip.Addr  `json:"ntp,omitempty"`
	Hostname  string        `json:"hostname,omitempty"`
	MTU       int           `json:"mtu,omitempty"`
	Obtained  time.Time     `json:"obtained"`
	Duration  time.Duration `json:"duration"` // Forever: no end
	T1        time.Duration `json:"t1"`
	T2        time.Duration `json:"t2"`
	ACK       []byte        `json:"ack"`
}

// Forever is the duration of a lease without end (RFC 2131, 3.3).
const Forever = time.Duration(0xffffffff) * time.Second

// minLease keeps a server with a silly lease time from having us renew all the time.
const minLease = 10 * time.Second

// NewLease checks an ACK and takes what we use from it. A server can send anything;
// what is wrong in a part that is not needed is left out.
func NewLease(ack *dhcpv4.DHCPv4, now time.Time) (Lease, error) {
	addr, ok := hostAddr(ack.YourIPAddr)
	if !ok {
		return Lease{}, fmt.Errorf("DHCP server gave the address %v, which no machine can have", ack.YourIPAddr)
	}
	bits := prefixBits(ack.SubnetMask(), addr)
	server, ok := hostAddr(ack.ServerIdentifier())
	if !ok {
		return Lease{}, errors.New("DHCP answer does not say which server it is from")
	}
	l := Lease{
		Address: netip.PrefixFrom(addr, bits), Server: server, Obtained: now, ACK: ack.ToBytes(),
		Hostname: validDomain(ack.HostName()), MAC: ack.ClientHWAddr.String(),
		DNS: hostAddrs(ack.DNS()), NTP: hostAddrs(ack.NTPServers()),
	}
	l.Routes = routes(ack, l.Address)
	for _, d := range searchList(ack) {
		if d = validDomain(d); d != "" {
			l.Search = append(l.Search, d)
		}
	}
	// Below 576 IP itself does not hold (RFC 791); above 9216 no Ethernet goes.
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 && mtu <= 9216 {
		l.MTU = int(mtu)
	}
	l.Duration, l.T1, l.T2 = times(ack)
	return l, nil
}

func hostAddr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || a.As4()[0] == 0 || a.As4()[0] >= 240 {
		return netip.Addr{}, false
	}
	return a, true
}

func hostAddrs(ips []net.IP) (out []netip.Addr) {
	for _, ip := range ips {
		if a, ok := hostAddr(ip); ok && len(out) < 8 {
			out = append(out, a)
		}
	}
	return out
}

// prefixBits reads the mask; without one, or with one that has holes, the class
// of the address decides, as RFC 950 says.
func prefixBits(mask net.IPMask, addr netip.Addr) int {
	if ones, size := mask.Size(); size == 32 && ones > 0 {
		return ones
	}
	switch b := addr.As4()[0]; {
	case b < 128:
		return 8
	case b < 192:
		return 16
	}
	return 24
}

// routes prefers the classless routes of RFC 3442, which then replace the router option.
func routes(ack *dhcpv4.DHCPv4, own netip.Prefix) (out []Route) {
	if list := ack.ClasslessStaticRoute(); len(list) > 0 {
		for _, r := range list {
			if r.Dest == nil {
				continue
			}
			ones, size := r.Dest.Mask.Size()
			dest, ok := netip.AddrFromSlice(r.Dest.IP.To4())
			if size != 32 || !ok || len(out) >= 64 {
				continue
			}
			via, _ := hostAddr(r.Router) // 0.0.0.0: on the link
			out = append(out, Route{To: netip.PrefixFrom(dest, ones).Masked(), Via: via})
		}
		return out
	}
	for _, gw := range hostAddrs(ack.Router()) {
		if gw != own.Addr() {
			return []Route{{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: gw}}
		}
	}
	return nil
}

func searchList(ack *dhcpv4.DHCPv4) []string {
	if labels := ack.DomainSearch(); labels != nil && len(labels.Labels) > 0 {
		return labels.Labels[:min(len(labels.Labels), 6)]
	}
	return strings.Fields(ack.DomainName())
}

// validDomain gives the name if it is one. It goes into /etc/resolv.conf and
// /etc/hosts, where a blank or a line break would be another entry.
func validDomain(s string) string {
	s = strings.TrimSuffix(strings.TrimSpace(s), ".")
	if s == "" || len(s) > 253 {
		return ""
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 {
			return ""
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return ""
			}
		}
	}
	return s
}

func times(ack *dhcpv4.DHCPv4) (d, t1, t2 time.Duration) {
	d = ack.IPAddressLeaseTime(Forever)
	if d >= Forever {
		return Forever, 0, 0
	}
	d = max(d, minLease)
	t1, t2 = ack.IPAddressRenewalTime(d/2), ack.IPAddressRebindingTime(d/8*7)
	if t1 <= 0 || t2 <= t1 || t2 >= d { // RFC 2131, 4.4.5: T1 before T2 before the end
		t1, t2 = d/2, d/8*7
	}
	return d, t1, t2
}

// Action is what a lease needs next.
type Action int

// The actions, in the order of a lease's life.
const (
	Wait     Action = iota
	Renew           // ask the server that gave the lease
	Rebind          // ask all servers
	Discover        // the lease has ended: start anew
)

// Next says what a lease needs at a time, and when to look again. Between T1 and
// T2 and again until the end, half of what is left passes between two tries, but
// no less than a minute (RFC 2131, 4.4.5), or a tenth of a lease shorter than ten
// minutes.
func (l Lease) Next(now time.Time) (Action, time.Duration) {
	if l.Duration >= Forever {
		return Wait, 24 * time.Hour
	}
	age := now.Sub(l.Obtained)
	least := min(time.Minute, max(l.Duration/10, time.Second))
	pause := func(until time.Duration) time.Duration {
		return max((until-age)/2, min(least, max(until-age, time.Second)))
	}
	switch {
	case age < 0:
		return Renew, least // the clock was set back: ask rather than guess
	case age < l.T1:
		return Wait, l.T1 - age
	case age < l.T2:
		return Renew, pause(l.T2)
	case age < l.Duration:
		return Rebind, pause(l.Duration)
	}
	return Discover, least
}

// Save writes the lease for the agent and for people, at once or not at all.
func (l Lease) Save(file string) error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	tmp := file + ".new"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// LoadLease reads what Save wrote.
func LoadLease(file string) (Lease, error) {
	var l Lease
	b, err := os.ReadFile(file)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("%s: %w", file, err)
	}
	return l, nil
}

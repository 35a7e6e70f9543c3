// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Rival is another DHCP or proxyDHCP server, as seen on the wire.
type Rival struct {
	Interface string // ours, on which it was seen
	Server    netip.Addr
	MAC       net.HardwareAddr // nil if only a client's choice named it
	Offers    netip.Addr       // the address it offered; invalid: none
	BootFile  string           // the file or URL it offered
	NextBoot  netip.Addr       // where the file is (siaddr)
	Proxy     bool             // it offered no address, only what to boot
}

// String says who it is and what it does, for a log line.
func (r Rival) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", r.Server)
	if r.MAC != nil {
		fmt.Fprintf(&b, " (%s)", r.MAC)
	}
	return b.String() + " " + r.What()
}

// What says what it does.
func (r Rival) What() string {
	what := "gives addresses"
	switch {
	case r.Proxy:
		what = "answers as proxyDHCP"
	case r.Offers.IsValid():
		what = "offers " + r.Offers.String()
	}
	if r.BootFile != "" {
		what += fmt.Sprintf(", boot file %q", r.BootFile)
	}
	return what
}

// rivalOf reads who answers, and with what, from another server's OFFER or ACK.
func rivalOf(p *dhcpv4.DHCPv4, src netip.Addr, mac net.HardwareAddr) Rival {
	r := Rival{
		Server:   addrOf(p.ServerIdentifier()),
		MAC:      mac,
		Offers:   addrOf(p.YourIPAddr),
		NextBoot: addrOf(p.ServerIPAddr),
		BootFile: printable(p.Options.Get(dhcpv4.OptionBootfileName)),
	}
	if !r.Server.IsValid() {
		r.Server = src
	}
	if r.BootFile == "" {
		r.BootFile = printable([]byte(p.BootFileName))
	}
	class := string(p.Options.Get(dhcpv4.OptionClassIdentifier))
	r.Proxy = !r.Offers.IsValid() && (strings.HasPrefix(class, classPXE) || strings.HasPrefix(class, classHTTP))
	return r
}

// rivals remembers which servers were reported, so that each is named once in a
// while and not with every packet.
type rivals struct {
	mu   sync.Mutex
	last map[netip.Addr]time.Time
}

const (
	rivalEvery = 5 * time.Minute
	rivalMax   = 64 // more servers than any wire has; the bound for what strangers make us remember
)

func newRivals() *rivals { return &rivals{last: map[netip.Addr]time.Time{}} }

func (s *rivals) report(out *outlet, r Rival, c Client) {
	now := time.Now()
	s.mu.Lock()
	t, known := s.last[r.Server]
	fresh := now.Sub(t) > rivalEvery && (known || len(s.last) < rivalMax)
	if fresh {
		s.last[r.Server] = now
	}
	s.mu.Unlock()
	if !fresh {
		return
	}
	if out.beside && !r.Proxy && r.BootFile == "" {
		out.log.Info("the network's DHCP server", "interface", r.Interface, "server", r.String())
	} else {
		out.warn("another DHCP server is on the network", "interface", r.Interface, "rival", r.String(), "client", c.MAC.String())
	}
	out.event(Event{Kind: EventRival, Interface: r.Interface, Client: c, Addr: r.Server, Rival: &r})
}

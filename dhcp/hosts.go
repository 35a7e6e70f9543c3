// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"net/netip"
	"strings"
	"time"
)

// Hosts knows single machines: by MAC, UUID, client identifier or however.
type Hosts interface {
	// Host is what is special about the client; false: nothing. It is called for
	// every request, from several goroutines, and must be quick.
	Host(ctx context.Context, c Client) (Host, bool)
	// Reserved reports whether the address is some machine's fixed one, which
	// nobody else may get. It must not call the lease store.
	Reserved(netip.Addr) bool
}

// Host is what one machine gets differently from its subnet. Zero fields: as the
// subnet has it.
type Host struct {
	Name      string     // host name, option 12
	Addr      netip.Addr // fixed address; counts in the subnet that contains it
	Ignore    string     // not empty: the machine gets no answer at all, and this is why
	Gateway   netip.Addr
	DNS       []netip.Addr
	Domain    string
	NTP       []netip.Addr
	LeaseTime time.Duration
	Options   map[uint8][]byte // beat the subnet's of the same code
}

// HostEntry is a Host and how the machine is recognized: every field that is set
// must fit.
type HostEntry struct {
	MAC      string // 52:54:00:12:34:56
	UUID     string // as dmidecode prints it
	ClientID string // option 61 in hex
	Host
}

// HostTable is a fixed list of machines. The first entry that fits counts.
type HostTable []HostEntry

// Host looks the client up.
func (t HostTable) Host(_ context.Context, c Client) (Host, bool) {
	for _, h := range t {
		if h.MAC == "" && h.UUID == "" && h.ClientID == "" {
			continue
		}
		if (h.MAC == "" || strings.EqualFold(h.MAC, c.MAC.String())) &&
			(h.UUID == "" || strings.EqualFold(h.UUID, c.UUID)) &&
			(h.ClientID == "" || strings.EqualFold(h.ClientID, c.ClientID)) {
			return h.Host, true
		}
	}
	return Host{}, false
}

// Reserved reports whether an entry has the address.
func (t HostTable) Reserved(a netip.Addr) bool {
	for _, h := range t {
		if h.Addr == a {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"slate/dhcp"
	"slate/netboot/api"
)

// rivalsMax bounds what strangers make the appliance remember.
const rivalsMax = 64

// rivals are the other DHCP servers that were seen on the wire while serving.
type rivals struct {
	mu   sync.Mutex
	seen map[netip.Addr]api.Rival
}

// add takes note of a server; a newer sight of one replaces the older.
func (r *rivals) add(s dhcp.Rival, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[netip.Addr]api.Rival{}
	}
	if _, known := r.seen[s.Server]; !known && len(r.seen) >= rivalsMax {
		return
	}
	v := api.Rival{Address: s.Server.String(), MAC: s.MAC.String(), Offers: s.What(), Gives: !s.Proxy, Seen: now}
	if s.NextBoot.IsValid() {
		v.Next = s.NextBoot.String()
	}
	r.seen[s.Server] = v
}

// list returns what was seen, newest first.
func (r *rivals) list() []api.Rival {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []api.Rival
	for _, v := range r.seen {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b api.Rival) int { return b.Seen.Compare(a.Seen) })
	return out
}

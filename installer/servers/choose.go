// SPDX-License-Identifier: GPL-2.0-or-later

package servers

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slate/installer/machine"
	"slate/netboot/api"
)

// Finding is what a look at a server showed.
type Finding struct {
	Server    machine.Server
	RoundTrip time.Duration // the shortest
	Asked     int
	Failed    int   // of Asked
	Err       error // why it cannot be taken at all
	Load      api.Load
	Stranger  bool      // Err says that it is none of the site's
	Lacks     string    // image that is needed and that it does not have
	Clock     time.Time // the appliance's, zero if it did not say
}

// Ranked is a finding with its place, best first.
type Ranked struct {
	Finding
	Cost float64 // lower is better; +Inf: not to be taken
	Why  string  // for people
}

// Usable tells whether the server can be taken.
func (r Ranked) Usable() bool { return !math.IsInf(r.Cost, 1) }

// NFS is where the server gives roots, if its URL has an address.
func (r Ranked) NFS() (netip.AddrPort, bool) {
	addr, err := netip.ParseAddr(r.Server.URL.Hostname())
	if err != nil || r.Load.NFSPort < 1 || r.Load.NFSPort > 65535 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, uint16(r.Load.NFSPort)), true
}

// floor is added to each round trip: below a millisecond it says more about the
// moment than about the server.
const floor = time.Millisecond

// alike is how much worse than the best a server may be and still share its nodes.
const alike = 1.25

// cost is the time an answer takes, longer by what the server has to do and by the
// answers that did not come. Its weight is how many of the nodes it takes, not how
// good it is.
func (f Finding) cost() float64 {
	if f.Err != nil || f.Lacks != "" {
		return math.Inf(1)
	}
	failures := float64(f.Failed) / float64(max(1, f.Asked))
	return (f.RoundTrip + floor).Seconds() * 1000 * (1 + f.Load.Busy()) * (1 + 4*failures)
}

// Rank orders servers by what was found: the best first, those on standby after
// all others, those that cannot be taken last. Among servers as good as the best,
// the node's name decides, by their weights: so a room that starts at once spreads
// over them, and a node comes back to the same one.
func Rank(findings []Finding, node string) []Ranked {
	out := make([]Ranked, len(findings))
	best := map[bool]float64{false: math.Inf(1), true: math.Inf(1)}
	for i, f := range findings {
		out[i] = Ranked{Finding: f, Cost: f.cost()}
		best[f.Server.Standby] = min(best[f.Server.Standby], out[i].Cost)
	}
	group := func(r Ranked) int {
		switch {
		case !r.Usable():
			return 4
		case r.Server.Standby:
			return 2 + poor(r, best[true])
		}
		return poor(r, best[false])
	}
	slices.SortStableFunc(out, func(a, b Ranked) int {
		ga, gb := group(a), group(b)
		if ga == gb && ga%2 == 0 && ga < 4 {
			return cmp.Compare(draw(node, b.Server), draw(node, a.Server))
		}
		return cmp.Or(cmp.Compare(ga, gb), cmp.Compare(a.Cost, b.Cost))
	})
	for i := range out {
		out[i].Why = out[i].describe()
	}
	return out
}

func poor(r Ranked, best float64) int {
	if r.Cost <= best*alike {
		return 0
	}
	return 1
}

// draw is the weighted rendezvous hash (Highest Random Weight) of node and server.
func draw(node string, s machine.Server) float64 {
	sum := sha256.Sum256([]byte(node + "\n" + s.URL.String()))
	u := (float64(binary.BigEndian.Uint64(sum[:8])>>11) + 0.5) / (1 << 53)
	return -float64(max(1, s.Weight)) / math.Log(u)
}

func (r Ranked) describe() string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case r.Lacks != "":
		return "does not have " + r.Lacks
	}
	parts := []string{fmt.Sprintf("answers in %.1f ms", float64(r.RoundTrip.Microseconds())/1000), fmt.Sprintf("%.0f%% busy", r.Load.Busy()*100)}
	if r.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d questions unanswered", r.Failed, r.Asked))
	}
	if r.Server.Weight > 1 {
		parts = append(parts, fmt.Sprintf("weight %d", r.Server.Weight))
	}
	if r.Server.Standby {
		parts = append(parts, "standby")
	}
	return strings.Join(parts, ", ")
}

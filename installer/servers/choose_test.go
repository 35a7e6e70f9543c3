// SPDX-License-Identifier: GPL-2.0-or-later

package servers_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"slate/installer/machine"
	"slate/installer/servers"
	"slate/netboot/api"
)

func finding(host string, rtt time.Duration, edit ...func(*servers.Finding)) servers.Finding {
	f := servers.Finding{Server: machine.Server{URL: &url.URL{Scheme: "http", Host: host}, Weight: 1}, RoundTrip: rtt, Asked: 3, Load: api.Load{Has: true}}
	for _, e := range edit {
		e(&f)
	}
	return f
}

func TestRank(t *testing.T) {
	standby := func(f *servers.Finding) { f.Server.Standby = true }
	weight := func(n int) func(*servers.Finding) { return func(f *servers.Finding) { f.Server.Weight = n } }
	busy := func(cpu float64) func(*servers.Finding) { return func(f *servers.Finding) { f.Load.CPU = cpu } }
	dead := func(f *servers.Finding) { f.Err = errors.New("connection refused") }
	lacks := func(f *servers.Finding) { f.Lacks = "lab/3" }
	failed := func(n int) func(*servers.Finding) { return func(f *servers.Finding) { f.Failed = n } }
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		in   []servers.Finding
		want string // hosts, best first; those after | cannot be taken
		why  string // of the first
	}{
		{"the quick one", []servers.Finding{finding("slow", 300*ms), finding("quick", ms)}, "quick slow", "answers in 1.0 ms, 0% busy"},
		{"dead ones last", []servers.Finding{finding("dead", 0, dead), finding("slow", 300*ms)}, "slow | dead", "answers in 300.0 ms"},
		{"load counts", []servers.Finding{finding("busy", ms, busy(3)), finding("idle", 2*ms)}, "idle busy", "0% busy"},
		{"but distance more", []servers.Finding{finding("busy", ms, busy(1)), finding("far", 40*ms)}, "busy far", "100% busy"},
		{"one without the image", []servers.Finding{finding("bare", ms, lacks), finding("slow", 90*ms)}, "slow | bare", ""},
		{"one that loses answers", []servers.Finding{finding("shaky", ms, failed(1)), finding("steady", 2*ms)}, "steady shaky", ""},
		{"standby only behind all others", []servers.Finding{finding("spare", ms, standby), finding("slow", 300*ms)}, "slow spare", ""},
		{"standby when nothing else is there", []servers.Finding{finding("spare", ms, standby), finding("dead", 0, dead)}, "spare | dead", "standby"},
		{"weight does not make a slow one quick", []servers.Finding{finding("slow", 300*ms, weight(100)), finding("quick", ms)}, "quick slow", ""},
		{"nothing to take", []servers.Finding{finding("dead", 0, dead), finding("bare", ms, lacks)}, "| dead bare", "connection refused"},
		{"nothing at all", nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := servers.Rank(c.in, "pc1")
			var words []string
			for i, r := range got {
				if !r.Usable() && (i == 0 || got[i-1].Usable()) {
					words = append(words, "|")
				}
				words = append(words, r.Server.URL.Host)
			}
			if s := strings.Join(words, " "); s != c.want {
				t.Errorf("Rank = %q, want %q", s, c.want)
			}
			if len(got) > 0 && !strings.Contains(got[0].Why, c.why) {
				t.Errorf("why = %q, want %q in it", got[0].Why, c.why)
			}
		})
	}
}

// A room that starts at once spreads by the weights, each node always to its own.
func TestRankSpreads(t *testing.T) {
	in := []servers.Finding{finding("a", time.Millisecond), finding("b", time.Millisecond)}
	in[1].Server.Weight = 3
	count := map[string]int{}
	for i := range 1000 {
		node := fmt.Sprint("node-", i)
		first := servers.Rank(in, node)[0].Server.URL.Host
		count[first]++
		if again := servers.Rank([]servers.Finding{in[1], in[0]}, node)[0].Server.URL.Host; again != first {
			t.Fatalf("%s went to %s, and to %s when the list was turned round", node, first, again)
		}
	}
	if n := count["b"]; n < 700 || n > 800 {
		t.Errorf("the server of weight 3 beside one of weight 1 got %d of 1000 nodes, want about 750", n)
	}
}

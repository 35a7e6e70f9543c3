// SPDX-License-Identifier: GPL-2.0-or-later

package doctor

import (
	"encoding/json"
	"fmt"
	"slices"
)

// packet is a machine's first packet to a service: a new connection that comes in
// on the interface.
type packet struct {
	iface, proto string
	port         int
}

// ruleset is what counts of nft -j list ruleset (libnftables-json(5)).
type ruleset struct {
	chains []chain
	rules  []rule
}

type chain struct {
	Family, Table, Name string
	Type, Hook, Policy  string
	Prio                int
}

type rule struct {
	Family, Table, Chain string
	Expr                 []map[string]json.RawMessage
}

func parseRuleset(text []byte) (*ruleset, error) {
	var doc struct {
		Nftables []struct {
			Chain *chain
			Rule  *rule
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	r := &ruleset{}
	for _, o := range doc.Nftables {
		if o.Chain != nil {
			r.chains = append(r.chains, *o.Chain)
		}
		if o.Rule != nil {
			r.rules = append(r.rules, *o.Rule)
		}
	}
	return r, nil
}

// forget leaves a table out.
func (r *ruleset) forget(family, table string) {
	r.chains = slices.DeleteFunc(r.chains, func(c chain) bool { return c.Family == family && c.Table == table })
}

// drops returns the chain that drops the packet, as "family table chain", "" if
// none does. An accept ends only its own chain: each base chain of the input hook
// has its say.
func (r *ruleset) drops(p packet) string {
	for _, c := range r.chains {
		if c.Hook != "input" || c.Type != "filter" || !slices.Contains([]string{"ip", "inet", "netdev", "bridge"}, c.Family) {
			continue
		}
		verdict := r.walk(c, p, 0)
		if verdict == "drop" || verdict == "" && c.Policy == "drop" {
			return fmt.Sprintf("%s %s %s", c.Family, c.Table, c.Name)
		}
	}
	return ""
}

// maxJumps is how deep nftables itself lets chains call each other.
const maxJumps = 16

// walk returns accept or drop, or "" at the end of the chain.
func (r *ruleset) walk(c chain, p packet, depth int) string {
	for _, rl := range r.rules {
		if rl.Family != c.Family || rl.Table != c.Table || rl.Chain != c.Name || depth > maxJumps {
			continue
		}
		verdict, target := rl.verdict(p)
		switch verdict {
		case "drop", "reject":
			return "drop"
		case "accept":
			return verdict
		case "return":
			return ""
		case "jump", "goto":
			to := chain{Family: c.Family, Table: c.Table, Name: target}
			if v := r.walk(to, p, depth+1); v != "" || verdict == "goto" {
				return v
			}
		}
	}
	return ""
}

// verdict returns what the rule does with the packet; "" if it does not match. A
// condition that is not understood, such as a rate or a set of addresses, counts
// as not met: better no alarm than a false one, and an accept under a condition
// cannot be relied on.
func (rl rule) verdict(p packet) (verdict, target string) {
	for _, e := range rl.Expr {
		for kind, raw := range e {
			switch kind {
			case "match":
				if !matches(raw, p) {
					return "", ""
				}
			case "counter", "log", "comment":
			case "accept", "drop", "return", "reject":
				return kind, ""
			case "jump", "goto":
				var t struct{ Target string }
				if json.Unmarshal(raw, &t) != nil {
					return "", ""
				}
				return kind, t.Target
			default:
				return "", ""
			}
		}
	}
	return "", ""
}

func matches(raw json.RawMessage, p packet) bool {
	var m struct {
		Op    string
		Left  map[string]json.RawMessage
		Right json.RawMessage
	}
	if json.Unmarshal(raw, &m) != nil {
		return false
	}
	var value any
	switch {
	case m.Left["meta"] != nil:
		var k struct{ Key string }
		_ = json.Unmarshal(m.Left["meta"], &k)
		switch k.Key {
		case "iifname", "iif":
			value = p.iface
		case "l4proto":
			value = p.proto
		case "nfproto":
			value = "ipv4"
		}
	case m.Left["payload"] != nil:
		var k struct{ Protocol, Field string }
		_ = json.Unmarshal(m.Left["payload"], &k)
		switch {
		case k.Field == "dport" && (k.Protocol == p.proto || k.Protocol == "th"):
			value = float64(p.port)
		case k.Protocol == "ip" && k.Field == "protocol":
			value = p.proto
		case k.Field == "dport":
			return false // of the other protocol
		}
	case m.Left["ct"] != nil:
		var k struct{ Key string }
		_ = json.Unmarshal(m.Left["ct"], &k)
		if k.Key == "state" {
			value = "new"
		}
	}
	if value == nil {
		return false
	}
	var right any
	if json.Unmarshal(m.Right, &right) != nil {
		return false
	}
	in := holds(right, value)
	return in == (m.Op != "!=")
}

// holds tells whether a value is the one on the right of a match, or in its set or range.
func holds(right, value any) bool {
	switch r := right.(type) {
	case []any:
		return slices.ContainsFunc(r, func(x any) bool { return holds(x, value) })
	case map[string]any:
		if set, ok := r["set"]; ok {
			return holds(set, value)
		}
		v, num := value.(float64)
		if span, ok := r["range"].([]any); ok && num && len(span) == 2 {
			from, ok1 := span[0].(float64)
			to, ok2 := span[1].(float64)
			return ok1 && ok2 && from <= v && v <= to
		}
		return false
	}
	return right == value
}

// SPDX-License-Identifier: GPL-2.0-or-later

package doctor

import (
	"slices"
	"strconv"
	"strings"
)

// Iptables is what one of the two iptables says: the legacy one has tables of its
// own in the kernel, which nft does not show; those of the other nft shows, but not
// all that is in them.
type Iptables struct {
	Command string // iptables, iptables-legacy
	Saved   string // what its iptables-save printed of the table filter
}

// iptables is the table filter.
type iptables struct {
	policy map[string]string // of the chains of the kernel
	rules  map[string][][]string
}

func parseIptables(saved string) iptables {
	t := iptables{policy: map[string]string{}, rules: map[string][][]string{}}
	table := ""
	for line := range strings.Lines(saved) {
		f := words(line)
		switch {
		case len(f) == 0 || strings.HasPrefix(f[0], "#"):
		case f[0][0] == '*':
			table = f[0][1:]
		case table != "filter":
		case f[0][0] == ':' && len(f) > 1:
			t.policy[f[0][1:]] = f[1]
		case f[0] == "-A" && len(f) > 1:
			t.rules[f[1]] = append(t.rules[f[1]], f[2:])
		}
	}
	return t
}

// words splits a line at its spaces, but for those in double quotes.
func words(line string) []string {
	var out []string
	for i, part := range strings.Split(strings.TrimSpace(line), `"`) {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

// drops tells whether a machine's first packet is dropped.
func (t iptables) drops(p packet) bool {
	verdict := t.walk("INPUT", p, 0)
	return verdict == "drop" || verdict == "" && t.policy["INPUT"] == "DROP"
}

// walk returns accept or drop, or "" at the end of the chain.
func (t iptables) walk(chain string, p packet, depth int) string {
	if depth > maxJumps {
		return ""
	}
	for _, r := range t.rules[chain] {
		target, gone, ok := iptablesMatch(r, p)
		if !ok {
			continue
		}
		switch target {
		case "ACCEPT":
			return "accept"
		case "DROP", "REJECT":
			return "drop"
		case "RETURN":
			return ""
		}
		if _, own := t.policy[target]; !own {
			continue // LOG and the like
		}
		if v := t.walk(target, p, depth+1); v != "" || gone {
			return v
		}
	}
	return ""
}

// iptablesMatch returns where a rule sends the packet. As in nftables' rules, a
// condition that is not understood counts as not met.
func iptablesMatch(rule []string, p packet) (target string, gone, ok bool) {
	for i := 0; i < len(rule); i++ {
		not := rule[i] == "!"
		if not {
			i++
		}
		if i+1 >= len(rule) {
			return target, gone, target != ""
		}
		option, value := rule[i], rule[i+1]
		i++
		var met bool
		switch option {
		case "-j":
			return value, false, true
		case "-g":
			return value, true, true
		case "-i":
			name, any := strings.CutSuffix(value, "+")
			met = p.iface == value || any && strings.HasPrefix(p.iface, name)
		case "-p":
			met = value == p.proto || value == "all"
		case "--dport", "--dports":
			met = slices.ContainsFunc(strings.Split(value, ","), func(s string) bool { return portIn(s, p.port) })
		case "--state", "--ctstate":
			met = slices.Contains(strings.Split(value, ","), "NEW")
		case "-m", "--comment":
			continue
		default:
			return "", false, false
		}
		if met == not {
			return "", false, false
		}
	}
	return "", false, false
}

func portIn(span string, port int) bool {
	from, to, ok := strings.Cut(span, ":")
	if !ok {
		to = from
	}
	a, err1 := strconv.Atoi(from)
	b, err2 := strconv.Atoi(to)
	return err1 == nil && err2 == nil && a <= port && port <= b
}

// ufw tells whether the rules are ufw's, which would not know of one that is put in
// beside it.
func (t iptables) ufw() bool {
	for chain := range t.policy {
		if strings.HasPrefix(chain, "ufw-") {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: GPL-2.0-or-later

package doctor

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"slate/testbed/labtest"
	"slate/testbed/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// testdata/drop.json is what nft 1.0.6 printed of the rules below.
const dropRules = `
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iifname "lo" accept
		udp dport { 67, 69 } accept
		tcp dport 2049-2050 counter accept
		jump more
	}
	chain more {
		iifname "eth9" tcp dport 8070 accept
		ip saddr 10.1.0.0/16 accept
		tcp dport 22 accept
	}
	chain forward {
		type filter hook forward priority 0; policy drop;
	}
}
table ip other {
	chain in {
		type filter hook input priority 10; policy accept;
		udp dport 4011 drop
		iifname != "lab0" drop
		meta l4proto udp udp dport 69 limit rate 5/second drop
	}
}
`

// The rules as they were printed once, and as the nft of this machine prints them.
func TestFirewall(t *testing.T) {
	t.Run("recorded", func(t *testing.T) { checkFirewall(t, read(t, "drop.json")) })
	t.Run("live", func(t *testing.T) {
		labtest.NeedRoot(t)
		labtest.Need(t, "nft")
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(dropRules)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
		text, err := readRuleset(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		checkFirewall(t, text)
	})
}

func checkFirewall(t *testing.T, text []byte) {
	t.Helper()
	rules, err := parseRuleset(text)
	if err != nil {
		t.Fatal(err)
	}
	const filter, other = "inet filter input", "ip other in"
	for _, c := range []struct {
		p    packet
		want string
	}{
		{packet{"lab0", "udp", 67}, ""},
		{packet{"lab0", "udp", 69}, ""}, // a rate that drops is not counted on
		{packet{"lab0", "tcp", 67}, filter},
		{packet{"lab0", "tcp", 2049}, ""},
		{packet{"lab0", "tcp", 2051}, filter},
		{packet{"lab0", "tcp", 8070}, filter},
		{packet{"eth9", "tcp", 8070}, other},
		{packet{"lab0", "udp", 4011}, filter},
		{packet{"lo", "tcp", 8070}, other},
	} {
		if got := rules.drops(c.p); got != c.want {
			t.Errorf("%+v is dropped by %q, want %q", c.p, got, c.want)
		}
	}
	none, err := parseRuleset([]byte(`{"nftables": [{"metainfo": {"version": "1.0.6"}}]}`))
	if err != nil || none.drops(packet{"lab0", "tcp", 8070}) != "" {
		t.Errorf("no rules: %v", err)
	}
}

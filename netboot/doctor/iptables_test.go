// SPDX-License-Identifier: GPL-2.0-or-later

package doctor

import (
	"os/exec"
	"strings"
	"testing"

	"slate/testbed/labtest"
)

// iptablesRules is in the form that iptables-restore takes and iptables-save writes.
const iptablesRules = `*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:more - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p udp -m udp --dport 67 -j ACCEPT
-A INPUT -p tcp -m tcp --dport 2049:2050 -m comment --comment "NFS -j DROP" -j ACCEPT
-A INPUT -p udp -m multiport --dports 69,4000:4010 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT ! -i lab+ -j more
-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 8070 -j ACCEPT
-A more -p tcp -m tcp --dport 22 -j RETURN
-A more -p tcp -m limit --limit 5/sec -j DROP
-A more -p tcp -j ACCEPT
COMMIT
`

func TestIptables(t *testing.T) {
	t.Run("recorded", func(t *testing.T) { checkIptables(t, iptablesRules) })
	for _, command := range []string{nftIptables, "iptables-legacy"} {
		t.Run(command, func(t *testing.T) {
			labtest.NeedRoot(t)
			kind := map[string]string{nftIptables: "iptables-nft"}[command]
			if kind == "" {
				kind = command
			}
			restore := sbin(kind + "-restore")
			if restore == "" {
				labtest.Need(t, kind+"-restore")
			}
			run := func(rules string) string {
				cmd := exec.Command(restore)
				cmd.Stdin = strings.NewReader(rules)
				out, err := cmd.CombinedOutput()
				if err != nil {
					return err.Error() + ": " + string(out)
				}
				return ""
			}
			if bad := run(iptablesRules); bad != "" {
				if command == "iptables-legacy" {
					t.Skipf("this kernel has no legacy iptables: %s", bad)
				}
				t.Fatal(bad)
			}
			t.Cleanup(func() {
				if bad := run("*filter\n:INPUT ACCEPT\nCOMMIT\n"); bad != "" {
					t.Error(bad)
				}
				exec.Command(sbin("nft"), "flush", "ruleset").Run()
			})
			list, err := readIptables(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, l := range list {
				if l.Command == command {
					found = true
					checkIptables(t, l.Saved)
				}
			}
			if !found {
				t.Errorf("the rules of %s are not in %+v", command, list)
			}
		})
	}
}

func checkIptables(t *testing.T, saved string) {
	t.Helper()
	rules := parseIptables(saved)
	for _, c := range []struct {
		p    packet
		want bool
	}{
		{packet{"lab0", "udp", 67}, false},
		{packet{"lab0", "udp", 69}, false},
		{packet{"lab0", "udp", 4005}, false},
		{packet{"lab0", "udp", 4011}, true},
		{packet{"lab0", "tcp", 67}, true},
		{packet{"lab0", "tcp", 2050}, false},
		{packet{"lab0", "tcp", 8070}, true}, // let in from some addresses only
		{packet{"eth9", "tcp", 8070}, false},
		{packet{"eth9", "tcp", 22}, true},
		{packet{"lo", "tcp", 8070}, false},
	} {
		if got := rules.drops(c.p); got != c.want {
			t.Errorf("%+v is dropped: %v, want %v", c.p, got, c.want)
		}
	}
}

func TestFirewallFixNamesWhoHoldsTheRules(t *testing.T) {
	const closed = "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"
	for _, c := range []struct {
		name string
		f    func(*Facts)
		want string
	}{
		{"iptables", func(f *Facts) { f.Iptables = []Iptables{{nftIptables, closed}} }, "iptables -I INPUT -i lab0 -p tcp --dport 8070 -j ACCEPT"},
		{"legacy", func(f *Facts) { f.Iptables = []Iptables{{"iptables-legacy", closed}} }, "iptables-legacy -I INPUT -i lab0 -p tcp --dport 8070 -j ACCEPT"},
		{"ufw", func(f *Facts) {
			f.Iptables = []Iptables{{nftIptables, strings.Replace(closed, "COMMIT", ":ufw-user-input - [0:0]\n-A INPUT -j ufw-user-input\nCOMMIT", 1)}}
		}, "ufw allow in on lab0 proto tcp to any port 8070"},
		{"firewalld", func(f *Facts) {
			f.Ruleset = []byte(`{"nftables":[{"chain":{"family":"inet","table":"firewalld","name":"filter_INPUT","type":"filter","hook":"input","prio":10,"policy":"drop"}}]}`)
		}, "--add-port=8070/tcp && firewall-cmd --reload"},
	} {
		f := healthy()
		c.f(&f)
		var fixes []string
		for _, x := range Diagnose(f) {
			if x.State == Problem {
				fixes = append(fixes, x.Fix)
			}
		}
		if got := strings.Join(fixes, "\n"); len(fixes) != 5 || !strings.Contains(got, c.want) {
			t.Errorf("%s: fixes\n%s\nwant one for each of 5 services, such as %q", c.name, got, c.want)
		}
	}
	// What iptables itself lets in is not held against nft's poorer view of it.
	f := healthy()
	f.Ruleset = []byte(`{"nftables":[{"chain":{"family":"ip","table":"filter","name":"INPUT","type":"filter","hook":"input","prio":0,"policy":"drop"}}]}`)
	f.Iptables = []Iptables{{nftIptables, strings.Replace(closed, "COMMIT", "-A INPUT -p all -m comment --comment x -j ACCEPT\nCOMMIT", 1)}}
	if w := Worst(Diagnose(f)); w != OK {
		t.Errorf("iptables lets everything in: worst finding %q", w)
	}
}

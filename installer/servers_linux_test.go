// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/installer/machine"
	"slate/installer/servers"
	"slate/netboot/api"
)

// A server that the command line names has not been reached by that.
func TestReached(t *testing.T) {
	named := []machine.Server{{URL: &url.URL{Scheme: "http", Host: "10.0.0.4:8070"}}}
	for id, want := range map[string]bool{"": false, "b1": true} {
		if got := (&Boot{Fleet: servers.NewFleet(named, id)}).reached(); got != want {
			t.Errorf("with the id %q: reached = %v, want %v", id, got, want)
		}
	}
}

// The root comes from the chosen server, then from the others that have it.
func TestExports(t *testing.T) {
	ranked := func(u string, port int, edit ...func(*servers.Ranked)) servers.Ranked {
		p, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		r := servers.Ranked{Finding: servers.Finding{Server: machine.Server{URL: p, Weight: 1}, RoundTrip: time.Millisecond, Load: api.Load{NFSPort: port, Has: true}}}
		for _, e := range edit {
			e(&r)
		}
		return r
	}
	tree := strings.Repeat("ab", 32)
	good, spare, dead := ranked("http://10.0.0.2:8070", 2049), ranked("http://10.0.0.3:8070", 12049), ranked("http://10.0.0.4:8070", 0)
	dead.Err = errors.New("refused")
	for _, c := range []struct {
		name string
		b    *Boot
		want []string
	}{
		{"moved", &Boot{Settings: machine.Settings{Server: dead.Server.URL, NFS: machine.Export{Server: netip.MustParseAddrPort("10.0.0.4:2049"), Path: "/lab/" + tree}}},
			[]string{"10.0.0.2:2049:/lab/" + tree, "10.0.0.3:12049:/lab/" + tree}},
		{"from a medium", &Boot{Settings: machine.Settings{Server: dead.Server.URL, Medium: "x", Image: "lab/3", Tree: tree}},
			[]string{"10.0.0.2:2049:/lab/" + tree, "10.0.0.3:12049:/lab/" + tree}},
		{"at home already", &Boot{Settings: machine.Settings{Server: good.Server.URL, NFS: machine.Export{Server: netip.MustParseAddrPort("10.0.0.2:99"), Path: "/lab@stable"}}},
			[]string{"10.0.0.2:99:/lab@stable", "10.0.0.2:2049:/lab@stable", "10.0.0.3:12049:/lab@stable"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.b
			b.Ranked = servers.Rank([]servers.Finding{dead.Finding, good.Finding, spare.Finding}, "pc1")
			slices.SortFunc(b.Ranked, func(x, y servers.Ranked) int { return strings.Compare(x.Server.URL.Host, y.Server.URL.Host) })
			b.useServer(b.Ranked[0])
			var got []string
			for _, e := range b.exports() {
				got = append(got, e.String())
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("exports (-want +got):\n%s", d)
			}
		})
	}
}

// The chooser of a machine that started from a medium offers what can be had.
func TestChooserWithAMedium(t *testing.T) {
	nfs := machine.Export{Server: netip.MustParseAddrPort("10.0.0.2:2049"), Path: "/lab/x"}
	carries := &Medium{Root: machine.Mount{What: "/dev/sdb3", Type: "squashfs"}}
	offline := errors.New("no link: is the cable in?")
	for _, c := range []struct {
		name        string
		b           *Boot
		items       string // the first ones
		first       string // what is taken when nobody answers; "": a person has to decide
		explanation string
	}{
		{"server and image", &Boot{Settings: machine.Settings{NFS: nfs}, Medium: carries}, "diskless medium", "diskless", ""},
		{"server", &Boot{Settings: machine.Settings{NFS: nfs}, Medium: &Medium{}}, "diskless", "diskless", ""},
		{"image without a network", &Boot{Medium: carries, Offline: offline}, "medium", "medium", "It cannot run from a server: no link: is the cable in?"},
		{"nothing", &Boot{Medium: &Medium{}, Offline: offline}, "", "", "no link"},
		{"a dead server", &Boot{Medium: carries, Ranked: []servers.Ranked{{Cost: inf, Why: "connection refused", Finding: servers.Finding{Server: machine.Server{URL: &url.URL{Scheme: "http", Host: "10.0.0.4:8070"}}}}}},
			"medium", "medium", "http://10.0.0.4:8070: connection refused"},
		{"the medium was not found", &Boot{Settings: machine.Settings{NFS: nfs}}, "diskless", "diskless", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.b
			b.Settings.Medium, b.Settings.Image = "id", "lab/3"
			b.Settings.Choice, b.Settings.Timeout = machine.ChooseDiskless, 5*time.Second
			m := b.chooser(time.Now())
			var ids []string
			for _, i := range m.Items {
				if i.ID == "diskless" || i.ID == chooseMedium {
					ids = append(ids, i.ID)
				}
			}
			if got := strings.Join(ids, " "); got != c.items {
				t.Errorf("items = %q, want %q", got, c.items)
			}
			taken := ""
			if !m.Deadline.IsZero() {
				taken = m.Items[m.Default].ID
			}
			if taken != c.first || m.Selected != m.Default {
				t.Errorf("without an answer: %q, want %q", taken, c.first)
			}
			if got := strings.Join(m.Detail, "\n"); !strings.Contains(got, c.explanation) || c.explanation == "" && got != "" {
				t.Errorf("explanation = %q, want %q", got, c.explanation)
			}
		})
	}
}

var inf = servers.Rank([]servers.Finding{{Err: errors.New("x"), Server: machine.Server{URL: &url.URL{}}}}, "")[0].Cost

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"testing"

	"slate/testbed/lab"
	"slate/testbed/labtest"
)

// A machine that comes while as many load as may says so on its screen, with its
// place, and goes on once it is its turn: by iPXE, and by GRUB.
func TestMachineWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	bios := row{name: "BIOS", spec: lab.NodeSpec{}}
	grub := secureBoot
	for i, r := range []row{bios, grub} {
		if !chosen("queue/"+r.name, false) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, labtest.New(t, lab.Options{}))
			s.conf("system/cboot.conf", "timeout = 0\n"+r.conf)
			settings, err := os.ReadFile(s.dir + "/slate.toml")
			if err != nil {
				t.Fatal(err)
			}
			settings = regexp.MustCompile(`(?m)^boots = .*`).ReplaceAll(settings, []byte("boots = 1"))
			if err := os.WriteFile(s.dir+"/slate.toml", settings, 0o600); err != nil {
				t.Fatal(err)
			}
			s.serve()
			script := s.get(s.url("/boot.ipxe?mac=52:54:00:00:00:01")) // another one has its turn
			r.spec.Name, r.spec.Boot = []string{"bios", "grub"}[i], []string{"net"}
			n := s.Node(r.spec)
			s.Expect(n, bootLimit, `waits for its turn to load: place 1 in the queue`)
			keepPicture(t, n)
			for _, f := range fileLine.FindAllSubmatch(script, -1) {
				s.get(string(f[1]))
			}
			s.Expect(n, bootLimit, starts, firstScreen)
			s.wantEvents(n, "script note", "script done", "kernel done")
		})
	}
}

// get fetches something from the appliance.
func (s *site) get(url string) []byte {
	s.t.Helper()
	resp, err := s.HTTPClient().Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return b
}

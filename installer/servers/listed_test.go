// SPDX-License-Identifier: GPL-2.0-or-later

package servers_test

import (
	"testing"

	"slate/installer/machine"
	"slate/installer/servers"
)

func serverList(t *testing.T, words ...string) (out []machine.Server) {
	t.Helper()
	for _, w := range words {
		s, err := machine.ParseServer(w)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func TestSameServers(t *testing.T) {
	a, b, own := "http://10.0.0.1:8070", "http://10.0.0.2:8070", "http://10.0.0.9:8070,standby"
	for _, c := range []struct {
		name       string
		want, have []string
		same       bool
	}{
		{"the same", []string{a, b}, []string{b, a}, true},
		{"with the one that wrote the command line", []string{a, b}, []string{own, a, b}, true},
		{"one is new", []string{a, b}, []string{a}, false},
		{"one is gone", []string{a}, []string{a, b}, false},
		{"another weight", []string{a + ",weight=2"}, []string{a}, false},
		{"moved", []string{b}, []string{a}, false},
	} {
		if got := servers.Same(serverList(t, c.want...), serverList(t, c.have...)); got != c.same {
			t.Errorf("%s: Same = %v", c.name, got)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/netboot/config"
)

const serverFile = "controller/server/server.info.conf"

func TestServersListReplacesList(t *testing.T) {
	s, err := config.Load(site(map[string]string{
		serverFile:                   "[[server]]\nurl = \"http://10.0.0.1:8070\"\nweight = 3\nstandby = true\n\n[[server]]\nurl = \"http://10.0.0.2:8070\"\n\n[measure]\nsamples = 5\n",
		"groups/room1/" + serverFile: "[measure]\ntimeout = 9\n",
		"nodes/pc1/" + serverFile:    "[[server]]\nurl = \"http://10.0.0.9:8070\"\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	site := []config.Server{{URL: "http://10.0.0.1:8070", Weight: 3, Standby: true}, {URL: "http://10.0.0.2:8070", Weight: 1}}
	n := s.For(config.Scope{Node: "pc2", Groups: []string{"room1"}})
	if diff := cmp.Diff(config.ServerInfo{Servers: site, Measure: config.Measure{Timeout: 9, Samples: 5}, Running: config.Running{Move: "failure"}}, n.Servers); diff != "" {
		t.Errorf("a node of the group (-want +got):\n%s", diff)
	}
	// Neither weight nor standby of the site's first server come through.
	n = s.Node("pc1")
	if diff := cmp.Diff([]config.Server{{URL: "http://10.0.0.9:8070", Weight: 1}}, n.Servers.Servers); diff != "" {
		t.Errorf("a node with a list of its own (-want +got):\n%s", diff)
	}
	var lines []string
	for _, v := range n.Explain() {
		if v.File == serverFile {
			lines = append(lines, v.String())
		}
	}
	want := []string{
		serverFile + ` server = [{"key":"","standby":false,"url":"http://10.0.0.9:8070","weight":1}]   (nodes/pc1/` + serverFile + `:1)`,
		serverFile + ` measure.timeout = 2   (default)`,
		serverFile + ` measure.samples = 5   (` + serverFile + `:10)`,
		serverFile + ` running.move = "failure"   (default)`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("Explain (-want +got):\n%s", diff)
	}
}

func TestBadServers(t *testing.T) {
	one := func(line string) string { return "[[server]]\nurl = \"http://10.0.0.1:8070\"\n" + line + "\n" }
	for _, c := range []struct{ name, text, want string }{
		{"name", "[[server]]\nurl = \"http://boot.example:8070\"\n", serverFile + ":2: server.url: server 1: \"http://boot.example:8070\" does not name the appliance by its IPv4 address"},
		{"scheme", "[[server]]\nurl = \"10.0.0.1\"\n", "write http://ADDRESS:8070"},
		{"comma", "[[server]]\nurl = \"http://10.0.0.1:80/,standby\"\n", "is not the URL of an appliance"},
		{"no url", "[[server]]\nweight = 2\n", "server 1: \"\" is not the URL"},
		{"twice", one("") + one(""), "listed twice"},
		{"key", one(`key = "abc"`), "\"abc\" is not a public key"},
		{"weight", one("weight = -1"), "weight -1 is not between"},
		{"unknown", one("wait = 1"), "server.wait: unknown key"},
		{"many", strings.Repeat(one(""), 9), "9 servers are more than"},
		{"timeout", "[measure]\ntimeout = 0\n", ":2: measure.timeout: 0 seconds is not between 1 and 30"},
		{"samples", "[measure]\nsamples = 99\n", "measure.samples: 99"},
		{"move", "[running]\nmove = \"always\"\n", "running.move: \"always\" is not one of failure, never"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Load(site(map[string]string{serverFile: c.text}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load error = %v, want %q", err, c.want)
			}
		})
	}
}

func TestServerWord(t *testing.T) {
	for want, s := range map[string]config.Server{
		"http://10.0.0.1:8070":                        {URL: "http://10.0.0.1:8070", Weight: 1},
		"http://10.0.0.1:8070,weight=3,standby,key=k": {URL: "http://10.0.0.1:8070", Weight: 3, Standby: true, Key: "k"},
	} {
		if got := s.Word(); got != want {
			t.Errorf("Word(%+v) = %q, want %q", s, got, want)
		}
	}
}

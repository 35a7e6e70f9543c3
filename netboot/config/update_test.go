// SPDX-License-Identifier: GPL-2.0-or-later

package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/netboot/config"
)

func TestUpdateErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"mode = \"never\"", `:1: mode: "never" is not one of ask, auto, off`},
		{"silence = \"yes\"", `silence: "yes" is not one of now, later, next-start`},
		{"damaged = \"repair\"", `damaged: "repair" is not one of bailout, clone, sync`},
		{"unclean = \"bad\"", `unclean: "bad" is not one of ignore, count`},
		{"tries = 0", `tries: 0 is not between 1 and 9`},
		{"tries = 10", `tries: 10 is not between 1 and 9`},
		{"health-limit = 5", `health-limit: 5 is not between 10 and 3600`},
		{"timeout = -1", `timeout: -1 is not between 0 and 86400`},
		{"channel = \"lab\"", `channel: "lab" is not a channel`},
		{"channel = \"lab/3\"", `channel: "lab/3" is not a channel`},
		{"night = \"22-05\"", `night: "22-05" are not hours`},
		{"night = \"05:00-05:00\"", `night: "05:00-05:00" are not hours`},
		{"rate = \"2MB\"", `rate: "2MB" is not a number of bytes`},
		{"[verify]\nat = \"monthly\"", `:2: verify.at: "monthly" is not one of boot, daily, weekly, never`},
		{"[verify]\nshare = 0", `verify.share: 0 is not between 1 and 100`},
		{"retries = 3", `retries: unknown key`},
	} {
		_, err := config.Load(site(map[string]string{"controller/update.chk.conf": c.text + "\n"}))
		if err == nil || !strings.Contains(err.Error(), "controller/update.chk.conf") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
	good := "channel = \"lab@stable\"\nmode = \"auto\"\nnight = \"22:00-05:00\"\nrate = \"2M\"\n[verify]\nat = \"boot\"\nshare = 10\n"
	s, err := config.Load(site(map[string]string{"controller/update.chk.conf": good, "nodes/pc1/controller/cupdate.chk.conf": "tries = 1\n"}))
	if err != nil {
		t.Fatal(err)
	}
	if u := s.Node("pc1").Update; u.Tries != 1 || u.Channel != "lab@stable" || u.Verify.Share != 10 || u.Damaged != config.DamagedBailout {
		t.Errorf("pc1 has %+v", u)
	}
}

func TestHealthDirectory(t *testing.T) {
	files := map[string]string{
		"controller/health.d/20-net.conf":             "[[check]]\nname = \"proxy\"\nrun = [\"/bin/ping\", \"proxy\"]\nlimit = 5\n",
		"controller/health.d/10-disk.conf":            "[[check]]\nname = \"disk\"\nscript = \"test -d /srv\"\n",
		"controller/health.d/README":                  "not a check",
		"nodes/pc1/controller/health.d/own.conf":      "[[check]]\nname = \"proxy\"\nremove = true\n[[check]]\nname = \"own\"\nrun = [\"/bin/true\"]\n",
		"groups/room/controller/health.d/10-all.conf": "[[check]]\nname = \"disk\"\nscript = \"test -d /data\"\n",
	}
	s, err := config.Load(site(files))
	if err != nil {
		t.Fatal(err)
	}
	args := func(n *config.Node) (out []string) {
		for _, c := range n.Health.Check {
			out = append(out, c.Name+": "+strings.Join(c.Args(), " "))
		}
		return out
	}
	want := []string{"disk: /bin/sh -c test -d /srv", "proxy: /bin/ping proxy"}
	if diff := cmp.Diff(want, args(s.Node("other"))); diff != "" {
		t.Errorf("a node without files of its own (-want +got):\n%s", diff)
	}
	scope := config.Scope{Node: "pc1", Groups: []string{"room"}}
	want = []string{"disk: /bin/sh -c test -d /data", "own: /bin/true"}
	if diff := cmp.Diff(want, args(s.For(scope))); diff != "" {
		t.Errorf("pc1 in its room (-want +got):\n%s", diff)
	}
	if got := s.For(scope).Origin("controller/health.d", "check[disk]"); got != "groups/room/controller/health.d/10-all.conf:1" {
		t.Errorf("check[disk] comes from %s", got)
	}
	// The node makes the same of what is sent to it.
	b := s.Bundle(scope)
	n, err := b.Config()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, args(n)); diff != "" {
		t.Errorf("from the bundle (-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		"[[check]]\nrun = [\"/bin/true\"]\n":                                  `check.name: "" is not the name`,
		"[[check]]\nname = \"x\"\n":                                           `:1: check.run: the check runs nothing`,
		"[[check]]\nname = \"x\"\nrun = [\"true\"]\n":                         `:3: check.run: "true" is not the full path`,
		"[[check]]\nname = \"x\"\nrun = [\"/bin/true\"]\nscript = \"true\"\n": `has both run and script`,
		"[[check]]\nname = \"x\"\nrun = [\"/bin/true\"]\nlimit = 700\n":       `limit: 700 seconds`,
	} {
		_, err := config.Load(site(map[string]string{"controller/health.d/x.conf": text}))
		if err == nil || !strings.Contains(err.Error(), "controller/health.d/x.conf") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := config.Load(site(map[string]string{"controller/health.d/sub/x.conf": ""})); err == nil {
		t.Error("a file deeper in health.d is taken")
	}
}

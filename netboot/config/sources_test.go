// SPDX-License-Identifier: GPL-2.0-or-later

package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/netboot/config"
)

func TestSources(t *testing.T) {
	s, err := config.Load(site(map[string]string{
		"sources/sources.conf":                          "[gentoo]\nvariant = \"stage3-amd64-systemd\"\n[target]\nlevel = \"x86-64-v3\"\n",
		"groups/old/sources/sources.conf":               "[target]\nlevel = \"x86-64\"\n",
		"sources/portage/make.conf":                     "not TOML at all",
		"overlays/ours/metadata/layout.conf":            "masters = gentoo",
		"recipes/files/ssh.conf":                        "x",
		"sources/portage/package.use/x":                 "a/b c",
		"groups/old/sources/portage/make.conf":          "other",
		"groups/old/sources/portage/env/debug.conf":     "x",
		"sources/portage/repos.conf/ours.conf":          "[ours]\n",
		"nodes/pc1/sources/portage/package.license/all": "*/* *",
	}))
	if err != nil {
		t.Fatal(err)
	}
	site := s.For(config.Scope{})
	if site.Sources.Gentoo.Variant != "stage3-amd64-systemd" || site.Sources.Target.Level != "x86-64-v3" || site.Sources.Debian.Suite != "trixie" {
		t.Errorf("sources = %+v", site.Sources)
	}
	if got := s.For(config.Scope{Groups: []string{"old"}}).Sources.Target.Level; got != "x86-64" {
		t.Errorf("level of the group = %q", got)
	}
	if got := site.Origin("sources/sources.conf", "target.level"); got != "sources/sources.conf:4" {
		t.Errorf("origin = %q", got)
	}
	text := func(m map[string][]byte) map[string]string {
		out := map[string]string{}
		for k, v := range m {
			out[k] = string(v)
		}
		return out
	}
	want := map[string]string{"make.conf": "not TOML at all", "package.use/x": "a/b c", "repos.conf/ours.conf": "[ours]\n"}
	if diff := cmp.Diff(want, text(s.Portage(config.Scope{}))); diff != "" {
		t.Errorf("Portage (-want +got):\n%s", diff)
	}
	want["make.conf"], want["env/debug.conf"] = "other", "x"
	if diff := cmp.Diff(want, text(s.Portage(config.Scope{Groups: []string{"old"}}))); diff != "" {
		t.Errorf("Portage of the group (-want +got):\n%s", diff)
	}
	if !slices.Equal(s.Groups(), []string{"old"}) {
		t.Errorf("groups = %q", s.Groups())
	}
}

func TestBadSources(t *testing.T) {
	remote := func(text string) string { return "[[remote]]\nname = \"x\"\n" + text }
	for _, c := range []struct{ name, text, want string }{
		{"no mirror", "[gentoo]\nmirrors = []\n", "gentoo.mirrors: no mirror"},
		{"mirror", "[gentoo]\nmirrors = [\"distfiles.gentoo.org\"]\n", "sources/sources.conf:2: gentoo.mirrors: \"distfiles.gentoo.org\": want a URL"},
		{"quote in mirror", "[gentoo]\nmirrors = [\"http://x/\\\"; reboot\"]\n", "want a URL"},
		{"variant", "[gentoo]\nvariant = \"../x\"\n", "gentoo.variant"},
		{"stamp", "[gentoo]\nstamp = \"yesterday\"\n", "20261123T014451Z"},
		{"tree", "[gentoo]\ntree = \"../x\"\n", "absolute path"},
		{"profile", "[gentoo]\nprofile = \"a/../../x\"\n", "gentoo.profile"},
		{"short key", "[gentoo]\nstage-keys = [\"BB572E0E2D182910\"]\n", "sources/sources.conf:2: gentoo.stage-keys: \"BB572E0E2D182910\": want the 40"},
		{"binhost", "[gentoo]\nbinhost = \"on\"\n", "gentoo.binhost"},
		{"level", "[target]\nlevel = \"native -O9\"\n", "target.level"},
		{"optimize", "[target]\noptimize = \"fast\"\n", "target.optimize"},
		{"suite", "[debian]\nsuite = \"../x\"\n", "debian.suite"},
		{"remote without anything", remote(""), "remote.url"},
		{"unverified", remote("url = \"https://example.org/\"\n"), "what comes from elsewhere is not believed"},
		{"plain file", remote("url = \"/srv/x\"\n"), "want an https URL"},
		{"git with digest", remote("url = \"https://example.org/x.git\"\ndigest = \"" + strings.Repeat("0", 64) + "\"\n"), "pinned by ref"},
		{"option as ref", remote("url = \"https://example.org/x.git\"\nref = \"--upload-pack=x\"\n"), "remote.ref"},
		{"twice", remote("url = \"https://example.org/x.git\"\n") + remote("url = \"https://example.org/x.git\"\n"), "a name of its own"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Load(site(map[string]string{"sources/sources.conf": c.text}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load = %v, want an error with %q", err, c.want)
			}
		})
	}
	good := "[[remote]]\nname = \"a\"\nurl = \"git+file:///srv/x\"\nref = \"main\"\n[[remote]]\nname = \"b\"\nurl = \"https://example.org/x/\"\ndigest = \"" + strings.Repeat("a", 64) + "\"\n"
	if _, err := config.Load(site(map[string]string{"sources/sources.conf": good})); err != nil {
		t.Error(err)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package debian_test

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"slate/builder/debian"
	"slate/builder/recipes"
)

func TestParseSourceList(t *testing.T) {
	got := debian.ParseSourceList(`
# a comment
deb http://one.example/debian/ bookworm main contrib # and why
deb [arch=amd64 signed-by=/x.gpg] http://two.example/debian bookworm-updates main
deb-src http://one.example/debian bookworm main
deb	http://three.example/x ./
debris http://four.example bookworm main
deb [broken http://five.example bookworm main
deb http://six.example
`)
	want := []debian.Source{
		{URI: "http://one.example/debian", Suite: "bookworm", Components: []string{"main", "contrib"}},
		{URI: "http://two.example/debian", Suite: "bookworm-updates", Components: []string{"main"}},
		{URI: "http://three.example/x", Suite: "./", Components: []string{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseSourceList (-want +got):\n%s", diff)
	}
}

func TestParseDeb822(t *testing.T) {
	got := debian.ParseDeb822(`# archive
Types: deb deb-src
URIs: http://one.example/debian/
 http://two.example/debian
Suites: trixie trixie-updates
Components: main
 non-free-firmware
# between
Signed-By: /k.gpg

Types: deb-src
URIs: http://src.example
Suites: trixie
Components: main

Enabled: no
Types: deb
URIs: http://off.example
Suites: trixie
Components: main
`)
	c := []string{"main", "non-free-firmware"}
	want := []debian.Source{
		{URI: "http://one.example/debian", Suite: "trixie", Components: c},
		{URI: "http://one.example/debian", Suite: "trixie-updates", Components: c},
		{URI: "http://two.example/debian", Suite: "trixie", Components: c},
		{URI: "http://two.example/debian", Suite: "trixie-updates", Components: c},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseDeb822 (-want +got):\n%s", diff)
	}
}

func TestSources(t *testing.T) {
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	host := debian.ReadHost(fstest.MapFS{
		"etc/os-release":                   text("ID=debian\nVERSION_CODENAME=bookworm\n"),
		"etc/apt/sources.list.d/node.list": text("deb http://vendor.example/node nodistro main\n"),
		"etc/apt/sources.list.d/debian.sources": text("Types: deb\nURIs: http://near.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n" +
			"Types: deb\nURIs: http://near.example/security\nSuites: bookworm-security\nComponents: main\n"),
		"etc/apt/sources.list.d/off.disabled": text("deb http://off.example bookworm main\n"),
	})
	ubuntu := debian.ReadHost(fstest.MapFS{
		"etc/os-release":       text("ID=ubuntu\nVERSION_CODENAME=noble\n"),
		"etc/apt/sources.list": text("deb http://ubuntu.example noble main\n"),
		"usr/share/keyrings/debian-archive-keyring.gpg": text("keys"),
	})
	for _, tc := range []struct {
		name   string
		host   debian.Host
		recipe recipes.Debian
		want   []string
	}{
		{"the host's mirrors, another suite", host, recipes.Debian{Suite: "trixie", Updates: true, Security: true},
			[]string{"deb http://near.example/debian trixie main", "deb http://near.example/debian trixie-updates main", "deb http://near.example/security trixie-security main"}},
		{"the recipe's mirror", host, recipes.Debian{Suite: "trixie", Mirror: "http://mine.example/d/", Security: true, Components: []string{"main", "contrib"}},
			[]string{"deb http://mine.example/d trixie main contrib", "deb http://deb.debian.org/debian-security trixie-security main contrib"}},
		{"both of the recipe", host, recipes.Debian{Suite: "trixie", Mirror: "http://m.example", SecurityMirror: "http://s.example/", Security: true},
			[]string{"deb http://m.example trixie main", "deb http://s.example trixie-security main"}},
		{"another distribution", ubuntu, recipes.Debian{Suite: "trixie"},
			[]string{"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main"}},
		{"nothing known", debian.Host{}, recipes.Debian{Suite: "trixie", Keyring: "/k.gpg"},
			[]string{"deb [signed-by=/k.gpg] http://deb.debian.org/debian trixie main"}},
		{"a rolling suite", host, recipes.Debian{Suite: "sid", Updates: true, Security: true},
			[]string{"deb http://near.example/debian sid main"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sources, why := debian.Sources(tc.recipe, tc.host)
			var got []string
			for _, s := range sources {
				got = append(got, s.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || why == "" {
				t.Errorf("Sources (%q) (-want +got):\n%s", why, diff)
			}
		})
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package debian_test

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"slate/builder/customize"
	"slate/builder/debian"
	"slate/builder/recipes"
	"slate/images"
)

func TestReadInputs(t *testing.T) {
	const one = "Origin: Debian\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n"
	const two = "Date: Sun, 1 Nov 2026 10:00:00 UTC\n"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/debian/dists/trixie/InRelease":
			w.Write([]byte(one))
		case "/debian/dists/trixie-updates/InRelease":
			w.Write([]byte(two))
		case "/debian/dists/html/InRelease":
			w.Write([]byte("<html>log in first</html>"))
		case "/debian/dists/odd/InRelease":
			w.Write([]byte("Date: yesterday\n"))
		case "/debian/dists/huge/InRelease":
			w.Write(make([]byte, 17<<20))
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	source := func(suite string) debian.Source {
		return debian.Source{URI: srv.URL + "/debian", Suite: suite, Components: []string{"main"}}
	}
	in, err := debian.ReadInputs(t.Context(), srv.Client(), []debian.Source{source("trixie"), source("trixie-updates")})
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC); !in.Date.Equal(want) {
		t.Errorf("date = %v, want the newest, %v", in.Date, want)
	}
	if got := in.Release[source("trixie").String()]; got != images.Digest(sha256.Sum256([]byte(one))) {
		t.Errorf("digest of trixie = %s", got)
	}
	for suite, want := range map[string]string{"gone": "404", "html": "no date", "odd": "yesterday", "huge": "too large"} {
		if _, err := debian.ReadInputs(t.Context(), srv.Client(), []debian.Source{source(suite)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", suite, err, want)
		}
	}
	if _, err := debian.ReadInputs(t.Context(), nil, []debian.Source{{URI: "ssh://x/debian", Suite: "trixie"}}); err == nil || !strings.Contains(err.Error(), "ssh: mirror") {
		t.Errorf("ssh: %v, want an error that names the scheme", err)
	}
}

func TestKey(t *testing.T) {
	load := func() *recipes.Recipe {
		r, err := recipes.Load("demo")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	sources := []debian.Source{{URI: "http://m.example", Suite: "trixie", Components: []string{"main"}}}
	in := func(b byte) debian.Inputs {
		return debian.Inputs{Release: map[string]images.Digest{sources[0].String(): {b}}, Date: time.Unix(1e9, 0)}
	}
	key := func(r *recipes.Recipe, sources []debian.Source, in debian.Inputs, version string) images.Digest {
		return debian.Key(r, sources, customize.Actions(r), in, version)
	}
	base := key(load(), sources, in(1), "1.3.5")
	if key(load(), sources, in(1), "1.3.5") != base {
		t.Error("the key of the same inputs differs")
	}
	for name, change := range map[string]func() images.Digest{
		"archive": func() images.Digest { return key(load(), sources, in(2), "1.3.5") },
		"program": func() images.Digest { return key(load(), sources, in(1), "1.3.6") },
		"package": func() images.Digest {
			r := load()
			r.Packages.Install = append(r.Packages.Install, "vim")
			return key(r, sources, in(1), "1.3.5")
		},
		"password": func() images.Digest {
			r := load()
			r.Users[0].Password = "other"
			return key(r, sources, in(1), "1.3.5")
		},
		"file": func() images.Digest {
			r := load()
			r.Files[0].Data = []byte("other")
			return key(r, sources, in(1), "1.3.5")
		},
		"mask":   func() images.Digest { r := load(); r.System.Mask = nil; return key(r, sources, in(1), "1.3.5") },
		"mirror": func() images.Digest { return key(load(), nil, in(1), "1.3.5") },
	} {
		if change() == base {
			t.Errorf("another %s does not change the key", name)
		}
	}
}

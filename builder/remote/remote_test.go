// SPDX-License-Identifier: GPL-2.0-or-later

package remote_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/builder/fetch"
	"slate/builder/remote"
	"slate/netboot/config"
	"slate/testbed/gentoomirror"
	"slate/testbed/labtest"
)

// place is a web directory; every request is counted.
type place struct {
	url   string
	files map[string]string
	hits  map[string]int
}

func newPlace(t *testing.T, files map[string]string) *place {
	p := &place{files: files, hits: map[string]int{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/x/")
		p.hits[name]++
		data, ok := p.files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(data))
	}))
	t.Cleanup(srv.Close)
	p.url = srv.URL + "/x/"
	return p
}

// sums lists all files but the list, and returns the list's digest.
func (p *place) sums() string {
	var b strings.Builder
	for name, data := range p.files {
		if !strings.HasPrefix(name, "SHA256SUMS") {
			fmt.Fprintf(&b, "%x  ./%s\n", sha256.Sum256([]byte(data)), name)
		}
	}
	p.files["SHA256SUMS"] = b.String()
	return fmt.Sprintf("%x", sha256.Sum256([]byte(b.String())))
}

func options(t *testing.T) remote.Options {
	return remote.Options{Dir: filepath.Join(t.TempDir(), "remote"), KeyFile: func(s string) string { return s },
		Fetch: fetch.Options{Tries: 2, Pause: time.Millisecond, Stall: 5 * time.Second}}
}

func TestWeb(t *testing.T) {
	p := newPlace(t, map[string]string{"recipes/lab.toml": "one", "keys/a.asc": "key"})
	r := config.Remote{Name: "ours", URL: p.url, Digest: p.sums()}
	o := options(t)
	got, err := remote.Get(t.Context(), r, o)
	if err != nil || got.Fetched != 2 || got.Version != r.Digest {
		t.Fatalf("Get = %+v, %v", got, err)
	}
	if b, err := os.ReadFile(filepath.Join(got.Dir, "recipes/lab.toml")); err != nil || string(b) != "one" {
		t.Errorf("the recipe is %q, %v", b, err)
	}
	// Only what has changed is fetched, and what the list no longer names goes.
	delete(p.files, "keys/a.asc")
	p.files["recipes/lab.toml"] = "two"
	p.files["recipes/more.toml"] = "three"
	r.Digest = p.sums()
	if got, err = remote.Get(t.Context(), r, o); err != nil || got.Fetched != 2 || p.hits["keys/a.asc"] != 1 {
		t.Errorf("Get again = %+v, %v, hits %v", got, err, p.hits)
	}
	if _, err := os.Stat(filepath.Join(got.Dir, "keys/a.asc")); err == nil {
		t.Error("a file that is not in the list stays")
	}
	if got, err = remote.Get(t.Context(), r, o); err != nil || got.Fetched != 0 {
		t.Errorf("Get without change = %+v, %v", got, err)
	}
	hits := p.hits["SHA256SUMS"]
	o.Offline = true
	if got, err = remote.Get(t.Context(), r, o); err != nil || p.hits["SHA256SUMS"] != hits || got.Version != r.Digest {
		t.Errorf("Get offline = %+v, %v", got, err)
	}
	if err := os.Remove(filepath.Join(got.Dir, "recipes/lab.toml")); err != nil {
		t.Fatal(err)
	}
	if _, err = remote.Get(t.Context(), r, o); err == nil || !strings.Contains(err.Error(), "remote ours: recipes/lab.toml is missing") {
		t.Errorf("Get offline of what is gone = %v", err)
	}
}

func TestWebRefused(t *testing.T) {
	key, other := gentoomirror.NewKey(t, "ours"), gentoomirror.NewKey(t, "other")
	var public bytes.Buffer
	if err := key.Serialize(&public); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys.gpg")
	if err := os.WriteFile(keys, public.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, want string
		change     func(*place, *config.Remote)
	}{
		{"signed", "", func(p *place, r *config.Remote) {
			p.files["SHA256SUMS.asc"] = string(gentoomirror.ClearSign(t, key, p.files["SHA256SUMS"]))
		}},
		{"bare", "is not signed", func(p *place, r *config.Remote) { p.files["SHA256SUMS.asc"] = p.files["SHA256SUMS"] }},
		{"other key", "not trusted", func(p *place, r *config.Remote) {
			p.files["SHA256SUMS.asc"] = string(gentoomirror.ClearSign(t, other, p.files["SHA256SUMS"]))
		}},
		{"no list", "404", func(p *place, r *config.Remote) {}},
		{"other digest", "sources.conf wants", func(p *place, r *config.Remote) { r.Digest = strings.Repeat("0", 64) }},
		{"changed file", "does not have the digest", func(p *place, r *config.Remote) { r.Digest = p.sums(); p.files["recipes/lab.toml"] = "evil" }},
		{"missing file", "404", func(p *place, r *config.Remote) { r.Digest = p.sums(); delete(p.files, "recipes/lab.toml") }},
		{"path out", "no digest and path", func(p *place, r *config.Remote) {
			p.files["../evil"] = "x"
			r.Digest = p.sums()
		}},
		{"not a list", "is not what sha256sum writes", func(p *place, r *config.Remote) {
			p.files["SHA256SUMS"] = "<html>"
			r.Digest = fmt.Sprintf("%x", sha256.Sum256([]byte("<html>")))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlace(t, map[string]string{"recipes/lab.toml": "one"})
			p.sums()
			r := config.Remote{Name: "ours", URL: p.url, Keys: keys, Signer: []string{gentoomirror.Fingerprint(key)}}
			tc.change(p, &r)
			o := options(t)
			got, err := remote.Get(t.Context(), r, o)
			if tc.want == "" {
				if err != nil || got.Fetched != 1 {
					t.Errorf("Get = %+v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Get = %v, want an error with %q", err, tc.want)
			}
			if _, err := os.Stat(filepath.Join(o.Dir, "ours/recipes/lab.toml")); err == nil {
				t.Error("what was refused is there")
			}
		})
	}
}

func TestGit(t *testing.T) {
	labtest.Need(t, "git")
	src := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", src, "-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func(text string) string {
		if err := os.MkdirAll(src+"/recipes", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(src+"/recipes/lab.toml", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", ".")
		git("commit", "-q", "-m", text)
		return git("rev-parse", "HEAD")
	}
	git("init", "-q", "-b", "main")
	git("config", "uploadpack.allowAnySHA1InWant", "true")
	first := commit("one")
	o := options(t)
	r := config.Remote{Name: "ours", URL: "git+file://" + src, Ref: "main"}
	read := func(want, version string) {
		t.Helper()
		p, err := remote.Get(t.Context(), r, o)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(p.Dir, "recipes/lab.toml")); err != nil || string(b) != want || p.Version != version {
			t.Errorf("recipe %q, version %s, %v; want %q, %s", b, p.Version, err, want, version)
		}
	}
	read("one", first)
	second := commit("two")
	read("two", second)
	o.Offline = true
	commit("three")
	read("two", second)
	o.Offline = false
	r.Ref = first // a commit is what it is
	read("one", first)
	r.Ref = "nothing"
	if _, err := remote.Get(t.Context(), r, o); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("an unknown branch: %v", err)
	}
	if _, err := remote.Get(t.Context(), config.Remote{Name: "new", URL: r.URL}, remote.Options{Dir: o.Dir, Offline: true}); err == nil {
		t.Error("offline, a place that was never fetched: want an error")
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/blake2b"

	"slate/builder/fetch"
	"slate/builder/gentoo"
)

// signer makes a key; its signatures are made at the given time, for so long.
func signer(t *testing.T, lifetime uint32) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("Release", "", "release@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: lifetime, Time: func() time.Time { return time.Now().Add(-2 * time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

// public is the key as the admin has it.
func public(t *testing.T, list ...*openpgp.Entity) io.Reader {
	t.Helper()
	var b bytes.Buffer
	for _, e := range list {
		if err := e.Serialize(&b); err != nil {
			t.Fatal(err)
		}
	}
	return &b
}

func sign(t *testing.T, e *openpgp.Entity, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, e.PrivateKey, &packet.Config{Time: func() time.Time { return time.Now().Add(-90 * time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const (
	variant = "stage3-amd64-openrc"
	stamp   = "20261123T014451Z"
	tarball = variant + "-" + stamp + ".tar.xz"
	base    = "/releases/amd64/autobuilds/"
)

// mirror serves files by path and counts the requests for each.
type mirror struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	hits  map[string]int
}

func newMirror(t *testing.T, key *openpgp.Entity) *mirror {
	t.Helper()
	content := bytes.Repeat([]byte("stage3 "), 10000)
	m := &mirror{hits: map[string]int{}, files: map[string][]byte{
		base + stamp + "/" + tarball: content,
		base + "latest-" + variant + ".txt": sign(t, key, fmt.Sprintf(
			"# Latest as of Mon, 23 Nov 2026 03:00:01 +0000\n# ts=1795400401\n%s/%s %d\n", stamp, tarball, len(content))),
		base + stamp + "/" + tarball + ".DIGESTS": sign(t, key, listDigests(content)),
	}}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		data, ok := m.files[r.URL.Path]
		m.hits[r.URL.Path]++
		m.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(m.Close)
	return m
}

func listDigests(content []byte) string {
	return fmt.Sprintf("# BLAKE2B HASH\n%x  %s\n# SHA512 HASH\n%x  %s\n# SHA512 HASH\n%x  %s.CONTENTS.gz\n",
		blake2b.Sum512(content), tarball, sha512.Sum512(content), tarball, sha512.Sum512(nil), tarball)
}

func stage3(t *testing.T, key *openpgp.Entity, mirrors ...*mirror) *gentoo.Stage3 {
	t.Helper()
	keys, err := gentoo.ReadKeys(public(t, key), []string{fingerprint(key)})
	if err != nil {
		t.Fatal(err)
	}
	s := &gentoo.Stage3{Arch: "amd64", Variant: variant, Stamp: "latest", Keys: keys, Cache: filepath.Join(t.TempDir(), "cache"),
		Fetch: fetch.Options{Tries: 2, Pause: time.Millisecond, Stall: 5 * time.Second}}
	for _, m := range mirrors {
		s.Mirrors = append(s.Mirrors, m.URL+"/")
	}
	return s
}

func TestGet(t *testing.T) {
	key := signer(t, 0)
	m := newMirror(t, key)
	s := stage3(t, key, m)
	a, err := s.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(a.File); err != nil || !bytes.Equal(got, m.files[base+stamp+"/"+tarball]) {
		t.Errorf("archive: %d bytes, %v", len(got), err)
	}
	again, err := s.Get(t.Context())
	if err != nil || again.File != a.File || again.Mirror != "" {
		t.Errorf("Get again = %+v, %v; want the one in the cache", again, err)
	}
	if n := m.hits[base+stamp+"/"+tarball]; n != 1 {
		t.Errorf("the archive was fetched %d times", n)
	}
	// What is in the cache is read again each time.
	if err := os.WriteFile(a.File, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if again, err = s.Get(t.Context()); err != nil || again.Mirror == "" {
		t.Errorf("Get after damage = %+v, %v; want it fetched anew", again, err)
	}
	s.Stamp = stamp
	if pinned, err := s.Get(t.Context()); err != nil || pinned.File != a.File {
		t.Errorf("pinned = %+v, %v", pinned, err)
	}
}

func TestNextMirror(t *testing.T) {
	key := signer(t, 0)
	bad, good := newMirror(t, key), newMirror(t, key)
	bad.files[base+stamp+"/"+tarball] = []byte("truncated")
	a, err := stage3(t, key, bad, good).Get(t.Context())
	if err != nil || a.Mirror != good.URL {
		t.Errorf("Get = %+v, %v; want it from the second mirror", a, err)
	}
}

func TestRefused(t *testing.T) {
	key, other, old := signer(t, 0), signer(t, 0), signer(t, 3600)
	latest, sums := base+"latest-"+variant+".txt", base+stamp+"/"+tarball+".DIGESTS"
	content := bytes.Repeat([]byte("stage3 "), 10000)
	list := fmt.Sprintf("%s/%s %d\n", stamp, tarball, len(content))
	for _, tc := range []struct {
		name   string
		change func(map[string][]byte)
		want   string
		reason gentoo.Reason
	}{
		{"bare listing", func(f map[string][]byte) { f[latest] = []byte(list) }, "latest-" + variant, gentoo.Unsigned},
		{"bare digests", func(f map[string][]byte) { f[sums] = []byte(listDigests(content)) }, "DIGESTS", gentoo.Unsigned},
		{"wrong key", func(f map[string][]byte) { f[latest] = sign(t, other, list) }, "not trusted", gentoo.WrongKey},
		{"expired key", func(f map[string][]byte) { f[latest] = sign(t, old, list) }, "expired", gentoo.Expired},
		{"changed listing", func(f map[string][]byte) {
			f[latest] = bytes.Replace(f[latest], []byte("openrc"), []byte("0penrc"), 1)
		}, "does not match", gentoo.Broken},
		{"two messages", func(f map[string][]byte) { f[latest] = append(sign(t, key, list), sign(t, key, list)...) }, "more than one", gentoo.Broken},
		{"no listing", func(f map[string][]byte) { delete(f, latest) }, "404", 0},
		{"no digests", func(f map[string][]byte) { delete(f, sums) }, "404", 0},
		{"no archive", func(f map[string][]byte) { delete(f, base+stamp+"/"+tarball) }, "404", 0},
		{"other variant", func(f map[string][]byte) { f[latest] = sign(t, key, strings.ReplaceAll(list, "openrc", "systemd")) }, "only stage3-amd64-systemd", 0},
		{"path out of the mirror", func(f map[string][]byte) { f[latest] = sign(t, key, "../../x/"+tarball+" 10\n") }, "no line", 0},
		{"other digest", func(f map[string][]byte) { f[sums] = sign(t, key, listDigests([]byte("other"))) }, "digest that was signed", 0},
		{"weak digest only", func(f map[string][]byte) {
			f[sums] = sign(t, key, "# SHA1 HASH\n"+strings.Repeat("0", 40)+"  "+tarball+"\n")
		}, "none of", 0},
		{"digests of another file", func(f map[string][]byte) {
			f[sums] = sign(t, key, strings.ReplaceAll(listDigests(content), tarball, "other.tar.xz"))
		}, "none of", 0},
		{"larger than listed", func(f map[string][]byte) { f[base+stamp+"/"+tarball] = append(content, 'x') }, "expected", 0},
		{"smaller than listed", func(f map[string][]byte) { f[base+stamp+"/"+tarball] = content[:100] }, "", 0},
		{"changed", func(f map[string][]byte) {
			c := bytes.Clone(content)
			c[5] ^= 1
			f[base+stamp+"/"+tarball] = c
		}, "digest that was signed", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMirror(t, key)
			tc.change(m.files)
			keys, err := gentoo.ReadKeys(public(t, key, old, other), []string{fingerprint(key), fingerprint(old)})
			if err != nil {
				t.Fatal(err)
			}
			s := stage3(t, key, m)
			s.Keys = keys
			_, err = s.Get(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("Get = %v, want an error with %q", err, tc.want)
			}
			var se *gentoo.SignatureError
			if errors.As(err, &se) != (tc.reason != 0) || se != nil && se.Reason != tc.reason {
				t.Errorf("Get = %v, want the reason %v", err, tc.reason)
			}
			if _, err := os.Stat(filepath.Join(s.Cache, tarball)); err == nil {
				t.Error("an archive is in the cache")
			}
		})
	}
}

func TestReadKeys(t *testing.T) {
	key := signer(t, 0)
	for name, fps := range map[string][]string{
		"none":    nil,
		"short":   {fingerprint(key)[24:]},
		"unknown": {strings.Repeat("0", 40)},
	} {
		if _, err := gentoo.ReadKeys(public(t, key), fps); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
	spaced := "0x" + strings.ToLower(fingerprint(key)[:20]) + " " + fingerprint(key)[20:]
	if _, err := gentoo.ReadKeys(public(t, key), []string{spaced}); err != nil {
		t.Errorf("fingerprint %q: %v", spaced, err)
	}
}

func TestDetached(t *testing.T) {
	key := signer(t, 0)
	keys, err := gentoo.ReadKeys(public(t, key), []string{fingerprint(key)})
	if err != nil {
		t.Fatal(err)
	}
	var armoured, raw bytes.Buffer
	cfg := &packet.Config{Time: func() time.Time { return time.Now().Add(-time.Minute) }}
	if err := openpgp.ArmoredDetachSign(&armoured, key, strings.NewReader("snapshot"), cfg); err != nil {
		t.Fatal(err)
	}
	if err := openpgp.DetachSign(&raw, key, strings.NewReader("snapshot"), cfg); err != nil {
		t.Fatal(err)
	}
	for _, sig := range [][]byte{armoured.Bytes(), raw.Bytes()} {
		if err := keys.Detached("x", strings.NewReader("snapshot"), sig); err != nil {
			t.Error(err)
		}
		if err := keys.Detached("x", strings.NewReader("snapsh0t"), sig); err == nil {
			t.Error("a changed file passes")
		}
	}
	var se *gentoo.SignatureError
	if err := keys.Detached("x", strings.NewReader("snapshot"), nil); !errors.As(err, &se) || se.Reason != gentoo.Unsigned {
		t.Errorf("no signature: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	key := signer(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := stage3(t, key, newMirror(t, key)).Get(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Get = %v, want context.Canceled", err)
	}
}

func FuzzParseLatest(f *testing.F) {
	f.Add([]byte("# x\n" + stamp + "/" + tarball + " 12\n"))
	f.Add([]byte("../" + tarball + " 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := gentoo.ParseLatest(text, variant)
		if err == nil && (strings.Contains(s.Path, "..") && !strings.Contains(s.Name(), "..") || strings.HasPrefix(s.Path, "/") || s.Size <= 0) {
			t.Errorf("ParseLatest(%q) = %+v", text, s)
		}
	})
}

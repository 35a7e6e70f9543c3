// SPDX-License-Identifier: GPL-2.0-or-later

package transfer_test

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// gnuGzip packs as initramfs-tools and Debian's packages do.
func gnuGzip(t testing.TB, level string, data []byte) []byte {
	t.Helper()
	cmd := exec.Command("gzip", "-n", level)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// initrds are two archives that differ in one small file at their beginning, in
// front of more than fits a pack, and the same packed.
func initrds(t testing.TB) (old, new []byte) {
	inside := random(1, 17<<20)
	changed := bytes.Clone(inside)
	copy(changed[100_000:], "another configuration file, and a little more of it")
	return gnuGzip(t, "-1", inside), gnuGzip(t, "-1", changed)
}

// Two gzip files of which a little differs inside cost a little, large or small.
func TestInsideOfGzip(t *testing.T) {
	old, new := initrds(t)
	text := bytes.Repeat([]byte("slate (1.2) unstable; urgency=low\n\n  * Something was mended.\n"), 3)
	for i := range 3000 {
		text = append(text, "  * Entry "...)
		text = append(text, random(i, 20)...)
	}
	doc := func(first string) []byte { return gnuGzip(t, "-9", append([]byte(first), text...)) }
	s := newSite(t, nil)
	v1 := s.commit(t, map[string][]byte{"same": random(9, 1000), "boot/initrd": old, "doc/changelog.gz": doc("old")})
	here := open(t, nil)
	if _, err := pull(t.Context(), s.client(t), here); err != nil {
		t.Fatal(err)
	}
	v2 := s.commit(t, map[string][]byte{"same": random(9, 1000), "boot/initrd": new, "doc/changelog.gz": doc("a new entry, "), "doc/fresh.gz": doc("fresh")})
	c := s.client(t)
	if got, err := pull(t.Context(), c, here, v1); err != nil || got.Tree != v2.Tree {
		t.Fatal(err)
	}
	verified(t, here, s.key)
	// A chunk of 64 kB around each change, the recipe, the fresh document.
	if got := c.Stats(); got.Bytes > 400_000 || got.Requests > 6 {
		t.Errorf("the update fetched %d bytes in %d requests; the files have %d", got.Bytes, got.Requests, len(new)+2*len(doc("")))
	}
}

// What comes damaged, or cannot be put together again, is fetched as it is.
func TestInsideOfGzipIsNotBelieved(t *testing.T) {
	old, new := initrds(t)
	asked := false
	s := newSite(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/v1/delta/") {
				h.ServeHTTP(w, r)
				return
			}
			asked = true
			var rec recorder
			h.ServeHTTP(&rec, r)
			b := rec.body.Bytes()
			b[len(b)/2] ^= 1
			w.Write(b)
		})
	})
	v1 := s.commit(t, map[string][]byte{"same": random(9, 1000), "initrd": old})
	here := open(t, nil)
	if _, err := pull(t.Context(), s.client(t), here); err != nil {
		t.Fatal(err)
	}
	v2 := s.commit(t, map[string][]byte{"same": random(9, 1000), "initrd": new})
	got, err := pull(t.Context(), s.client(t), here, v1)
	if err != nil || got.Tree != v2.Tree || !asked {
		t.Fatalf("pull = %s, %v; a delta was asked for: %v", got.Ref(), err, asked)
	}
	verified(t, here, s.key)
}

// A recorder keeps an answer instead of sending it.
type recorder struct {
	head http.Header
	body bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.head == nil {
		r.head = http.Header{}
	}
	return r.head
}
func (r *recorder) WriteHeader(int)             {}
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

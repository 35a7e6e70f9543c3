// SPDX-License-Identifier: GPL-2.0-or-later

// Package gentoomirror is a web server that is laid out like a Gentoo mirror: one
// stage3, one snapshot of an ebuild repository, with real signatures by keys made
// for the test. What is in them is the test's business.
package gentoomirror

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/blake2b"

	"slate/testbed/labtest"
)

// Mirror is such a server.
type Mirror struct {
	URL      string
	StageKey *openpgp.Entity
	TreeKey  *openpgp.Entity
	Variant  string
	Stamp    string // of the stage
	Date     string // of the snapshot

	mu    sync.Mutex
	files map[string][]byte
	hits  map[string]int
	hook  func(http.ResponseWriter, *http.Request) bool
}

// New starts a mirror that has the stage and the snapshot, both tar archives that
// are not compressed yet.
func New(t testing.TB, variant string, stage, tree []byte) *Mirror {
	t.Helper()
	labtest.Need(t, "xz")
	m := &Mirror{Variant: variant, Stamp: "20261123T014451Z", Date: time.Now().UTC().AddDate(0, 0, -2).Format("20060102"),
		StageKey: NewKey(t, "Release"), TreeKey: NewKey(t, "Snapshots"), files: map[string][]byte{}, hits: map[string]int{}}
	srv := httptest.NewServer(m)
	t.Cleanup(srv.Close)
	m.URL = srv.URL
	m.SetStage(t, stage)
	m.SetTree(t, tree)
	var keys bytes.Buffer
	for _, e := range []*openpgp.Entity{m.StageKey, m.TreeKey} {
		if err := e.Serialize(&keys); err != nil {
			t.Fatal(err)
		}
	}
	m.Put("/keys.gpg", keys.Bytes())
	return m
}

// NewKey makes a key that is valid since a while.
func NewKey(t testing.TB, name string) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: earlier})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func earlier() time.Time { return time.Now().Add(-time.Hour) }

// Fingerprint is a key's, as people write it.
func Fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

// Paths of the mirror's files.
func (m *Mirror) autobuilds() string { return "/releases/amd64/autobuilds/" }

// LatestPath is where the listing is.
func (m *Mirror) LatestPath() string { return m.autobuilds() + "latest-" + m.Variant + ".txt" }

// StagePath is where the stage is; the file with its digests has .DIGESTS behind it.
func (m *Mirror) StagePath() string {
	return m.autobuilds() + m.Stamp + "/" + m.Variant + "-" + m.Stamp + ".tar.xz"
}

// TreePath is where the snapshot is; its signature has .gpgsig behind it.
func (m *Mirror) TreePath() string { return "/snapshots/gentoo-" + m.Date + ".tar.xz" }

// SetStage publishes a stage: archive, digests, listing.
func (m *Mirror) SetStage(t testing.TB, tar []byte) {
	t.Helper()
	data := xz(t, tar)
	m.Put(m.StagePath(), data)
	m.Put(m.StagePath()+".DIGESTS", ClearSign(t, m.StageKey, m.Digests(data)))
	m.Put(m.LatestPath(), ClearSign(t, m.StageKey, fmt.Sprintf("# Latest as of Mon, 23 Nov 2026 03:00:01 +0000\n# ts=1795400401\n%s/%s-%s.tar.xz %d\n",
		m.Stamp, m.Variant, m.Stamp, len(data))))
}

// Digests is the text of a DIGESTS file.
func (m *Mirror) Digests(data []byte) string {
	name := m.Variant + "-" + m.Stamp + ".tar.xz"
	return fmt.Sprintf("# BLAKE2B HASH\n%x  %s\n# SHA512 HASH\n%x  %s\n", blake2b.Sum512(data), name, sha512.Sum512(data), name)
}

// SetTree publishes a snapshot.
func (m *Mirror) SetTree(t testing.TB, tar []byte) {
	t.Helper()
	data := xz(t, tar)
	m.Put(m.TreePath(), data)
	m.Put(m.TreePath()+".gpgsig", Detached(t, m.TreeKey, data))
}

// Put publishes a file; nil removes it.
func (m *Mirror) Put(path string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if data == nil {
		delete(m.files, path)
		return
	}
	m.files[path] = data
}

// Get returns what is published.
func (m *Mirror) Get(path string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[path]
}

// Hits is how often a path was asked for.
func (m *Mirror) Hits(path string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hits[path]
}

// Hook is asked about each request first; true means that it has answered.
func (m *Mirror) Hook(f func(http.ResponseWriter, *http.Request) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = f
}

// ServeHTTP serves the files, with ranges.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	data, ok := m.files[r.URL.Path]
	m.hits[r.URL.Path]++
	hook := m.hook
	m.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// ClearSign signs a text.
func ClearSign(t testing.TB, e *openpgp.Entity, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, e.PrivateKey, &packet.Config{Time: earlier})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Detached makes a detached signature.
func Detached(t testing.TB, e *openpgp.Entity, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.DetachSign(&b, e, bytes.NewReader(data), &packet.Config{Time: earlier}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func xz(t testing.TB, data []byte) []byte {
	t.Helper()
	cmd := exec.Command("xz", "-0", "--stdout")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

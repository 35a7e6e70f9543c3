// SPDX-License-Identifier: GPL-2.0-or-later

package transfer_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slate/images"
	"slate/images/store"
	"slate/images/transfer"
	"slate/images/tree"
)

// A site is an appliance with a store and a server.
type site struct {
	*store.Store
	key ed25519.PrivateKey
	h   *transfer.Handler
	url string
}

func newSite(t testing.TB, wrap func(http.Handler) http.Handler) *site {
	t.Helper()
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{key: key, Store: open(t, key)}
	s.h = &transfer.Handler{Source: s.Store, Cache: filepath.Join(t.TempDir(), "cache")}
	var h http.Handler = s.h
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(s.h.Wait)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func open(t testing.TB, key ed25519.PrivateKey) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) client(t testing.TB) *transfer.Client {
	t.Helper()
	return transfer.NewTestClient(s.url, []ed25519.PublicKey{s.key.Public().(ed25519.PublicKey)}, t.TempDir())
}

// commit makes a version of the files.
func (s *site) commit(t testing.TB, files map[string][]byte) images.Record {
	t.Helper()
	dir := t.TempDir()
	for path, data := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(path, time.Unix(1700000000, 0), time.Unix(1700000000, 0))
	}
	_, d, err := s.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: d})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// sink is a store that takes in a version.
type sink struct {
	*store.Store
	*store.Intake
}

// pull is what an appliance does to get a version.
func pull(ctx context.Context, c *transfer.Client, to *store.Store, have ...images.Record) (images.Record, error) {
	var p transfer.Policy
	var olds []*tree.Tree
	for _, h := range have {
		p.Have = &h
		t, err := to.Tree(ctx, h.Tree)
		if err != nil {
			return h, err
		}
		olds = append(olds, t)
	}
	s, err := c.Record(ctx, images.Ref{Name: "demo"}, p)
	if err != nil || p.Have != nil && p.Have.Tree == s.Tree {
		return s.Record, err
	}
	var old *tree.Tree
	if len(olds) > 0 {
		old = olds[len(olds)-1]
	}
	t, err := c.Tree(ctx, s.Tree, old)
	if err != nil {
		return s.Record, err
	}
	in, err := to.NewIntake(ctx)
	if err != nil {
		return s.Record, err
	}
	if err := c.Fetch(ctx, t, nil, olds, sink{to, in}); err != nil {
		return s.Record, errors.Join(err, in.Close())
	}
	rec, err := in.Accept(ctx, t, s.Text, s.Signature)
	return rec, errors.Join(err, in.Close())
}

func random(seed, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// words is content that compresses as programs do.
func words(seed, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = fmt.Appendf(b, "%x ", r.Uint32N(1<<20))
	}
	return b[:n]
}

// edit changes a few places.
func edit(data []byte, seed int) []byte {
	cut := len(data) / 3
	return slices.Concat(data[:cut], fmt.Appendf(nil, "edited %d", seed), data[cut+5:])
}

// sample is a system of a hundred files, and what an upgrade makes of it.
func sample() (v1, v2 map[string][]byte) {
	v1, v2 = map[string][]byte{}, map[string][]byte{}
	for i := range 120 {
		path := fmt.Sprintf("usr/lib/d%d/f%d", i%7, i)
		v1[path] = words(i, 2000+i*100)
		v2[path] = v1[path]
		if i%10 == 0 {
			v2[path] = edit(v1[path], i)
		}
	}
	v1["usr/lib/libssl.so.3.0.1"] = random(1, 600_000)
	v2["usr/lib/libssl.so.3.0.2"] = edit(v1["usr/lib/libssl.so.3.0.1"], 0)
	v2["usr/lib/new"] = random(2, 50_000)
	v2["etc/empty"] = nil
	return v1, v2
}

func verified(t *testing.T, s *store.Store, key ed25519.PrivateKey) {
	t.Helper()
	r, err := s.Verify(t.Context(), store.VerifyOptions{Keys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}})
	if err != nil || len(r.Damage) > 0 {
		t.Errorf("receiver's store: %+v, %v", r.Damage, err)
	}
}

func TestInstallUpdateAndNothingNew(t *testing.T) {
	s := newSite(t, nil)
	v1, v2 := sample()
	to := open(t, nil)
	rec1 := s.commit(t, v1)
	c := s.client(t)
	got, err := pull(t.Context(), c, to)
	if err != nil || got.Tree != rec1.Tree {
		t.Fatalf("first pull = %+v, %v", got, err)
	}
	verified(t, to, s.key)
	if st := c.Stats(); st.Requests > 6 {
		t.Errorf("the first pull took %d requests, want at most 6", st.Requests)
	}

	rec2 := s.commit(t, v2)
	c = s.client(t)
	got, err = pull(t.Context(), c, to, rec1)
	if err != nil || got.Tree != rec2.Tree {
		t.Fatalf("update = %+v, %v", got, err)
	}
	verified(t, to, s.key)
	// 50,000 bytes are new and do not compress; the edits are a few bytes each.
	if st := c.Stats(); st.Requests != 3 || st.Bytes > 65_000 {
		t.Errorf("the update took %+v, want 3 requests and at most 65,000 bytes", st)
	}

	c = s.client(t)
	if got, err = pull(t.Context(), c, to, rec2); err != nil || got.Tree != rec2.Tree || c.Stats().Requests != 1 {
		t.Errorf("pull of nothing new = %s, %v with %+v, want one request", got.Ref(), err, c.Stats())
	}
	for n := range 2 {
		a, asig, _ := s.SignedRecord("demo", n+1)
		b, bsig, err := to.SignedRecord("demo", n+1)
		if err != nil || !bytes.Equal(a, b) || !bytes.Equal(asig, bsig) || len(asig) == 0 {
			t.Errorf("record %d differs at the receiver: %v", n+1, err)
		}
	}
}

// A receiver that the server shares no tree with, one whose old files are
// damaged, and one that has got half already.
func TestAwkwardReceivers(t *testing.T) {
	s := newSite(t, nil)
	v1, v2 := sample()
	s.commit(t, v1)
	rec2 := s.commit(t, v2)
	t.Run("old tree unknown to the server", func(t *testing.T) {
		other := newSite(t, nil)
		mine := other.commit(t, map[string][]byte{"usr/lib/d0/f0": v1["usr/lib/d0/f0"], "usr/lib/d1/f1": v1["usr/lib/d1/f1"]})
		tr, err := other.Tree(t.Context(), mine.Tree)
		if err != nil {
			t.Fatal(err)
		}
		c := s.client(t)
		nt, err := c.Tree(t.Context(), rec2.Tree, tr)
		if err != nil {
			t.Fatal(err)
		}
		in, err := other.NewIntake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := c.Fetch(t.Context(), nt, nil, []*tree.Tree{tr}, sink{other.Store, in}); err != nil {
			t.Fatal(err)
		}
		for b := range nt.Blobs() {
			if !in.Has(b.Digest) {
				t.Fatalf("content %s did not arrive", b.Digest)
			}
		}
	})
	t.Run("half is there", func(t *testing.T) {
		to := open(t, nil)
		for n, name := range slices.Sorted(maps.Keys(v2)) {
			if n%20 == 19 { // none of the large ones
				continue
			}
			if _, err := to.PutBlob(t.Context(), bytes.NewReader(v2[name])); err != nil {
				t.Fatal(err)
			}
		}
		c := s.client(t)
		if _, err := pull(t.Context(), c, to); err != nil {
			t.Fatal(err)
		}
		verified(t, to, s.key)
		if b := c.Stats().Bytes; b > 800_000 {
			t.Errorf("%d bytes fetched although nearly all was there", b)
		}
	})
}

func TestDamagedBaseIsFetchedWhole(t *testing.T) {
	s := newSite(t, nil)
	v1, v2 := sample()
	rec1 := s.commit(t, v1)
	to := open(t, nil)
	if _, err := pull(t.Context(), s.client(t), to); err != nil {
		t.Fatal(err)
	}
	s.commit(t, v2)
	for i, path := range []string{"usr/lib/d0/f0", "usr/lib/libssl.so.3.0.1", "usr/lib/d3/f10"} {
		blob := to.BlobPath(sha(v1[path]))
		os.Chmod(blob, 0o644)
		switch i {
		case 0:
			os.WriteFile(blob, []byte("not what it was"), 0o644)
		case 1:
			os.Truncate(blob, 1000)
		case 2:
			os.Remove(blob)
		}
	}
	if _, err := pull(t.Context(), s.client(t), to, rec1); err != nil {
		t.Fatal(err)
	}
	tr, err := to.Tree(t.Context(), mustResolve(t, to, 2).Tree)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range v2 {
		if got, err := to.FS(tr).ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s arrived wrong: %v", path, err)
		}
	}
}

func mustResolve(t *testing.T, s *store.Store, n int) images.Record {
	t.Helper()
	rec, err := s.Resolve(images.Ref{Name: "demo", Number: n})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// cutter breaks connections after some bytes of each answer, the more the
// oftener it has done so.
type cutter struct {
	h     http.Handler
	limit atomic.Int64
	cuts  atomic.Int64
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.h.ServeHTTP(&cutWriter{ResponseWriter: w, left: c.limit.Load(), c: c}, r)
}

type cutWriter struct {
	http.ResponseWriter
	left int64
	c    *cutter
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		w.ResponseWriter.Write(p[:w.left])
		w.ResponseWriter.(http.Flusher).Flush()
		w.c.cuts.Add(1)
		panic(http.ErrAbortHandler)
	}
	w.left -= int64(len(p))
	return w.ResponseWriter.Write(p)
}

func TestBrokenConnectionsAreResumed(t *testing.T) {
	cut := &cutter{}
	cut.limit.Store(1 << 62)
	s := newSite(t, func(h http.Handler) http.Handler { cut.h = h; return cut })
	files := map[string][]byte{}
	for i := range 40 {
		files[fmt.Sprint("f", i)] = random(i, 100_000)
	}
	s.commit(t, files)
	cut.limit.Store(300_000)
	to := open(t, nil)
	c := s.client(t)
	if _, err := pull(t.Context(), c, to); err != nil {
		t.Fatal(err)
	}
	verified(t, to, s.key)
	st := c.Stats()
	if cut.cuts.Load() < 10 || st.Bytes > 4_300_000 {
		t.Errorf("%d cuts, %+v: want some cuts and hardly more than the 4,000,000 bytes there are", cut.cuts.Load(), st)
	}
}

// A server with no room says when to ask again. However often it does, that is no
// failure, up to an hour.
func TestWaitingForATurn(t *testing.T) {
	var asked, room atomic.Int64
	s := newSite(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/pack/") && asked.Add(1) <= room.Load() {
				w.Header().Set("Retry-After", "20")
				http.Error(w, "place 3 in the queue", http.StatusServiceUnavailable)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	s.commit(t, map[string][]byte{"f": random(1, 1000)})
	for _, c := range []struct {
		busy int64
		ok   bool
	}{{20, true}, {1000, false}} {
		asked.Store(0)
		room.Store(c.busy)
		client := s.client(t)
		var waited time.Duration
		var last string
		client.SetAfter(func(time.Duration) <-chan time.Time {
			now := make(chan time.Time, 1)
			now <- time.Time{}
			return now
		})
		client.Waiting = func(why string, again time.Duration) { waited, last = waited+again, why }
		_, err := pull(t.Context(), client, open(t, nil))
		switch {
		case c.ok && (err != nil || waited != 400*time.Second || last != "place 3 in the queue"):
			t.Errorf("busy for %d questions: %v after %v, told %q", c.busy, err, waited, last)
		case !c.ok && (err == nil || waited != time.Hour || !strings.Contains(err.Error(), "place 3 in the queue")):
			t.Errorf("busy for ever: %v after %v, want an error after an hour", err, waited)
		}
	}
}

func TestGivingUpAndGoingOn(t *testing.T) {
	var broken atomic.Bool
	var packs atomic.Int64
	s := newSite(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/pack/") && packs.Add(1) > 2 && broken.Load() {
				http.Error(w, "overloaded", http.StatusServiceUnavailable)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	files := map[string][]byte{}
	for i := range 50 {
		files[fmt.Sprint("f", i)] = random(i, 900_000)
	}
	s.commit(t, files)
	broken.Store(true)
	to := open(t, nil)
	c := s.client(t)
	_, err := pull(t.Context(), c, to)
	var se *transfer.StatusError
	if !errors.As(err, &se) || se.Status != http.StatusServiceUnavailable || c.Stats().Retries == 0 {
		t.Errorf("pull from a broken server = %v after %+v, want a StatusError after retries", err, c.Stats())
	}
	broken.Store(false)
	c = s.client(t)
	if _, err := pull(t.Context(), c, to); err != nil {
		t.Fatal(err)
	}
	if b := c.Stats().Bytes; b > 40_000_000 {
		t.Errorf("the second try fetched %d bytes of 45,000,000 although two packs had arrived", b)
	}
	verified(t, to, s.key)
}

func TestWrongContentIsRefused(t *testing.T) {
	var flip atomic.Bool
	s := newSite(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !flip.Load() || strings.Contains(r.URL.Path, "/record/") {
				h.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if b := rec.Body.Bytes(); len(b) > 0 { // empty if the client has given up
				b[len(b)*2/3] ^= 1
				w.Write(b)
			}
		})
	})
	v1, _ := sample()
	rec := s.commit(t, v1)
	c := s.client(t)
	tr, err := c.Tree(t.Context(), rec.Tree, nil)
	if err != nil {
		t.Fatal(err)
	}
	flip.Store(true)
	if _, err := c.Tree(t.Context(), rec.Tree, nil); err == nil {
		t.Error("a tree list with a flipped bit is accepted")
	}
	to := open(t, nil)
	in, err := to.NewIntake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = c.Fetch(t.Context(), tr, nil, nil, sink{to, in})
	if err == nil {
		t.Error("contents with flipped bits are accepted")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	verified(t, to, s.key)
}

func TestRecordPolicy(t *testing.T) {
	s := newSite(t, nil)
	v1, v2 := sample()
	s.commit(t, v1)
	rec2 := s.commit(t, v2)
	ref := images.Ref{Name: "demo"}
	one := images.Ref{Name: "demo", Number: 1}
	c := s.client(t)
	if got, err := c.Record(t.Context(), ref, transfer.Policy{}); err != nil || got.Ref() != "demo/2" {
		t.Errorf("Record = %s, %v", got.Ref(), err)
	}
	var down *transfer.DowngradeError
	if _, err := c.Record(t.Context(), one, transfer.Policy{Have: &rec2}); !errors.As(err, &down) {
		t.Errorf("Record of an older version = %v, want a DowngradeError", err)
	}
	if got, err := c.Record(t.Context(), one, transfer.Policy{Have: &rec2, AllowOlder: true}); err != nil || got.Ref() != "demo/1" {
		t.Errorf("Record of an older version that is allowed = %s, %v", got.Ref(), err)
	}
	stranger := newSite(t, nil).client(t)
	stranger.Base = s.url
	var sig *images.SignatureError
	for _, p := range []transfer.Policy{{}, {AllowUnsigned: true}} {
		if _, err := stranger.Record(t.Context(), ref, p); !errors.As(err, &sig) {
			t.Errorf("Record signed by another key, %+v = %v, want a SignatureError", p, err)
		}
	}
	path := filepath.Join(s.Dir(), "images/demo/2.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(path, bytes.Replace(text, []byte("entries = "), []byte("entries = 1"), 1), 0o644)
	if _, err := c.Record(t.Context(), ref, transfer.Policy{AllowUnsigned: true}); !errors.As(err, &sig) {
		t.Errorf("altered record = %v, want a SignatureError", err)
	}
	os.WriteFile(path, text, 0o644)
	os.Remove(path + ".sig")
	if _, err := c.Record(t.Context(), ref, transfer.Policy{}); !errors.Is(err, images.ErrUnsigned) {
		t.Errorf("unsigned record = %v, want ErrUnsigned", err)
	}
	if _, err := c.Record(t.Context(), ref, transfer.Policy{AllowUnsigned: true}); err != nil {
		t.Errorf("unsigned record that is allowed = %v", err)
	}
	if _, err := c.Record(t.Context(), images.Ref{Name: "nope"}, transfer.Policy{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Record of an unknown image = %v", err)
	}
}

// A server must not answer with another version than was asked for.
func TestRecordOfAnotherVersion(t *testing.T) {
	s := newSite(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = strings.Replace(r.URL.Path, "/demo/2", "/demo/1", 1)
			h.ServeHTTP(w, r)
		})
	})
	v1, v2 := sample()
	s.commit(t, v1)
	s.commit(t, v2)
	if _, err := s.client(t).Record(t.Context(), images.Ref{Name: "demo", Number: 2}, transfer.Policy{}); err == nil || !strings.Contains(err.Error(), "answered with demo/1") {
		t.Errorf("Record = %v, want that another version came", err)
	}
}

func TestLargeFilesByChunks(t *testing.T) {
	var fail atomic.Int64
	fail.Store(1 << 60)
	s := newSite(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/range/") && fail.Add(-1) < 0 {
				http.Error(w, "gone for a while", http.StatusBadGateway)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	disk := random(9, 40<<20)
	rec1 := s.commit(t, map[string][]byte{"srv/disk.img": disk, "etc/x": []byte("x")})
	to := open(t, nil)

	// The first try breaks in the middle; the second goes on there.
	fail.Store(5)
	c := s.client(t)
	work := c.Work
	if _, err := pull(t.Context(), c, to); err == nil {
		t.Fatal("pull from a failing server: no error")
	}
	fail.Store(1 << 60)
	c = s.client(t)
	c.Work = work
	if _, err := pull(t.Context(), c, to); err != nil {
		t.Fatal(err)
	}
	st := c.Stats()
	if st.Reused < 4<<20 || st.Bytes > 37<<20 {
		t.Errorf("the second try fetched %+v, want the parts of the first reused", st)
	}
	if left, _ := os.ReadDir(work); len(left) > 0 {
		t.Errorf("left in the work directory: %v", left)
	}
	verified(t, to, s.key)

	// A change in two places of the file costs a few chunks.
	s.commit(t, map[string][]byte{"srv/disk.img": edit(edit(disk, 1)[1<<20:], 2), "etc/x": []byte("x")})
	c = s.client(t)
	if _, err := pull(t.Context(), c, to, rec1); err != nil {
		t.Fatal(err)
	}
	if st := c.Stats(); st.Bytes > 1<<20 {
		t.Errorf("a small change in a large file fetched %+v, want less than 1 MiB", st)
	}
	verified(t, to, s.key)
}

// forgetful is a proxy that keeps every answer it may, and neither knows ranges
// nor passes on any header but the ones that it must.
type forgetful struct {
	h    http.Handler
	mu   sync.Mutex
	kept map[string][]byte
	hits int
}

func (p *forgetful) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, ok := p.kept[r.URL.Path]
	if ok {
		p.hits++
	} else {
		req := httptest.NewRequest(http.MethodGet, r.URL.Path, nil)
		rec := httptest.NewRecorder()
		p.h.ServeHTTP(rec, req)
		body = rec.Body.Bytes()
		if rec.Code != http.StatusOK {
			w.WriteHeader(rec.Code)
			return
		}
		if strings.Contains(rec.Header().Get("Cache-Control"), "immutable") {
			p.kept[r.URL.Path] = body
		}
	}
	io.Copy(w, bytes.NewReader(body))
}

func TestThroughADumbProxy(t *testing.T) {
	proxy := &forgetful{kept: map[string][]byte{}}
	cut := &cutter{h: proxy}
	cut.limit.Store(1 << 62)
	s := newSite(t, func(h http.Handler) http.Handler { proxy.h = h; return cut })
	v1, v2 := sample()
	rec1 := s.commit(t, v1)
	stores := []*store.Store{open(t, nil), open(t, nil)}
	for _, to := range stores {
		if _, err := pull(t.Context(), s.client(t), to); err != nil {
			t.Fatal(err)
		}
	}
	s.commit(t, v2)
	for _, to := range stores {
		if _, err := pull(t.Context(), s.client(t), to, rec1); err != nil {
			t.Fatal(err)
		}
		verified(t, to, s.key)
	}
	if proxy.hits < 4 {
		t.Errorf("the second node got %d answers from the proxy, want at least 4", proxy.hits)
	}
}

func TestConflictingNumbers(t *testing.T) {
	s := newSite(t, nil)
	v1, v2 := sample()
	s.commit(t, v1)
	other := newSite(t, nil)
	other.commit(t, v2)
	var ce *store.ConflictError
	if _, err := pull(t.Context(), s.client(t), other.Store); !errors.As(err, &ce) {
		t.Errorf("pull over another demo/1 = %v, want a ConflictError", err)
	}
}

func TestRate(t *testing.T) {
	s := newSite(t, nil)
	s.commit(t, map[string][]byte{"f": random(1, 600_000)})
	c := s.client(t)
	c.Rate = 1_000_000
	start := time.Now()
	if _, err := pull(t.Context(), c, open(t, nil)); err != nil {
		t.Fatal(err)
	}
	// A quarter of a second's worth may come at once.
	if d := time.Since(start); d < 300*time.Millisecond {
		t.Errorf("600 kB at 1 MB/s took %v", d)
	}
}

func TestHandlerRefuses(t *testing.T) {
	s := newSite(t, nil)
	v1, _ := sample()
	rec := s.commit(t, v1)
	for path, want := range map[string]int{
		"/v1/record/demo":                                                   200,
		"/v1/record/nope":                                                   404,
		"/v1/record/..%2fdemo":                                              400,
		"/v1/tree/" + rec.Tree.String():                                     200,
		"/v1/tree/" + strings.Repeat("0", 64):                               404,
		"/v1/tree/xyz":                                                      400,
		"/v1/pack/" + rec.Tree.String() + "/-/0":                            200,
		"/v1/pack/" + rec.Tree.String() + "/-/99":                           404,
		"/v1/pack/" + rec.Tree.String() + "/-/-1":                           400,
		"/v1/pack/" + rec.Tree.String() + "/-/00":                           400,
		"/v1/chunks/" + sha(v1["usr/lib/d1/f1"]).String():                   200,
		"/v1/range/" + sha(v1["usr/lib/d1/f1"]).String() + "/0-10":          200,
		"/v1/range/" + sha(v1["usr/lib/d1/f1"]).String() + "/0-99999":       400,
		"/v1/range/" + sha(v1["usr/lib/d1/f1"]).String() + "/9-1":           400,
		"/v1/range/" + sha(v1["usr/lib/d1/f1"]).String() + "/0-99999999999": 400,
		"/v1/what": 404,
		"/":        404,
	} {
		resp, err := http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s = %d %.80q, want %d", path, resp.StatusCode, body, want)
		}
		if cc := resp.Header.Get("Cache-Control"); want == 200 && strings.Contains(cc, "immutable") == strings.Contains(path, "record") || want != 200 && cc != "no-store" {
			t.Errorf("GET %s: Cache-Control %q", path, cc)
		}
	}
	resp, err := http.Post(s.url+"/v1/record/demo", "", nil)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST = %v, %v, want 405", resp, err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	s := newSite(t, nil)
	s.h.CacheBytes = 300_000
	files := map[string][]byte{}
	for i := range 10 {
		files[fmt.Sprint(i)] = random(i, 100_000)
	}
	s.commit(t, files)
	c := s.client(t)
	for _, data := range files {
		resp, err := http.Get(s.url + "/v1/range/" + sha(data).String() + "/0-100000")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	total := int64(0)
	list, err := os.ReadDir(s.h.Cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		fi, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += fi.Size()
	}
	if total > 300_000 || total == 0 {
		t.Errorf("the cache holds %d bytes, want at most 300,000 and some", total)
	}
	if _, err := pull(t.Context(), c, open(t, nil)); err != nil {
		t.Fatal(err)
	}
}

func sha(data []byte) images.Digest { return sha256.Sum256(data) }

// SPDX-License-Identifier: GPL-2.0-or-later

package transfer_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slate/images"
)

// mirror serves what s has, until it is killed or its handler says otherwise.
func mirror(t *testing.T, s *site, wrap func(http.Handler) http.Handler) *httptest.Server {
	t.Helper()
	var h http.Handler = s.h
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// Three servers: the first is killed in the middle, the second is dead from the
// start, the third brings the rest, and only the rest.
func TestNextServerGoesOn(t *testing.T) {
	files := map[string][]byte{"large": random(99, 12_000_000)}
	for i := range 20 {
		files[fmt.Sprint("f", i)] = random(i, 400_000)
	}
	total := int64(12_000_000 + 20*400_000)
	s := newSite(t, nil)
	s.commit(t, files)

	var sent atomic.Int64
	var first *httptest.Server
	var kill sync.Once
	first = mirror(t, s, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&killWriter{ResponseWriter: w, n: &sent, over: total / 3, then: func() {
				kill.Do(func() { first.Listener.Close(); first.CloseClientConnections() })
			}}, r)
		})
	})
	dead := mirror(t, s, nil)
	dead.Close()
	good := mirror(t, s, nil)

	to, c := open(t, nil), s.client(t)
	c.Base, c.Mirrors = first.URL, []string{dead.URL, good.URL}
	var mu sync.Mutex
	var moves []string
	c.Moved = func(from, to string, why error) {
		mu.Lock()
		defer mu.Unlock()
		if why == nil {
			t.Error("moved without a reason")
		}
		moves = append(moves, from+" "+to)
	}
	if _, err := pull(t.Context(), c, to); err != nil {
		t.Fatal(err)
	}
	verified(t, to, s.key)
	if len(moves) != 2 || moves[0] != first.URL+" "+dead.URL || moves[1] != dead.URL+" "+good.URL || c.Server() != good.URL {
		t.Errorf("moves = %q, at last %s", moves, c.Server())
	}
	if b := c.Stats().Bytes; sent.Load() < total/4 || b > total+total/5 {
		t.Errorf("%d bytes came from the first, %d in all, of %d", sent.Load(), b, total)
	}
}

// killWriter calls then once more than over bytes have been written in all.
type killWriter struct {
	http.ResponseWriter
	n    *atomic.Int64
	over int64
	then func()
}

func (w *killWriter) Write(p []byte) (int, error) {
	if w.n.Add(int64(len(p))) > w.over {
		w.then()
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(p)
}

// A server that lacks the version is no reason to give up, but all of them are.
func TestServerWithoutTheVersion(t *testing.T) {
	s, bare := newSite(t, nil), newSite(t, nil)
	s.commit(t, map[string][]byte{"a": random(1, 1000)})
	to, c := open(t, nil), s.client(t)
	c.Base, c.Mirrors = bare.url, []string{s.url}
	if _, err := pull(t.Context(), c, to); err != nil {
		t.Fatal(err)
	}
	c = s.client(t)
	c.Base, c.Mirrors = bare.url, []string{s.url}
	start := time.Now()
	if _, err := c.Tree(t.Context(), images.Digest{1}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tree that no server has: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v to find that out", took)
	}
}

// One that hangs in the middle of an answer is left.
func TestServerThatHangs(t *testing.T) {
	s := newSite(t, nil)
	s.commit(t, map[string][]byte{"a": random(1, 3_000_000)})
	stuck := mirror(t, s, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&hangWriter{w, r, new(int)}, r)
		})
	})
	to, c := open(t, nil), s.client(t)
	c.Base, c.Mirrors = stuck.URL, []string{s.url}
	c.SetStall(200 * time.Millisecond)
	if _, err := pull(t.Context(), c, to); err != nil {
		t.Fatal(err)
	}
	verified(t, to, s.key)
}

// hangWriter stops in the middle of a large answer until the asker goes away.
type hangWriter struct {
	http.ResponseWriter
	r *http.Request
	n *int
}

func (w *hangWriter) Write(p []byte) (int, error) {
	if *w.n += len(p); *w.n > 100_000 {
		w.ResponseWriter.(http.Flusher).Flush()
		<-w.r.Context().Done()
		return 0, w.r.Context().Err()
	}
	return w.ResponseWriter.Write(p)
}

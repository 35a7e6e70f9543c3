// SPDX-License-Identifier: GPL-2.0-or-later

package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"slate/builder/fetch"
)

// content is long enough to break off in the middle.
var content = bytes.Repeat([]byte("0123456789abcdef"), 64<<10)

// quick makes retries fast.
func quick(srv *httptest.Server) fetch.Options {
	return fetch.Options{Client: srv.Client(), Pause: time.Millisecond, Stall: 10 * time.Second, Tries: 3}
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// whole serves the content with ranges, as a mirror does.
func whole(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func check(t *testing.T, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file has %d bytes, %v; want the %d that are served", len(got), err, len(content))
	}
	if _, err := os.Stat(path + ".part"); err == nil {
		t.Error("the part is still there")
	}
}

func TestFile(t *testing.T) {
	srv := serve(t, whole)
	p := filepath.Join(t.TempDir(), "x")
	o := quick(srv)
	var last, total int64
	o.Progress = func(d, n int64) { last, total = d, n }
	if err := fetch.File(t.Context(), srv.URL, p, o); err != nil {
		t.Fatal(err)
	}
	check(t, p)
	if want := int64(len(content)); last != want || total != want {
		t.Errorf("progress ended at %d of %d, want %d", last, total, want)
	}
}

func TestResume(t *testing.T) {
	var asked atomic.Value
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Header.Get("Range"))
		whole(w, r)
	})
	p := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(p+".part", content[:1000], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fetch.File(t.Context(), srv.URL, p, quick(srv)); err != nil {
		t.Fatal(err)
	}
	check(t, p)
	if asked.Load() != "bytes=1000-" {
		t.Errorf("asked for %q, want the rest only", asked.Load())
	}
}

func TestTroubleThatPasses(t *testing.T) {
	for name, first := range map[string]http.HandlerFunc{
		"server error": func(w http.ResponseWriter, r *http.Request) { http.Error(w, "busy", http.StatusBadGateway) },
		"breaks off": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
			w.Write(content[:5000])
			panic(http.ErrAbortHandler)
		},
		"wrong range": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 7-9/10")
			w.WriteHeader(http.StatusPartialContent)
			w.Write([]byte("xxx"))
		},
		"cannot satisfy": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) },
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 1 {
					first(w, r)
					return
				}
				whole(w, r)
			})
			p := filepath.Join(t.TempDir(), "x")
			if err := os.WriteFile(p+".part", content[:10], 0o644); err != nil {
				t.Fatal(err)
			}
			if err := fetch.File(t.Context(), srv.URL, p, quick(srv)); err != nil {
				t.Fatal(err)
			}
			check(t, p)
		})
	}
}

func TestNoRanges(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(content) })
	p := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(p+".part", []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fetch.File(t.Context(), srv.URL, p, quick(srv)); err != nil {
		t.Fatal(err)
	}
	check(t, p)
}

func TestRefusals(t *testing.T) {
	size := int64(len(content))
	for _, tc := range []struct {
		name string
		h    http.HandlerFunc
		o    fetch.Options
		want string
		hits int64
	}{
		{"not there", http.NotFound, fetch.Options{}, "404", 1},
		{"always busy", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, fetch.Options{}, "503", 3},
		{"too large by header", whole, fetch.Options{Size: size - 1}, "expected", 1},
		{"too large, no header", func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				w.Write(content)
				w.(http.Flusher).Flush()
			}
		}, fetch.Options{Max: size}, "expected", 1},
		{"too small", func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[:100]))
		}, fetch.Options{Size: size}, "503", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var hits atomic.Int64
			srv := serve(t, func(w http.ResponseWriter, r *http.Request) { hits.Add(1); tc.h(w, r) })
			o := quick(srv)
			o.Size, o.Max = tc.o.Size, tc.o.Max
			p := filepath.Join(t.TempDir(), "x")
			err := fetch.File(t.Context(), srv.URL, p, o)
			if err == nil || tc.hits > 0 && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("File = %v, want an error with %q", err, tc.want)
			}
			if tc.hits > 0 && hits.Load() != tc.hits {
				t.Errorf("%d requests, want %d", hits.Load(), tc.hits)
			}
			if _, err := os.Stat(p); err == nil {
				t.Error("the file is there")
			}
			if err := fetch.Discard(p); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(p + ".part"); err == nil {
				t.Error("Discard left the part")
			}
		})
	}
}

func TestStall(t *testing.T) {
	release := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte("a few"))
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	o := quick(srv)
	o.Stall, o.Tries = 50*time.Millisecond, 2
	err := fetch.File(t.Context(), srv.URL, filepath.Join(t.TempDir(), "x"), o)
	if !errors.Is(err, fetch.ErrStalled) {
		t.Errorf("File = %v, want ErrStalled", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if err := fetch.File(ctx, srv.URL, filepath.Join(t.TempDir(), "x"), quick(srv)); !errors.Is(err, context.Canceled) {
		t.Errorf("File = %v, want context.Canceled", err)
	}
}

func TestBytes(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("small")) })
	if b, err := fetch.Bytes(t.Context(), srv.URL, quick(srv)); err != nil || string(b) != "small" {
		t.Errorf("Bytes = %q, %v", b, err)
	}
	big := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 5<<20)) })
	if _, err := fetch.Bytes(t.Context(), big.URL, quick(big)); err == nil {
		t.Error("Bytes took 5 MiB")
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/images"
)

const prefix = "/blobs/sha256/"

// files are contents by digest, in a directory.
type files struct{ dir string }

func (f files) path(d images.Digest) string { return filepath.Join(f.dir, d.String()) }

func (f files) put(t testing.TB, data []byte) images.Digest {
	t.Helper()
	d := images.Digest(sha256.Sum256(data))
	if err := os.WriteFile(f.path(d), data, 0o444); err != nil {
		t.Fatal(err)
	}
	return d
}

// handler is what net/http does with the same files, and with all else.
func (f files) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := images.ParseDigest(strings.TrimPrefix(r.URL.Path, prefix))
		if err != nil || r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %q", r.Method, r.URL, body)
			return
		}
		file, err := os.Open(f.path(d))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer file.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", `"`+d.String()+`"`)
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		http.ServeContent(w, r, "", time.Time{}, file)
	})
}

// serve starts a server, with the front or without, and returns its address.
func serve(t testing.TB, f files, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: f.handler()}
	if s == nil {
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })
		return l.Addr().String()
	}
	s.Prefix, s.Path = prefix, f.path
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, time.Second) }()
	go srv.Serve(s.Rest(l.Addr()))
	t.Cleanup(func() {
		cancel()
		srv.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

var dateLine = regexp.MustCompile(`Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n`)

// boundary stands between the parts of an answer with several ranges.
var boundary = regexp.MustCompile(`\b[0-9a-f]{60}\b`)

// talk sends text and returns all that comes back, with dates made the same.
func talk(t testing.TB, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, _ := io.ReadAll(c) // a connection that is reset has said what it had to
	got = boundary.ReplaceAll(got, []byte("BOUNDARY"))
	return string(dateLine.ReplaceAll(got, []byte("Date: D\r\n")))
}

// Whatever is sent, the answers are those of net/http.
func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	f := files{t.TempDir()}
	small, empty := f.put(t, []byte("0123456789")), f.put(t, nil)
	large := f.put(t, bytes.Repeat([]byte("0123456789abcdef"), 200_000))
	with, without := serve(t, f, &Server{}), serve(t, f, nil)
	get := func(d images.Digest, headers ...string) string {
		return "GET " + prefix + d.String() + " HTTP/1.1\r\nHost: a:80\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	}
	head := func(d images.Digest, headers ...string) string { return "HEAD" + get(d, headers...)[3:] }
	for name, text := range map[string]string{
		"small":                get(small),
		"empty":                get(empty),
		"large":                get(large),
		"head":                 head(small) + head(large),
		"pipelined":            get(small) + get(large) + get(empty) + get(small),
		"range":                get(small, "Range: bytes=2-4") + get(small, "Range: bytes=9-") + get(small, "Range: bytes=-3") + get(small, "range: bytes=5-500"),
		"large range":          get(large, "Range: bytes=100-2999999") + get(small),
		"range beyond":         get(small, "Range: bytes=10-") + get(small),
		"no range":             get(small, "Range: bytes=4-2") + get(small, "Range: bytes=-0") + get(empty, "Range: bytes=0-"),
		"odd ranges":           get(small, "Range: bytes=-") + get(small, "Range: lines=1-2") + get(small, "Range: bytes=1-2,4-5", "X: y") + get(small, "Range: bytes=99999999999999999999-"),
		"two ranges":           get(small, "Range: bytes=1-2", "Range: bytes=3-4"),
		"head with range":      head(small, "Range: bytes=1-2"),
		"condition":            get(small, `If-None-Match: "`+small.String()+`"`) + get(small, `If-Range: "x"`, "Range: bytes=1-2") + get(small, `If-Range: "`+small.String()+`"`, "Range: bytes=1-2"),
		"close":                get(small, "Connection: close") + get(small),
		"keep-alive":           get(small, "Connection: Keep-Alive") + get(small),
		"other connection":     get(small, "Connection: upgrade", "Upgrade: h2c"),
		"missing":              get(sha256.Sum256([]byte("missing"))) + get(small),
		"query":                strings.Replace(get(small), " HTTP", "?boot=1 HTTP", 1) + get(small),
		"capitals":             strings.Replace(get(small), small.String(), strings.ToUpper(small.String()), 1),
		"other paths":          "GET / HTTP/1.1\r\nHost: a\r\n\r\n" + get(small),
		"post between":         get(small) + "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + get(large),
		"get with body":        get(small, "Content-Length: 5") + "hello" + get(small),
		"smuggling":            get(small, "Content-Length: 0", "Transfer-Encoding: chunked") + "0\r\n\r\n" + get(small),
		"HTTP/1.0":             strings.Replace(get(small), "HTTP/1.1", "HTTP/1.0", 1),
		"no host":              "GET " + prefix + small.String() + " HTTP/1.1\r\n\r\n",
		"two hosts":            get(small, "Host: b"),
		"bad host":             strings.Replace(get(small), "a:80", "a b", 1),
		"folded":               get(small, "X: y", " z"),
		"space before colon":   get(small, "X : y"),
		"no colon":             get(small, "nonsense"),
		"control character":    get(small, "X: \x01"),
		"nul":                  get(small, "X: \x00y"),
		"empty name":           get(small, ": y"),
		"bare line feeds":      strings.ReplaceAll(get(small), "\r\n", "\n"),
		"garbage":              "\x16\x03\x01\x00\xa5\x01\x00\x00",
		"nothing":              "",
		"cut":                  get(small)[:30],
		"long headers":         get(small, "X: "+strings.Repeat("y", 8000)) + get(small),
		"long after the first": get(small) + get(small, "X: "+strings.Repeat("y", 8000)),
		"many small":           strings.Repeat(get(small), 500),
	} {
		t.Run(name, func(t *testing.T) {
			got, want := talk(t, with, text), talk(t, without, text)
			if len(want) > 10000 && got != want {
				t.Fatalf("answers of %d bytes differ from net/http's of %d", len(got), len(want))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("net/http (-) and the front (+) differ:\n%s", diff)
			}
		})
	}
}

// A server that stops lets an answer that is under way go out, and ends the rest.
func TestStop(t *testing.T) {
	f := files{t.TempDir()}
	d := f.put(t, make([]byte, 64<<20))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Prefix: prefix, Path: f.path}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, 10*time.Second) }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	idle, busy := dial(), dial()
	fmt.Fprintf(busy, "GET %s%s HTTP/1.1\r\nHost: a\r\n\r\n", prefix, d)
	r := bufio.NewReader(busy)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the idle connection reads %v, want its end", err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 64<<20 {
		t.Errorf("%d bytes of the answer, %v", n, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after its answer: %v, want the end", err)
	}
}

// Who sends half a request, or takes no answer, is not waited for.
func TestSlowClients(t *testing.T) {
	f := files{t.TempDir()}
	d := f.put(t, make([]byte, 64<<20))
	gone := make(chan struct{}, 3)
	addr := serve(t, f, &Server{HeaderTimeout: 50 * time.Millisecond, IdleTimeout: 100 * time.Millisecond, SlowTimeout: 50 * time.Millisecond,
		forgot: func() { gone <- struct{}{} }})
	whole := fmt.Sprintf("GET %s%s HTTP/1.1\r\nHost: a\r\n\r\n", prefix, d)
	for name, text := range map[string]string{"half a request": whole[:20], "nothing": ""} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, text)
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %v, want the end", name, err)
		}
	}
	<-gone
	<-gone
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, whole)
	<-gone // as it was given up
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, _ := io.Copy(io.Discard, c); n >= 64<<20 {
		t.Errorf("a client that takes nothing got all of %d bytes in the end", n)
	}
}

// What is taken for a request for a file is one to net/http as well, with the
// same meaning, and nothing after it.
func FuzzParse(f *testing.F) {
	d := strings.Repeat("0a", 32)
	for _, s := range []string{"", "Range: bytes=1-2\r\n", "Connection: close\r\n", "Connection: keep-alive\r\nRange: bytes=-5\r\n", "Accept: */*\r\nX-y: a\tb\r\n"} {
		f.Add([]byte("GET " + prefix + d + " HTTP/1.1\r\nHost: a.b:80\r\n" + s + "\r\n"))
		f.Add([]byte("HEAD " + prefix + d + " HTTP/1.1\r\nhost: [::1]\r\n" + s + "\r\n"))
	}
	s := &Server{Prefix: prefix}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := complete(b)
		r, ok := s.parse(b[:n])
		if !ok {
			return
		}
		br := bufio.NewReader(bytes.NewReader(b[:n]))
		req, err := http.ReadRequest(br)
		if err != nil {
			t.Fatalf("%q is taken, but net/http says %v", b, err)
		}
		if req.RequestURI != prefix+r.digest.String() || (req.Method == "HEAD") != r.head || req.Close != r.close ||
			(req.Header.Get("Range") != "") != r.ranged || len(req.Header["Range"]) > 1 || req.ContentLength != 0 || req.TransferEncoding != nil || br.Buffered() != 0 {
			t.Fatalf("%q is taken for %+v, net/http says %+v", b, r, req)
		}
		for _, size := range []int64{0, 1, 10, 1 << 40} {
			if from, n, ok := r.part(size); ok && (from < 0 || n < 0 || from+n > size || r.ranged && n == 0) {
				t.Fatalf("%q of %d bytes: %d from %d", b, size, n, from)
			}
		}
	})
}

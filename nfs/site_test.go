// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"slate/images"
	"slate/images/tree"
	"slate/nfs"
)

// site is a directory of blobs and one version made of them.
type site struct {
	dir  string
	tree *tree.Tree

	mu    sync.Mutex
	block map[images.Digest]chan struct{} // opening waits for these
}

func (s *site) path(d images.Digest) string { return filepath.Join(s.dir, d.String()) }

func (s *site) OpenBlob(d images.Digest) (*os.File, error) {
	s.mu.Lock()
	wait := s.block[d]
	s.mu.Unlock()
	if wait != nil {
		<-wait
	}
	return os.Open(s.path(d))
}

// Export knows the version under three names.
func (s *site) Export(_ context.Context, path string) (images.Digest, *tree.Tree, error) {
	d := s.tree.Digest()
	switch path {
	case "/demo/1", "/demo@stable", "/demo/" + d.String():
		return d, s.tree, nil
	case "/secret/1":
		return d, nil, fs.ErrPermission
	case "/broken/1":
		return d, nil, fmt.Errorf("disk on fire")
	}
	return d, nil, &fs.PathError{Op: "export", Path: path, Err: fs.ErrNotExist}
}

func (s *site) ByPrefix(_ context.Context, p [16]byte) (*tree.Tree, error) {
	d := s.tree.Digest()
	if p == [16]byte(d[:]) {
		return s.tree, nil
	}
	return nil, fs.ErrNotExist
}

func (s *site) blob(t testing.TB, content []byte) images.Digest {
	t.Helper()
	d := images.Digest(sha256.Sum256(content))
	if err := os.WriteFile(s.path(d), content, 0o444); err != nil {
		t.Fatal(err)
	}
	return d
}

// pattern is content that differs everywhere, so that data from a wrong
// offset shows.
func pattern(n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

const (
	manyFiles = 20000
	bigSize   = 3<<20 + 5
	mtime     = int64(1700000000_123456789)
)

var longName = strings.Repeat("n", 255)

type add struct {
	path    string
	e       tree.Entry
	content []byte
}

var fixture = []add{
	{path: "etc/passwd", e: tree.Entry{Type: tree.File, Mode: 0o644}, content: []byte("root:x:0:0:\n")},
	{path: "etc/shadow", e: tree.Entry{Type: tree.File, Mode: 0o640, GID: 42}, content: []byte("root:*:1:\n")},
	{path: "etc/empty", e: tree.Entry{Type: tree.File, Mode: 0o644}},
	{path: "usr/bin/su", e: tree.Entry{Type: tree.File, Mode: 0o4755}, content: pattern(70001)},
	{path: "usr/bin/run", e: tree.Entry{Type: tree.File, Mode: 0o711, UID: 5}, content: pattern(100)},
	{path: "usr/bin/perl", e: tree.Entry{Type: tree.File, Mode: 0o755}, content: pattern(40000)},
	{path: "bin", e: tree.Entry{Type: tree.Symlink, Mode: 0o777, Target: "usr/bin"}},
	{path: "dev/null", e: tree.Entry{Type: tree.Char, Mode: 0o666, Major: 1, Minor: 3}},
	{path: "dev/sda", e: tree.Entry{Type: tree.Block, Mode: 0o660, GID: 6, Major: 8, Minor: 300}},
	{path: "run/fifo", e: tree.Entry{Type: tree.Fifo, Mode: 0o600}},
	{path: "run/sock", e: tree.Entry{Type: tree.Socket, Mode: 0o777}},
	{path: "tmp", e: tree.Entry{Type: tree.Dir, Mode: 0o1777}},
	{path: "home/anna", e: tree.Entry{Type: tree.Dir, Mode: 0o700, UID: 1000, GID: 1000}},
	{path: "home/anna/diary", e: tree.Entry{Type: tree.File, Mode: 0o000, UID: 1000, GID: 1000}, content: []byte("dear diary")},
	{path: "var/big", e: tree.Entry{Type: tree.File, Mode: 0o644}, content: pattern(bigSize)},
	{path: "var/old", e: tree.Entry{Type: tree.File, Mode: 0o644, MtimeNs: -5}, content: []byte("1969")},
	{path: "names/" + longName, e: tree.Entry{Type: tree.File, Mode: 0o644}, content: []byte("long")},
	{path: "names/\xff\xfe \n", e: tree.Entry{Type: tree.File, Mode: 0o644}, content: []byte("odd")},
}

func newSite(t testing.TB) *site { return makeSite(t, 0) }

// makeSite makes a site with that many files in the directory many.
func makeSite(t testing.TB, many int) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), block: map[images.Digest]chan struct{}{}}
	var b tree.Builder
	put := func(path string, e tree.Entry, content []byte) {
		if e.Type == tree.File {
			e.Digest, e.Size = s.blob(t, content), int64(len(content))
		}
		if e.MtimeNs == 0 {
			e.MtimeNs = mtime
		}
		if err := b.Add(path, e); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range fixture {
		put(f.path, f.e, f.content)
	}
	if err := b.Link("usr/bin/perl5", "usr/bin/perl"); err != nil {
		t.Fatal(err)
	}
	put("many", tree.Entry{Type: tree.Dir, Mode: 0o755}, nil)
	for i := range many {
		put(fmt.Sprintf("many/file-%05d", i), tree.Entry{Type: tree.File, Mode: 0o644}, nil)
	}
	var err error
	if s.tree, err = b.Build(); err != nil {
		t.Fatal(err)
	}
	return s
}

// start serves the site and returns the address and a function that stops it.
func start(t testing.TB, srv *nfs.Server) (addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil after cancel", err)
		}
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// serve starts a server for a new site and a client with the root's handle.
func serve(t testing.TB) (*site, *client, []byte) {
	t.Helper()
	return serveSite(t, newSite(t))
}

func serveSite(t testing.TB, s *site) (*site, *client, []byte) {
	t.Helper()
	addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s})
	c := dial(t, addr)
	return s, c, c.mount("/demo/1")
}

// content is what the fixture put at a path.
func content(path string) []byte {
	for _, f := range fixture {
		if f.path == path {
			return f.content
		}
	}
	return nil
}

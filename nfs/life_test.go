// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slate/images"
	"slate/nfs"
)

func TestRestart(t *testing.T) {
	s := newSite(t)
	addr, stop := start(t, &nfs.Server{Exports: s, Blobs: s})
	c := dial(t, addr)
	big := c.lookup(c.mount("/demo/1"), "var", "big")
	before := c.getattr(big)
	stop()
	if !c.ended() {
		t.Error("the connection outlives the server")
	}
	// The same port, at once, as a restarted appliance has it; no MOUNT.
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&nfs.Server{Exports: s, Blobs: s}).Serve(ctx, ln) }()
	c = dial(t, addr)
	if got := c.getattr(big); got != before {
		t.Errorf("attributes %v, before the restart %v", got, before)
	}
	if !bytes.Equal(c.read(big, 1<<20), content("var/big")) {
		t.Error("the file reads differently after the restart")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestServeAgainWithTheSameServer(t *testing.T) {
	s := newSite(t)
	srv := &nfs.Server{Exports: s, Blobs: s}
	for range 3 {
		addr, stop := start(t, srv)
		c := dial(t, addr)
		if got := c.read(c.lookup(c.mount("/demo/1"), "etc", "passwd"), 100); string(got) != string(content("etc/passwd")) {
			t.Errorf("read %q", got)
		}
		stop()
	}
}

func TestTwoServersGiveTheSameHandles(t *testing.T) {
	one, two := makeSite(t, manyFiles), makeSite(t, manyFiles)
	addr1, _ := start(t, &nfs.Server{Exports: one, Blobs: one})
	addr2, _ := start(t, &nfs.Server{Exports: two, Blobs: two})
	c1, c2 := dial(t, addr1), dial(t, addr2)
	for _, path := range []string{"", "usr/bin/perl5", "many/file-19999", "names/" + longName} {
		fh := c1.lookup(c1.mount("/demo/1"), split(path)...)
		if got := c2.lookup(c2.mount("/demo@stable"), split(path)...); !bytes.Equal(got, fh) {
			t.Errorf("%q: handles %x and %x", path, fh, got)
		}
		if a, b := c1.getattr(fh), c2.getattr(fh); a != b {
			t.Errorf("%q: attributes %v and %v", path, a, b)
		}
	}
}

// A client that is moved in the middle of a file and of a listing goes on where it was.
func TestClientMovesToAnotherServer(t *testing.T) {
	one, two := makeSite(t, 1000), makeSite(t, 1000)
	addr1, stop := start(t, &nfs.Server{Exports: one, Blobs: one})
	addr2, _ := start(t, &nfs.Server{Exports: two, Blobs: two})
	c := dial(t, addr1)
	root := c.mount("/demo/1")
	big, many := c.lookup(root, "var", "big"), c.lookup(root, "many")
	piece := func(off int) []byte {
		a := c.ok(nfsRead, big, uint64(off), 100_000)
		a.postOp()
		a.Uint32()
		a.Bool()
		return a.Opaque(100_000)
	}
	whole := c.list(true, many, 8192)
	listed, verf, _ := c.page(true, many, 0, 0, 8192)
	got := piece(0)
	stop()

	c = dial(t, addr2) // no MOUNT, no LOOKUP
	for len(got) < bigSize {
		got = append(got, piece(len(got))...)
	}
	if !bytes.Equal(got, content("var/big")) {
		t.Error("the two parts of the file do not fit together")
	}
	for eof := false; !eof; {
		var next []dirEntry
		next, verf, eof = c.page(true, many, listed[len(listed)-1].cookie, verf, 8192)
		listed = append(listed, next...)
	}
	if diff := cmp.Diff(whole, listed, cmp.AllowUnexported(dirEntry{})); diff != "" {
		t.Errorf("the parts of the listing do not fit together:\n%s", diff)
	}
}

// A call that waits for the disk holds up no other call of its connection.
func TestCallsDoNotWaitForEachOther(t *testing.T) {
	s, c, root := serve(t)
	su, perl := c.lookup(root, "usr", "bin", "su"), c.lookup(root, "usr", "bin", "perl")
	c.read(perl, 1<<20) // its blob is open now
	gate := make(chan struct{})
	s.mu.Lock()
	s.block[digestOf(s, "usr/bin/su")] = gate
	s.mu.Unlock()
	// More than may wait at a time would wait for the first; fewer must not.
	const waiting = 60
	slow := map[uint32]bool{}
	for range waiting {
		c.send(c.message(progNFS, 3, nfsRead, su, uint64(0), 1<<20))
		slow[c.xid] = true
	}
	c.getattr(root)
	if got := c.read(perl, 1<<20); !bytes.Equal(got, content("usr/bin/perl")) {
		t.Error("wrong data")
	}
	close(gate)
	for range waiting {
		a := c.receive()
		if !slow[a.xid] {
			t.Fatalf("reply to call %d", a.xid)
		}
		delete(slow, a.xid)
		a.want("status", uint64(a.Uint32()), 0)
		a.postOp()
		a.Uint32()
		a.Bool()
		if !bytes.Equal(a.Opaque(1<<20), content("usr/bin/su")) {
			t.Error("wrong data")
		}
	}
}

// A client that has said all it will say still gets all its answers.
func TestHalfClosedConnection(t *testing.T) {
	_, c, root := serve(t)
	fh := c.lookup(root, "usr", "bin", "su") // not read yet: the answer takes the long way
	c.send(append(c.message(progNFS, 3, nfsRead, fh, uint64(0), 1<<20), c.message(progMount, 3, mountMnt, "/demo/1")...))
	if err := closeWrite(c); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a := c.receive()
		a.want("status", uint64(a.Uint32()), 0)
	}
	if !c.ended() {
		t.Error("the connection stays open")
	}
}

func digestOf(s *site, path string) images.Digest {
	i, ok := s.tree.Find(path)
	if !ok {
		panic("BUG: no " + path)
	}
	return s.tree.Entry(i).Digest
}

// Nothing of a file is in memory: every READ goes to the disk.
func TestColdFiles(t *testing.T) {
	s, c, root := serve(t)
	for _, path := range []string{"var/big", "usr/bin/perl", "etc/passwd"} {
		f, err := os.Open(s.path(digestOf(s, path)))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		for _, piece := range []uint32{4096, 20000, 128 << 10, 1 << 20} {
			if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(c.read(c.lookup(root, split(path)...), piece), content(path)) {
				t.Errorf("%s in pieces of %d: wrong data", path, piece)
			}
		}
		f.Close()
	}
}

// A READ whose file is not in memory is overtaken by a call that needs no disk;
// one that is in memory is not.
func TestReadFromDiskIsOvertaken(t *testing.T) {
	s, c, root := serve(t)
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the temporary directory is in memory, nothing there waits for a disk")
	}
	f, err := os.Open(s.path(digestOf(s, "var/big")))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	big := c.lookup(root, "var", "big")
	const tries = 20
	// overtaken counts how often GETATTR is answered before the READ sent before it.
	overtaken := func(cold bool, count int) (n int) {
		for range tries {
			if cold {
				if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
					t.Fatal(err)
				}
			}
			both := c.message(progNFS, 3, nfsRead, big, uint64(1<<20), count)
			read := c.xid
			c.send(append(both, c.message(progNFS, 3, nfsGetattr, root)...))
			if c.receive().xid != read {
				n++
			}
			c.receive()
		}
		return n
	}
	for _, count := range []int{4096, 1 << 20} {
		c.read(big, 1<<20)
		if n := overtaken(false, count); n > 0 {
			t.Errorf("READ of %d bytes in memory: overtaken %d times of %d, want never", count, n, tries)
		}
		// The disk may be faster than the answer that is due.
		if n := overtaken(true, count); n == 0 {
			t.Errorf("READ of %d bytes on the disk: overtaken %d times of %d", count, n, tries)
		}
	}
}

func TestDamagedBlobs(t *testing.T) {
	s, c, root := serve(t)
	read := func(path string) uint32 {
		a, st := c.nfs(nfsRead, c.lookup(root, split(path)...), uint64(0), 1<<20)
		if st != 0 {
			a.postOp()
			a.end()
		}
		return st
	}
	if err := os.Remove(s.path(digestOf(s, "etc/passwd"))); err != nil {
		t.Fatal(err)
	}
	if st := read("etc/passwd"); st != errIO {
		t.Errorf("READ of a missing blob: status %d, want %d", st, errIO)
	}
	su := s.path(digestOf(s, "usr/bin/su"))
	os.Chmod(su, 0o644)
	if err := os.Truncate(su, 1000); err != nil {
		t.Fatal(err)
	}
	if st := read("usr/bin/su"); st != errIO {
		t.Errorf("READ of a truncated blob: status %d, want %d", st, errIO)
	}
	if st := read("usr/bin/perl"); st != 0 {
		t.Errorf("READ of a good blob: status %d", st)
	}
	// Cut off while it is open, and no word of it in the cache.
	big := c.lookup(root, "var", "big")
	c.read(big, 1<<20)
	path := s.path(digestOf(s, "var/big"))
	os.Chmod(path, 0o644)
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{1000, 1 << 20} {
		a, st := c.nfs(nfsRead, big, uint64(1<<20-100), count)
		if st != errIO {
			t.Errorf("READ of %d across the end of a cut file: status %d, want %d", count, st, errIO)
		}
		a.postOp()
		a.end()
	}
}

func TestConnectionLimit(t *testing.T) {
	s := newSite(t)
	addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, MaxConns: 2})
	one, two := dial(t, addr), dial(t, addr)
	one.rpc(progNFS, 3, nfsNull)
	two.rpc(progNFS, 3, nfsNull)
	if three := dial(t, addr); !three.ended() {
		t.Error("a third connection is served")
	}
	one.nc.Close()
	// The server sees the end of the first in its own time.
	for {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(30 * time.Second))
		c := &client{t: t, nc: nc, cred: authNone}
		if _, err := nc.Write(c.message(progNFS, 3, nfsNull)); err == nil {
			if n, err := nc.Read(make([]byte, 100)); n > 0 && err == nil {
				nc.Close()
				break
			}
		}
		nc.Close()
	}
	two.rpc(progNFS, 3, nfsNull)
}

func TestTimeouts(t *testing.T) {
	s := newSite(t)
	addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, IdleTimeout: 100 * time.Millisecond, SlowTimeout: time.Hour})
	idle := dial(t, addr)
	idle.rpc(progNFS, 3, nfsNull)
	if !idle.ended() {
		t.Error("an idle connection stays open")
	}

	addr, _ = start(t, &nfs.Server{Exports: s, Blobs: s, IdleTimeout: time.Hour, SlowTimeout: 100 * time.Millisecond})
	half := dial(t, addr)
	whole := half.message(progNFS, 3, nfsNull)
	half.send(append(whole, whole[:20]...))
	half.receive()
	if !half.ended() {
		t.Error("a connection with half a call stays open")
	}

	slow := dial(t, addr)
	big := slow.lookup(slow.mount("/demo/1"), "var", "big")
	// Nobody reads the replies: once the sockets are full both ways, only the
	// end of the connection ends the writing.
	for {
		_, err := slow.nc.Write(slow.message(progNFS, 3, nfsRead, big, uint64(0), 1<<20))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a client that reads no replies stays connected")
		}
		if err != nil {
			return
		}
	}
}

// Clients that do not read must not keep others from being served, whatever
// memory there is.
func TestSlowReadersLeaveRoom(t *testing.T) {
	s := newSite(t)
	addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, ReplyMemory: 1 << 20})
	for range 20 {
		slow := dial(t, addr)
		big := slow.lookup(slow.mount("/demo/1"), "var", "big")
		var b []byte
		for range 20 {
			b = append(b, slow.message(progNFS, 3, nfsRead, big, uint64(0), 1<<20)...)
		}
		slow.send(b)
	}
	c := dial(t, addr)
	if got := c.read(c.lookup(c.mount("/demo/1"), "var", "big"), 1<<20); !bytes.Equal(got, content("var/big")) {
		t.Error("wrong data")
	}
}

// Nor must those that leave calls half sent, or ask for much more than they take:
// what they have sent is kept in little memory.
func TestIdlersLeaveRoom(t *testing.T) {
	s := makeSite(t, manyFiles)
	for _, tc := range []struct {
		name string
		slow time.Duration
		send func(c *client, root []byte) []byte
	}{
		{"half a call", time.Hour, func(c *client, root []byte) []byte {
			return c.message(progNFS, 3, nfsLookup, root, "usr")[:30]
		}},
		{"half of a second call", time.Hour, func(c *client, root []byte) []byte {
			return append(c.message(progNFS, 3, nfsGetattr, root), c.message(progNFS, 3, nfsLookup, root, "usr")[:30]...)
		}},
		{"many calls", time.Hour, func(c *client, root []byte) (b []byte) {
			big := c.lookup(root, "var", "big")
			for len(b) < 200<<10 {
				b = append(b, c.message(progNFS, 3, nfsRead, big, uint64(0), 1<<20)...)
			}
			return b
		}},
		// What does not fit gives way soon, as others wait for it.
		{"half a large call", 4 * time.Second, func(c *client, root []byte) []byte {
			return c.message(progNFS, 3, nfsWrite, root, uint64(0), 32<<10, 0, make([]byte, 32<<10))[:20<<10]
		}},
		{"many large listings", 4 * time.Second, func(c *client, root []byte) (b []byte) {
			many := c.lookup(root, "many")
			for range 400 {
				b = append(b, c.message(progNFS, 3, nfsReaddirplus, many, uint64(0), uint64(0), 64<<10, 64<<10)...)
			}
			return b
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, ReplyMemory: 1 << 20, SlowTimeout: tc.slow})
			for range 20 {
				idler := dial(t, addr)
				idler.nc.(*net.TCPConn).SetReadBuffer(4096)
				b := tc.send(idler, idler.mount("/demo/1"))
				go idler.nc.Write(b) // all of it may never be taken
			}
			c := dial(t, addr)
			c.nc.SetDeadline(time.Now().Add(20 * time.Second))
			if got := c.read(c.lookup(c.mount("/demo/1"), "var", "big"), 1<<20); !bytes.Equal(got, content("var/big")) {
				t.Error("wrong data")
			}
		})
	}
}

func TestFewDescriptors(t *testing.T) {
	s := newSite(t)
	addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, MaxFiles: 2})
	var wg sync.WaitGroup
	for range 8 {
		c := dial(t, addr)
		root := c.mount("/demo/1")
		wg.Go(func() {
			for range 3 {
				for _, p := range []string{"etc/passwd", "usr/bin/su", "usr/bin/perl", "var/old", "var/big"} {
					if !bytes.Equal(c.read(c.lookup(root, split(p)...), 1<<20), content(p)) {
						t.Errorf("%s: wrong data", p)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestUnixSocket(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "nfs")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- (&nfs.Server{Exports: s, Blobs: s}).Serve(ctx, ln) }()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &client{t: t, nc: nc, cred: authUnix(0, 0)}
	if got := c.read(c.lookup(c.mount("/demo/1"), "var", "big"), 1<<20); !bytes.Equal(got, content("var/big")) {
		t.Error("wrong data")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

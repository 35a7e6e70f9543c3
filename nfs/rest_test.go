// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"slate/images"
	"slate/images/tree"
	"slate/nfs"
)

// sattr sets mode and size and both times.
var sattr = raw(encode(true, 0o644, false, false, true, uint64(10), 1, 2, 1700000000, 5))

// validArgs are arguments that each procedure understands.
func validArgs(fh []byte) map[int][]any {
	return map[int][]any{
		nfsNull:        nil,
		nfsGetattr:     {fh},
		nfsSetattr:     {fh, sattr, false},
		nfsLookup:      {fh, "usr"},
		nfsAccess:      {fh, 0x3f},
		nfsReadlink:    {fh},
		nfsRead:        {fh, uint64(0), 4096},
		nfsWrite:       {fh, uint64(0), 5, 2, "hello"},
		nfsCreate:      {fh, "new", 0, sattr},
		nfsMkdir:       {fh, "new", sattr},
		nfsSymlink:     {fh, "new", sattr, "target"},
		nfsMknod:       {fh, "new", 4, sattr, 1, 3},
		nfsRemove:      {fh, "bin"},
		nfsRmdir:       {fh, "tmp"},
		nfsRename:      {fh, "bin", fh, "nib"},
		nfsLink:        {fh, fh, "new"},
		nfsReaddir:     {fh, uint64(0), uint64(0), 4096},
		nfsReaddirplus: {fh, uint64(0), uint64(0), 4096, 4096},
		nfsFsstat:      {fh},
		nfsFsinfo:      {fh},
		nfsPathconf:    {fh},
		nfsCommit:      {fh, uint64(0), 0},
	}
}

// failure is how many words follow the status of a failed call.
func failure(proc int) int {
	switch proc {
	case nfsGetattr:
		return 0
	case nfsSetattr, nfsWrite, nfsCreate, nfsMkdir, nfsSymlink, nfsMknod, nfsRemove, nfsRmdir, nfsCommit:
		return 2
	case nfsRename:
		return 4
	case nfsLink:
		return 3
	}
	return 1
}

func TestReadOnly(t *testing.T) {
	_, c, root := serve(t)
	passwd := c.lookup(root, "etc", "passwd")
	args := validArgs(root)
	type variant struct {
		proc int
		args []any
	}
	variants := []variant{
		{nfsSetattr, []any{passwd, sattr, false}},
		{nfsSetattr, []any{passwd, raw(encode(true, 0o777, true, 1, true, 2, true, uint64(0), 0, 0)), false}},
		{nfsWrite, []any{passwd, uint64(0), 5, 0, "hello"}},
		{nfsWrite, []any{passwd, uint64(0), 32 << 10, 0, make([]byte, 32<<10)}},
		{nfsCreate, []any{root, "new", 1, sattr}},
		{nfsCreate, []any{root, "new", 2, raw("verifier")}},
		{nfsCreate, []any{root, "etc", 0, sattr}},
		{nfsMknod, []any{root, "new", 3, sattr, 8, 0}},
		{nfsMknod, []any{root, "new", 7, sattr}},
		{nfsMknod, []any{root, "new", 6, sattr}},
		{nfsRemove, []any{root, "missing"}},
		{nfsRemove, []any{root, ""}},
		{nfsRemove, []any{root, longName + "n"}},
		{nfsRename, []any{root, "", root, ""}},
	}
	for _, p := range []int{nfsCreate, nfsMkdir, nfsSymlink, nfsMknod, nfsRemove, nfsRmdir, nfsRename, nfsLink, nfsCommit, nfsSetattr, nfsWrite} {
		variants = append(variants, variant{p, args[p]})
	}
	for _, v := range variants {
		a, st := c.nfs(v.proc, v.args...)
		if st != errROFS {
			t.Errorf("procedure %d %v: status %d, want %d", v.proc, v.args, st, errROFS)
		}
		if a.Len() != 4*failure(v.proc) {
			t.Errorf("procedure %d: %d bytes after the status, want %d", v.proc, a.Len(), 4*failure(v.proc))
		}
		for a.Len() > 0 {
			a.want("attributes", uint64(a.Uint32()), 0)
		}
	}
	if got := c.read(passwd, 100); string(got) != string(content("etc/passwd")) {
		t.Error("the file has changed")
	}
}

// pair serves two versions, and knows of one that it cannot read, and of one
// that it cannot tell about yet.
type pair struct {
	*site
	other *site
}

var damaged, later = [16]byte{0xda}, [16]byte{0x1a}

func (p pair) Export(ctx context.Context, path string) (images.Digest, *tree.Tree, error) {
	if path == "/demo/2" {
		return p.other.Export(ctx, "/demo/1")
	}
	return p.site.Export(ctx, path)
}

func (p pair) ByPrefix(ctx context.Context, prefix [16]byte) (*tree.Tree, error) {
	switch prefix {
	case damaged:
		return nil, errors.New("the tree list is damaged")
	case later:
		return nil, nfs.ErrLater
	}
	t, err := p.site.ByPrefix(ctx, prefix)
	if err != nil {
		return p.other.ByPrefix(ctx, prefix)
	}
	return t, nil
}

// One connection may have mounted several versions; each handle stays in its own.
func TestTwoVersions(t *testing.T) {
	p := pair{newSite(t), makeSite(t, 10)}
	p.other.dir = p.dir
	addr, stop := start(t, &nfs.Server{Exports: p, Blobs: p})
	c := dial(t, addr)
	one, two := c.mount("/demo/1"), c.mount("/demo/2")
	many := func(root []byte) int { return len(c.list(true, c.lookup(root, "many"), 8192)) - 2 }
	check := func() {
		t.Helper()
		for range 3 {
			if a, b := many(one), many(two); a != 0 || b != 10 {
				t.Errorf("the versions have %d and %d files, want 0 and 10", a, b)
			}
		}
	}
	check()
	if c.getattr(one).FSID == c.getattr(two).FSID {
		t.Error("two versions have one fsid: a client would take them for one file system")
	}
	if !bytes.Equal(c.lookup(two, "etc", "..", ".."), two) {
		t.Error("the way up leads out of a version")
	}
	stop()

	addr, _ = start(t, &nfs.Server{Exports: p, Blobs: p})
	c = dial(t, addr)
	check() // by the handles alone
	for prefix, want := range map[[16]byte]uint32{damaged: errIO, later: errJukebox} {
		fh := append(prefix[:], 0, 0, 0, 0)
		if _, st := c.nfs(nfsGetattr, fh); st != want {
			t.Errorf("GETATTR in version %x: status %d, want %d", prefix, st, want)
		}
		if a, st := c.nfs(nfsRemove, fh, "x"); st != want || a.Len() != 4*failure(nfsRemove) {
			t.Errorf("REMOVE in version %x: status %d and %d bytes, want %d", prefix, st, a.Len(), want)
		}
	}
	check()
}

func TestHandles(t *testing.T) {
	s, c, root := serve(t)
	d := s.tree.Digest()
	if want := string(d[:16]) + "\x00\x00\x00\x00"; string(root) != want {
		t.Errorf("root handle = %x, want %x", root, want)
	}
	foreign := append(make([]byte, 16), root[16:]...)
	outside := append(append([]byte{}, root[:16]...), 0, 1, 0, 0)
	for proc := nfsGetattr; proc <= nfsCommit; proc++ {
		for _, tc := range []struct {
			name string
			fh   []byte
			want uint32
		}{
			{"of another version", foreign, errStale},
			{"outside the tree", outside, errBadHandle},
			{"too short", root[:19], errBadHandle},
			{"too long", append(root[:20:20], 0), errBadHandle},
			{"empty", nil, errBadHandle},
			{"of 64 bytes", make([]byte, 64), errBadHandle},
		} {
			a, st := c.nfs(proc, validArgs(tc.fh)[proc]...)
			if st != tc.want {
				t.Errorf("procedure %d, handle %s: status %d, want %d", proc, tc.name, st, tc.want)
			}
			if a.Len() != 4*failure(proc) {
				t.Errorf("procedure %d, handle %s: %d bytes after the status, want %d", proc, tc.name, a.Len(), 4*failure(proc))
			}
		}
		if a := c.rpc(progNFS, 3, proc, validArgs(make([]byte, 65))[proc]...); a.stat != 4 {
			t.Errorf("procedure %d, handle of 65 bytes: accept_stat %d, want GARBAGE_ARGS", proc, a.stat)
		}
	}
	// RENAME and LINK name two objects.
	if _, st := c.nfs(nfsRename, root, "a", foreign, "b"); st != errStale {
		t.Errorf("RENAME to a stale directory: status %d", st)
	}
	if _, st := c.nfs(nfsLink, root, foreign, "b"); st != errStale {
		t.Errorf("LINK in a stale directory: status %d", st)
	}
}

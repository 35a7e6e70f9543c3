// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func split(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

func TestGetattr(t *testing.T) {
	s, c, root := serve(t)
	d := s.tree.Digest()
	fsid := binary.BigEndian.Uint64(d[:8])
	stamp := uint64(1700000000)<<32 | 123456789
	for _, tc := range []struct {
		path string
		want fattr
	}{
		{"", fattr{Type: 2, Mode: 0o755, Nlink: 11, Size: 4096, Used: 4096}},
		{"etc/passwd", fattr{Type: 1, Mode: 0o644, Nlink: 1, Size: 12, Used: 4096, Mtime: stamp}},
		{"etc/empty", fattr{Type: 1, Mode: 0o644, Nlink: 1, Mtime: stamp}},
		{"usr/bin/su", fattr{Type: 1, Mode: 0o4755, Nlink: 1, Size: 70001, Used: 73728, Mtime: stamp}},
		{"usr/bin/perl", fattr{Type: 1, Mode: 0o755, Nlink: 2, Size: 40000, Used: 40960, Mtime: stamp}},
		{"usr/bin/perl5", fattr{Type: 1, Mode: 0o755, Nlink: 2, Size: 40000, Used: 40960, Mtime: stamp}},
		{"bin", fattr{Type: 5, Mode: 0o777, Nlink: 1, Size: 7, Used: 4096, Mtime: stamp}},
		{"dev/null", fattr{Type: 4, Mode: 0o666, Nlink: 1, Major: 1, Minor: 3, Mtime: stamp}},
		{"dev/sda", fattr{Type: 3, Mode: 0o660, Nlink: 1, GID: 6, Major: 8, Minor: 300, Mtime: stamp}},
		{"run/fifo", fattr{Type: 7, Mode: 0o600, Nlink: 1, Mtime: stamp}},
		{"run/sock", fattr{Type: 6, Mode: 0o777, Nlink: 1, Mtime: stamp}},
		{"tmp", fattr{Type: 2, Mode: 0o1777, Nlink: 2, Size: 4096, Used: 4096, Mtime: stamp}},
		{"home/anna", fattr{Type: 2, Mode: 0o700, Nlink: 2, UID: 1000, GID: 1000, Size: 4096, Used: 4096, Mtime: stamp}},
		{"var/old", fattr{Type: 1, Mode: 0o644, Nlink: 1, Size: 4, Used: 4096}},
	} {
		got := c.getattr(c.lookup(root, split(tc.path)...))
		tc.want.FSID, tc.want.Atime, tc.want.Ctime = fsid, tc.want.Mtime, tc.want.Mtime
		opts := cmpopts.IgnoreFields(fattr{}, "Fileid")
		if tc.path == "" {
			opts = cmpopts.IgnoreFields(fattr{}, "Fileid", "Atime", "Mtime", "Ctime")
		}
		if diff := cmp.Diff(tc.want, got, opts); diff != "" {
			t.Errorf("GETATTR %q (-want +got):\n%s", tc.path, diff)
		}
		if got.Fileid == 0 {
			t.Errorf("GETATTR %q: fileid 0", tc.path)
		}
	}
}

func TestHardLinksAreOneFile(t *testing.T) {
	_, c, root := serve(t)
	one, two := c.lookup(root, "usr", "bin", "perl"), c.lookup(root, "usr", "bin", "perl5")
	if !bytes.Equal(one, two) {
		t.Errorf("handles of two names of a file: %x and %x", one, two)
	}
	if other := c.lookup(root, "usr", "bin", "su"); c.getattr(one).Fileid == c.getattr(other).Fileid {
		t.Error("two files have one fileid")
	}
	if got := c.read(two, 1<<20); !bytes.Equal(got, content("usr/bin/perl")) {
		t.Error("the second name reads as something else")
	}
}

func TestLookup(t *testing.T) {
	_, c, root := serve(t)
	usr, passwd := c.lookup(root, "usr"), c.lookup(root, "etc", "passwd")
	for _, tc := range []struct {
		name string
		dir  []byte
		look string
		want uint32
		fh   []byte
	}{
		{"name", root, "usr", 0, usr},
		{"dot", usr, ".", 0, usr},
		{"dotdot", usr, "..", 0, root},
		{"dotdot of the root", root, "..", 0, root},
		{"missing", root, "nothing", errNoEnt, nil},
		{"beginning of a name", root, "us", errNoEnt, nil},
		{"path", root, "usr/bin", errNoEnt, nil},
		{"empty", root, "", errAcces, nil},
		{"255 bytes", c.lookup(root, "names"), longName, 0, c.lookup(root, "names", longName)},
		{"256 bytes", root, longName + "n", errNameTooLong, nil},
		{"below a file", passwd, "x", errNotDir, nil},
		{"below a symlink", c.lookup(root, "bin"), "su", errNotDir, nil},
		{"bytes", c.lookup(root, "names"), "\xff\xfe \n", 0, c.lookup(root, "names", "\xff\xfe \n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.t = t
			a, st := c.nfs(nfsLookup, tc.dir, tc.look)
			a.want("status", uint64(st), uint64(tc.want))
			if st == 0 {
				if got := a.Opaque(64); !bytes.Equal(got, tc.fh) {
					t.Errorf("handle = %x, want %x", got, tc.fh)
				}
				if got := a.postOp(); got == nil || *got != c.getattr(tc.fh) {
					t.Errorf("attributes of the entry = %v", got)
				}
			}
			if dir := a.postOp(); dir == nil || *dir != c.getattr(tc.dir) {
				t.Errorf("attributes of the directory = %v", dir)
			}
			a.end()
		})
	}
}

func TestAccess(t *testing.T) {
	_, c, root := serve(t)
	const r, l, m, e, x = 0x01, 0x02, 0x04, 0x08, 0x20
	for _, tc := range []struct {
		path string
		cred []byte
		want uint32
	}{
		{"etc/passwd", authUnix(0, 0), r},
		{"etc/passwd", authUnix(1000, 1000), r},
		{"etc/passwd", authNone, r},
		{"etc/shadow", authUnix(0, 0), r},
		{"etc/shadow", authUnix(1000, 1000), 0},
		{"etc/shadow", authUnix(1000, 42), r},
		{"etc/shadow", authUnix(1000, 1000, 4, 42, 100), r},
		{"etc/shadow", authNone, 0},
		{"usr/bin/su", authUnix(0, 0), r | x},
		{"usr/bin/su", authUnix(1000, 1000), r | x},
		{"usr/bin/run", authUnix(1000, 1000), x},
		{"usr/bin/run", authUnix(5, 5), r | x},
		{"usr", authUnix(1000, 1000), r | l},
		{"usr", authUnix(0, 0), r | l},
		{"home/anna", authUnix(1000, 1000), r | l},
		{"home/anna", authUnix(1001, 1001), 0},
		{"home/anna", authUnix(0, 0), r | l},
		{"home/anna/diary", authUnix(0, 0), r},
		{"dev/null", authUnix(1000, 1000), r | m | e},
		{"dev/sda", authUnix(1000, 1000), 0},
		{"dev/sda", authUnix(1000, 1000, 6), r | m | e},
		{"tmp", authUnix(1000, 1000), r | l},
	} {
		c.cred = authUnix(0, 0)
		fh := c.lookup(root, split(tc.path)...)
		c.cred = tc.cred
		a := c.ok(nfsAccess, fh, 0x3f)
		if f := a.postOp(); f == nil {
			t.Errorf("ACCESS %s: no attributes", tc.path)
		}
		if got := a.Uint32(); got != tc.want {
			t.Errorf("ACCESS %s by %x = %#x, want %#x", tc.path, tc.cred, got, tc.want)
		}
		a.end()
	}
	c.cred = authUnix(0, 0)
	a := c.ok(nfsAccess, root, l)
	a.postOp()
	a.want("only what was asked for", uint64(a.Uint32()), l)
}

// A server that hands out what ACCESS denies would be a way round it.
func TestPermissionsHold(t *testing.T) {
	_, c, root := serve(t)
	anna := c.lookup(root, "home", "anna")
	diary := c.lookup(anna, "diary")
	shadow, run := c.lookup(root, "etc", "shadow"), c.lookup(root, "usr", "bin", "run")
	status := func(what string, want uint32, cred []byte, proc int, args ...any) {
		t.Helper()
		c.cred = cred
		if _, st := c.nfs(proc, args...); st != want {
			t.Errorf("%s: status %d, want %d", what, st, want)
		}
	}
	other, owner := authUnix(1001, 1001), authUnix(1000, 1000)
	status("LOOKUP in a closed directory", errAcces, other, nfsLookup, anna, "diary")
	status("LOOKUP of what is not in a closed directory", errAcces, other, nfsLookup, anna, "x")
	status("READDIR of a closed directory", errAcces, other, nfsReaddir, anna, uint64(0), uint64(0), 4096)
	status("READDIRPLUS of a closed directory", errAcces, other, nfsReaddirplus, anna, uint64(0), uint64(0), 4096, 4096)
	status("READ of shadow", errAcces, other, nfsRead, shadow, uint64(0), 100)
	status("READ of shadow by its group", 0, authUnix(7, 42), nfsRead, shadow, uint64(0), 100)
	status("READ of what may be executed", 0, other, nfsRead, run, uint64(0), 100)
	status("READ by the owner without permission", 0, owner, nfsRead, diary, uint64(0), 100)
	status("READ by root", 0, authUnix(0, 0), nfsRead, diary, uint64(0), 100)
	status("GETATTR is open to all", 0, authNone, nfsGetattr, diary)
}

func TestReadlink(t *testing.T) {
	_, c, root := serve(t)
	a := c.ok(nfsReadlink, c.lookup(root, "bin"))
	if a.postOp() == nil {
		t.Error("READLINK: no attributes")
	}
	if got := string(a.Opaque(4096)); got != "usr/bin" {
		t.Errorf("READLINK = %q, want usr/bin", got)
	}
	a.end()
	for _, p := range []string{"usr", "etc/passwd", "dev/null"} {
		if _, st := c.nfs(nfsReadlink, c.lookup(root, split(p)...)); st != errInval {
			t.Errorf("READLINK %s: status %d, want %d", p, st, errInval)
		}
	}
}

func TestRead(t *testing.T) {
	_, c, root := serve(t)
	for _, tc := range []struct {
		path       string
		off        uint64
		count      uint32
		n          int
		eof, short bool
	}{
		{path: "etc/passwd", off: 0, count: 100, n: 12, eof: true},
		{path: "etc/passwd", off: 0, count: 12, n: 12, eof: true},
		{path: "etc/passwd", off: 0, count: 11, n: 11},
		{path: "etc/passwd", off: 5, count: 3, n: 3},
		{path: "etc/passwd", off: 5, count: 0, n: 0},
		{path: "etc/passwd", off: 12, count: 1, n: 0, eof: true},
		{path: "etc/passwd", off: 1 << 40, count: 1, n: 0, eof: true},
		{path: "etc/passwd", off: 1<<64 - 1, count: 1 << 31, n: 0, eof: true},
		{path: "etc/empty", off: 0, count: 4096, n: 0, eof: true},
		{path: "var/big", off: 0, count: 4096, n: 4096},
		{path: "var/big", off: 4097, count: 32768, n: 32768},
		{path: "var/big", off: 4097, count: 32769, n: 32769},
		{path: "var/big", off: 1, count: 1 << 20, n: 1 << 20},
		{path: "var/big", off: 3, count: 1 << 30, n: 1 << 20},
		{path: "var/big", off: 3 << 20, count: 1 << 20, n: 5, eof: true},
		{path: "var/big", off: 2<<20 + 5, count: 1 << 20, n: 1 << 20, eof: true},
		{path: "var/big", off: 3<<20 - 70000, count: 1 << 20, n: 70005, eof: true},
	} {
		a := c.ok(nfsRead, c.lookup(root, split(tc.path)...), tc.off, tc.count)
		if a.postOp() == nil {
			t.Errorf("READ %s: no attributes", tc.path)
		}
		a.want("count", uint64(a.Uint32()), uint64(tc.n))
		if eof := a.Bool(); eof != tc.eof {
			t.Errorf("READ %s %d+%d: eof %v, want %v", tc.path, tc.off, tc.count, eof, tc.eof)
		}
		data := a.Opaque(1 << 20)
		a.end()
		if len(data) != tc.n || tc.n > 0 && !bytes.Equal(data, content(tc.path)[tc.off:][:tc.n]) {
			t.Errorf("READ %s %d+%d: wrong data", tc.path, tc.off, tc.count)
		}
	}
	for p, want := range map[string]uint32{"usr": errIsDir, "bin": errInval, "dev/null": errInval, "run/fifo": errInval} {
		a, st := c.nfs(nfsRead, c.lookup(root, split(p)...), uint64(0), 100)
		if st != want {
			t.Errorf("READ %s: status %d, want %d", p, st, want)
		}
		if a.postOp() == nil {
			t.Errorf("READ %s: no attributes with the error", p)
		}
		a.end()
	}
	for _, piece := range []uint32{4096, 32 << 10, 100_000, 1 << 20} {
		if !bytes.Equal(c.read(c.lookup(root, "var", "big"), piece), content("var/big")) {
			t.Errorf("the file read in pieces of %d differs", piece)
		}
	}
}

func TestFsinfo(t *testing.T) {
	_, c, root := serve(t)
	a := c.ok(nfsFsinfo, root)
	if f := a.postOp(); f == nil || *f != c.getattr(root) {
		t.Errorf("attributes = %v", f)
	}
	a.want("rtmax", uint64(a.Uint32()), 1<<20)
	a.want("rtpref", uint64(a.Uint32()), 1<<20)
	a.want("rtmult", uint64(a.Uint32()), 4096)
	a.Uint32()
	a.Uint32()
	a.Uint32()
	a.want("dtpref", uint64(a.Uint32()), 64<<10)
	a.want("maxfilesize", a.Uint64(), 1<<63-1)
	a.want("time_delta", a.Uint64(), 1)
	a.want("properties", uint64(a.Uint32()), 1|2|8)
	a.end()
}

func TestFsstat(t *testing.T) {
	s, c, root := serve(t)
	for _, path := range []string{"", "bin", "dev/null"} {
		fh := c.lookup(root, split(path)...)
		a := c.ok(nfsFsstat, fh)
		if f := a.postOp(); f == nil || *f != c.getattr(fh) {
			t.Errorf("FSSTAT %q: attributes %v differ from GETATTR's", path, f)
		}
		a.want("tbytes", a.Uint64(), uint64(s.tree.Size()))
		a.want("fbytes", a.Uint64(), 0)
		a.want("abytes", a.Uint64(), 0)
		a.want("tfiles", a.Uint64(), uint64(s.tree.Len()))
		a.want("ffiles", a.Uint64(), 0)
		a.want("afiles", a.Uint64(), 0)
		if a.Uint32() == 0 {
			t.Error("invarsec = 0: a version does not change")
		}
		a.end()
	}
}

func TestPathconf(t *testing.T) {
	_, c, root := serve(t)
	a := c.ok(nfsPathconf, root)
	if a.postOp() == nil {
		t.Error("no attributes")
	}
	if a.Uint32() < 2 {
		t.Error("linkmax says that there are no hard links")
	}
	a.want("name_max", uint64(a.Uint32()), 255)
	for i, want := range []bool{true, true, false, true} {
		if got := a.Bool(); got != want {
			t.Errorf("flag %d = %v, want %v", i, got, want)
		}
	}
	a.end()
}

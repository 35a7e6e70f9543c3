// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"bytes"
	"fmt"
	"testing"

	"slate/nfs"
)

type dirEntry struct {
	fileid uint64
	name   string
	cookie uint64
	attr   *fattr
	fh     []byte
}

// page reads one page of a directory.
func (c *client) page(plus bool, dir []byte, cookie, verf uint64, limit uint32) (entries []dirEntry, newVerf uint64, eof bool) {
	c.t.Helper()
	var a *answer
	if plus {
		a = c.ok(nfsReaddirplus, dir, cookie, verf, limit, limit)
	} else {
		a = c.ok(nfsReaddir, dir, cookie, verf, limit)
	}
	if got := a.Len(); got > int(limit) {
		c.t.Errorf("page of %d bytes, the limit was %d", got, limit)
	}
	if a.postOp() == nil {
		c.t.Error("no attributes of the directory")
	}
	newVerf = a.Uint64()
	for a.Bool() {
		e := dirEntry{fileid: a.Uint64(), name: string(a.Opaque(255)), cookie: a.Uint64()}
		if plus {
			e.attr = a.postOp()
			if a.Bool() {
				e.fh = a.Opaque(64)
			}
		}
		entries = append(entries, e)
	}
	eof = a.Bool()
	a.end()
	return entries, newVerf, eof
}

func (c *client) list(plus bool, dir []byte, limit uint32) (all []dirEntry) {
	c.t.Helper()
	var cookie, verf uint64
	for {
		entries, v, eof := c.page(plus, dir, cookie, verf, limit)
		all, verf = append(all, entries...), v
		if eof {
			return all
		}
		if len(entries) == 0 {
			c.t.Fatal("empty page before the end")
		}
		cookie = entries[len(entries)-1].cookie
	}
}

func TestReaddir(t *testing.T) {
	_, c, root := serveSite(t, makeSite(t, manyFiles))
	for _, plus := range []bool{false, true} {
		for _, limit := range []uint32{512, 700, 4096, 32 << 10, 64 << 10, 1 << 20, 1<<32 - 1} {
			for _, path := range []string{"", "usr/bin", "names", "tmp", "many"} {
				if path == "many" && limit < 4096 {
					continue // takes long and shows nothing new
				}
				t.Run(fmt.Sprintf("plus=%v/limit=%d/%s", plus, limit, path), func(t *testing.T) {
					c.t = t
					checkListing(t, c, root, path, c.list(plus, c.lookup(root, split(path)...), limit), plus)
				})
			}
		}
	}
}

func checkListing(t *testing.T, c *client, root []byte, path string, got []dirEntry, plus bool) {
	t.Helper()
	dir := c.lookup(root, split(path)...)
	if len(got) < 2 || got[0].name != "." || got[1].name != ".." {
		t.Fatalf("the listing begins with %v", got[:min(2, len(got))])
	}
	seen := map[uint64]string{}
	last := ""
	for i, e := range got {
		if e.cookie != uint64(i+1) {
			t.Fatalf("entry %d has cookie %d", i, e.cookie)
		}
		if i >= 2 && e.name <= last {
			t.Fatalf("%q after %q", e.name, last)
		}
		last = e.name
		if i >= 100 {
			continue // looking up 20,000 takes long
		}
		fh := c.lookup(dir, e.name)
		if want := c.getattr(fh); e.fileid != want.Fileid || plus && (e.attr == nil || *e.attr != want) {
			t.Errorf("%q: listed as %d %v, GETATTR says %v", e.name, e.fileid, e.attr, want)
		}
		if plus && !bytes.Equal(e.fh, fh) {
			t.Errorf("%q: handle %x, LOOKUP gives %x", e.name, e.fh, fh)
		}
		if other, ok := seen[e.fileid]; ok && i >= 2 && path != "usr/bin" {
			t.Errorf("%q and %q have the same fileid", e.name, other)
		}
		if i >= 2 {
			seen[e.fileid] = e.name
		}
	}
	if path == "many" && len(got) != manyFiles+2 {
		t.Errorf("%d entries, want %d", len(got), manyFiles+2)
	}
}

func TestReaddirErrors(t *testing.T) {
	_, c, root := serve(t)
	_, verf, _ := c.page(false, root, 0, 0, 4096)
	status := func(what string, want uint32, proc int, args ...any) {
		t.Helper()
		a, st := c.nfs(proc, args...)
		if st != want {
			t.Errorf("%s: status %d, want %d", what, st, want)
		}
		if st != 0 {
			a.postOp()
			a.end()
		}
	}
	file := c.lookup(root, "etc", "passwd")
	for _, p := range []int{nfsReaddir, nfsReaddirplus} {
		limit := func(n int) []any {
			if p == nfsReaddirplus {
				return []any{n, n}
			}
			return []any{n}
		}
		args := func(fh []byte, cookie, verf uint64, n int) []any {
			return append([]any{fh, cookie, verf}, limit(n)...)
		}
		status("of a file", errNotDir, p, args(file, 0, 0, 4096)...)
		status("wrong verifier", errBadCookie, p, args(root, 2, verf+1, 4096)...)
		status("no verifier", errBadCookie, p, args(root, 2, 0, 4096)...)
		status("cookie past the end", errBadCookie, p, args(root, 1000, verf, 4096)...)
		status("huge cookie", errBadCookie, p, args(root, 1<<63, verf, 4096)...)
		status("no room", errTooSmall, p, args(root, 0, 0, 100)...)
		status("zero room", errTooSmall, p, args(root, 0, 0, 0)...)
		status("cookie at the end", 0, p, args(c.lookup(root, "tmp"), 2, verf, 4096)...)
		status("verifier at the start is not looked at", 0, p, args(root, 0, 99, 4096)...)
	}
}

// A client may read half a directory, and go on after a restart.
func TestReaddirAcrossRestart(t *testing.T) {
	s := makeSite(t, manyFiles)
	for _, plus := range []bool{false, true} {
		addr, stop := start(t, &nfs.Server{Exports: s, Blobs: s})
		c := dial(t, addr)
		many := c.lookup(c.mount("/demo/1"), "many")
		whole := c.list(plus, many, 8192)
		first, verf, _ := c.page(plus, many, 0, 0, 8192)
		stop()

		addr, stop = start(t, &nfs.Server{Exports: s, Blobs: s})
		c = dial(t, addr)
		next, verf2, _ := c.page(plus, many, first[len(first)-1].cookie, verf, 8192)
		if verf2 != verf {
			t.Errorf("verifier %x, before the restart it was %x", verf2, verf)
		}
		if want := whole[len(first)].name; next[0].name != want {
			t.Errorf("after the restart the listing goes on with %q, want %q", next[0].name, want)
		}
		stop()
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"slate/nfs"
)

func TestMount(t *testing.T) {
	s, c, root := serve(t)
	tree := s.tree.Digest().String()
	usr := c.lookup(root, "usr")
	for _, tc := range []struct {
		path string
		want uint32
		fh   []byte
	}{
		{"/demo/1", 0, root},
		{"/demo/1/", 0, root},
		{"/demo@stable", 0, root},
		{"/demo/" + tree, 0, root},
		{"/demo/1/usr", 0, usr},
		{"/demo@stable/usr/", 0, usr},
		{"/demo/1/bin", 0, c.lookup(usr, "bin")},
		{"/demo/1/usr/../..", 0, root},
		{"/demo/1/missing", errNoEnt, nil},
		{"/demo/1/etc/passwd", errNotDir, nil},
		{"/demo/1/etc/passwd/x", errNotDir, nil},
		{"/demo/2", errNoEnt, nil},
		{"/demo/2/usr", errNoEnt, nil},
		{"/", errNoEnt, nil},
		{"", errNoEnt, nil},
		{"demo/1/..", errNoEnt, nil},
		{"/secret/1", errAcces, nil},
		{"/broken/1", errIO, nil},
		{strings.Repeat("/x", 512), errNoEnt, nil},
	} {
		a := c.rpc(progMount, 3, mountMnt, tc.path)
		if a.denied || a.stat != 0 {
			t.Errorf("MNT %q: denied %v, accept_stat %d", tc.path, a.denied, a.stat)
			continue
		}
		st := a.Uint32()
		if st != tc.want {
			t.Errorf("MNT %q: status %d, want %d", tc.path, st, tc.want)
		}
		if st == 0 {
			if fh := a.Opaque(64); !bytes.Equal(fh, tc.fh) {
				t.Errorf("MNT %q: handle %x, want %x", tc.path, fh, tc.fh)
			}
			a.want("number of flavours", uint64(a.Uint32()), 2)
			a.want("first flavour", uint64(a.Uint32()), 1)
			a.want("second flavour", uint64(a.Uint32()), 0)
		}
		a.end()
	}
	if a := c.rpc(progMount, 3, mountMnt, strings.Repeat("x", 1025)); a.stat != 4 {
		t.Errorf("MNT of 1025 bytes: accept_stat %d, want GARBAGE_ARGS", a.stat)
	}
	if a := c.rpc(progMount, 3, mountUmnt); a.stat != 4 {
		t.Errorf("UMNT without a path: accept_stat %d, want GARBAGE_ARGS", a.stat)
	}
}

// events collects what a server tells.
type events struct {
	mu  sync.Mutex
	all []nfs.Event
}

func (e *events) add(ev nfs.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) take() []nfs.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

func TestMountEventsAndDump(t *testing.T) {
	s := newSite(t)
	var ev events
	addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, Events: ev.add})
	c := dial(t, addr)
	c.cred = authUnix(3, 4)
	dump := func() (list []string) {
		a := c.rpc(progMount, 3, mountDump)
		for a.Bool() {
			list = append(list, string(a.Opaque(255))+" "+string(a.Opaque(1024)))
		}
		a.end()
		return list
	}
	wantDump := func(want ...string) {
		t.Helper()
		if got := dump(); !slices.Equal(got, want) {
			t.Errorf("DUMP = %q, want %q", got, want)
		}
	}
	wantEvents := func(want ...nfs.Event) {
		t.Helper()
		got := ev.take()
		if len(got) != len(want) {
			t.Fatalf("events %v, want %v", got, want)
		}
		for i, g := range got {
			if g.Client.String() != c.nc.LocalAddr().String() {
				t.Errorf("client = %v, want %v", g.Client, c.nc.LocalAddr())
			}
			if (g.Err != nil) != (want[i].Err != nil) || want[i].Err != nil && !errors.Is(g.Err, want[i].Err) {
				t.Errorf("error = %v, want %v", g.Err, want[i].Err)
			}
			g.Client, g.Err, want[i].Err = want[i].Client, nil, nil
			if g != want[i] {
				t.Errorf("event = %+v, want %+v", g, want[i])
			}
		}
	}
	d := s.tree.Digest()
	wantDump()
	c.mount("/demo/1")
	c.mount("/demo/1")
	mount := nfs.Event{Kind: nfs.Mount, Path: "/demo/1", Tree: d, UID: 3, GID: 4, Machine: "pc-01"}
	wantEvents(mount, mount)
	c.mount("/demo@stable")
	ev.take()
	c.rpc(progMount, 3, mountMnt, "/demo/7")
	wantEvents(nfs.Event{Kind: nfs.Mount, Path: "/demo/7", UID: 3, GID: 4, Machine: "pc-01", Err: fs.ErrNotExist})
	wantDump("127.0.0.1 /demo/1", "127.0.0.1 /demo@stable")

	c.rpc(progMount, 3, mountUmnt, "/demo/1/")
	wantEvents(nfs.Event{Kind: nfs.Unmount, Path: "/demo/1", UID: 3, GID: 4, Machine: "pc-01"})
	c.rpc(progMount, 3, mountUmnt, "/never/mounted")
	wantEvents()
	wantDump("127.0.0.1 /demo@stable")
	c.rpc(progMount, 3, mountUmntall)
	wantEvents(nfs.Event{Kind: nfs.Unmount, Path: "/demo@stable", UID: 3, GID: 4, Machine: "pc-01"})
	wantDump()
}

func TestMountExport(t *testing.T) {
	s := newSite(t)
	want := []string{"/demo/1", "/demo@stable"}
	list := func(context.Context) ([]string, error) { return want, nil }
	fail := func(context.Context) ([]string, error) { return nil, errors.New("no") }
	for name, tc := range map[string]struct {
		list func(context.Context) ([]string, error)
		want []string
	}{"list": {list, want}, "none": {nil, nil}, "error": {fail, nil}} {
		t.Run(name, func(t *testing.T) {
			addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, List: tc.list})
			c := dial(t, addr)
			a := c.rpc(progMount, 3, mountExport)
			var got []string
			for a.Bool() {
				got = append(got, string(a.Opaque(1024)))
				if a.Bool() {
					t.Error("an export for a group")
				}
			}
			a.end()
			if !slices.Equal(got, tc.want) {
				t.Errorf("EXPORT = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestInUse(t *testing.T) {
	s := newSite(t)
	srv := &nfs.Server{Exports: s, Blobs: s}
	addr, _ := start(t, srv)
	c := dial(t, addr)
	c.rpc(progNFS, 3, nfsNull)
	if got := srv.InUse(); len(got) != 0 {
		t.Errorf("InUse = %v before any call", got)
	}
	c.getattr(c.mount("/demo/1"))
	got := srv.InUse()
	if len(got) != 1 || got[0].Tree != s.tree.Digest() || got[0].Client.String() != c.nc.LocalAddr().String() {
		t.Errorf("InUse = %v, want the tree for %v", got, c.nc.LocalAddr())
	}
}

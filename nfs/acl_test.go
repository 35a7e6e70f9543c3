// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"testing"

	"slate/nfs"
)

func TestACL(t *testing.T) {
	const progACL, null, get, set = 100227, 0, 1, 2
	s := newSite(t)
	addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s})
	c := dial(t, addr)
	c.rpc(progACL, 3, null).end()
	fh := c.lookup(c.mount("/demo/1"), "etc", "passwd")

	a := c.rpc(progACL, 3, get, fh, 0xf)
	a.want("status", uint64(a.Uint32()), 0)
	if f := a.postOp(); f == nil {
		t.Error("GETACL gives no attributes")
	}
	a.want("mask", uint64(a.Uint32()), 0xf)
	for _, what := range []string{"access ACL, entries", "access ACL, array", "default ACL, entries", "default ACL, array"} {
		a.want(what, uint64(a.Uint32()), 0)
	}
	a.end()

	const inval, badHandle = 22, 10001
	a = c.rpc(progACL, 3, get, fh, 0x10)
	a.want("status of an unknown mask", uint64(a.Uint32()), inval)
	a = c.rpc(progACL, 3, set, fh, 1, 0, 0, 0, 0)
	a.want("status of SETACL", uint64(a.Uint32()), errROFS)
	a = c.rpc(progACL, 3, get, []byte("nobody's"), 1)
	a.want("status of a bad handle", uint64(a.Uint32()), badHandle)
	for what, stat := range map[string]struct{ got, want uint32 }{
		"GETACL cut short":       {c.rpc(progACL, 3, get, fh).stat, 4},
		"an unknown procedure":   {c.rpc(progACL, 3, 3).stat, 3},
		"version 2, for NFSv2":   {c.rpc(progACL, 2, null).stat, 2},
		"GETACL without handles": {c.rpc(progACL, 3, get).stat, 4},
	} {
		if stat.got != stat.want {
			t.Errorf("%s: accept_stat %d, want %d", what, stat.got, stat.want)
		}
	}
}

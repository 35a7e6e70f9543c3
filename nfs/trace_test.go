// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/nfs"
)

func TestTrace(t *testing.T) {
	s := newSite(t)
	var trace bytes.Buffer
	addr, stop := start(t, &nfs.Server{Exports: s, Blobs: s, Trace: &trace})
	c := dial(t, addr)
	root := c.mount("/demo/1")
	c.getattr(root)
	names := c.lookup(root, "names")
	c.nfs(nfsLookup, names, "\xff\xfe \n")
	c.nfs(nfsLookup, names, "missing")
	c.nfs(nfsRead, c.lookup(root, "etc", "passwd"), uint64(3), 100)
	c.nfs(nfsAccess, root, 31)
	c.nfs(nfsReadlink, c.lookup(root, "bin"))
	c.page(false, root, 0, 0, 4096)
	c.page(true, names, 0, 0, 8192)
	c.nfs(nfsGetattr, make([]byte, 20))
	c.nfs(nfsRemove, root, "bin")
	c.nfs(nfsFsinfo, root)
	c.rpc(100227, 3, 1, names, 5)
	c.rpc(100227, 3, 0)
	stop()
	want := `getattr "."
lookup "names"
lookup "names/\xff\xfe \n"
lookup "names/missing"
lookup "etc"
lookup "etc/passwd"
read "etc/passwd" 3 100
access "." 31
lookup "bin"
readlink "bin"
readdir "." 0 4096
readdirplus "names" 0 8192
fsinfo "."
getacl "names" 5
`
	if diff := cmp.Diff(want, trace.String()); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
}

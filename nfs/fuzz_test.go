// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"encoding/binary"
	"io"
	"testing"

	"slate/nfs"
)

// FuzzCall sends any arguments to any procedure. Whatever they are, there must
// be one well-formed reply, and the server must go on.
func FuzzCall(f *testing.F) {
	s := newSite(f)
	addr, _ := start(f, &nfs.Server{Exports: s, Blobs: s})
	c := dial(f, addr)
	root := c.mount("/demo/1")
	for proc, args := range validArgs(root) {
		f.Add(uint32(progNFS), uint32(proc), encode(args...))
	}
	for proc := range uint32(6) {
		f.Add(uint32(progMount), proc, encode("/demo/1"))
	}
	f.Add(uint32(100227), uint32(1), encode(root, 0xf))
	f.Add(uint32(100000), uint32(3), encode(progNFS, 3, 6, 0))
	passwd := c.lookup(root, "etc", "passwd")
	f.Add(uint32(progNFS), uint32(nfsRead), encode(passwd, uint64(3), 4))
	f.Fuzz(func(t *testing.T, prog, proc uint32, args []byte) {
		if len(args) > 32<<10 {
			return
		}
		c := dial(t, addr)
		a := c.rpc(int(prog), 3, int(proc), raw(args))
		if a.denied || a.stat > 4 {
			t.Errorf("denied %v, accept_stat %d", a.denied, a.stat)
		}
		if a.size > 1<<20+200 {
			t.Errorf("reply of %d bytes", a.size)
		}
		c.ok(nfsGetattr, root)
	})
}

// FuzzStream sends any bytes. The server may close the connection, but must
// send nothing that is not a record, and must serve the next one.
func FuzzStream(f *testing.F) {
	s := newSite(f)
	addr, _ := start(f, &nfs.Server{Exports: s, Blobs: s})
	c := dial(f, addr)
	root := c.mount("/demo/1")
	f.Add(c.message(progNFS, 3, nfsGetattr, root))
	f.Add(append(c.message(progNFS, 3, nfsNull), c.message(progMount, 3, mountExport)...))
	f.Add(encode(4, 1, uint32(1<<31|36), 0, 2, progNFS, 3, 0, 0, 0, 0, 0))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		c := dial(t, addr)
		c.send(stream)
		if err := closeWrite(c); err != nil {
			return // the server was faster
		}
		got, err := io.ReadAll(c.nc)
		for err == nil && len(got) > 0 {
			if len(got) < 4 {
				t.Fatalf("%d bytes after the last record", len(got))
			}
			mark := binary.BigEndian.Uint32(got)
			n := int(mark &^ (1 << 31))
			if mark>>31 != 1 || n < 20 || n > len(got)-4 {
				t.Fatalf("record mark %#x with %d bytes left", mark, len(got))
			}
			got = got[4+n:]
		}
		next := dial(t, addr)
		next.ok(nfsGetattr, root)
	})
}

func closeWrite(c *client) error { return c.nc.(interface{ CloseWrite() error }).CloseWrite() }

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"slate/nfs/internal/xdr"
)

// The numbers of the protocol, written down once more: a test that took them
// from the code could not find a wrong one.
const (
	progNFS, progMount = 100003, 100005

	nfsNull, nfsGetattr, nfsSetattr, nfsLookup, nfsAccess, nfsReadlink = 0, 1, 2, 3, 4, 5
	nfsRead, nfsWrite, nfsCreate, nfsMkdir, nfsSymlink, nfsMknod       = 6, 7, 8, 9, 10, 11
	nfsRemove, nfsRmdir, nfsRename, nfsLink, nfsReaddir                = 12, 13, 14, 15, 16
	nfsReaddirplus, nfsFsstat, nfsFsinfo, nfsPathconf, nfsCommit       = 17, 18, 19, 20, 21

	mountNull, mountMnt, mountDump, mountUmnt, mountUmntall, mountExport = 0, 1, 2, 3, 4, 5

	nfs3OK, errNoEnt, errIO, errAcces, errNotDir, errIsDir, errInval = 0, 2, 5, 13, 20, 21, 22
	errROFS, errNameTooLong, errStale                                = 30, 63, 70
	errBadHandle, errBadCookie, errTooSmall, errJukebox              = 10001, 10003, 10005, 10008
)

// client is a raw RPC client: it sends what it is told and shows what came.
type client struct {
	t    testing.TB
	nc   net.Conn
	xid  uint32
	cred []byte // flavour and body
}

var authNone = []byte{0, 0, 0, 0, 0, 0, 0, 0}

func authUnix(uid, gid uint32, gids ...uint32) []byte {
	body := xdr.AppendUint32(nil, 12345)
	body = xdr.AppendOpaque(body, "pc-01")
	body = xdr.AppendUint32(body, uid)
	body = xdr.AppendUint32(body, gid)
	body = xdr.AppendUint32(body, uint32(len(gids)))
	for _, g := range gids {
		body = xdr.AppendUint32(body, g)
	}
	return xdr.AppendOpaque(xdr.AppendUint32(nil, 1), body)
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(time.Minute))
	return &client{t: t, nc: nc, xid: 7, cred: authUnix(0, 0)}
}

// raw is an argument that is put on the wire as it is.
type raw []byte

func encode(args ...any) []byte {
	var b []byte
	for _, a := range args {
		switch a := a.(type) {
		case int:
			b = xdr.AppendUint32(b, uint32(a))
		case uint32:
			b = xdr.AppendUint32(b, a)
		case uint64:
			b = xdr.AppendUint64(b, a)
		case bool:
			b = xdr.AppendBool(b, a)
		case string:
			b = xdr.AppendOpaque(b, a)
		case []byte:
			b = xdr.AppendOpaque(b, a)
		case raw:
			b = append(b, a...)
		default:
			panic(fmt.Sprintf("BUG: argument of type %T", a))
		}
	}
	return b
}

// message is a whole call with its record mark.
func (c *client) message(prog, vers, proc int, args ...any) []byte {
	c.xid++
	b := encode(c.xid, 0, 2, prog, vers, proc, raw(c.cred), raw(authNone))
	b = append(b, encode(args...)...)
	return append(encode(uint32(len(b))|1<<31), b...)
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// answer is a reply. Decoder stands behind the header.
type answer struct {
	xdr.Decoder
	t      testing.TB
	xid    uint32
	denied bool
	stat   uint32 // accept_stat or reject_stat
	size   int    // of the record
}

func (c *client) receive() *answer {
	c.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(c.nc, head[:]); err != nil {
		c.t.Fatalf("reading a reply: %v", err)
	}
	mark := binary.BigEndian.Uint32(head[:])
	if mark>>31 != 1 {
		c.t.Fatalf("record mark %#x: want one fragment", mark)
	}
	body := make([]byte, mark&^(1<<31))
	if _, err := io.ReadFull(c.nc, body); err != nil {
		c.t.Fatalf("reading a reply of %d bytes: %v", len(body), err)
	}
	a := &answer{Decoder: xdr.NewDecoder(body), t: c.t, size: len(body)}
	a.xid = a.Uint32()
	if kind := a.Uint32(); kind != 1 {
		c.t.Fatalf("message type %d, want a reply", kind)
	}
	if a.denied = a.Uint32() == 1; !a.denied {
		a.want("verifier", uint64(a.Uint32()), 0)
		a.want("verifier length", uint64(a.Uint32()), 0)
	}
	a.stat = a.Uint32()
	if !a.Ok() {
		c.t.Fatalf("reply of %d bytes is too short", len(body))
	}
	return a
}

// rpc makes a call and returns the reply, whatever it is.
func (c *client) rpc(prog, vers, proc int, args ...any) *answer {
	c.t.Helper()
	c.send(c.message(prog, vers, proc, args...))
	a := c.receive()
	if a.xid != c.xid {
		c.t.Fatalf("reply to call %d, want %d", a.xid, c.xid)
	}
	return a
}

// nfs makes a call that the RPC layer must accept and returns its status.
func (c *client) nfs(proc int, args ...any) (*answer, uint32) {
	c.t.Helper()
	a := c.rpc(progNFS, 3, proc, args...)
	if a.denied || a.stat != 0 {
		c.t.Fatalf("procedure %d: denied %v, accept_stat %d", proc, a.denied, a.stat)
	}
	st := a.Uint32()
	if !a.Ok() {
		c.t.Fatalf("procedure %d: no status in the reply", proc)
	}
	return a, st
}

// ok is nfs for a call that must succeed.
func (c *client) ok(proc int, args ...any) *answer {
	c.t.Helper()
	a, st := c.nfs(proc, args...)
	if st != nfs3OK {
		c.t.Fatalf("procedure %d: status %d", proc, st)
	}
	return a
}

func (a *answer) want(what string, got, want uint64) {
	a.t.Helper()
	if got != want {
		a.t.Errorf("%s = %d, want %d", what, got, want)
	}
}

// end checks that nothing is left of the reply and nothing was missing.
func (a *answer) end() {
	a.t.Helper()
	if !a.Ok() {
		a.t.Error("the reply is too short")
	}
	if a.Len() != 0 {
		a.t.Errorf("%d bytes too many in the reply", a.Len())
	}
}

// fattr is fattr3.
type fattr struct {
	Type, Mode, Nlink, UID, GID uint32
	Size, Used                  uint64
	Major, Minor                uint32
	FSID, Fileid                uint64
	Atime, Mtime, Ctime         uint64 // seconds<<32 | nanoseconds
}

func (a *answer) attr() (f fattr) {
	for _, p := range []*uint32{&f.Type, &f.Mode, &f.Nlink, &f.UID, &f.GID} {
		*p = a.Uint32()
	}
	f.Size, f.Used = a.Uint64(), a.Uint64()
	f.Major, f.Minor = a.Uint32(), a.Uint32()
	for _, p := range []*uint64{&f.FSID, &f.Fileid, &f.Atime, &f.Mtime, &f.Ctime} {
		*p = a.Uint64()
	}
	return f
}

// postOp is post_op_attr, nil if it is empty.
func (a *answer) postOp() *fattr {
	if !a.Bool() {
		return nil
	}
	f := a.attr()
	return &f
}

func (c *client) mount(path string) []byte {
	c.t.Helper()
	a := c.rpc(progMount, 3, mountMnt, path)
	if a.denied || a.stat != 0 {
		c.t.Fatalf("MNT %q: denied %v, stat %d", path, a.denied, a.stat)
	}
	if st := a.Uint32(); st != 0 {
		c.t.Fatalf("MNT %q: status %d", path, st)
	}
	fh := a.Opaque(64)
	for range a.Uint32() {
		a.Uint32()
	}
	a.end()
	return fh
}

// lookup walks a path and returns the handle at its end.
func (c *client) lookup(dir []byte, names ...string) []byte {
	c.t.Helper()
	for _, n := range names {
		a, st := c.nfs(nfsLookup, dir, n)
		if st != 0 {
			c.t.Fatalf("LOOKUP %q: status %d", n, st)
		}
		dir = a.Opaque(64)
	}
	return dir
}

func (c *client) getattr(fh []byte) fattr {
	c.t.Helper()
	a := c.ok(nfsGetattr, fh)
	f := a.attr()
	a.end()
	return f
}

// read reads a whole file in pieces.
func (c *client) read(fh []byte, piece uint32) []byte {
	c.t.Helper()
	var data []byte
	for {
		a := c.ok(nfsRead, fh, uint64(len(data)), piece)
		a.postOp()
		n, eof := a.Uint32(), a.Bool()
		part := a.Opaque(1 << 20)
		a.end()
		if int(n) != len(part) {
			c.t.Fatalf("READ: count %d, %d bytes of data", n, len(part))
		}
		data = append(data, part...)
		if eof {
			return data
		}
		if n == 0 {
			c.t.Fatal("READ: nothing and no end of file")
		}
	}
}

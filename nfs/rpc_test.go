// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
)

func TestRPCVersions(t *testing.T) {
	_, c, _ := serve(t)
	const success, progUnavail, progMismatch, procUnavail, garbageArgs = 0, 1, 2, 3, 4
	for _, tc := range []struct {
		name             string
		prog, vers, proc int
		stat             uint32
		low, high        uint32
	}{
		{name: "NFS NULL", prog: progNFS, vers: 3},
		{name: "MOUNT NULL", prog: progMount, vers: 3},
		{name: "NFS 4 NULL", prog: progNFS, vers: 4, stat: progMismatch, low: 3, high: 3},
		{name: "NFS 2 NULL", prog: progNFS, vers: 2, stat: progMismatch, low: 3, high: 3},
		{name: "NFS 4 COMPOUND", prog: progNFS, vers: 4, proc: 1, stat: progMismatch, low: 3, high: 3},
		{name: "MOUNT 1", prog: progMount, vers: 1, stat: progMismatch, low: 3, high: 3},
		{name: "NFS procedure 22", prog: progNFS, vers: 3, proc: 22, stat: procUnavail},
		{name: "MOUNT procedure 6", prog: progMount, vers: 3, proc: 6, stat: procUnavail},
		{name: "RQUOTA", prog: 100011, vers: 1, stat: progUnavail},
		{name: "NLM", prog: 100021, vers: 4, stat: progUnavail},
		{name: "no arguments", prog: progNFS, vers: 3, proc: 1, stat: garbageArgs},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.t = t
			a := c.rpc(tc.prog, tc.vers, tc.proc)
			a.t = t
			if a.denied {
				t.Fatal("denied")
			}
			a.want("accept_stat", uint64(a.stat), uint64(tc.stat))
			if tc.stat == progMismatch {
				a.want("lowest version", uint64(a.Uint32()), uint64(tc.low))
				a.want("highest version", uint64(a.Uint32()), uint64(tc.high))
			}
			a.end()
		})
	}
}

func TestRPCDenied(t *testing.T) {
	_, c, _ := serve(t)
	frame := func(b []byte) []byte { return append(encode(uint32(len(b))|1<<31), b...) }
	badUnix := func(body ...any) []byte {
		return encode(1, 0, 2, progNFS, 3, nfsNull, 1, encode(body...), raw(authNone))
	}
	for _, tc := range []struct {
		name string
		msg  []byte
		want []uint32 // reject_stat and what follows
	}{
		{"RPC version 3", encode(1, 0, 3, progNFS, 3, 0, raw(authNone), raw(authNone)), []uint32{0, 2, 2}},
		{"RPC version 0", encode(1, 0, 0, progNFS, 3, 0, raw(authNone), raw(authNone)), []uint32{0, 2, 2}},
		{"GSS", encode(1, 0, 2, progNFS, 3, nfsNull, 6, encode(1, 1), raw(authNone)), []uint32{1, 1}},
		{"AUTH_DES", encode(1, 0, 2, progNFS, 3, nfsGetattr, 3, []byte{}, raw(authNone)), []uint32{1, 1}},
		{"AUTH_UNIX, 17 groups", badUnix(1, "pc", 0, 0, 17, raw(make([]byte, 17*4))), []uint32{1, 1}},
		{"AUTH_UNIX, cut short", badUnix(1, "pc", 0), []uint32{1, 1}},
		{"AUTH_UNIX, name of 256 bytes", badUnix(1, longName+"n", 0, 0, 0), []uint32{1, 1}},
		{"verifier of 401 bytes", encode(1, 0, 2, progNFS, 3, nfsNull, raw(authNone), 0, make([]byte, 401)), []uint32{1, 3}},
		{"no verifier", encode(1, 0, 2, progNFS, 3, nfsNull, raw(authNone)), []uint32{1, 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.t = t
			c.send(frame(tc.msg))
			a := c.receive()
			a.t = t
			if !a.denied {
				t.Fatalf("accepted with accept_stat %d", a.stat)
			}
			got := []uint32{a.stat}
			for a.Len() > 0 {
				got = append(got, a.Uint32())
			}
			if len(got) != len(tc.want) {
				t.Fatalf("denied with %d, want %d", got, tc.want)
			}
			for i := range got {
				a.want("word of the denial", uint64(got[i]), uint64(tc.want[i]))
			}
		})
	}
}

// ended reports whether the server has closed the connection.
func (c *client) ended() bool {
	_, err := io.Copy(io.Discard, c.nc)
	var ne net.Error
	return err == nil || !(errors.As(err, &ne) && ne.Timeout())
}

// What is no RPC at all ends the connection and nothing else.
func TestGarbageStreams(t *testing.T) {
	s, c, root := serve(t)
	_ = s
	addr := c.nc.RemoteAddr().String()
	for name, bytes := range map[string][]byte{
		"HTTP":                 []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"oversized record":     encode(uint32(1<<31 | 1<<30)),
		"oversized in sum":     append(append(encode(60000), make([]byte, 60000)...), encode(uint32(1<<31|60000))...),
		"empty record":         encode(uint32(1 << 31)),
		"short record":         encode(uint32(1<<31|8), 1, 0),
		"a reply":              encode(uint32(1<<31|24), 1, 1, 0, 0, 0, 0),
		"credential too large": encode(uint32(1<<31|40), 1, 0, 2, progNFS, 3, 0, 1, 100000, 0, 0),
		"a thousand fragments": make([]byte, 4000),
	} {
		t.Run(name, func(t *testing.T) {
			g := dial(t, addr)
			g.nc.Write(bytes)
			if !g.ended() {
				t.Error("the connection stays open")
			}
		})
	}
	c.getattr(root)
}

func TestFragments(t *testing.T) {
	_, c, root := serve(t)
	whole := c.message(progNFS, 3, nfsLookup, root, "usr")[4:]
	want := c.lookup(root, "usr")
	for _, size := range []int{1, 3, 4, 7, 40, len(whole) - 1, len(whole)} {
		if len(whole)/size > 60 {
			continue // more fragments than are allowed
		}
		var b []byte
		for rest := whole; len(rest) > 0; {
			n := min(size, len(rest))
			mark := uint32(n)
			if n == len(rest) {
				mark |= 1 << 31
			}
			b = append(append(b, encode(mark)...), rest[:n]...)
			rest = rest[n:]
		}
		// Between two whole calls, and in two writes: the borders of
		// segments, fragments and calls have nothing to do with each other.
		b = append(append(c.message(progNFS, 3, nfsNull), b...), c.message(progNFS, 3, nfsNull)...)
		c.send(b[:len(b)/2])
		c.send(b[len(b)/2:])
		c.receive()
		a := c.receive()
		a.want("status", uint64(a.Uint32()), 0)
		if got := a.Opaque(64); string(got) != string(want) {
			t.Errorf("fragments of %d: handle %x, want %x", size, got, want)
		}
		c.receive()
	}
}

func TestManyCallsAtOnce(t *testing.T) {
	_, c, root := serve(t)
	big := c.lookup(root, "var", "big")
	const calls = 300
	var b []byte
	want := map[uint32]int{}
	for i := range calls {
		proc, n := nfsGetattr, 0
		args := []any{big}
		if i%3 == 0 {
			n = 100 << (i % 14) // to 819,200 bytes: copied and not
			proc, args = nfsRead, []any{big, uint64(i), n}
		}
		b = append(b, c.message(progNFS, 3, proc, args...)...)
		want[c.xid] = n
	}
	go c.nc.Write(b)
	for range calls {
		a := c.receive()
		n, ok := want[a.xid]
		if !ok {
			t.Fatalf("reply to call %d, which was not made or answered already", a.xid)
		}
		delete(want, a.xid)
		a.want("status", uint64(a.Uint32()), 0)
		if n == 0 {
			a.attr()
		} else {
			a.postOp()
			a.want("count", uint64(a.Uint32()), uint64(n))
			a.Bool()
			a.want("bytes", uint64(len(a.Opaque(1<<20))), uint64(n))
		}
		a.end()
	}
}

// Every procedure must survive arguments that are cut off anywhere.
func TestTruncatedArguments(t *testing.T) {
	_, c, root := serve(t)
	for proc, args := range validArgs(root) {
		if proc == nfsNull {
			continue
		}
		whole := encode(args...)
		for n := 0; n < len(whole); n += 4 {
			a := c.rpc(progNFS, 3, proc, raw(whole[:n]))
			if a.denied || a.stat != 4 {
				t.Errorf("procedure %d, %d of %d bytes: denied %v, accept_stat %d, want GARBAGE_ARGS", proc, n, len(whole), a.denied, a.stat)
			}
		}
		huge := binary.BigEndian.AppendUint32(nil, 1<<31)
		if a := c.rpc(progNFS, 3, proc, raw(huge), raw(whole)); a.stat != 4 {
			t.Errorf("procedure %d, handle of 2 GiB: accept_stat %d", proc, a.stat)
		}
	}
}

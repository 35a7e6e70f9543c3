// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"slate/nfs/internal/rpc"
	"slate/nfs/internal/xdr"
)

// rest answers the procedures that are not in request.nfs. Those that go-nfs
// answers as RFC 1813 wants are passed to it, but only after their arguments
// have been seen to be whole: it would believe any length it reads.
func (q *request) rest(d xdr.Decoder) outcome {
	if q.call.Proc == procNull {
		start := len(q.out.buf)
		return q.finish(start, rpc.Begin(q.out.buf, q.call.XID, rpc.Success))
	}
	a := parseRest(q.call.Proc, &d)
	if !d.Ok() {
		return malformed
	}
	for _, fh := range a.handles[:a.n] {
		_, _, st, o := q.object(fh)
		if o != answered {
			return o
		}
		if st != statusOK {
			return q.refuse(st)
		}
	}
	switch {
	case q.call.Proc == procLink, q.call.Proc == procCommit, a.exclusive:
		return q.refuse(statusROFS) // go-nfs gives other errors
	case !q.mayWait:
		return mustWait
	}
	return q.passOn()
}

// restArgs is what matters in the arguments of a procedure.
type restArgs struct {
	handles   [2][]byte
	n         int
	exclusive bool
}

func parseRest(proc uint32, d *xdr.Decoder) (a restArgs) {
	handle := func() { a.handles[a.n] = d.Opaque(maxFH); a.n++ }
	name := func() { d.Opaque(inSize) }
	handle()
	switch proc {
	case procSetattr:
		parseSattr(d)
		if d.Bool() {
			d.Uint64()
		}
	case procWrite:
		d.Uint64()
		d.Uint32()
		d.Uint32()
		d.Opaque(inSize)
	case procCreate:
		name()
		switch d.Uint32() {
		case 0, 1: // unchecked, guarded
			parseSattr(d)
		case 2:
			a.exclusive = true
			d.Uint64()
		default:
			d.Fail()
		}
	case procMkdir:
		name()
		parseSattr(d)
	case procSymlink:
		name()
		parseSattr(d)
		d.Opaque(inSize)
	case procMknod:
		name()
		switch d.Uint32() {
		case typeBlk, typeChr:
			parseSattr(d)
			d.Uint64()
		case typeSock, typeFifo:
			parseSattr(d)
		}
	case procRemove, procRmdir:
		name()
	case procRename:
		name()
		handle()
		name()
	case procLink:
		handle()
		name()
	case procCommit:
		d.Uint64()
		d.Uint32()
	}
	return a
}

// parseSattr reads the attributes to set: mode, owner, group, size, times.
func parseSattr(d *xdr.Decoder) {
	for range 3 {
		if d.Bool() {
			d.Uint32()
		}
	}
	if d.Bool() {
		d.Uint64()
	}
	for range 2 {
		switch d.Uint32() {
		case 0, 1: // leave, server's time
		case 2:
			d.Uint64()
		default:
			d.Fail()
		}
	}
}

// refuse answers a procedure of rest with an error and without attributes.
func (q *request) refuse(st status) outcome {
	words := 2 // wcc_data: neither before nor after
	switch q.call.Proc {
	case procLink:
		words = 3
	case procRename:
		words = 4
	}
	start, b := q.reply(st)
	for range words {
		b = append(b, 0, 0, 0, 0)
	}
	return q.finish(start, b)
}

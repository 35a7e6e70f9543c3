// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"path"
	"strconv"

	"slate/nfs/internal/xdr"
)

// traced are the procedures that a trace holds.
var traced = map[uint32]string{
	procGetattr: "getattr", procLookup: "lookup", procAccess: "access", procReadlink: "readlink", procRead: "read",
	procReaddir: "readdir", procReaddirplus: "readdirplus",
	procFsstat: "fsstat", procFsinfo: "fsinfo", procPathconf: "pathconf",
}

// trace writes a call to the trace, as a line of the operation, the path of
// the object in quotes, and numbers:
//
//	getattr "usr/bin"         access "usr/bin" 31          readlink "bin"
//	lookup "usr/bin/env"      read "usr/bin/env" 0 131072  readdir "etc" 0 4096
//	readdirplus "etc" 0 65536                              fsinfo "."
//	getacl "usr/bin" 5
//
// The numbers of a listing are cookie and size. Calls with a bad handle are
// left out.
func (q *request) trace() {
	op := ""
	switch q.call.Prog {
	case progNFS:
		op = traced[q.call.Proc]
	case progACL:
		op = map[uint32]string{aclGet: "getacl"}[q.call.Proc]
	}
	if op == "" {
		return
	}
	d := xdr.NewDecoder(q.call.Args)
	v, entry, st, o := q.object(d.Opaque(maxFH))
	if o != answered || st != statusOK {
		return
	}
	name := v.tree.Path(entry)
	var nums []uint64
	switch proc := q.call.Proc; {
	case q.call.Prog == progACL:
		nums = []uint64{uint64(d.Uint32())}
	case proc == procLookup:
		name = path.Join(name, string(d.Opaque(inSize)))
	case proc == procAccess:
		nums = []uint64{uint64(d.Uint32())}
	case proc == procRead:
		nums = []uint64{d.Uint64(), uint64(d.Uint32())}
	case proc == procReaddir, proc == procReaddirplus:
		cookie, _ := d.Uint64(), d.Uint64()
		if proc == procReaddirplus {
			d.Uint32()
		}
		nums = []uint64{cookie, uint64(d.Uint32())}
	}
	if !d.Ok() {
		return
	}
	line := strconv.AppendQuote(append([]byte(op), ' '), name)
	for _, n := range nums {
		line = strconv.AppendUint(append(line, ' '), n, 10)
	}
	q.c.s.traceMu.Lock()
	defer q.c.s.traceMu.Unlock()
	_, _ = q.c.s.Trace.Write(append(line, '\n')) // a broken trace must not stop the service
}

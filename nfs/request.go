// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"context"
	"errors"
	"io/fs"

	"slate/nfs/internal/rpc"
	"slate/nfs/internal/xdr"
)

// request is a call being answered.
type request struct {
	c      *conn
	record []byte
	call   rpc.Call
	cred   rpc.Cred
	out    *output
	// mayWait says that the answer may take long. Without it, a procedure
	// that cannot go on without waiting gives up and is called again.
	mayWait bool
}

// outcome is how far a procedure came.
type outcome uint8

const (
	answered  outcome = iota
	mustWait          // nothing is written: call again with mayWait
	malformed         // nothing is written: the arguments are garbage
	unknown           // nothing is written: no such procedure
)

// answer writes the reply to the call, and reports false if that would mean to
// wait. It never reports that when it may wait.
func (q *request) answer() bool {
	out, xid := q.out, q.call.XID
	version, procs := uint32(nfsVersion), uint32(procCount)
	switch q.call.Prog {
	case progNFS:
	case progMount:
		version, procs = mntVersion, mntCount
	case progPortmap:
		version, procs = pmapVersion, pmapCount
	case progACL:
		version, procs = aclVersion, aclCount
	default:
		out.buf = rpc.AppendAccept(out.buf, xid, rpc.ProgUnavail)
		return true
	}
	if q.call.Vers != version {
		out.buf = rpc.AppendProgMismatch(out.buf, xid, version, version)
		return true
	}
	if q.call.Proc >= procs {
		out.buf = rpc.AppendAccept(out.buf, xid, rpc.ProcUnavail)
		return true
	}
	if why := rpc.ParseCred(&q.call, &q.cred); why != rpc.AuthOK {
		out.buf = rpc.AppendAuthError(out.buf, xid, why)
		return true
	}
	start, files := len(out.buf), len(out.files)
	var o outcome
	switch q.call.Prog {
	case progNFS:
		o = q.nfs()
	case progMount:
		o = q.mount()
	case progPortmap:
		o = q.portmap()
	case progACL:
		o = q.acl()
	}
	switch o {
	case answered:
		if q.c.s.Trace != nil {
			q.trace()
		}
		return true
	case mustWait:
		out.buf, out.files = out.buf[:start], out.files[:files]
		return false
	case malformed:
		out.buf = rpc.AppendAccept(out.buf[:start], xid, rpc.GarbageArgs)
	case unknown:
		out.buf = rpc.AppendAccept(out.buf[:start], xid, rpc.ProcUnavail)
	}
	return true
}

func (q *request) nfs() outcome {
	d := xdr.NewDecoder(q.call.Args)
	switch q.call.Proc {
	case procGetattr:
		return q.getattr(d)
	case procLookup:
		return q.lookup(d)
	case procAccess:
		return q.access(d)
	case procReadlink:
		return q.readlink(d)
	case procRead:
		return q.read(d)
	case procReaddir:
		return q.readdir(d, false)
	case procReaddirplus:
		return q.readdir(d, true)
	case procFsstat:
		return q.fsstat(d)
	case procFsinfo:
		return q.fsinfo(d)
	case procPathconf:
		return q.pathconf(d)
	}
	return q.rest(d)
}

// object finds what a handle names. If it is nothing, the status says why.
func (q *request) object(fh []byte) (v *view, entry uint32, st status, o outcome) {
	if len(fh) != handleLen {
		return nil, 0, statusBadHandle, answered
	}
	p := (*prefix)(fh)
	if v = q.c.using.Load(); v == nil || v.prefix != *p {
		if v = q.c.s.views.cached(p); v == nil {
			if !q.mayWait {
				return nil, 0, 0, mustWait
			}
			var err error
			if v, err = q.c.s.views.get(q.c.ctx, *p); err != nil {
				return nil, 0, q.viewStatus(*p, err), answered
			}
		}
		q.c.using.Store(v)
	}
	tail := xdr.NewDecoder(fh[prefixLen:])
	if entry = tail.Uint32(); entry >= v.len() {
		return nil, 0, statusBadHandle, answered
	}
	return v, v.tree.Canonical(entry), statusOK, answered
}

// target finds the object of a call whose arguments have all been taken from d. If
// there is none, ok is false and the procedure ends with the outcome.
func (q *request) target(d xdr.Decoder, fh []byte) (v *view, entry uint32, o outcome, ok bool) {
	if !d.Ok() {
		return nil, 0, malformed, false
	}
	v, entry, st, o := q.object(fh)
	switch {
	case o != answered:
		return nil, 0, o, false
	case st != statusOK:
		return nil, 0, q.fail(st, nil, 0), false
	}
	return v, entry, answered, true
}

var errStale = errors.New("no version has this handle")

func (q *request) viewStatus(p prefix, err error) status {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errStale) {
		return statusStale
	}
	if errors.Is(err, ErrLater) {
		return statusJukebox
	}
	if !errors.Is(err, context.Canceled) {
		q.c.s.log.Error("tree of a file handle cannot be loaded", "tree", p, "addr", q.c.remote, "err", err)
	}
	return statusIO
}

// finish completes the reply that starts at start.
func (q *request) finish(start int, b []byte) outcome {
	rpc.End(b, start, 0)
	q.out.buf = b
	return answered
}

// reply starts a reply with a status.
func (q *request) reply(st status) (start int, b []byte) {
	start = len(q.out.buf)
	b = rpc.Begin(q.out.buf, q.call.XID, rpc.Success)
	return start, xdr.AppendUint32(b, uint32(st))
}

// fail answers with a status and the attributes of the object if it is known,
// which is what all the reading procedures but GETATTR do.
func (q *request) fail(st status, v *view, entry uint32) outcome {
	start, b := q.reply(st)
	return q.finish(start, appendPostOp(b, v, entry))
}

// appendPostOp appends post_op_attr, empty without a view.
func appendPostOp(b []byte, v *view, entry uint32) []byte {
	if v == nil {
		return append(b, 0, 0, 0, 0)
	}
	b = append(b, 0, 0, 0, 1)
	return append(b, v.attr(entry)...)
}

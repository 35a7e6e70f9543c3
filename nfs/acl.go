// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"slate/nfs/internal/rpc"
	"slate/nfs/internal/xdr"
)

// The ACL program that Sun added to NFS and Linux speaks; it has no RFC. The
// forms are those of fs/nfs_common/nfsacl.c and include/uapi/linux/nfsacl.h in
// Linux.
//
// Export must have it although it says only that there are no ACLs: a Linux
// client without an answer gives EOPNOTSUPP to overlayfs, which then refuses
// everybody but root every file of an overlay on the export.
const (
	progACL    = 100227
	aclVersion = 3

	aclNull  = 0
	aclGet   = 1
	aclSet   = 2
	aclCount = 3

	aclMask = 0xf // the bits of mask that there are
)

// acl answers the ACL program: modes decide alone.
func (q *request) acl() outcome {
	d := xdr.NewDecoder(q.call.Args)
	if q.call.Proc == aclNull {
		return q.finish(len(q.out.buf), rpc.Begin(q.out.buf, q.call.XID, rpc.Success))
	}
	fh := d.Opaque(maxFH)
	mask := d.Uint32()
	v, entry, o, ok := q.target(d, fh)
	switch {
	case !ok:
		return o
	case q.call.Proc == aclSet:
		return q.fail(statusROFS, v, entry)
	case mask&^aclMask != 0:
		return q.fail(statusInval, v, entry)
	}
	start, b := q.reply(statusOK)
	b = appendPostOp(b, v, entry)
	b = xdr.AppendUint32(b, mask)
	for range 2 { // the access ACL, then the default ACL: a count, and an array of none
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	return q.finish(start, b)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"slate/nfs/internal/rpc"
	"slate/nfs/internal/xdr"
)

// The portmapper, RFC 1833, section 3. Our own machines need none: they are
// told the port. But programs such as libnfs and showmount ask one on port 111
// unless a person tells them otherwise, and a Server may serve that port too.
const (
	progPortmap = 100000
	pmapVersion = 2
	protoTCP    = 6

	pmapNull    = 0
	pmapGetport = 3
	pmapDump    = 4
	pmapCount   = 6
)

// served are the programs with their versions.
var served = [...][2]uint32{{progPortmap, pmapVersion}, {progNFS, nfsVersion}, {progMount, mntVersion}, {progACL, aclVersion}}

// portmap answers the portmapper. Nobody can register anything.
func (q *request) portmap() outcome {
	d := xdr.NewDecoder(q.call.Args)
	start := len(q.out.buf)
	switch q.call.Proc {
	case pmapNull:
		return q.finish(start, rpc.Begin(q.out.buf, q.call.XID, rpc.Success))
	case pmapGetport:
		prog, vers, proto := d.Uint32(), d.Uint32(), d.Uint32()
		d.Uint32()
		if !d.Ok() {
			return malformed
		}
		var port uint32 // 0: not here
		for _, s := range served {
			if s == [2]uint32{prog, vers} && proto == protoTCP {
				port = q.port(prog)
			}
		}
		b := rpc.Begin(q.out.buf, q.call.XID, rpc.Success)
		return q.finish(start, xdr.AppendUint32(b, port))
	case pmapDump:
		b := rpc.Begin(q.out.buf, q.call.XID, rpc.Success)
		for _, s := range served {
			for _, x := range [...]uint32{1, s[0], s[1], protoTCP, q.port(s[0])} {
				b = xdr.AppendUint32(b, x)
			}
		}
		return q.finish(start, append(b, 0, 0, 0, 0))
	}
	return unknown
}

func (q *request) port(prog uint32) uint32 {
	if p := q.c.s.Port; p != 0 && prog != progPortmap {
		return uint32(p)
	}
	return uint32(q.c.localPort())
}

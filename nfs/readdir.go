// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"slate/nfs/internal/xdr"
)

// Cookies count the entries of a directory: 1 stands after ".", 2 after "..",
// and so on. As a version never changes they are good for ever.
const dotEntries = 2

// Lengths on the wire. An entry comes with one word that says it is there.
const (
	dirTail  = 4 + 4         // no more entries, end of directory
	entryLen = 4 + 8 + 4 + 8 // and the name
	plusLen  = 4 + attrLen + 4 + 4 + handleLen
)

// readdir answers READDIR and READDIRPLUS, RFC 1813, sections 3.3.16 and 17.
func (q *request) readdir(d xdr.Decoder, plus bool) outcome {
	fh := d.Opaque(maxFH)
	cookie, verf := d.Uint64(), d.Uint64()
	limit := d.Uint32()
	if plus {
		// The first limit is on names and cookies alone. It is taken for
		// a hint, as the Linux server does: Linux asks for an eighth of
		// the second one, and heeding it would half empty the pages.
		limit = d.Uint32()
	}
	v, dir, o, ok := q.target(d, fh)
	if !ok {
		return o
	}
	first, end := v.tree.Range(dir)
	total := uint64(end-first) + dotEntries
	switch {
	case v.kind(dir) != typeDir:
		return q.fail(statusNotDir, v, dir)
	case perms(v, dir, &q.cred)&permR == 0:
		return q.fail(statusAcces, v, dir)
	case cookie > total || cookie != 0 && verf != v.verf:
		return q.fail(statusBadCookie, v, dir)
	}
	room := min(int(min(limit, maxDir)), q.out.room()-64)
	start, b := q.reply(statusOK)
	base := len(b) - 4
	b = appendPostOp(b, v, dir)
	b = xdr.AppendUint64(b, v.verf)
	from := cookie
	for ; cookie < total; cookie++ {
		var entry uint32
		var name string
		switch cookie {
		case 0:
			entry, name = dir, "."
		case 1:
			entry, name = v.tree.Parent(dir), ".."
		default:
			entry = first + uint32(cookie-dotEntries)
			name = v.tree.Name(entry)
		}
		need := entryLen + len(name) + xdr.Pad(len(name))
		if plus {
			need += plusLen
		}
		if len(b)-base+need+dirTail > room {
			break
		}
		b = append(b, 0, 0, 0, 1)
		b = append(b, v.attr(entry)[attrFile:attrFile+8]...)
		b = xdr.AppendOpaque(b, name)
		b = xdr.AppendUint64(b, cookie+1)
		if plus {
			b = appendPostOp(b, v, entry)
			b = append(b, 0, 0, 0, 1)
			b = appendHandle(b, &v.prefix, v.tree.Canonical(entry))
		}
	}
	if cookie == from && cookie < total {
		return q.fail(statusTooSmall, v, dir)
	}
	b = append(b, 0, 0, 0, 0)
	return q.finish(start, xdr.AppendBool(b, cookie == total))
}

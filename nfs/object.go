// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"unsafe"

	"slate/nfs/internal/xdr"
)

// getattr answers GETATTR, RFC 1813, section 3.3.1.
func (q *request) getattr(d xdr.Decoder) outcome {
	fh := d.Opaque(maxFH)
	if !d.Ok() {
		return malformed
	}
	v, entry, st, o := q.object(fh)
	if o != answered {
		return o
	}
	start, b := q.reply(st)
	if st == statusOK {
		b = append(b, v.attr(entry)...)
	}
	return q.finish(start, b)
}

// lookup answers LOOKUP, section 3.3.3.
func (q *request) lookup(d xdr.Decoder) outcome {
	fh := d.Opaque(maxFH)
	name := d.Opaque(inSize)
	v, dir, o, ok := q.target(d, fh)
	if !ok {
		return o
	}
	entry, st := lookup(v, dir, name)
	if st == statusOK || st == statusNoEnt {
		if perms(v, dir, &q.cred)&permX == 0 {
			st = statusAcces
		}
	}
	if st != statusOK {
		return q.fail(st, v, dir)
	}
	start, b := q.reply(statusOK)
	b = appendHandle(b, &v.prefix, entry)
	b = appendPostOp(b, v, entry)
	return q.finish(start, appendPostOp(b, v, dir))
}

// lookup finds a name in a directory. It gives the number that handles are
// made of: one for all names of a file.
func lookup(v *view, dir uint32, name []byte) (uint32, status) {
	switch {
	case v.kind(dir) != typeDir:
		return 0, statusNotDir
	case len(name) > maxName:
		return 0, statusNameTooLong
	case len(name) == 0:
		return 0, statusAcces // RFC 1813, section 2.4, wants an error for it
	case string(name) == ".":
		return dir, statusOK
	case string(name) == "..":
		return v.tree.Parent(dir), statusOK // nothing is above the root
	}
	// The tree does not keep the string: no copy is needed.
	entry, ok := v.tree.Lookup(dir, unsafe.String(unsafe.SliceData(name), len(name)))
	if !ok {
		return 0, statusNoEnt
	}
	return v.tree.Canonical(entry), statusOK
}

// access answers ACCESS, section 3.3.4.
func (q *request) access(d xdr.Decoder) outcome {
	fh := d.Opaque(maxFH)
	want := d.Uint32()
	v, entry, o, ok := q.target(d, fh)
	if !ok {
		return o
	}
	start, b := q.reply(statusOK)
	b = appendPostOp(b, v, entry)
	return q.finish(start, xdr.AppendUint32(b, want&accessBits(v, entry, &q.cred)))
}

// readlink answers READLINK, section 3.3.5.
func (q *request) readlink(d xdr.Decoder) outcome {
	fh := d.Opaque(maxFH)
	v, entry, o, ok := q.target(d, fh)
	if !ok {
		return o
	}
	if v.kind(entry) != typeLnk {
		return q.fail(statusInval, v, entry)
	}
	start, b := q.reply(statusOK)
	b = appendPostOp(b, v, entry)
	return q.finish(start, xdr.AppendOpaque(b, v.tree.Entry(entry).Target))
}

// fsinfo answers FSINFO, section 3.3.19.
func (q *request) fsinfo(d xdr.Decoder) outcome {
	fh := d.Opaque(maxFH)
	v, entry, o, ok := q.target(d, fh)
	if !ok {
		return o
	}
	const links, symlinks, homogeneous = 1, 2, 8
	start, b := q.reply(statusOK)
	b = appendPostOp(b, v, entry)
	for _, x := range [...]uint32{maxRead, maxRead, blockSize, maxWrite, maxWrite, blockSize, maxDir} {
		b = xdr.AppendUint32(b, x)
	}
	b = xdr.AppendUint64(b, 1<<63-1) // largest file
	b = xdr.AppendUint32(b, 0)       // times are exact to
	b = xdr.AppendUint32(b, 1)       // a nanosecond
	return q.finish(start, xdr.AppendUint32(b, links|symlinks|homogeneous))
}

// fsstat answers FSSTAT, section 3.3.18: the size of the version, and nothing
// free. go-nfs writes the last field in twice its length.
func (q *request) fsstat(d xdr.Decoder) outcome {
	fh := d.Opaque(maxFH)
	v, entry, o, ok := q.target(d, fh)
	if !ok {
		return o
	}
	start, b := q.reply(statusOK)
	b = appendPostOp(b, v, entry)
	for _, x := range [...]uint64{uint64(v.tree.Size()), 0, 0, uint64(v.len()), 0, 0} {
		b = xdr.AppendUint64(b, x)
	}
	const forEver = 1<<32 - 1 // seconds for which this will not change
	return q.finish(start, xdr.AppendUint32(b, forEver))
}

// pathconf answers PATHCONF, section 3.3.20, for which go-nfs has constants:
// no hard links, and anybody may give files away.
func (q *request) pathconf(d xdr.Decoder) outcome {
	fh := d.Opaque(maxFH)
	v, entry, o, ok := q.target(d, fh)
	if !ok {
		return o
	}
	start, b := q.reply(statusOK)
	b = appendPostOp(b, v, entry)
	b = xdr.AppendUint32(b, 1<<31-1) // names of one file
	b = xdr.AppendUint32(b, maxName)
	b = xdr.AppendBool(b, true)  // longer names are refused, not cut
	b = xdr.AppendBool(b, true)  // owners may not give files away
	b = xdr.AppendBool(b, false) // case matters
	return q.finish(start, xdr.AppendBool(b, true))
}

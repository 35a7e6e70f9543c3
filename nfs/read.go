// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"encoding/binary"

	"slate/nfs/internal/rpc"
	"slate/nfs/internal/xdr"
)

// read answers READ, RFC 1813, section 3.3.6.
func (q *request) read(d xdr.Decoder) outcome {
	fh := d.Opaque(maxFH)
	off := d.Uint64()
	count := d.Uint32()
	v, entry, o, ok := q.target(d, fh)
	if !ok {
		return o
	}
	switch v.kind(entry) {
	case typeReg:
	case typeDir:
		return q.fail(statusIsDir, v, entry)
	default:
		return q.fail(statusInval, v, entry)
	}
	if !mayRead(v, entry, &q.cred) {
		return q.fail(statusAcces, v, entry)
	}
	n, size := 0, v.size(entry)
	if off < size {
		n = int(min(uint64(count), maxRead, size-off))
	}
	eof := off >= size || off+uint64(n) == size
	if n == 0 {
		start, b := q.readHeader(v, entry, 0, eof)
		return q.finish(start, b)
	}
	return q.content(v, entry, int64(off), n, eof)
}

// content answers a READ of at least one byte.
func (q *request) content(v *view, entry uint32, off int64, n int, eof bool) outcome {
	content := v.tree.Blob(entry)
	b := q.c.s.blobs.cached(content.Digest)
	if b == nil {
		if !q.mayWait {
			return mustWait
		}
		var err error
		if b, err = q.c.s.blobs.get(content.Digest, content.Size); err != nil {
			return q.broken(v, entry, err)
		}
	}
	if n > copyMax {
		if !b.inMemory(off, n) {
			if !q.mayWait {
				b.release()
				return mustWait
			}
			if err := b.fetch(off, n); err != nil {
				b.release()
				return q.broken(v, entry, err)
			}
		}
		start, buf := q.readHeader(v, entry, n, eof)
		q.out.files = append(q.out.files, filePart{at: len(buf), blob: b, off: off, n: n})
		buf = xdr.AppendPad(buf, n)
		rpc.End(buf, start, n)
		q.out.buf = buf
		return answered
	}
	defer b.release()
	start, buf := q.readHeader(v, entry, n, eof)
	data := buf[len(buf) : len(buf)+n]
	if !b.readCached(data, off) {
		if !q.mayWait {
			return mustWait
		}
		if err := b.read(data, off); err != nil {
			return q.broken(v, entry, err)
		}
	}
	return q.finish(start, xdr.AppendPad(buf[:len(buf)+n], n))
}

func (q *request) readHeader(v *view, entry uint32, n int, eof bool) (start int, b []byte) {
	start, b = q.reply(statusOK)
	b = appendPostOp(b, v, entry)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = xdr.AppendBool(b, eof)
	return start, binary.BigEndian.AppendUint32(b, uint32(n))
}

// broken answers for a blob that is missing or damaged.
func (q *request) broken(v *view, entry uint32, err error) outcome {
	q.c.s.log.Error("file cannot be read", "tree", v.digest.Short(), "path", v.tree.Path(entry), "addr", q.c.remote, "err", err)
	return q.fail(statusIO, v, entry)
}

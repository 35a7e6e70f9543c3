// SPDX-License-Identifier: GPL-2.0-or-later

package rpc

import (
	"encoding/binary"
	"fmt"
)

// maxFragments bounds the fragments of one record. Real clients send one or
// two; the bound keeps a record of a thousand tiny ones from costing much.
const maxFragments = 64

const lastFragment = 1 << 31

// RecordError says why a byte stream cannot be a stream of records. The
// connection it came from has to be closed: the next boundary is lost.
type RecordError struct{ Reason string }

func (e *RecordError) Error() string { return "rpc: record: " + e.Reason }

// Records cuts a byte stream into records as RFC 5531, section 11, defines
// them. The caller reads into Free, says with Filled how much came, and takes
// records with Next until there is none.
type Records struct {
	buf        []byte
	start, end int // the bytes of the stream in buf not handed out yet
	joined     int // bytes at start that are fragments of one record, without their headers
	fragments  int
}

// Use gives the buffer to read into, empty. Its size bounds a record.
func (r *Records) Use(buf []byte) { *r = Records{buf: buf} }

// Move copies what is pending into another buffer, which must be large enough
// for it, and returns the one used so far.
func (r *Records) Move(buf []byte) (old []byte) {
	old = r.buf
	r.end = copy(buf, r.buf[r.start:r.end])
	r.buf, r.start = buf, 0
	return old
}

// Pending is the number of bytes that no record was made of yet.
func (r *Records) Pending() int { return r.end - r.start }

// Free returns the room for more bytes. It is never empty after Next has
// answered that it needs more. Slices that Next returned are invalid after it.
func (r *Records) Free() []byte {
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	return r.buf[r.end:]
}

// Filled says that n bytes were read into Free.
func (r *Records) Filled(n int) { r.end += n }

// Next returns the next whole record, nil if more bytes are needed. It is a
// slice of the buffer. Fragments are joined in place.
func (r *Records) Next() ([]byte, error) {
	for {
		raw := r.buf[r.start+r.joined : r.end]
		if len(raw) < 4 {
			return nil, nil
		}
		head := binary.BigEndian.Uint32(raw)
		last, size := head&lastFragment != 0, int(head&^lastFragment)
		if r.joined+4+size > len(r.buf) {
			return nil, &RecordError{fmt.Sprintf("%d bytes, more than the limit of %d", r.joined+size, len(r.buf)-4)}
		}
		if len(raw) < 4+size {
			return nil, nil
		}
		if last && r.joined == 0 {
			r.start += 4 + size
			r.fragments = 0
			return raw[4 : 4+size : 4+size], nil
		}
		if r.fragments++; r.fragments > maxFragments {
			return nil, &RecordError{fmt.Sprintf("more than %d fragments", maxFragments)}
		}
		copy(raw, raw[4:])
		r.end -= 4
		r.joined += size
		if last {
			record := r.buf[r.start : r.start+r.joined : r.start+r.joined]
			r.start += r.joined
			r.joined, r.fragments = 0, 0
			return record, nil
		}
	}
}

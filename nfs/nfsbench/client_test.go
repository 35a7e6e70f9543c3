// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"slate/nfs/internal/xdr"
)

// The procedures the load is made of.
const (
	progNFS, progMount, progACL      = 100003, 100005, 100227
	procGetacl                       = 1
	procGetattr, procLookup          = 1, 3
	procAccess, procReadlink         = 4, 5
	procRead                         = 6
	procReaddir, procReaddirplus     = 16, 17
	procFsstat, procFsinfo, procConf = 18, 19, 20
	mountMnt                         = 1
	errNoEnt, errNotSupp             = 2, 10004
)

// call is a request ready to be sent: the bytes of the whole record, with room
// for the transaction number at xidAt.
type call []byte

const xidAt = 4

func newCall(prog, proc uint32, args []byte) call {
	b := make([]byte, 4, 160)
	for _, v := range []uint32{0, 0, 2, prog, 3, proc, 1, 36} {
		b = xdr.AppendUint32(b, v)
	}
	b = xdr.AppendUint32(b, 0) // stamp
	b = xdr.AppendOpaque(b, "bench")
	b = append(b, make([]byte, 4+4)...) // user, group
	b = xdr.AppendUint32(b, 2)          // further groups
	b = append(b, make([]byte, 2*4)...)
	b = append(b, make([]byte, 8)...) // verifier
	b = append(b, args...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4)|1<<31)
	return b
}

func handleCall(proc uint32, fh []byte, words ...uint32) call {
	args := xdr.AppendOpaque(nil, fh)
	for _, w := range words {
		args = xdr.AppendUint32(args, w)
	}
	return newCall(progNFS, proc, args)
}

func lookupCall(dir []byte, name string) call {
	return newCall(progNFS, procLookup, xdr.AppendOpaque(xdr.AppendOpaque(nil, dir), name))
}

func readCall(fh []byte, off uint64, count uint32) call {
	return handleCall(procRead, fh, uint32(off>>32), uint32(off), count)
}

// source says what a connection sends next; nil when there is no more.
type source func() call

// result is what a connection has seen.
type result struct {
	ops, bytes int64 // bytes: of all replies
	errors     int64
	latencies  []time.Duration
}

func (r *result) add(o result) {
	r.ops, r.bytes, r.errors = r.ops+o.ops, r.bytes+o.bytes, r.errors+o.errors
	r.latencies = append(r.latencies, o.latencies...)
}

// headerLen is the length of record mark and header of a reply up to the
// status of the procedure, which is the word behind.
const headerLen = 28

// run keeps depth calls in flight on one connection until there are no more,
// and all replies are in. Calls that can be sent at one time go out in one
// write, as those of a kernel do.
func run(addr string, depth int, next source) (res result, err error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return res, err
	}
	defer nc.Close()
	sent := make([]time.Time, depth)
	free := make([]int, depth)
	for i := range free {
		free[i] = i
	}
	in := make([]byte, 256<<10)
	r, w := 0, 0
	var out []byte
	more := true
	for {
		out = out[:0]
		now := time.Now()
		for more && len(free) > 0 {
			c := next()
			if c == nil {
				more = false
				break
			}
			slot := free[len(free)-1]
			free = free[:len(free)-1]
			sent[slot] = now
			at := len(out)
			out = append(out, c...)
			binary.BigEndian.PutUint32(out[at+xidAt:], uint32(slot))
		}
		if len(out) > 0 {
			if _, err := nc.Write(out); err != nil {
				return res, err
			}
		}
		if len(free) == depth {
			return res, nil
		}
		// At least one reply, then all that are there.
		for got := 0; got == 0; {
			n, err := nc.Read(in[w:])
			if err != nil {
				return res, err
			}
			w += n
			for w-r >= headerLen {
				mark := binary.BigEndian.Uint32(in[r:])
				size := 4 + int(mark&^(1<<31))
				slot := int(binary.BigEndian.Uint32(in[r+4:]))
				if mark>>31 != 1 || slot >= depth || sent[slot].IsZero() {
					return res, fmt.Errorf("reply with mark %#x and number %d", mark, slot)
				}
				if w-r < min(size, len(in)) && (size <= len(in) || w-r < headerLen+4) {
					break
				}
				if bad(in[r : r+min(size, w-r)]) {
					res.errors++
				}
				if size > w-r {
					// Large, and of no interest: it goes through the buffer.
					rest := size - (w - r)
					for rest > 0 {
						n, err := nc.Read(in[:min(len(in), rest)])
						if err != nil {
							return res, err
						}
						rest -= n
					}
					r, w = 0, 0
				} else {
					r += size
				}
				res.ops++
				res.bytes += int64(size)
				res.latencies = append(res.latencies, time.Since(sent[slot]))
				sent[slot] = time.Time{}
				free = append(free, slot)
				got++
			}
			if r == w {
				r, w = 0, 0
			} else if r > 0 {
				w = copy(in, in[r:w])
				r = 0
			}
		}
	}
}

// bad judges a reply, of which the beginning is there. Names that do not exist
// are part of the load, and a server without the ACL program may say so.
func bad(reply []byte) bool {
	const progUnavail = 1
	if denied, accept := reply[15] != 0, reply[headerLen-1]; denied || accept != 0 {
		return denied || accept != progUnavail
	}
	if len(reply) < headerLen+4 {
		return false // NULL
	}
	status := binary.BigEndian.Uint32(reply[headerLen:])
	return status != 0 && status != errNoEnt
}

// session is a connection for one call at a time, whose replies matter.
type session struct {
	nc  net.Conn
	xid uint32
	buf []byte
	ops int64
	lat []time.Duration
}

func open(addr string) (*session, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &session{nc: nc}, nil
}

// call returns the status and what follows it.
func (s *session) call(c call) (status uint32, d xdr.Decoder, err error) {
	s.xid++
	binary.BigEndian.PutUint32(c[xidAt:], s.xid)
	start := time.Now()
	if _, err := s.nc.Write(c); err != nil {
		return 0, d, err
	}
	if cap(s.buf) < 4 {
		s.buf = make([]byte, 128<<10)
	}
	have := 0
	for need := 4; have < need; {
		n, err := s.nc.Read(s.buf[have:])
		if err != nil {
			return 0, d, err
		}
		if have += n; have >= 4 {
			need = 4 + int(binary.BigEndian.Uint32(s.buf)&^(1<<31))
			if need > len(s.buf) {
				s.buf = append(make([]byte, 0, need), s.buf...)[:need]
			}
		}
	}
	s.ops++
	s.lat = append(s.lat, time.Since(start))
	d = xdr.NewDecoder(s.buf[4:have])
	if d.Uint32() != s.xid {
		return 0, d, errors.New("reply to another call")
	}
	for range 4 {
		d.Uint32()
	}
	if accept := d.Uint32(); accept != 0 {
		return 0, d, fmt.Errorf("accept_stat %d", accept)
	}
	return d.Uint32(), d, nil
}

// mount asks the MOUNT service for the root of an export.
func mount(addr, path string) ([]byte, error) {
	s, err := open(addr)
	if err != nil {
		return nil, err
	}
	defer s.nc.Close()
	status, d, err := s.call(newCall(progMount, mountMnt, xdr.AppendOpaque(nil, path)))
	if err == nil && status != 0 {
		err = fmt.Errorf("mount %s: status %d", path, status)
	}
	return append([]byte(nil), d.Opaque(64)...), err
}

// entry is what a walk learns.
type entry struct {
	name string
	dir  bool
	fh   []byte
}

const attrLen = 84

func skipAttr(d *xdr.Decoder) (kind uint32) {
	if d.Bool() {
		kind = d.Uint32()
		d.Fixed(attrLen - 4)
	}
	return kind
}

// listPlus reads a directory by READDIRPLUS. Where the server left out handle
// or attributes, it asks for them as a kernel would.
func (s *session) listPlus(dir []byte) (entries []entry, err error) {
	var cookie, verf uint64
	for {
		c := handleCall(procReaddirplus, dir, uint32(cookie>>32), uint32(cookie), uint32(verf>>32), uint32(verf), 8192, 65536)
		status, d, err := s.call(c)
		if err != nil || status != 0 {
			return nil, errors.Join(err, statusError("READDIRPLUS", status))
		}
		skipAttr(&d)
		verf = d.Uint64()
		for d.Bool() {
			d.Uint64()
			e := entry{name: string(d.Opaque(255))}
			cookie = d.Uint64()
			e.dir = skipAttr(&d) == 2
			if d.Bool() {
				e.fh = append([]byte(nil), d.Opaque(64)...)
			}
			if e.name != "." && e.name != ".." {
				entries = append(entries, e)
			}
		}
		eof := d.Bool()
		if !d.Ok() {
			return nil, io.ErrUnexpectedEOF
		}
		if eof {
			break
		}
	}
	for i := range entries {
		if entries[i].fh == nil {
			if err := s.look(dir, &entries[i]); err != nil {
				return nil, err
			}
		}
	}
	return entries, nil
}

func (s *session) look(dir []byte, e *entry) error {
	status, d, err := s.call(lookupCall(dir, e.name))
	if err != nil || status != 0 {
		return errors.Join(err, statusError("LOOKUP "+e.name, status))
	}
	e.fh = append([]byte(nil), d.Opaque(64)...)
	e.dir = skipAttr(&d) == 2
	return nil
}

// listPlain reads a directory by READDIR, and LOOKUP and GETATTR of each entry.
func (s *session) listPlain(dir []byte) (entries []entry, err error) {
	var cookie, verf uint64
	for eof := false; !eof; {
		c := handleCall(procReaddir, dir, uint32(cookie>>32), uint32(cookie), uint32(verf>>32), uint32(verf), 32768)
		status, d, err := s.call(c)
		if err != nil || status != 0 {
			return nil, errors.Join(err, statusError("READDIR", status))
		}
		skipAttr(&d)
		verf = d.Uint64()
		for d.Bool() {
			d.Uint64()
			e := entry{name: string(d.Opaque(255))}
			cookie = d.Uint64()
			if e.name != "." && e.name != ".." {
				entries = append(entries, e)
			}
		}
		eof = d.Bool()
		if !d.Ok() {
			return nil, io.ErrUnexpectedEOF
		}
	}
	for i := range entries {
		e := &entries[i]
		if err := s.look(dir, e); err != nil {
			return nil, err
		}
		if status, _, err := s.call(handleCall(procGetattr, e.fh)); err != nil || status != 0 {
			return nil, errors.Join(err, statusError("GETATTR", status))
		}
	}
	return entries, nil
}

func statusError(what string, status uint32) error {
	if status == 0 {
		return nil
	}
	return fmt.Errorf("%s: status %d", what, status)
}

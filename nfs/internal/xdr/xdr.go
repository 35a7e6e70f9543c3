// SPDX-License-Identifier: GPL-2.0-or-later

// Package xdr reads and writes the few XDR types (RFC 4506) that ONC RPC and
// NFSv3 are made of, on plain byte slices and without reflection. It knows no
// protocol.
package xdr

import "encoding/binary"

// Decoder takes values off the front of a message. A value that is not there
// sets a flag that stays, and reads as zero; so a caller decodes a whole
// structure and asks once, with Ok or Done.
type Decoder struct {
	b   []byte
	bad bool
}

// NewDecoder reads from b. Opaque values are slices of it, not copies.
func NewDecoder(b []byte) Decoder { return Decoder{b: b} }

// Ok reports whether every value so far was there.
func (d *Decoder) Ok() bool { return !d.bad }

// Len is the number of bytes not read yet.
func (d *Decoder) Len() int { return len(d.b) }

// Rest returns the bytes not read yet.
func (d *Decoder) Rest() []byte { return d.b }

// Fail marks the message as malformed, for a value that is out of range.
func (d *Decoder) Fail() { d.bad = true }

// Uint32 reads an unsigned integer or an enumeration.
func (d *Decoder) Uint32() uint32 {
	if len(d.b) < 4 {
		d.bad, d.b = true, nil
		return 0
	}
	v := binary.BigEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

// Uint64 reads an unsigned hyper integer.
func (d *Decoder) Uint64() uint64 {
	if len(d.b) < 8 {
		d.bad, d.b = true, nil
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

// Bool reads a boolean; anything but 0 and 1 is malformed.
func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.bad = true
	}
	return v == 1
}

// Opaque reads variable-length data of at most max bytes, or a string.
func (d *Decoder) Opaque(max int) []byte {
	n := d.Uint32()
	if uint64(n) > uint64(max) {
		d.bad, d.b = true, nil
		return nil
	}
	return d.Fixed(int(n))
}

// Fixed reads n bytes and their padding.
func (d *Decoder) Fixed(n int) []byte {
	padded := n + Pad(n)
	if n < 0 || len(d.b) < padded {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[padded:]
	return v
}

// Pad is the number of zero bytes that follow n bytes of opaque data.
func Pad(n int) int { return -n & 3 }

// AppendUint32 appends an unsigned integer.
func AppendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

// AppendUint64 appends an unsigned hyper integer.
func AppendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// AppendBool appends a boolean.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0, 0, 0, 1)
	}
	return append(b, 0, 0, 0, 0)
}

// AppendOpaque appends variable-length data.
func AppendOpaque[T []byte | string](b []byte, v T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	b = append(b, v...)
	return AppendPad(b, len(v))
}

// AppendPad appends the zero bytes that follow n bytes of opaque data.
func AppendPad(b []byte, n int) []byte {
	var zero [3]byte
	return append(b, zero[:Pad(n)]...)
}

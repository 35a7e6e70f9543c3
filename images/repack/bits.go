// SPDX-License-Identifier: GPL-2.0-or-later

package repack

import (
	"bufio"
	"io"
)

// A bitReader reads bits, the lowest of each byte first.
type bitReader struct {
	r    *bufio.Reader
	acc  uint64
	n    uint // bits in acc
	over uint // bits in acc beyond the end
	err  error
}

func newBitReader(r io.Reader) *bitReader { return &bitReader{r: bufio.NewReaderSize(r, 64<<10)} }

// fill makes sure of n bits, of which those beyond the end are 0.
func (b *bitReader) fill(n uint) {
	for b.n < n {
		c, err := b.r.ReadByte()
		if err != nil {
			b.over += 8
			if err != io.EOF {
				b.err = err
			}
			c = 0
		}
		b.acc |= uint64(c) << b.n
		b.n += 8
	}
}

func (b *bitReader) drop(n uint) {
	b.acc >>= n
	b.n -= n
	if b.n < b.over && b.err == nil {
		b.err = io.ErrUnexpectedEOF
	}
}

func (b *bitReader) bits(n uint) uint32 {
	b.fill(n)
	v := uint32(b.acc & (1<<n - 1))
	b.drop(n)
	return v
}

// align drops what is left of a byte.
func (b *bitReader) align() { b.drop(b.n % 8) }

// peekBytes returns up to n of the bytes that come next. The reader must be
// aligned.
func (b *bitReader) peekBytes(n int) []byte {
	have := int(b.n-b.over) / 8
	out := make([]byte, 0, n)
	for i := 0; i < have && i < n; i++ {
		out = append(out, byte(b.acc>>(8*i)))
	}
	more, _ := b.r.Peek(max(n-have, 0))
	return append(out, more...)
}

// copyBytes takes n bytes out, fewer at the end of the file if n is negative.
func (b *bitReader) copyBytes(w io.Writer, n int64) (int64, error) {
	var held []byte
	for b.n > b.over && (n < 0 || int64(len(held)) < n) {
		held = append(held, byte(b.acc))
		b.drop(8)
	}
	if _, err := w.Write(held); err != nil {
		return 0, err
	}
	var more int64
	var err error
	if n < 0 {
		more, err = io.Copy(w, b.r)
	} else {
		more, err = io.CopyN(w, b.r, n-int64(len(held)))
	}
	return int64(len(held)) + more, err
}

// A bitWriter is the counterpart.
type bitWriter struct {
	w   *bufio.Writer
	acc uint64
	n   uint
}

func newBitWriter(w io.Writer) *bitWriter { return &bitWriter{w: bufio.NewWriterSize(w, 64<<10)} }

func (b *bitWriter) bits(v uint32, n uint) {
	b.acc |= uint64(v) << b.n
	b.n += n
	for b.n >= 8 {
		b.w.WriteByte(byte(b.acc)) // flush returns what goes wrong
		b.acc >>= 8
		b.n -= 8
	}
}

func (b *bitWriter) align() {
	if b.n > 0 {
		b.bits(0, 8-b.n)
	}
}

func (b *bitWriter) flush() error { return b.w.Flush() }

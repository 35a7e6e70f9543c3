// SPDX-License-Identifier: GPL-2.0-or-later

package repack

import (
	"encoding/binary"
	"io"
)

// An unpacker takes a file apart.
type unpacker struct {
	plain       io.Writer
	contentOnly bool
	limit       int // of recipe

	recipe  []byte
	rawHere int64 // bytes taken over since the last deflate stream

	// Of the deflate stream at hand:
	p       *predictor // holds the content, too
	written int        // position up to which plain has it
	queue   []token    // decoded, and not yet compared with what is guessed
	blocks  [][]byte   // how those blocks begin that have marks in the queue
	right   uint64     // guesses that were right since the last that was not
	body    []byte     // the stream's recipe
	style   int        // in styles; -1: not chosen yet
	ended   bool
	h       header
}

// Tokens with these lengths, which no repetition has, are marks in the queue.
const (
	markEnd   = 1 // a block ends
	markBlock = 2 // the next of unpacker.blocks begins
)

// batch is how many tokens are decoded before they are compared.
const batch = 16 << 10

func (u *unpacker) raw(in *bitReader, n int64) error {
	got, err := in.copyBytes(u.plain, n)
	u.rawHere += got
	if err == io.EOF {
		err = ErrNone
	}
	return err
}

// rest takes over what follows the last member.
func (u *unpacker) rest(in *bitReader) error {
	got, err := in.copyBytes(u.plain, -1)
	u.recipe = binary.AppendUvarint(u.recipe, uint64(u.rawHere+got))
	return err
}

// member takes one deflate stream apart.
func (u *unpacker) member(in *bitReader) error {
	if u.p == nil {
		u.p = &predictor{}
	}
	u.p.reset(styles[0])
	u.written, u.queue, u.blocks, u.right, u.body, u.style, u.ended = 0, u.queue[:0], nil, 0, nil, -1, false
	for last := uint32(0); last == 0; {
		last = in.bits(1)
		if err := u.block(in, last); err != nil {
			return err
		}
		if in.err != nil {
			return ErrNone
		}
	}
	in.align()
	u.ended = true
	if err := u.compare(); err != nil {
		return err
	}
	if !u.contentOnly {
		u.recipe = binary.AppendUvarint(u.recipe, uint64(u.rawHere))
		u.recipe = append(u.recipe, byte(u.style))
		u.recipe = binary.AppendUvarint(u.recipe, uint64(u.end()))
		u.recipe = append(u.recipe, u.body...)
	}
	u.rawHere = 0
	return nil
}

// end is the position behind the content so far.
func (u *unpacker) end() int { return u.p.base + len(u.p.buf) }

// block decodes one block. How it begins goes into the recipe as it is.
func (u *unpacker) block(in *bitReader, last uint32) error {
	kind := in.bits(2)
	begin := []byte{byte(last | kind<<1)}
	switch kind {
	case 0:
		in.align()
		n := in.bits(16)
		if in.bits(16) != n^0xffff {
			return ErrNone
		}
		u.mark(binary.AppendUvarint(begin, uint64(n)))
		if _, err := in.copyBytes(content{u.p}, int64(n)); err != nil {
			return ErrNone
		}
		return u.compareIfMany()
	case 1:
		u.h.fixed(true)
	case 2:
		var copied collector
		err := u.h.dynamic(func(n uint) (uint32, error) { return in.bits(n), in.err }, copied.bits, true)
		if err != nil {
			return ErrNone
		}
		begin = append(begin, copied.bytes()...)
	default:
		return ErrNone
	}
	u.mark(begin)
	return u.tokens(in)
}

// content is where stored bytes go.
type content struct{ p *predictor }

func (c content) Write(b []byte) (int, error) {
	c.p.buf = append(c.p.buf, b...)
	return len(b), nil
}

func (u *unpacker) mark(begin []byte) {
	u.queue = append(u.queue, token{length: markBlock})
	u.blocks = append(u.blocks, begin)
}

// tokens decodes up to the end of a block.
func (u *unpacker) tokens(in *bitReader) error {
	for {
		if len(u.queue) >= batch {
			if err := u.compare(); err != nil {
				return err
			}
		}
		sym, ok := in.symbol(&u.h.lit)
		switch {
		case !ok || in.err != nil:
			return ErrNone
		case sym < endOfBlock:
			u.p.buf = append(u.p.buf, byte(sym))
			u.queue = append(u.queue, token{})
			continue
		case sym == endOfBlock:
			u.queue = append(u.queue, token{length: markEnd})
			return u.compareIfMany()
		case sym >= numLitLen:
			return ErrNone
		}
		c := sym - 257
		length := int(lengthBase[c]) + int(in.bits(uint(lengthExtra[c])))
		d, ok := in.symbol(&u.h.dist)
		if !ok || d >= numDist {
			return ErrNone
		}
		dist := int(distBase[d]) + int(in.bits(uint(distExtra[d])))
		if in.err != nil || dist > u.end() || dist > windowSize || c < 28 && length == maxMatch {
			return ErrNone
		}
		u.repeat(length, dist)
		u.queue = append(u.queue, token{uint16(length), uint16(dist)})
	}
}

func (u *unpacker) repeat(length, dist int) {
	b := u.p.buf
	if dist >= length {
		u.p.buf = append(b, b[len(b)-dist:len(b)-dist+length]...)
		return
	}
	for range length {
		b = append(b, b[len(b)-dist])
	}
	u.p.buf = b
}

// symbol decodes one.
func (b *bitReader) symbol(c *codeBook) (uint16, bool) {
	b.fill(maxCodeLen)
	e := c.table[b.acc&(1<<maxCodeLen-1)]
	b.drop(uint(e & 15))
	return e >> 4, e != 0
}

func (u *unpacker) compareIfMany() error {
	if len(u.queue) < batch && len(u.p.buf) < 8*windowSize {
		return nil
	}
	return u.compare()
}

// compare hands the content on and writes down where the encoder did not do what
// was guessed. Until the stream has ended it stays behind far enough for guesses
// to see what they need.
func (u *unpacker) compare() error {
	if u.end() > maxPlain {
		return ErrNone
	}
	if _, err := u.plain.Write(u.p.buf[u.written-u.p.base:]); err != nil {
		return err
	}
	u.written = u.end()
	if u.contentOnly {
		u.queue, u.p.pos, u.p.inserted = u.queue[:0], u.end(), u.end()
		u.p.forget()
		return nil
	}
	if u.style < 0 {
		u.chooseStyle()
	}
	done := 0
	for done < len(u.queue) && (u.ended || u.p.pos+lookahead <= u.end()) {
		u.judge(u.queue[done])
		done++
	}
	u.queue = u.queue[:copy(u.queue, u.queue[done:])]
	if len(u.recipe)+len(u.body) > u.limit {
		return ErrNone
	}
	u.p.forget()
	return nil
}

// judge compares one token with the guess.
func (u *unpacker) judge(t token) {
	switch t.length {
	case markBlock:
		u.body = append(u.body, u.blocks[0]...)
		u.p.skip(storedSize(u.blocks[0]))
		u.blocks = u.blocks[1:]
		return
	case markEnd:
		u.wrong(t)
		return
	}
	if u.p.guess() == t {
		u.right++
	} else {
		u.wrong(t)
	}
	u.p.advance(t)
}

// wrong writes down a token that was not guessed.
func (u *unpacker) wrong(t token) {
	u.body = binary.AppendUvarint(u.body, u.right)
	u.body = binary.AppendUvarint(u.body, uint64(t.length))
	if t.length >= minMatch {
		u.body = binary.AppendUvarint(u.body, uint64(t.dist))
	}
	u.right = 0
}

// chooseStyle tries the styles on what is in the queue.
func (u *unpacker) chooseStyle() {
	least := len(u.queue) + 1
	var p predictor
	for i, s := range styles {
		p.reset(s)
		p.buf = u.p.buf
		if n := u.trial(&p, least); n < least {
			u.style, least = i, n
		}
	}
	u.p.style = styles[u.style]
}

// trial counts the wrong guesses, up to so many.
func (u *unpacker) trial(p *predictor, most int) int {
	wrong, block := 0, 0
	for _, t := range u.queue {
		switch {
		case wrong >= most || !u.ended && p.pos+lookahead > u.end():
			return wrong
		case t.length == markBlock:
			p.skip(storedSize(u.blocks[block]))
			block++
		case t.length != markEnd:
			if p.guess() != t {
				wrong++
			}
			p.advance(t)
		}
	}
	return wrong
}

// storedSize is how many bytes follow the beginning of a block that is not
// compressed.
func storedSize(begin []byte) int {
	if begin[0]>>1 != 0 {
		return 0
	}
	n, _ := binary.Uvarint(begin[1:])
	return int(n)
}

// A collector keeps what is read of a block's beginning, in whole bytes.
type collector struct {
	b   []byte
	acc uint64
	n   uint
}

func (c *collector) bits(v uint32, n uint) {
	c.acc |= uint64(v) << c.n
	c.n += n
	for c.n >= 8 {
		c.b = append(c.b, byte(c.acc))
		c.acc >>= 8
		c.n -= 8
	}
}

func (c *collector) bytes() []byte {
	if c.n > 0 {
		c.bits(0, 8-c.n)
	}
	return c.b
}

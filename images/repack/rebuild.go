// SPDX-License-Identifier: GPL-2.0-or-later

package repack

import (
	"encoding/binary"
	"io"
)

// A repacker puts a file together.
type repacker struct {
	recipe []byte
	plain  io.Reader
	out    *bitWriter

	p    *predictor
	left int // bytes of the stream's content that are not in p.buf yet
	h    header
}

func (r *repacker) uvarint(most uint64) (uint64, error) {
	v, n := binary.Uvarint(r.recipe)
	if n <= 0 || v > most {
		return 0, errRecipe("it is malformed")
	}
	r.recipe = r.recipe[n:]
	return v, nil
}

func (r *repacker) byte() (byte, error) {
	if len(r.recipe) == 0 {
		return 0, errRecipe("it is cut off")
	}
	b := r.recipe[0]
	r.recipe = r.recipe[1:]
	return b, nil
}

func (r *repacker) raw(n int64) error {
	_, err := io.CopyN(r.out.w, r.plain, n)
	return err
}

// more sees to it that so much content is there from the position on, or all.
func (r *repacker) more(n int) error {
	missing := r.p.pos + n - r.p.base - len(r.p.buf)
	if missing <= 0 || r.left == 0 {
		return nil
	}
	r.p.forget()
	n = min(r.left, max(missing, windowSize))
	at := len(r.p.buf)
	r.p.buf = append(r.p.buf, make([]byte, n)...)
	r.left -= n
	_, err := io.ReadFull(r.plain, r.p.buf[at:])
	return err
}

// at returns content from the position on, n bytes at least.
func (r *repacker) at(n int) ([]byte, error) {
	b := r.p.buf[r.p.pos-r.p.base:]
	if len(b) < n {
		return nil, errRecipe("it goes beyond the content")
	}
	return b, nil
}

// stream makes one deflate stream.
func (r *repacker) stream() error {
	style, err := r.byte()
	if err != nil {
		return err
	}
	size, err := r.uvarint(maxPlain)
	if err != nil {
		return err
	}
	if int(style) >= len(styles) {
		return errRecipe("it is of a newer kind")
	}
	if r.p == nil {
		r.p = &predictor{}
	}
	r.p.reset(styles[style])
	r.left = int(size)
	for last := false; !last; {
		if last, err = r.block(); err != nil {
			return err
		}
	}
	if r.left > 0 || r.p.pos != int(size) {
		return errRecipe("the stream ends before its content")
	}
	r.out.align()
	return nil
}

func (r *repacker) block() (last bool, err error) {
	begin, err := r.byte()
	if err != nil {
		return false, err
	}
	last = begin&1 != 0
	r.out.bits(uint32(begin), 3)
	switch begin >> 1 {
	case 0:
		return last, r.stored()
	case 1:
		r.h.fixed(false)
	case 2:
		if err := r.dynamic(); err != nil {
			return false, err
		}
	default:
		return false, errRecipe("no such kind of block")
	}
	return last, r.tokens()
}

func (r *repacker) stored() error {
	n, err := r.uvarint(1<<16 - 1)
	if err != nil {
		return err
	}
	if err := r.more(int(n)); err != nil {
		return err
	}
	b, err := r.at(int(n))
	if err != nil {
		return err
	}
	r.out.align()
	r.out.bits(uint32(n), 16)
	r.out.bits(uint32(n)^0xffff, 16)
	_, err = r.out.w.Write(b[:n])
	r.p.skip(int(n))
	return err
}

// dynamic takes the codes of a block from the recipe.
func (r *repacker) dynamic() error {
	acc, have := uint64(0), uint(0)
	get := func(n uint) (uint32, error) {
		for have < n {
			b, err := r.byte()
			if err != nil {
				return 0, err
			}
			acc |= uint64(b) << have
			have += 8
		}
		v := uint32(acc & (1<<n - 1))
		acc >>= n
		have -= n
		return v, nil
	}
	if err := r.h.dynamic(get, r.out.bits, false); err != nil {
		return errRecipe("the codes of a block make no sense")
	}
	return nil
}

// tokens makes the rest of a block.
func (r *repacker) tokens() error {
	for {
		right, err := r.uvarint(maxPlain)
		if err != nil {
			return err
		}
		for range right {
			if err := r.more(lookahead); err != nil {
				return err
			}
			if err := r.token(r.p.guess()); err != nil {
				return err
			}
		}
		length, err := r.uvarint(maxMatch)
		if err != nil {
			return err
		}
		if length == markEnd {
			return r.symbol(&r.h.lit, endOfBlock)
		}
		t := token{length: uint16(length)}
		if length >= minMatch {
			d, err := r.uvarint(windowSize)
			if err != nil {
				return err
			}
			t.dist = uint16(d)
		}
		if length == markBlock || length > 0 && t.dist == 0 {
			return errRecipe("no such token")
		}
		if err := r.more(lookahead); err != nil {
			return err
		}
		r.p.guess() // as it was guessed when the recipe was made
		if err := r.token(t); err != nil {
			return err
		}
	}
}

// token writes one.
func (r *repacker) token(t token) error {
	b, err := r.at(t.span())
	if err != nil {
		return err
	}
	defer r.p.advance(t)
	if t.length == 0 {
		return r.symbol(&r.h.lit, int(b[0]))
	}
	c := int(lengthCode[t.length])
	if err := r.symbol(&r.h.lit, 257+c); err != nil {
		return err
	}
	r.out.bits(uint32(t.length)-uint32(lengthBase[c]), uint(lengthExtra[c]))
	d := distCode(int(t.dist))
	if err := r.symbol(&r.h.dist, d); err != nil {
		return err
	}
	r.out.bits(uint32(t.dist)-uint32(distBase[d]), uint(distExtra[d]))
	return nil
}

func (r *repacker) symbol(c *codeBook, sym int) error {
	if c.size[sym] == 0 {
		return errRecipe("a symbol has no code")
	}
	r.out.bits(uint32(c.code[sym]), uint(c.size[sym]))
	return nil
}

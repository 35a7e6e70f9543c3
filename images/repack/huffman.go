// SPDX-License-Identifier: GPL-2.0-or-later

package repack

import "math/bits"

// Numbers of RFC 1951.
const (
	minMatch, maxMatch = 3, 258
	windowSize         = 32 << 10
	maxCodeLen         = 15
	endOfBlock         = 256
	numLitLen, numDist = 286, 30
)

// lengthBase and distBase are the smallest value of each code, lengthExtra and
// distExtra how many bits follow it (RFC 1951, 3.2.5).
var (
	lengthBase, lengthExtra = codeRanges(3, 4, 28)
	distBase, distExtra     = codeRanges(1, 2, 30)
	lengthCode              = invert(lengthBase[:], maxMatch)
)

// codeRanges makes the tables: the first codes stand for one value each, and
// then every group of so many codes has one bit more.
func codeRanges(first, group, n int) (base [30]uint16, extra [30]uint8) {
	v := first
	for i := range n {
		base[i] = uint16(v)
		if i >= 2*group {
			extra[i] = uint8(i/group - 1)
		}
		v += 1 << extra[i]
	}
	if first == minMatch {
		base[28], extra[28] = maxMatch, 0 // the longest match has a code of its own
	}
	return base, extra
}

func invert(base []uint16, most int) []uint8 {
	code := make([]uint8, most+1)
	for c, b := range base {
		for v := int(b); b > 0 && v <= most; v++ {
			code[v] = uint8(c)
		}
	}
	return code
}

// distCode returns the code for a distance.
func distCode(d int) int {
	if d <= 4 {
		return d - 1
	}
	top := bits.Len(uint(d-1)) - 1
	return 2*top + (d-1)>>(top-1)&1
}

// A codeBook is a Huffman code: for decoding a table over the next 15 bits, for
// encoding the codes.
type codeBook struct {
	table [1 << maxCodeLen]uint16 // symbol<<4 | length; 0: no such code
	code  [288]uint16             // its bits in the order in which they are written
	size  [288]uint8              // 0: the symbol has no code
}

// build makes the code from the lengths of its symbols' codes. Incomplete codes
// are taken as they are; a symbol that is not there fails when it is used.
func (c *codeBook) build(lengths []uint8, decode bool) bool {
	var count, next [maxCodeLen + 2]int
	for _, l := range lengths {
		count[l]++
	}
	count[0] = 0
	for l := 1; l <= maxCodeLen; l++ {
		next[l+1] = (next[l] + count[l]) << 1
		if next[l]+count[l] > 1<<l {
			return false
		}
	}
	if decode {
		clear(c.table[:])
	}
	clear(c.size[:])
	for sym, l := range lengths {
		if l == 0 {
			continue
		}
		code := bits.Reverse16(uint16(next[l])) >> (16 - l)
		next[l]++
		c.code[sym], c.size[sym] = code, l
		if decode {
			for i := int(code); i < len(c.table); i += 1 << l {
				c.table[i] = uint16(sym)<<4 | uint16(l)
			}
		}
	}
	return true
}

// A header holds the codes of a block.
type header struct{ lit, dist codeBook }

// fixed sets the codes of a block that brings none along.
func (h *header) fixed(decode bool) {
	var l [288]uint8
	for i := range l {
		switch {
		case i < 144 || i >= 280:
			l[i] = 8
		case i < 256:
			l[i] = 9
		default:
			l[i] = 7
		}
	}
	var d [32]uint8
	for i := range d {
		d[i] = 5
	}
	h.lit.build(l[:], decode)
	h.dist.build(d[:], decode)
}

var codeLengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// bitSource is where the codes of a block are read from: the deflate stream, or
// the copy in the recipe.
type bitSource func(n uint) (uint32, error)

// dynamic reads the codes of a block from get and gives every piece of it to
// also, which writes them elsewhere.
func (h *header) dynamic(get bitSource, also func(v uint32, n uint), decode bool) error {
	read := func(n uint) (uint32, error) {
		v, err := get(n)
		also(v, n)
		return v, err
	}
	counts, err := read(14)
	if err != nil {
		return err
	}
	nlit, ndist, nlen := int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4
	if nlit > numLitLen || ndist > numDist {
		return ErrNone
	}
	var lens [19]uint8
	for i := range nlen {
		v, err := read(3)
		if err != nil {
			return err
		}
		lens[codeLengthOrder[i]] = uint8(v)
	}
	all, err := readLengths(read, lens, nlit+ndist)
	if err != nil {
		return err
	}
	if !h.lit.build(all[:nlit], decode) || !h.dist.build(all[nlit:], decode) {
		return ErrNone
	}
	return nil
}

// readLengths reads the lengths of n codes, which are compressed themselves.
func readLengths(read bitSource, lens [19]uint8, n int) ([]uint8, error) {
	var c codeBook
	if !c.build(lens[:], false) {
		return nil, ErrNone
	}
	all := make([]uint8, 0, n)
	for len(all) < n {
		sym, err := c.slow(read)
		if err != nil {
			return nil, err
		}
		value, repeat, extra := uint8(0), 1, uint(0)
		switch sym {
		case 16:
			if len(all) == 0 {
				return nil, ErrNone
			}
			value, repeat, extra = all[len(all)-1], 3, 2
		case 17:
			repeat, extra = 3, 3
		case 18:
			repeat, extra = 11, 7
		default:
			value = uint8(sym)
		}
		if extra > 0 {
			v, err := read(extra)
			if err != nil {
				return nil, err
			}
			repeat += int(v)
		}
		if len(all)+repeat > n {
			return nil, ErrNone
		}
		for range repeat {
			all = append(all, value)
		}
	}
	return all, nil
}

// slow decodes one of the few symbols of a code of code lengths.
func (c *codeBook) slow(read bitSource) (int, error) {
	code := uint16(0)
	for l := uint8(1); l <= 7; l++ {
		v, err := read(1)
		if err != nil {
			return 0, err
		}
		code |= uint16(v) << (l - 1)
		for sym := range 19 {
			if c.size[sym] == l && c.code[sym] == code {
				return sym, nil
			}
		}
	}
	return 0, ErrNone
}

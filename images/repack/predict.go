// SPDX-License-Identifier: GPL-2.0-or-later

package repack

// A token is what deflate makes of content: a literal byte (length 0), or the
// repetition of so many bytes from so far back.
type token struct{ length, dist uint16 }

// span is how many bytes of content a token stands for.
func (t token) span() int { return max(int(t.length), 1) }

// A style is how thoroughly an encoder looks for repetitions; the levels of gzip
// and zlib.
type style struct {
	good int // a match that long makes the search for a better one shorter
	lazy int // one that long is taken without looking at the next byte
	nice int // one that long ends the search
	most int // places that are looked at
	fast bool
}

var styles = [...]style{
	{4, 4, 8, 4, true}, {4, 5, 16, 8, true}, {4, 6, 32, 32, true},
	{4, 4, 16, 16, false}, {8, 16, 32, 32, false}, {8, 16, 128, 128, false},
	{8, 32, 128, 256, false}, {32, 128, 258, 1024, false}, {32, 258, 258, 4096, false},
}

const (
	maxDist  = windowSize - maxMatch - minMatch - 1 // farther back those encoders do not look
	tooFar   = 4096                                 // a match of three bytes from farther back costs more than it saves
	hashBits = 15
	// lookahead is how many bytes of content must be known ahead of the position.
	lookahead = 2*maxMatch + minMatch
)

// A predictor tells which token an encoder of a style makes next. What really
// came is told to it, so that it is right again after it was wrong.
type predictor struct {
	style
	buf      []byte // content; the first byte is at position base
	base     int
	pos      int
	inserted int // positions below are in head and prev
	head     [1 << hashBits]int32
	prev     [windowSize]int32
	next     token // the match at pos, found when the byte before was looked at
	known    bool
}

func (p *predictor) reset(s style) {
	p.style, p.base, p.pos, p.inserted, p.known = s, 0, 0, 0, false
	p.buf = nil
	clear(p.head[:])
}

func (p *predictor) insertTo(q int) {
	for ; p.inserted <= q; p.inserted++ {
		b := p.buf[p.inserted-p.base:]
		if len(b) < minMatch {
			return
		}
		h := (int(b[0])<<10 ^ int(b[1])<<5 ^ int(b[2])) & (1<<hashBits - 1)
		p.prev[p.inserted%windowSize] = p.head[h]
		p.head[h] = int32(p.inserted)
	}
}

// search returns the longest match at q that is longer than so much.
func (p *predictor) search(q, longer int) token {
	p.insertTo(q)
	if p.inserted <= q {
		return token{}
	}
	scan := p.buf[q-p.base:]
	if len(scan) > maxMatch {
		scan = scan[:maxMatch]
	}
	best, at := longer, 0
	nice, chain := min(p.nice, len(scan)), p.most
	if longer >= p.good {
		chain >>= 2
	}
	limit := max(q-maxDist, 0)
	c := int(p.prev[q%windowSize]) // 0 means none, to those encoders too
	if c < limit || c >= q {
		return token{}
	}
	for c > 0 && chain > 0 && best < len(scan) {
		m := p.buf[c-p.base:]
		if m[best] == scan[best] && m[0] == scan[0] && m[1] == scan[1] {
			n := 2
			for n < len(scan) && m[n] == scan[n] {
				n++
			}
			if n > best {
				best, at = n, c
				if n >= nice {
					break
				}
			}
		}
		before := int(p.prev[c%windowSize])
		if before <= limit || before >= c {
			break
		}
		c = before
		chain--
	}
	if at == 0 || best < minMatch || best == minMatch && q-at > tooFar && !p.fast {
		return token{}
	}
	return token{uint16(best), uint16(q - at)}
}

// guess returns the token that comes next.
func (p *predictor) guess() token {
	cur := p.next
	if !p.known {
		cur = p.search(p.pos, minMatch-1)
	}
	p.known, p.next = false, token{}
	if cur.length == 0 || p.fast || int(cur.length) >= p.lazy {
		return cur
	}
	if next := p.search(p.pos+1, int(cur.length)); next.length > cur.length {
		p.known, p.next = true, next
		return token{}
	}
	return cur
}

// advance tells which token it was.
func (p *predictor) advance(t token) {
	if t.length > 0 {
		p.known = false
		if p.fast && int(t.length) > p.lazy {
			// Those styles leave out what is inside a long match.
			p.insertTo(p.pos)
			p.inserted = p.pos + int(t.length)
		}
	}
	p.pos += t.span()
}

// skip passes over content that the encoder did not compress.
func (p *predictor) skip(n int) {
	if n > 0 {
		p.pos += n
		p.known = false
	}
}

// forget drops content that is too far back to matter.
func (p *predictor) forget() {
	if old := p.pos - windowSize - p.base; old > 4*windowSize {
		p.insertTo(p.pos - 1)
		p.base += old
		p.buf = append(p.buf[:0], p.buf[old:]...)
	}
}

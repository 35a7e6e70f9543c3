// SPDX-License-Identifier: GPL-2.0-or-later

package console

// cleaner turns what a terminal receives into plain lines: escape sequences and
// control characters go, and where a program draws by moving the cursor to
// another row, a line ends. It keeps its state between chunks, which cut
// sequences anywhere.
type cleaner struct {
	state   state
	params  []byte
	row     int  // where the last cursor movement went; 0: unknown
	started bool // the current line has text
}

type state int

const (
	text state = iota
	escape
	csi       // ESC [ … final
	str       // ESC ] or P … up to BEL or ESC \
	strEscape // ESC inside a string
	charset   // ESC ( X: one more byte
)

const (
	bel = 0x07
	esc = 0x1b
)

// clean appends the plain text of b to dst.
func (c *cleaner) clean(dst, b []byte) []byte {
	for _, x := range b {
		switch c.state {
		case text:
			dst = c.text(dst, x)
		case escape:
			c.state = text
			switch x {
			case '[':
				c.state, c.params = csi, c.params[:0]
			case ']', 'P', '^', '_', 'X':
				c.state = str
			case '(', ')', '*', '+', '#', '%':
				c.state = charset
			}
		case csi:
			switch {
			case x >= 0x40 && x <= 0x7e:
				c.state = text
				dst = c.move(dst, x)
			case x == esc:
				c.state = escape
			case len(c.params) < 64:
				c.params = append(c.params, x)
			}
		case str:
			switch x {
			case bel:
				c.state = text
			case esc:
				c.state = strEscape
			}
		case strEscape, charset:
			c.state = text
		}
	}
	return dst
}

func (c *cleaner) text(dst []byte, x byte) []byte {
	switch {
	case x == esc:
		c.state = escape
	case x == '\n':
		c.started = false
		if c.row > 0 {
			c.row++
		}
		return append(dst, x)
	case x == '\t' || x >= ' ' && x != 0x7f:
		c.started = true
		return append(dst, x)
	}
	return dst
}

// move ends the line if the sequence with the final byte f puts the cursor on
// another row: an absolute position, or the screen cleared.
func (c *cleaner) move(dst []byte, f byte) []byte {
	row := 0
	switch f {
	case 'H', 'f', 'd':
		for _, d := range c.params {
			if d < '0' || d > '9' {
				break
			}
			row = min(row*10+int(d-'0'), 9999)
		}
		row = max(row, 1)
	case 'J':
	default:
		return dst
	}
	if c.started && (row != c.row || row == 0) {
		c.started = false
		dst = append(dst, '\n')
	}
	c.row = row
	return dst
}

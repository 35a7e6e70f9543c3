// SPDX-License-Identifier: GPL-2.0-or-later

// Package screen is what a person at the machine sees and presses: lines that
// tell how the boot goes, and menus to choose from. It draws for 80x24 with the
// few ANSI sequences that the Linux console and every serial terminal know, and in
// ASCII, because nobody knows which characters a terminal on a serial line has.
//
// What is drawn and what a key does is decided by pure functions; Console carries
// it to all of the machine's consoles alike.
package screen

// Key is a key press: a printable byte as itself, or one of the names below.
type Key rune

// Keys that are not characters.
const (
	None      Key = 0
	Enter     Key = '\r'
	Backspace Key = 0x7f
	CtrlC     Key = 0x03
	CtrlD     Key = 0x04
	CtrlL     Key = 0x0c
	CtrlU     Key = 0x15
	Up        Key = 0x110000 + iota
	Down
	Home
	End
	Other // a key we have no use for; it still stops a count-down
)

// Decoder turns the bytes of one terminal into keys. Its zero value is ready.
type Decoder struct {
	state byte // 0: text, 1: after ESC, 2: inside a CSI or SS3 sequence
	cr    bool
}

// Byte takes one byte and gives the key it completes, or None.
func (d *Decoder) Byte(b byte) Key {
	cr := d.cr
	d.cr = false
	switch d.state {
	case 1:
		d.state = 0
		if b == '[' || b == 'O' {
			d.state = 2
			return None
		}
		if b == 0x1b {
			d.state = 1
		}
		return Other
	case 2:
		if b >= '0' && b <= '9' || b == ';' || b == '[' {
			return None
		}
		d.state = 0
		switch b {
		case 'A':
			return Up
		case 'B':
			return Down
		case 'H':
			return Home
		case 'F':
			return End
		}
		return Other
	}
	switch {
	case b == 0x1b:
		d.state = 1
		return None
	case b == '\r':
		d.cr = true
		return Enter
	case b == '\n':
		if cr {
			return None // CR LF is one key
		}
		return Enter
	case b == 0x08:
		return Backspace
	case b >= ' ' && b <= '~', b == byte(Backspace), b == byte(CtrlC), b == byte(CtrlD), b == byte(CtrlL), b == byte(CtrlU):
		return Key(b)
	case b == 0:
		return None // a line that was just opened, or a break
	}
	return Other
}

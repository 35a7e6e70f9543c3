// SPDX-License-Identifier: GPL-2.0-or-later

package screen

import (
	"fmt"
	"strings"
	"time"
)

// Item is one thing to choose.
type Item struct {
	ID   string
	Text string // an order: "Run demo/1 diskless"
	// Next completes the sentence of the count-down: "Running diskless".
	Next string
}

// Fact is a line about the machine, below the choices.
type Fact struct{ Name, Value string }

// Menu is a message and a choice, with a count-down to the choice that is made
// when nobody is there. Its methods are pure: time comes in as an argument.
type Menu struct {
	Node     string   // right of the head line
	Title    string   // the message
	Detail   []string // more about it
	Hint     string
	Items    []Item
	Facts    []Fact
	Selected int
	// Deadline is when Items[Default] is taken; zero: wait for a person.
	Deadline time.Time
	Default  int
}

// Press does what a key means and gives the item chosen, or -1. Any key stops
// the count-down: a person is there.
func (m *Menu) Press(k Key) int {
	m.Deadline = time.Time{}
	switch {
	case k == Up || k == 'k':
		m.Selected = (m.Selected + len(m.Items) - 1) % len(m.Items)
	case k == Down || k == 'j' || k == '\t':
		m.Selected = (m.Selected + 1) % len(m.Items)
	case k == Home:
		m.Selected = 0
	case k == End:
		m.Selected = len(m.Items) - 1
	case k == Enter:
		return m.Selected
	case k >= '1' && k <= '9' && int(k-'1') < len(m.Items):
		m.Selected = int(k - '1')
		return m.Selected
	}
	return -1
}

// Tick gives the default once its time has come, or -1.
func (m *Menu) Tick(now time.Time) int {
	if m.Deadline.IsZero() || now.Before(m.Deadline) {
		return -1
	}
	m.Selected = m.Default
	return m.Default
}

// Columns and rows of the screen that everything fits on.
const (
	Columns = 80
	Rows    = 24
	margin  = "  "
)

// Draw gives the whole screen, from clearing it to parking the cursor below.
func (m *Menu) Draw(now time.Time) string {
	lines, bold := m.Lines(now), 1+3+len(Wrap(m.Title, margin, 3))
	var b strings.Builder
	b.WriteString("\x1b[0m\x1b[2J\x1b[H")
	for i, l := range lines {
		fmt.Fprintf(&b, "\x1b[%d;1H", i+1)
		if marked, ok := strings.CutPrefix(l, selectMark); ok {
			b.WriteString(margin + "\x1b[7m" + strings.TrimPrefix(marked, margin) + "\x1b[0m")
		} else if i == 1 || i > 3 && i < bold {
			b.WriteString("\x1b[1m" + l + "\x1b[0m")
		} else {
			b.WriteString(l)
		}
	}
	fmt.Fprintf(&b, "\x1b[%d;1H", Rows)
	return b.String()
}

// DrawCountdown repaints the count-down only, so that a screen that waits does
// not flicker and a serial log does not grow by a screen each second.
func (m *Menu) DrawCountdown(now time.Time) string {
	lines := m.Lines(now)
	return fmt.Sprintf("\x1b[%d;1H\x1b[0m\x1b[2K%s\x1b[%d;1H", len(lines)-1, lines[len(lines)-2], Rows)
}

// selectMark begins the line of the selected item; it never reaches a terminal.
const selectMark = "\x00"

// Lines gives what Draw paints, as text. The lines of the selected item begin
// with a zero byte.
func (m *Menu) Lines(now time.Time) []string {
	out := []string{"", head("Slate", m.Node), margin + strings.Repeat("-", Columns-2*len(margin)), ""}
	out = append(out, Wrap(m.Title, margin, 3)...)
	facts, choices := m.Facts, m.choices()
	if detail := m.detail(Rows); len(detail) > 0 {
		room := func() int { // what head, blanks, choices, facts and the two last lines leave
			n := Rows - 1 - len(out) - 2 - len(choices) - 1 - len(facts) - 2
			if len(facts) > 0 {
				n--
			}
			return n
		}
		if len(detail) > room() {
			facts = nil // what happened matters more than who it happened to
			detail = m.detail(room())
		}
		out = append(append(out, ""), detail...)
	}
	out = append(out, "")
	// With room to spare the choices stand apart.
	airy := len(out)+2*len(choices)+len(facts)+4 < Rows && len(choices) == len(m.Items)
	for i, line := range choices {
		if i > 0 && airy {
			out = append(out, "")
		}
		out = append(out, line)
	}
	out = append(out, "")
	for _, f := range facts {
		out = append(out, clip(fmt.Sprintf("%s%-9s %s", margin, f.Name, f.Value), Columns-2))
	}
	if len(facts) > 0 {
		out = append(out, "")
	}
	return append(out, margin+m.countdown(now), margin+"Arrow keys and Enter, or the digit.")
}

// choices gives the lines of the choices: one each, but of a long one that is selected
// all is shown.
func (m *Menu) choices() []string {
	var out []string
	for i, it := range m.Items {
		if i == m.Selected {
			out = append(out, selected(i, it.Text)...)
		} else {
			out = append(out, clip(number(i)+it.Text, Columns-2))
		}
	}
	return out
}

func number(i int) string { return fmt.Sprintf("%s  %d  ", margin, i+1) }

func selected(i int, text string) []string {
	first := number(i)
	lines := Wrap(text, strings.Repeat(" ", len(first)), 3)
	if len(lines) == 0 {
		lines = []string{first}
	}
	lines[0] = first + strings.TrimLeft(lines[0], " ")
	for k, l := range lines {
		lines[k] = selectMark + l + strings.Repeat(" ", max(Columns-2-len(l), 0))
	}
	return lines
}

// detail gives what happened and the hint, n lines at most. The hint is never cut
// for the message's sake: it says what to do.
func (m *Menu) detail(n int) []string {
	hint := Wrap(m.Hint, margin, 2)
	var out []string
	for _, d := range m.Detail {
		out = append(out, Wrap(d, margin, Rows)...)
	}
	if room := max(n-len(hint), 1); len(out) > room {
		out = append(out[:room-1], margin+"... (the command log in the shell shows all)")
	}
	return append(out, hint...)
}

func (m *Menu) countdown(now time.Time) string {
	if m.Deadline.IsZero() {
		return "Waiting for your choice."
	}
	left := int((m.Deadline.Sub(now) + time.Second - 1) / time.Second)
	return fmt.Sprintf("%s in %d s. Any key stops the count-down.", m.Items[m.Default].Next, max(left, 0))
}

func head(left, right string) string {
	right = clip(right, Columns-2*len(margin)-len(left)-1)
	return margin + left + strings.Repeat(" ", Columns-2*len(margin)-len(left)-len(right)) + right
}

func clip(s string, n int) string {
	s = Plain(s)
	if len(s) <= n {
		return s
	}
	return s[:max(n-3, 0)] + "..."
}

// Plain keeps what may go to a terminal: no control characters (a server's words
// must not move our cursor) and nothing outside ASCII.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case r < ' ' || r == 0x7f:
			return -1
		case r > 0x7e:
			return '?'
		}
		return r
	}, s)
}

// Wrap breaks text at blanks into at most n lines within the screen's width.
func Wrap(s, indent string, n int) []string {
	var out []string
	line := indent
	for _, w := range strings.Fields(Plain(s)) {
		if len(line) > len(indent) && len(line)+1+len(w) > Columns-len(margin) {
			out, line = append(out, line), indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line = clip(line+w, Columns-len(margin))
	}
	if len(line) > len(indent) {
		out = append(out, line)
	}
	if len(out) > n {
		out = out[:n]
		out[n-1] = clip(out[n-1]+" ...", Columns-len(margin))
	}
	return out
}

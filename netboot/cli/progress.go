// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"slate/images/store"
)

// A progressLine keeps one line of a terminal up to date with what is going
// on. What is done within a second shows nothing, and neither does anything
// where standard error is no terminal.
type progressLine struct {
	w     io.Writer
	width int
	now   func() time.Time

	mu    sync.Mutex
	start time.Time
	last  time.Time
	shown bool
}

const (
	progressQuiet = time.Second
	progressEvery = 100 * time.Millisecond
)

// progressLine returns a line on standard error.
func (a *app) progressLine() *progressLine {
	p := &progressLine{now: time.Now}
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = f
		p.width, _, _ = term.GetSize(int(f.Fd()))
	}
	return p
}

// store shows how far the store is.
func (p *progressLine) store(s store.Progress) {
	text := fmt.Sprintf("%s: %d files, %s", s.Stage, s.Files, formatBytes(s.Bytes))
	if s.Total > 0 {
		text = fmt.Sprintf("%s: %d %%, %d files, %s of %s", s.Stage, 100*s.Bytes/s.Total, s.Files, formatBytes(s.Bytes), formatBytes(s.Total))
	}
	if s.Written > 0 {
		text += ", " + formatBytes(s.Written) + " new"
	}
	p.show(text+"  "+s.Name, false)
}

// step shows what is being done.
func (p *progressLine) step(what, detail string) {
	p.show(strings.TrimSpace(what+" "+detail), true)
}

func (p *progressLine) show(text string, always bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		return
	}
	now := p.now()
	if p.start.IsZero() {
		p.start = now
	}
	if now.Sub(p.start) < progressQuiet || !always && now.Sub(p.last) < progressEvery {
		return
	}
	p.last, p.shown = now, true
	// A file name may hold anything, and the line must not wrap.
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, text)
	if r := []rune(text); p.width > 1 && len(r) >= p.width {
		text = string(r[:p.width-1])
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", text)
}

// clear takes the line away, so that something else can be printed.
func (p *progressLine) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"slate/netboot/api"
)

// watchPause is the time between two looks at the appliance.
const watchPause = time.Second

// Codes of the terminal, as every one of the last decades knows them (ECMA-48 and
// xterm): the alternate screen leaves what was there before untouched.
const (
	screenEnter = "\x1b[?1049h\x1b[?25l"
	screenLeave = "\x1b[?25h\x1b[?1049l"
	lineEnd     = "\x1b[K\r\n" // clears the rest of the line
	screenRest  = "\x1b[J"     // clears what is below
	frameStart  = "\x1b[?2026h\x1b[H"
	frameEnd    = "\x1b[?2026l"
)

// watch shows the status live until q, Ctrl-C or the end of ctx. An appliance that
// does not answer is said to do so, and asked again.
func (a *app) watch(ctx context.Context, ask func(context.Context) (api.Status, error)) error {
	if !a.onTerminal() {
		return hintError{errors.New("--watch needs a terminal"), "for programs: slate status --json"}
	}
	st, err := ask(ctx) // before the screen is taken: without an appliance there is nothing to watch
	if err != nil {
		return err
	}
	var askErr error
	in, out := a.stdin.(*os.File), a.stdout.(*os.File)
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer term.Restore(int(in.Fd()), old)
	fmt.Fprint(out, screenEnter)
	defer fmt.Fprint(out, screenLeave)

	draw := func() error {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil || width < 1 || height < 1 {
			width, height = 80, 24
		}
		// One write for a frame, and no clearing before it: nothing flickers.
		_, err = out.Write(frame(st, askErr, time.Now(), width, height, a.colours()))
		return err
	}
	if err := draw(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go quitOnKey(in, cancel) // a read from a terminal ends with the process at the latest
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		st, askErr = ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := draw(); err != nil {
			return err
		}
	}
}

// quitOnKey reads keys until one of those that end the watch.
func quitOnKey(in io.Reader, quit func()) {
	defer quit() // also when the terminal is gone
	var b [16]byte
	for {
		n, err := in.Read(b[:])
		if err != nil || bytes.ContainsAny(b[:n], "qQ\x03\x04") {
			return
		}
	}
}

// frame is one picture of the status, for a screen of the given size. What does
// not fit is counted in the last line.
func frame(st api.Status, err error, now time.Time, width, height int, p palette) []byte {
	var text bytes.Buffer
	if err != nil {
		fmt.Fprintf(&text, "%s%s%s\n", p.bad, printable(err.Error()), p.plain)
	} else {
		st.Nodes = urgent(st.Nodes)
		printStatus(&text, st, now, p)
	}
	lines := strings.Split(strings.TrimRight(text.String(), "\n"), "\n")
	foot := now.Local().Format(time.TimeOnly) + "  q ends"
	if room := max(height-1, 1); len(lines) > room {
		foot = fmt.Sprintf("%d lines more  %s", len(lines)-room, foot)
		lines = lines[:room]
	}
	var b bytes.Buffer
	b.WriteString(frameStart)
	for _, l := range lines {
		b.WriteString(cut(l, width) + p.plain + lineEnd)
	}
	b.WriteString(cut(foot, width) + "\x1b[K" + screenRest + frameEnd)
	return b.Bytes()
}

// cut shortens a line to what the screen shows, leaving its colours whole.
func cut(s string, width int) string {
	var b strings.Builder
	shown := 0
	for len(s) > 0 {
		if rest, ok := strings.CutPrefix(s, "\x1b["); ok {
			if end := strings.IndexByte(rest, 'm'); end >= 0 {
				b.WriteString(s[:end+3])
				s = rest[end+1:]
				continue
			}
		}
		r, size := utf8.DecodeRuneInString(s)
		if shown < width {
			b.WriteRune(r)
		}
		shown++
		s = s[size:]
	}
	return b.String()
}

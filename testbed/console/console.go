// SPDX-License-Identifier: GPL-2.0-or-later

// Package console drives a machine through its serial port: it waits for
// markers in what the machine writes, answers, runs commands in its shell, and
// keeps everything with times.
//
// It knows terminals and Unix shells, not who is at the other end.
package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Options of a Console.
type Options struct {
	// Log gets the text, escape sequences removed, each line with the seconds
	// since the start. Default: nowhere.
	Log io.Writer
	// Raw gets every byte as it comes. Default: nowhere.
	Raw io.Writer
	// FailOn are expressions for lines after which waiting is useless, such as
	// a kernel's panic: they end every Expect whose own marker did not come
	// first.
	FailOn []*regexp.Regexp
}

// Console is one end of a serial line. Expect and its relatives go forward
// through the text, each from where the one before stopped, so they belong into
// one goroutine; the rest may be called from anywhere.
type Console struct {
	w     io.Writer
	o     Options
	start time.Time
	done  chan struct{}

	mu      sync.Mutex
	text    []byte // all of it, cleaned
	lines   []Line // complete lines
	begin   int    // where in text the line without end begins
	cursor  int    // where Expect goes on
	checked int    // up to where FailOn has looked
	err     error  // why nothing more comes
	changed chan struct{}
	clean   cleaner
	nonce   int
}

// Line is a line of the console's text and when it was complete.
type Line struct {
	At   time.Duration // since the start of the console
	Text string
}

// tailLines is how much of the console an error shows.
const tailLines = 30

// New reads from rw until its end, in a goroutine of its own.
func New(rw io.ReadWriter, o Options) *Console {
	c := &Console{w: rw, o: o, start: time.Now(), done: make(chan struct{}), changed: make(chan struct{})}
	go c.read(rw)
	return c
}

// Done is closed when the line has ended and all of it has been read.
func (c *Console) Done() <-chan struct{} { return c.done }

func (c *Console) read(r io.Reader) {
	defer close(c.done)
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && c.o.Raw != nil {
			_, _ = c.o.Raw.Write(buf[:n]) // a full disk must not stop the machine
		}
		c.mu.Lock()
		c.text = c.clean.clean(c.text, buf[:n])
		c.splitLines(err != nil)
		if err != nil {
			c.err = err
		}
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// splitLines notes the lines that are complete now.
func (c *Console) splitLines(last bool) {
	for {
		i := bytes.IndexByte(c.text[c.begin:], '\n')
		end, next := c.begin+i, c.begin+i+1
		if i < 0 {
			if !last || c.begin == len(c.text) {
				return
			}
			end, next = len(c.text), len(c.text)
		}
		l := Line{time.Since(c.start), string(c.text[c.begin:end])}
		c.lines = append(c.lines, l)
		c.begin = next
		if c.o.Log != nil {
			fmt.Fprintf(c.o.Log, "%9.3f  %s\n", l.At.Seconds(), l.Text)
		}
	}
}

// Lines returns all complete lines so far.
func (c *Console) Lines() []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Line(nil), c.lines...)
}

// Text returns everything so far.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Tail returns the last n lines, the one without end included.
func (c *Console) Tail(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tail(n)
}

func (c *Console) tail(n int) []string {
	var out []string
	for _, l := range c.lines[max(0, len(c.lines)-n):] {
		out = append(out, l.Text)
	}
	if c.begin < len(c.text) {
		out = append(out, string(c.text[c.begin:]))
	}
	return out[max(0, len(out)-n):]
}

// Match is where a marker was found.
type Match struct {
	Groups []string      // the match and its sub-expressions
	At     time.Duration // since the start of the console
	begin  int           // offset in the text
}

// ExpectError says what did not come, and shows the end of what did.
type ExpectError struct {
	Pattern string
	Waited  time.Duration
	Cause   error // why waiting ended: a deadline, the end of the line, a failure seen
	Tail    []string
}

func (e *ExpectError) Error() string {
	return fmt.Sprintf("console: no %q after %.1fs: %v; the last lines:\n  | %s",
		e.Pattern, e.Waited.Seconds(), e.Cause, strings.Join(e.Tail, "\n  | "))
}

func (e *ExpectError) Unwrap() error { return e.Cause }

// ErrTimeout is the cause of an ExpectError whose time was up.
var ErrTimeout = errors.New("time is up")

// Expect waits for the regular expressions in their order, each for at most
// timeout from when the one before was found, and returns their matches. An
// expression matches inside one line, complete or not. The text between is
// skipped. What came before the call counts, if no earlier Expect has gone past it.
func (c *Console) Expect(ctx context.Context, timeout time.Duration, patterns ...string) ([]Match, error) {
	var found []Match
	for _, p := range patterns {
		m, _, err := c.ExpectAny(ctx, timeout, p)
		if err != nil {
			return found, err
		}
		found = append(found, m)
	}
	return found, nil
}

// ExpectAny waits for the first of several expressions, and says which it was.
func (c *Console) ExpectAny(ctx context.Context, timeout time.Duration, patterns ...string) (Match, int, error) {
	var res []*regexp.Regexp
	for _, p := range patterns {
		re, err := regexp.Compile("(?m)" + p)
		if err != nil {
			return Match{}, 0, fmt.Errorf("console: %w", err)
		}
		res = append(res, re)
	}
	began := time.Now()
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	var cause error
	seen := 0 // no match begins in a line that was complete at this offset
	for {
		c.mu.Lock()
		if m, i, ok := c.find(res, seen); ok {
			c.mu.Unlock()
			return m, i, nil
		}
		seen = c.begin
		if cause == nil {
			cause = c.failure()
		}
		if cause != nil {
			e := &ExpectError{Pattern: strings.Join(patterns, "\" or \""), Waited: time.Since(began), Cause: cause, Tail: c.tail(tailLines)}
			c.mu.Unlock()
			return Match{}, 0, e
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-limit.C:
			cause = ErrTimeout
		case <-ctx.Done():
			cause = context.Cause(ctx)
		}
	}
}

// find looks for the earliest match after the cursor and after from, and puts
// the cursor behind it. The caller holds mu.
func (c *Console) find(res []*regexp.Regexp, from int) (Match, int, bool) {
	from = max(from, c.cursor)
	rest := c.text[from:]
	best, which := []int(nil), -1
	for i, re := range res {
		if loc := re.FindSubmatchIndex(rest); loc != nil && (best == nil || loc[0] < best[0]) {
			best, which = loc, i
		}
	}
	if best == nil {
		return Match{}, 0, false
	}
	m := Match{At: time.Since(c.start), begin: from + best[0]}
	for i := 0; i < len(best); i += 2 {
		g := ""
		if best[i] >= 0 {
			g = string(rest[best[i]:best[i+1]])
		}
		m.Groups = append(m.Groups, g)
	}
	c.cursor = from + best[1]
	return m, which, true
}

// failure returns why waiting is useless, if it is. The caller holds mu.
func (c *Console) failure() error {
	from := max(c.cursor, c.checked)
	if nl := bytes.LastIndexByte(c.text[:from], '\n'); nl >= 0 {
		from = max(c.cursor, nl+1) // the line may have been incomplete
	}
	for _, re := range c.o.FailOn {
		if m := re.Find(c.text[from:]); m != nil {
			return fmt.Errorf("saw %q", m)
		}
	}
	c.checked = len(c.text)
	if c.err != nil {
		return fmt.Errorf("the line is closed: %w", c.err)
	}
	return nil
}

// Skip moves past everything that has come so far.
func (c *Console) Skip() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cursor = len(c.text)
}

// Send types s as it is.
func (c *Console) Send(s string) error {
	if _, err := io.WriteString(c.w, s); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	return nil
}

// SendLine types s and the return key.
func (c *Console) SendLine(s string) error { return c.Send(s + "\r") }

// Type types s a few keys at a time, each time waiting for their echo: firmware
// loses what comes faster than it looks. It is for lines that fit on the screen.
func (c *Console) Type(ctx context.Context, timeout time.Duration, s string) error {
	const few = 8 // a BIOS keeps 15
	for s != "" {
		keys := s[:min(few, len(s))]
		s = s[len(keys):]
		if err := c.Send(keys); err != nil {
			return err
		}
		if _, err := c.Expect(ctx, timeout, regexp.QuoteMeta(keys)); err != nil {
			return err
		}
	}
	return nil
}

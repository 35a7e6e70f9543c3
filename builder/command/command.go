// SPDX-License-Identifier: GPL-2.0-or-later

// Package command runs other programs for the builder. It knows how to stop a
// program together with everything it started, how to pass its output on line
// by line, and how to report a failure in the program's own words. It does not
// know what the programs do.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	// tailLines is how much of a program's output an error carries: enough to
	// see the message and the lines that led to it.
	tailLines = 12
	// maxLine bounds one line in memory; progress bars never end theirs.
	maxLine = 4096
	// defaultGrace is the time between asking a program to end and killing it.
	defaultGrace = 5 * time.Second
)

// Cmd is one program to run. The zero value of each field but Args is useful.
type Cmd struct {
	Args    []string          // the program and its arguments
	Dir     string            // working directory; "": the caller's
	Env     []string          // whole environment; nil: the caller's
	Stdin   io.Reader         // nil: /dev/null
	Stdout  io.Writer         // gets the raw standard output; nil: it is treated like standard error
	Log     io.Writer         // gets all output that does not go to Stdout; may be nil
	Line    func(line string) // called for each line of that output, from one goroutine at a time; may be nil
	Files   []*os.File        // open files that the program gets from descriptor 3 on
	Grace   time.Duration     // between SIGTERM and SIGKILL on cancellation; 0: 5 s
	Isolate bool              // own mount, process, IPC and host name namespaces: nothing of it survives it, and it is killed without grace; needs root
	// NoNetwork adds a network namespace with nothing in it to Isolate.
	NoNetwork bool
	// Terminal is the program's terminal, in the foreground: for a person. Stdin,
	// Stdout, Log and Line are not used then.
	Terminal *os.File
}

// Error is the failure of a program.
type Error struct {
	Args []string // what was run
	Tail []string // the last lines of its output
	Err  error    // *exec.ExitError, or why it could not be started
}

// Error names the program and how it ended, followed by its last lines.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.name(), e.Err)
	for _, l := range e.Tail {
		b.WriteString("\n  | ")
		b.WriteString(l)
	}
	return b.String()
}

func (e *Error) name() string {
	if len(e.Args) == 0 {
		return "(no program)"
	}
	return e.Args[0]
}

func (e *Error) Unwrap() error { return e.Err }

// Hint says how to get a program that is not there.
func (e *Error) Hint() string {
	if errors.Is(e.Err, exec.ErrNotFound) {
		return fmt.Sprintf("install the program %s, or put its directory into PATH", e.name())
	}
	return ""
}

// CommandLine is what was run, quoted so that it can be pasted into a shell.
func (e *Error) CommandLine() string { return Quote(e.Args) }

// Run runs the program and waits until it and its output have ended. If ctx is
// cancelled the whole process group is asked to end, then killed, and Run
// returns ctx's cause.
func Run(ctx context.Context, c Cmd) error {
	if len(c.Args) == 0 {
		return errors.New("BUG: command.Run without arguments")
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	out := &lines{log: c.Log, each: c.Line}
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, c.Stdin
	cmd.Stdout, cmd.Stderr = c.Stdout, out
	cmd.ExtraFiles = c.Files
	if c.Stdout == nil {
		cmd.Stdout = out // the same writer twice: exec then uses one pipe and keeps the order
	}
	grace := c.Grace
	if grace <= 0 {
		grace = defaultGrace
	}
	if c.Terminal != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Terminal, c.Terminal, c.Terminal
	}
	// A grandchild that keeps the pipe open must not hold us for ever.
	cmd.WaitDelay = grace
	err := runGroup(ctx, cmd, c, grace)
	out.flush()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", c.Args[0], context.Cause(ctx))
	case err != nil:
		return &Error{Args: c.Args, Tail: out.tail, Err: err}
	}
	return nil
}

// Output runs the program like Run and returns its standard output.
func Output(ctx context.Context, c Cmd) (string, error) {
	var b strings.Builder
	c.Stdout = &b
	err := Run(ctx, c)
	return b.String(), err
}

// Quote writes args as one line of shell.
func Quote(args []string) string {
	q := make([]string, len(args))
	for i, a := range args {
		q[i] = QuoteArg(a)
	}
	return strings.Join(q, " ")
}

// QuoteArg quotes one word for a POSIX shell, and only when it has to.
func QuoteArg(a string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=,@%+", r)
	}
	if a != "" && strings.TrimFunc(a, plain) == "" {
		return a
	}
	return "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
}

// lines cuts a program's output into lines, keeps the last of them and passes
// all on. Carriage returns end a line too: they separate the states of a
// progress bar.
type lines struct {
	log  io.Writer
	each func(string)

	mu   sync.Mutex
	buf  []byte
	tail []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log != nil {
		// A full disk under the log must not end the build.
		_, _ = l.log.Write(p)
	}
	for _, c := range p {
		switch {
		case c == '\n' || c == '\r':
			l.end()
		case len(l.buf) < maxLine:
			l.buf = append(l.buf, c)
		}
	}
	return len(p), nil
}

func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

func (l *lines) end() {
	s := strings.TrimSpace(printable(string(l.buf)))
	l.buf = l.buf[:0]
	if s == "" {
		return
	}
	if len(l.tail) == tailLines {
		copy(l.tail, l.tail[1:])
		l.tail = l.tail[:tailLines-1]
	}
	l.tail = append(l.tail, s)
	if l.each != nil {
		l.each(s)
	}
}

// printable drops control characters: the lines end up on terminals.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

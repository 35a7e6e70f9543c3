// SPDX-License-Identifier: GPL-2.0-or-later

package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/builder/command"
)

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestRunPassesOutputOn(t *testing.T) {
	var log, out bytes.Buffer
	var lines []string
	err := command.Run(t.Context(), command.Cmd{
		Args:   sh(`read x; echo "$x"; printf 'one\ntwo\rthree\033[1m\n\n' >&2; printf tail >&2`),
		Stdin:  strings.NewReader("in\n"),
		Stdout: &out, Log: &log,
		Line: func(l string) { lines = append(lines, l) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != "in\n" {
		t.Errorf("stdout = %q, want %q", out.String(), "in\n")
	}
	if diff := cmp.Diff([]string{"one", "two", "three[1m", "tail"}, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if want := "one\ntwo\rthree\033[1m\n\ntail"; log.String() != want {
		t.Errorf("log = %q, want %q", log.String(), want)
	}
}

func TestErrorCarriesTheLastLines(t *testing.T) {
	err := command.Run(t.Context(), command.Cmd{Args: sh(`i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; done; exit 3`)})
	var ce *command.Error
	if !errors.As(err, &ce) {
		t.Fatalf("Run = %v, want a *command.Error", err)
	}
	if len(ce.Tail) != 12 || ce.Tail[11] != "line 40" || ce.Tail[0] != "line 29" {
		t.Errorf("tail = %q, want the lines 29 to 40", ce.Tail)
	}
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != 3 {
		t.Errorf("Run = %v, want exit status 3", err)
	}
	if !strings.Contains(err.Error(), "exit status 3\n  | line 29") {
		t.Errorf("message = %q", err)
	}
	if got, want := ce.CommandLine(), "sh -c 'i=0; while"; !strings.HasPrefix(got, want) {
		t.Errorf("CommandLine = %q, want the prefix %q", got, want)
	}
}

func TestEndlessLineStaysSmall(t *testing.T) {
	err := command.Run(t.Context(), command.Cmd{Args: sh(`head -c 3000000 /dev/zero | tr '\0' x; exit 1`)})
	var ce *command.Error
	if !errors.As(err, &ce) || len(ce.Tail) != 1 || len(ce.Tail[0]) != 4096 {
		t.Fatalf("Run: want one line of 4096 bytes in the error, got %d bytes of message", len(fmt.Sprint(err)))
	}
}

func TestMissingProgram(t *testing.T) {
	err := command.Run(t.Context(), command.Cmd{Args: []string{"slate-no-such-program"}})
	if !errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("Run = %v, want exec.ErrNotFound", err)
	}
	var h interface{ Hint() string }
	if !errors.As(err, &h) || !strings.Contains(h.Hint(), "slate-no-such-program") {
		t.Errorf("no hint that names the program in %v", err)
	}
}

func TestOutput(t *testing.T) {
	got, err := command.Output(t.Context(), command.Cmd{Args: sh(`echo out; echo err >&2`)})
	if err != nil || got != "out\n" {
		t.Errorf("Output = %q, %v; want %q", got, err, "out\n")
	}
}

// A program that leaves a child behind with its output open has still ended.
func TestLeftoverDoesNotHoldUs(t *testing.T) {
	fifo := newFifo(t)
	err := command.Run(t.Context(), command.Cmd{
		Args: sh(`(trap '' TERM; exec 9>` + fifo.path + `; touch ` + fifo.path + `.open; while :; do sleep 0.01; done) &
			until [ -e ` + fifo.path + `.open ]; do sleep 0.01; done`),
		Grace: 50 * time.Millisecond,
	})
	if err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	fifo.waitForNoWriters(t)
}

func TestCancelEndsTheWholeGroup(t *testing.T) {
	for _, tc := range []struct{ name, trap string }{
		{"obedient", ""},
		{"child ignores TERM", `(trap '' TERM; exec 9>%s; while :; do sleep 0.01; done) &`},
		{"leader ignores TERM", `trap '' TERM;`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fifo := newFifo(t)
			trap := tc.trap
			if strings.Contains(trap, "%s") {
				trap = fmt.Sprintf(trap, fifo.path)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("asked to stop")
			err := command.Run(ctx, command.Cmd{
				Args:  sh(trap + ` exec 9>` + fifo.path + `; (while :; do sleep 0.01; done) & echo ready; while :; do sleep 0.01; done`),
				Line:  func(string) { cancel(why) },
				Grace: 100 * time.Millisecond,
			})
			if !errors.Is(err, why) {
				t.Errorf("Run = %v, want the cause %q", err, why)
			}
			fifo.waitForNoWriters(t)
		})
	}
}

func TestCancelledBeforeStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mark := filepath.Join(t.TempDir(), "ran")
	if err := command.Run(ctx, command.Cmd{Args: []string{"touch", mark}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want context.Canceled", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the program ran")
	}
}

// Isolated, nothing that the program started outlives it, not even a daemon
// in a session of its own.
func TestIsolateLeavesNothingBehind(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("SLATE_TEST") == "all" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	fifo := newFifo(t)
	err := command.Run(t.Context(), command.Cmd{
		Args: sh(`setsid sh -c 'exec 9>` + fifo.path + ` </dev/null >/dev/null 2>&1; touch ` + fifo.path + `.open; while :; do sleep 0.01; done' &
			until [ -e ` + fifo.path + `.open ]; do sleep 0.01; done`),
		Isolate: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	fifo.waitForNoWriters(t)
}

func TestQuote(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"plain-1.0/x=y", "plain-1.0/x=y"},
		{"", "''"},
		{"a b", "'a b'"},
		{"it's", `'it'\''s'`},
		{"$(x)", "'$(x)'"},
		{"~", "'~'"},
	} {
		if got := command.QuoteArg(tc.in); got != tc.want {
			t.Errorf("QuoteArg(%q) = %s, want %s", tc.in, got, tc.want)
		}
		out, err := command.Output(t.Context(), command.Cmd{Args: sh("printf %s " + command.QuoteArg(tc.in))})
		if err != nil || out != tc.in {
			t.Errorf("the shell reads %s as %q, %v; want %q", command.QuoteArg(tc.in), out, err, tc.in)
		}
	}
}

// fifo is a named pipe whose read end we hold: it reports end of file when the
// last process that has it open for writing is gone.
type fifo struct {
	path string
	r    *os.File
}

func newFifo(t *testing.T) *fifo {
	t.Helper()
	f := &fifo{path: filepath.Join(t.TempDir(), "fifo")}
	if err := syscall.Mkfifo(f.path, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	f.r = r
	return f
}

func (f *fifo) waitForNoWriters(t *testing.T) {
	t.Helper()
	if err := f.r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(f.r); err != nil {
		t.Errorf("processes of the program are still alive: %v", err)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package console_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slate/testbed/console"
)

// line is a serial line whose far end the test holds.
type line struct {
	io.Reader // what the console reads
	io.Writer // what the console writes
}

// newLine returns the console's end and the machine's ends.
func newLine() (near line, out io.WriteCloser, in *bufio.Reader) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return line{r1, w2}, w1, bufio.NewReader(r2)
}

func TestExpectInOrderWithOwnDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, out, _ := newLine()
		defer out.Close()
		c := console.New(near, console.Options{})
		go func() {
			for _, s := range []string{"SeaBIOS (ver", "sion 1.16)\r\niPXE init", "ialising\r\nlogin: "} {
				time.Sleep(8 * time.Second)
				io.WriteString(out, s)
			}
		}()
		m, err := c.Expect(t.Context(), 20*time.Second, `SeaBIOS \(version (\S+)\)`, "^iPXE", "login:")
		if err != nil {
			t.Fatal(err)
		}
		if got := m[0].Groups[1]; got != "1.16" {
			t.Errorf("group %q, want the version", got)
		}
		if m[0].At != 16*time.Second || m[2].At != 24*time.Second {
			t.Errorf("found at %v and %v, want 16s and 24s", m[0].At, m[2].At)
		}
		if _, err := c.Expect(t.Context(), time.Second, "SeaBIOS"); !errors.Is(err, console.ErrTimeout) {
			t.Errorf("text before the last marker was found again: %v", err)
		}
	})
}

func TestErrorsShowTheEnd(t *testing.T) {
	var long strings.Builder
	for i := range 40 {
		fmt.Fprintf(&long, "line %d\n", i)
	}
	for _, c := range []struct {
		name, text string
		close      bool
		want       []string
		wantNot    string
		is         error
	}{
		{"timeout", long.String() + "half a line", false, []string{`no "login:" after 5.0s: time is up`, "| line 11\n", "| half a line"}, "line 10\n", console.ErrTimeout},
		{"closed", "bye\n", true, []string{"the line is closed", "| bye"}, "", io.EOF},
		{"failure seen", "ok\n[  1.0] Kernel panic - not syncing: VFS\nmore\n", false, []string{`after 0.0s: saw "Kernel panic - not syncing: VFS"`}, "", nil},
		{"marker before failure", "login: \nKernel panic - not syncing\n", false, nil, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, out, _ := newLine()
				con := console.New(near, console.Options{FailOn: []*regexp.Regexp{regexp.MustCompile("Kernel panic - .*")}})
				io.WriteString(out, c.text)
				if c.close {
					out.Close()
				}
				_, err := con.Expect(t.Context(), 5*time.Second, "login:")
				out.Close()
				if c.want == nil {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil {
					t.Fatal("no error")
				}
				for _, w := range c.want {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("error lacks %q:\n%v", w, err)
					}
				}
				if c.wantNot != "" && strings.Contains(err.Error(), c.wantNot) {
					t.Errorf("error shows more than 30 lines:\n%v", err)
				}
				if c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("%v is not %v", err, c.is)
				}
			})
		})
	}
}

func TestCancelledWait(t *testing.T) {
	near, out, _ := newLine()
	defer out.Close()
	c := console.New(near, console.Options{})
	reason := errors.New("the test is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	if _, err := c.Expect(ctx, time.Hour, "x"); !errors.Is(err, reason) {
		t.Errorf("Expect() = %v, want the cause of the cancellation", err)
	}
}

func TestExpectAnyTakesTheEarliest(t *testing.T) {
	near, out, _ := newLine()
	defer out.Close()
	c := console.New(near, console.Options{})
	go io.WriteString(out, "one two three\n")
	for _, want := range []int{1, 0} {
		_, i, err := c.ExpectAny(t.Context(), time.Minute, "three", "two")
		if err != nil || i != want {
			t.Errorf("ExpectAny() = %d, %v, want %d", i, err, want)
		}
	}
	if _, _, err := c.ExpectAny(t.Context(), time.Minute, "(["); err == nil {
		t.Error("a broken expression was accepted")
	}
}

func TestEscapesRemoved(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"colours", "\x1b[1;31mred\x1b[0m plain\r\n", "red plain\n"},
		{"title", "\x1b]0;some title\x07x\x1b]2;t\x1b\\y\n", "xy\n"},
		{"charset and keypad", "\x1b(B\x1b=\x1b>z\n", "z\n"},
		{"controls", "a\x00b\x08c\td\x7f\n", "abc\td\n"},
		{"rows drawn by position", "\x1b[2J\x1b[01;01HGNU GRUB\x1b[03;01HDebian\x1b[03;20Hold\x1b[04;01Hnext\n", "GNU GRUB\nDebianold\nnext\n"},
		{"line feed moves a row", "\x1b[1;1Ha\nb\x1b[2;9Hc\n", "a\nbc\n"},
		{"broken sequence", "\x1b[12\x1b[0mok\n", "ok\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, chunk := range []int{1, 3, len(c.in)} {
				near, out, _ := newLine()
				con := console.New(near, console.Options{})
				for rest := c.in; rest != ""; rest = rest[min(chunk, len(rest)):] {
					io.WriteString(out, rest[:min(chunk, len(rest))])
				}
				out.Close()
				con.Expect(t.Context(), time.Minute, "never") // until the line is closed
				if got := con.Text(); got != c.want {
					t.Errorf("in pieces of %d: %q, want %q", chunk, got, c.want)
				}
			}
		})
	}
}

func TestLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log, raw bytes.Buffer
		near, out, _ := newLine()
		c := console.New(near, console.Options{Log: &log, Raw: &raw})
		time.Sleep(1500 * time.Millisecond)
		io.WriteString(out, "\x1b[1mone\r\n")
		time.Sleep(time.Second)
		io.WriteString(out, "end")
		out.Close()
		synctest.Wait()
		if got, want := log.String(), "    1.500  one\n    2.500  end\n"; got != want {
			t.Errorf("log %q, want %q", got, want)
		}
		if got, want := raw.String(), "\x1b[1mone\r\nend"; got != want {
			t.Errorf("raw %q, want %q", got, want)
		}
		if l := c.Lines(); len(l) != 2 || l[0] != (console.Line{At: 1500 * time.Millisecond, Text: "one"}) {
			t.Errorf("lines %v", l)
		}
	})
}

// shellLine is a real shell on a pseudo terminal, which echoes.
func shellLine(t *testing.T, shell ...string) *console.Console {
	t.Helper()
	pty, tty := openPty(t)
	cmd := exec.Command(shell[0], shell[1:]...)
	cmd.Env = append(os.Environ(), "TERM=vt100", "PS1=$ ", "HISTFILE=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = ttySession
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); pty.Close() })
	return console.New(pty, console.Options{})
}

func TestRunInRealShells(t *testing.T) {
	for _, shell := range [][]string{{"dash", "-i"}, {"bash", "--norc", "-i"}, {"busybox", "sh", "-i"}} {
		t.Run(shell[0], func(t *testing.T) {
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skip(err)
			}
			c := shellLine(t, shell...)
			if err := c.Shell(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			for _, x := range []struct {
				command, output string
				status          int
			}{
				{"echo hello", "hello\n", 0},
				{"printf 'no newline'", "no newline", 0},
				{"(exit 7)", "", 7},
				{"cd /etc # a comment", "", 0},
				{"pwd; echo err >&2", "/etc\nerr\n", 0},
				{"for i in 1 2 3; do\necho $i\ndone", "1\n2\n3\n", 0},
				{"echo " + strings.Repeat("long ", 60), strings.TrimSpace(strings.Repeat("long ", 60)) + "\n", 0},
			} {
				out, status, err := c.Run(t.Context(), time.Minute, x.command)
				if err != nil || out != x.output || status != x.status {
					t.Errorf("Run(%q) = %q, %d, %v; want %q, %d", x.command, out, status, err, x.output, x.status)
				}
			}
		})
	}
}

// A firmware that keeps eight keys and echoes them late.
func TestTypeWaitsForEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, out, in := newLine()
		defer out.Close()
		c := console.New(near, console.Options{})
		const text = "echo ${net0/mac} (x)*"
		var got []byte
		go func() {
			for len(got) < len(text) {
				time.Sleep(time.Second)
				synctest.Wait() // what is typed is all there now
				b := make([]byte, 8)
				n, _ := in.Read(b)
				got = append(got, b[:n]...)
				out.Write(b[:n])
			}
		}()
		if err := c.Type(t.Context(), time.Minute, text); err != nil {
			t.Fatal(err)
		}
		if string(got) != text {
			t.Errorf("typed %q, want %q", got, text)
		}
	})
}

// A getty that drops what is typed too early, then a shell that comes up slowly.
func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, out, in := newLine()
		defer out.Close()
		c := console.New(near, console.Options{})
		go func() {
			io.WriteString(out, "\r\nDebian GNU/Linux 12 lab-1 ttyS0\r\n\r\nlab-1 login: ")
			user, _ := in.ReadString('\r')
			io.WriteString(out, user+"\nPassword: ")
			if pw, _ := in.ReadString('\r'); user != "root\r" || pw != "secret\r" {
				io.WriteString(out, "\r\nLogin incorrect\r\n")
				return
			}
			in.ReadString('\r') // lost: the shell's start flushes its input
			io.WriteString(out, "\r\nWelcome\r\n# ")
			cmd, _ := in.ReadString('\r')
			_, word, _ := strings.Cut(cmd, "echo ")
			io.WriteString(out, cmd+"\n"+strings.ReplaceAll(strings.TrimSpace(word), `\`, "")+"\r\n# ")
		}()
		if err := c.Login(t.Context(), time.Minute, "root", "secret"); err != nil {
			t.Error(err)
		}
	})
}

func TestLoginRefused(t *testing.T) {
	near, out, in := newLine()
	defer out.Close()
	c := console.New(near, console.Options{})
	go func() {
		io.WriteString(out, "login: ")
		in.ReadString('\r')
		in.ReadString('\r')
		io.WriteString(out, "\r\nLogin incorrect\r\nlogin: ")
	}()
	if err := c.Login(t.Context(), time.Minute, "root", ""); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Login() = %v, want that it was refused", err)
	}
}

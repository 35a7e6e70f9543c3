// SPDX-License-Identifier: GPL-2.0-or-later

package screen_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"slate/installer/screen"

	"golang.org/x/sys/unix"
)

// terminal is the far end of a pseudo-terminal: what a person sees and types.
type terminal struct {
	t      *testing.T
	master *os.File
	mu     sync.Mutex
	seen   bytes.Buffer
	news   chan struct{}
}

// open makes a pseudo-terminal and gives the name of its near end.
func open(t *testing.T) (*terminal, string) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	rc, err := m.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var cerr error
	if err := rc.Control(func(fd uintptr) {
		if cerr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); cerr == nil {
			n, cerr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	// Held open, or reads of the far end fail until the console opens it.
	hold, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: m, news: make(chan struct{}, 1)}
	go term.read()
	t.Cleanup(func() { m.Close(); hold.Close() })
	return term, name
}

func (x *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := x.master.Read(buf)
		x.mu.Lock()
		x.seen.Write(buf[:n])
		x.mu.Unlock()
		select {
		case x.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// expect waits until the text has been seen, and forgets everything up to it.
func (x *terminal) expect(want string) {
	x.t.Helper()
	limit := time.After(10 * time.Second)
	for {
		x.mu.Lock()
		i := bytes.Index(x.seen.Bytes(), []byte(want))
		if i >= 0 {
			x.seen.Next(i + len(want))
		}
		have := x.seen.String()
		x.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-x.news:
		case <-limit:
			x.t.Fatalf("did not see %q, but %q", want, have)
		}
	}
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

func TestTwoConsolesAreOne(t *testing.T) {
	vt, vtName := open(t)
	serial, serialName := open(t)
	c := screen.NewConsole(vtName, serialName, "/dev/there-is-none")
	defer c.Close()
	if c.Count() != 2 {
		t.Fatalf("Count() = %d, want 2", c.Count())
	}
	fmt.Fprint(c, "hello\n")
	vt.expect("hello\r\n")
	serial.expect("hello\r\n")

	m := chooser()
	m.Deadline = time.Now().Add(time.Minute)
	type answer struct {
		id  string
		err error
	}
	got := make(chan answer, 1)
	go func() { id, err := c.Choose(t.Context(), m); got <- answer{id, err} }()
	vt.expect("No system image was found on this machine.")
	serial.expect("Any key stops the count-down.")
	serial.press("\x1b[B")
	vt.expect("\x1b[7m  2  Open a shell") // the key on one shows on the other
	serial.expect("Waiting for your choice.")
	vt.press("\x1b[B\r")
	if a := <-got; a.id != "reboot" || a.err != nil {
		t.Errorf("Choose() = %q, %v, want reboot", a.id, a.err)
	}
	serial.expect("\x1b[?25h") // the cursor is back
	if log := c.Log(); log != "hello\n" {
		t.Errorf("Log() = %q: painted screens do not belong into it", log)
	}
}

func TestChooseTakesTheDefault(t *testing.T) {
	_, name := open(t)
	c := screen.NewConsole(name)
	defer c.Close()
	m := chooser()
	m.Default, m.Deadline = 3, time.Now().Add(300*time.Millisecond)
	id, err := c.Choose(t.Context(), m)
	if id != "poweroff" || err != nil {
		t.Errorf("Choose() = %q, %v, want poweroff", id, err)
	}
}

func TestChooseEndsWithItsContext(t *testing.T) {
	_, name := open(t)
	c := screen.NewConsole(name)
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := chooser()
	m.Deadline = time.Time{}
	if _, err := c.Choose(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("Choose() = %v, want %v", err, context.Canceled)
	}
}

func TestLine(t *testing.T) {
	x, name := open(t)
	c := screen.NewConsole(name)
	defer c.Close()
	for _, tt := range []struct {
		keys, want string
		err        error
	}{
		{"help\r", "help", nil},
		{"lx\x7fs /\r", "ls /", nil},
		{"rubbish\x15log\r", "log", nil},
		{"half\x03", "", nil},
		{"\x1b[Aa\x1b[C\r", "a", nil},
		{strings.Repeat("y", 600) + "\r", strings.Repeat("y", 512), nil},
		{"\x04", "", io.EOF},
	} {
		x.press(tt.keys)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		got, err := c.Line(ctx, "slate# ")
		cancel()
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Line() typed %q = %q, %v, want %q, %v", tt.keys, got, err, tt.want, tt.err)
		}
	}
}

func TestCloseGivesTheTerminalBack(t *testing.T) {
	_, name := open(t)
	mode := func() uint32 {
		f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		tio, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return tio.Lflag & (unix.ECHO | unix.ICANON | unix.ISIG)
	}
	before := mode()
	c := screen.NewConsole(name)
	if mode() != 0 {
		t.Errorf("local modes are %#x while in use, want none of echo, lines, signals", mode())
	}
	c.Close()
	if after := mode(); after != before {
		t.Errorf("local modes are %#x after Close, were %#x", after, before)
	}
}

// A serial line whose other side takes nothing must not stop a boot.
func TestWriteNeverBlocks(t *testing.T) {
	c := screen.NewConsole()
	r, w, err := os.Pipe() // a pipe nobody reads: full after 64 KiB
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Attach(w)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			fmt.Fprint(c, strings.Repeat("z", 1000))
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a console that takes nothing holds its writer up")
	}
}

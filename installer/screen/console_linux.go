// SPDX-License-Identifier: GPL-2.0-or-later

package screen

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Console is all consoles of a machine as one: what is written goes to each, a
// key on any of them counts.
type Console struct {
	mu    sync.Mutex
	ttys  []*tty
	keys  chan Key
	log   strings.Builder
	close chan struct{}
}

type tty struct {
	f     *os.File
	old   *unix.Termios
	queue chan []byte
	done  chan struct{}
}

// maxLog bounds what is kept of the output for the log file and the shell.
const maxLog = 256 << 10

// NewConsole opens the named terminals. Those that cannot be opened are left out:
// a console= for a serial port that is not there must not stop a boot.
func NewConsole(devices ...string) *Console {
	c := &Console{keys: make(chan Key, 1024), close: make(chan struct{})}
	for _, d := range devices {
		// Not the controlling terminal, and no wait for a modem's carrier.
		if f, err := os.OpenFile(d, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0); err == nil {
			c.Attach(f)
		}
	}
	return c
}

// Attach adds a terminal that is open already.
func (c *Console) Attach(f *os.File) {
	t := &tty{f: f, queue: make(chan []byte, 256), done: make(chan struct{})}
	t.raw()
	c.mu.Lock()
	c.ttys = append(c.ttys, t)
	c.mu.Unlock()
	go t.write()
	go c.read(t)
}

// Count gives the number of terminals in use.
func (c *Console) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ttys)
}

// raw takes echo, line editing and signals off; the speed stays as it is.
func (t *tty) raw() {
	rc, err := t.f.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) {
		tio, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err != nil {
			return
		}
		old := *tio
		t.old = &old
		tio.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON | unix.IXOFF
		tio.Oflag |= unix.OPOST | unix.ONLCR
		tio.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		tio.Cflag |= unix.CLOCAL | unix.CREAD
		tio.Cc[unix.VMIN], tio.Cc[unix.VTIME] = 1, 0
		_ = unix.IoctlSetTermios(int(fd), unix.TCSETS, tio)
	})
}

func (t *tty) restore() {
	rc, err := t.f.SyscallConn()
	if err != nil || t.old == nil {
		return
	}
	_ = rc.Control(func(fd uintptr) { _ = unix.IoctlSetTermios(int(fd), unix.TCSETSW, t.old) })
}

// write drains the queue. A terminal that takes nothing for a second (flow
// control on a line with nobody behind it) loses output; the boot goes on.
func (t *tty) write() {
	defer close(t.done)
	for b := range t.queue {
		_ = t.f.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = t.f.Write(b)
	}
}

func (c *Console) read(t *tty) {
	var d Decoder
	buf := make([]byte, 64)
	for {
		n, err := t.f.Read(buf)
		for _, b := range buf[:n] {
			if k := d.Byte(b); k != None {
				select {
				case c.keys <- k:
				case <-c.close:
					return
				default: // nobody reads keys now: a key pressed long ago must not answer a later question
				}
			}
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// Write writes to all terminals and to the log; it never blocks for long and never fails.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(p)
	if c.log.Len() < maxLog {
		c.log.Write(p)
	}
	return len(p), nil
}

// Paint writes to the terminals and keeps it out of the log: screens, count-downs.
func (c *Console) Paint(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send([]byte(s))
}

func (c *Console) send(p []byte) {
	for _, t := range c.ttys {
		b := append([]byte(nil), p...)
		select {
		case t.queue <- b:
		default:
		}
	}
}

// Log gives what was written so far.
func (c *Console) Log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

// Keys gives the keys as they are pressed, for those who wait for something else too.
func (c *Console) Keys() <-chan Key { return c.keys }

// Key waits for the next key.
func (c *Console) Key(ctx context.Context) (Key, error) {
	select {
	case k := <-c.keys:
		return k, nil
	case <-ctx.Done():
		return None, ctx.Err()
	}
}

// DropKeys forgets keys pressed before a question was asked.
func (c *Console) DropKeys() {
	for {
		select {
		case <-c.keys:
		default:
			return
		}
	}
}

// Choose shows a menu on all terminals until an item is chosen, and gives its ID.
func (c *Console) Choose(ctx context.Context, m *Menu) (string, error) {
	c.DropKeys()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	c.Paint("\x1b[?25l" + m.Draw(time.Now()))
	defer c.Paint("\x1b[?25h\x1b[0m\x1b[2J\x1b[H")
	shown := m.countdown(time.Now())
	for {
		chosen := -1
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case k := <-c.keys:
			chosen = m.Press(k)
			c.Paint(m.Draw(time.Now()))
			shown = m.countdown(time.Now())
		case now := <-tick.C:
			chosen = m.Tick(now)
			if s := m.countdown(now); s != shown {
				shown = s
				c.Paint(m.DrawCountdown(now))
			}
		}
		if chosen >= 0 {
			return m.Items[chosen].ID, nil
		}
	}
}

// Line reads a line with a prompt: echo, Backspace, Ctrl-U. Ctrl-C gives an empty
// line, Ctrl-D on an empty one gives io.EOF.
func (c *Console) Line(ctx context.Context, prompt string) (string, error) {
	c.Paint(prompt)
	var line []byte
	for {
		k, err := c.Key(ctx)
		if err != nil {
			return "", err
		}
		switch {
		case k == Enter:
			c.Paint("\r\n")
			return string(line), nil
		case k == CtrlC:
			c.Paint("^C\r\n")
			return "", nil
		case k == CtrlD && len(line) == 0:
			c.Paint("\r\n")
			return "", io.EOF
		case k == CtrlU:
			c.Paint("\r\x1b[K" + prompt)
			line = nil
		case k == CtrlL:
			c.Paint("\x1b[2J\x1b[H" + prompt + string(line))
		case k == Backspace && len(line) > 0:
			line = line[:len(line)-1]
			c.Paint("\b \b")
		case k >= ' ' && k <= '~' && len(line) < 512:
			line = append(line, byte(k))
			c.Paint(string(rune(k)))
		}
	}
}

// Close writes out what is queued, within a second, and gives the terminals back
// as they were.
func (c *Console) Close() {
	c.mu.Lock()
	ttys := c.ttys
	c.ttys = nil
	c.mu.Unlock()
	close(c.close)
	for _, t := range ttys {
		close(t.queue)
	}
	limit := time.After(time.Second)
	for _, t := range ttys {
		select {
		case <-t.done:
		case <-limit:
		}
		t.restore()
		_ = t.f.SetReadDeadline(time.Unix(1, 0))
		t.f.Close()
	}
}

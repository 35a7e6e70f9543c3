// SPDX-License-Identifier: GPL-2.0-or-later

package front

import (
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxRequest = 4 << 10  // longer ones go to net/http
	maxCopied  = 64 << 10 // longer files go by sendfile
	maxPiece   = 1 << 20  // what a client must take within SlowTimeout
)

// A reply is a buffer for a small file, and for a header in front of it.
type reply [headRoom + maxCopied]byte

const headRoom = 1024

var replies = sync.Pool{New: func() any { return new(reply) }}

// A conn is a connection of which only requests for files have come so far.
type conn struct {
	s     *Server
	tcp   *net.TCPConn
	buf   [maxRequest]byte
	have  int
	idle  atomic.Bool // nothing is under way
	read  time.Time   // when the deadline for the next request was set
	wrote time.Time   // when that for taking an answer was
}

// serve answers requests until the connection ends or is handed on.
func (c *conn) serve() {
	for {
		n, err := c.next()
		if err != nil {
			c.tcp.Close()
			return
		}
		r, ok := c.s.parse(c.buf[:n])
		if n > 0 && ok {
			ok, err = c.answer(r, n)
		}
		if n == 0 || !ok {
			c.tcp.SetDeadline(time.Time{})
			c.s.rest.give(&handedOn{c.tcp, append([]byte(nil), c.buf[:c.have]...)})
			return
		}
		if err != nil || r.close {
			c.tcp.Close()
			return
		}
	}
}

// answer answers the request in the first n bytes read, unless there is no such
// file, or it is for net/http to say what is wrong.
func (c *conn) answer(r request, n int) (ok bool, err error) {
	fd, err := unix.Open(c.s.Path(r.digest), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	p := replies.Get().(*reply)
	defer replies.Put(p)
	f := file{fd: fd, read: -1}
	if !r.ranged && !r.head {
		// Most files are small: reading one tells its size, too.
		if f.read, err = unix.Pread(fd, p[headRoom:], 0); err != nil {
			return false, nil
		}
		f.size, f.n = int64(f.read), int64(f.read)
	}
	if f.read < 0 || f.read == maxCopied {
		if ok := f.stat(r); !ok {
			return false, nil
		}
	}
	c.have = copy(c.buf[:], c.buf[n:c.have])
	return true, c.send(r, f, p)
}

// next waits for a whole request and returns its length; 0 if it is longer than
// one for a file can be.
func (c *conn) next() (int, error) {
	if n := complete(c.buf[:c.have]); n > 0 {
		return n, nil
	}
	if c.have == 0 && !c.s.wait(c) {
		return 0, net.ErrClosed
	}
	// Setting a deadline for each of many thousand requests a second would be a
	// fifth of the work.
	if now := time.Now(); now.Sub(c.read) > time.Second {
		c.read = now
		c.s.within(c, c.s.IdleTimeout)
	}
	for begun := false; ; {
		if c.have > 0 && !begun { // a request that has begun must end soon
			begun = true
			c.idle.Store(false)
			c.s.within(c, c.s.HeaderTimeout)
			c.read = time.Time{}
		}
		n, err := c.tcp.Read(c.buf[c.have:])
		c.have += n
		if n := complete(c.buf[:c.have]); n > 0 {
			c.idle.Store(false)
			return n, nil
		}
		if errors.Is(err, io.EOF) && c.have > 0 {
			return 0, nil // net/http says what it thinks of it
		}
		if err != nil {
			return 0, err
		}
		if c.have == len(c.buf) || bareLF(c.buf[:c.have]) {
			return 0, nil
		}
	}
}

// file is what a request is for.
type file struct {
	fd            int
	size, from, n int64
	read          int // bytes in the reply already; -1: none
}

// stat finds out what part of the file is asked for.
func (f *file) stat(r request) (ok bool) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	f.size = st.Size
	f.from, f.n, ok = r.part(st.Size)
	return ok
}

var errShort = errors.New("the file is shorter than it was")

func (c *conn) send(r request, f file, p *reply) error {
	if now := time.Now(); now.Sub(c.wrote) > time.Second {
		c.wrote = now
		c.s.allow(c, now)
	}
	head := c.header(p[:0:headRoom], r, f)
	b := p[headRoom-copy(p[headRoom-len(head):headRoom], head) : headRoom]
	switch {
	case r.head:
	case f.n > maxCopied:
		if _, err := c.tcp.Write(b); err != nil {
			return err
		}
		return c.sendfile(f)
	case int64(f.read) < f.n:
		if n, err := unix.Pread(f.fd, p[headRoom:headRoom+f.n], f.from); err != nil || int64(n) != f.n {
			return errors.Join(errShort, err)
		}
		fallthrough
	default:
		b = b[:int64(len(b))+f.n]
	}
	_, err := c.tcp.Write(b)
	return err
}

// sendfile sends a large file, piece by piece, so that a client that takes
// nothing is found out.
func (c *conn) sendfile(f file) error {
	fd, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	of := os.NewFile(uintptr(fd), "blob")
	defer of.Close()
	if _, err := of.Seek(f.from, io.SeekStart); err != nil {
		return err
	}
	for left := f.n; left > 0; {
		c.s.allow(c, time.Now())
		n, err := c.tcp.ReadFrom(&io.LimitedReader{R: of, N: min(left, maxPiece)})
		if err != nil {
			return err
		}
		if n == 0 {
			return errShort
		}
		left -= n
	}
	return nil
}

// header writes what net/http would.
func (c *conn) header(b []byte, r request, f file) []byte {
	status := "200 OK"
	if r.ranged {
		status = "206 Partial Content"
	}
	b = append(append(append(b, "HTTP/1.1 "...), status...),
		"\r\nAccept-Ranges: bytes\r\nCache-Control: public, max-age=31536000, immutable\r\nContent-Length: "...)
	b = strconv.AppendInt(b, f.n, 10)
	if r.ranged {
		b = append(b, "\r\nContent-Range: bytes "...)
		b = append(strconv.AppendInt(b, f.from, 10), '-')
		b = append(strconv.AppendInt(b, f.from+f.n-1, 10), '/')
		b = strconv.AppendInt(b, f.size, 10)
	}
	b = append(b, "\r\nContent-Type: application/octet-stream\r\nEtag: \""...)
	b = append(hex.AppendEncode(b, r.digest[:]), "\"\r\n"...)
	b = c.s.appendDate(b, time.Now())
	if r.close {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "\r\n"...)
}

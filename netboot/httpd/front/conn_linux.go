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
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxRequest = 4 << 10  // longer ones go to net/http
	maxCopied  = 64 << 10 // longer files go by sendfile
	maxPiece   = 1 << 20  // what a client must take within SlowTimeout
)

// replies are buffers for a header and a small file.
var replies = sync.Pool{New: func() any { b := make([]byte, 0, maxCopied+1024); return &b }}

// A conn is a connection of which only requests for files have come so far.
type conn struct {
	s     *Server
	tcp   *net.TCPConn
	buf   [maxRequest]byte
	have  int
	read  time.Time // when the deadline for the next request was set
	wrote time.Time // when that for taking an answer was
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
		var f file
		if n > 0 && ok {
			f, ok = c.open(r)
		}
		if n == 0 || !ok {
			c.tcp.SetDeadline(time.Time{})
			c.s.rest.give(&handedOn{c.tcp, append([]byte(nil), c.buf[:c.have]...)})
			return
		}
		c.have = copy(c.buf[:], c.buf[n:c.have])
		err = c.send(r, f)
		if f.fd >= 0 {
			unix.Close(f.fd)
		}
		if err != nil || r.close {
			c.tcp.Close()
			return
		}
	}
}

// next waits for a whole request and returns its length; 0 if it is longer than
// one for a file can be.
func (c *conn) next() (int, error) {
	if n := complete(c.buf[:c.have]); n > 0 {
		return n, nil
	}
	// Setting a deadline for each of many thousand requests a second would be a
	// fifth of the work.
	limit, now := time.Duration(0), time.Now()
	if now.Sub(c.read) > time.Second {
		c.read, limit = now, c.s.IdleTimeout
	}
	if !c.s.await(c, c.have == 0, limit) {
		return 0, net.ErrClosed
	}
	started := c.have > 0
	for {
		if started { // a request that has begun must end soon
			c.s.await(c, false, c.s.HeaderTimeout)
			c.read = time.Time{}
			started = false
		}
		first := c.have == 0
		n, err := c.tcp.Read(c.buf[c.have:])
		c.have += n
		if n := complete(c.buf[:c.have]); n > 0 {
			c.s.await(c, false, 0)
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
		started = first
	}
}

// file is what a request is for.
type file struct {
	fd            int
	size, from, n int64
}

func (c *conn) open(r request) (file, bool) {
	fd, err := unix.Open(c.s.Path(r.digest), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return file{}, false
	}
	f := file{fd: fd}
	var st unix.Stat_t
	ok := false
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		f.size = st.Size
		f.from, f.n, ok = r.part(st.Size)
	}
	if !ok {
		unix.Close(fd)
	}
	return f, ok
}

var errShort = errors.New("the file is shorter than it was")

func (c *conn) send(r request, f file) error {
	p := replies.Get().(*[]byte)
	defer replies.Put(p)
	if now := time.Now(); now.Sub(c.wrote) > time.Second {
		c.wrote = now
		c.s.allow(c, now)
	}
	b := c.header((*p)[:0], r, f)
	if r.head {
		_, err := c.tcp.Write(b)
		return err
	}
	if f.n <= maxCopied {
		h := len(b)
		b = b[:h+int(f.n)]
		if n, err := unix.Pread(f.fd, b[h:], f.from); err != nil || int64(n) != f.n {
			return errors.Join(errShort, err)
		}
		_, err := c.tcp.Write(b)
		return err
	}
	if _, err := c.tcp.Write(b); err != nil {
		return err
	}
	return c.sendfile(f)
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

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fetch is one file fetched by a client that negotiates windows, which none of
// the foreign clients here does.
type fetch struct {
	server    netip.AddrPort
	name      string
	blockSize int // 512: the option is not sent
	window    int // 1: the option is not sent
	timeout   time.Duration
	tries     int

	// The outcome.
	size          int64
	sum           uint32 // CRC-32C
	options       map[string]string
	firstReply    time.Duration
	retransmitted int // requests and ACKs sent again
	err           error
	done          bool

	fd         int
	connected  bool
	out        []byte
	started    time.Time
	heard      time.Time
	tried      int
	block, wnd int
	last       int64 // the last block received in order
	sinceACK   int
	gap        bool
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errNoReply = errors.New("no reply")

// fetchAll runs all fetches at once in one thread, with little more than the
// system calls, so as to weigh little beside the server.
func fetchAll(fetches ...*fetch) error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(ep)
	for i, f := range fetches {
		if f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		defer unix.Close(f.fd)
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, f.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return err
		}
	}
	for _, f := range fetches {
		f.start()
	}
	in := make([]byte, 65536)
	events := make([]unix.EpollEvent, len(fetches))
	for {
		n, err := unix.EpollWait(ep, events, 20)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			fetches[e.Fd].drain(in)
		}
		left := 0
		var errs []error
		now := time.Now()
		for _, f := range fetches {
			f.tick(now)
			if !f.done {
				left++
			}
			errs = append(errs, f.err)
		}
		if left == 0 {
			return errors.Join(errs...)
		}
	}
}

func (f *fetch) start() {
	f.block, f.wnd = 512, 1
	f.out = []byte("\x00\x01" + f.name + "\x00octet\x00")
	if f.blockSize != 512 {
		f.out = append(f.out, "blksize\x00"+strconv.Itoa(f.blockSize)+"\x00"...)
	}
	if f.window != 1 {
		f.out = append(f.out, "windowsize\x00"+strconv.Itoa(f.window)+"\x00"...)
	}
	f.started = time.Now()
	f.heard = f.started
	f.send()
}

func (f *fetch) end(err error) { f.done, f.err = true, err }

func (f *fetch) send() {
	var err error
	if f.connected {
		_, err = unix.Write(f.fd, f.out)
	} else {
		err = unix.Sendto(f.fd, f.out, 0, &unix.SockaddrInet4{Addr: f.server.Addr().As4(), Port: int(f.server.Port())})
	}
	if err != nil {
		f.end(err)
	}
}

func (f *fetch) ack() {
	f.out = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(f.out[:0], 4), uint16(f.last))
	f.sinceACK = 0
	f.send()
}

func (f *fetch) tick(now time.Time) {
	if f.done || now.Sub(f.heard) < f.timeout {
		return
	}
	if f.tried++; f.tried > f.tries {
		f.end(errNoReply)
		return
	}
	f.retransmitted++
	f.heard, f.gap = now, false
	f.send()
}

func (f *fetch) drain(in []byte) {
	for !f.done {
		var n int
		var from unix.Sockaddr
		var err error
		if f.connected {
			n, err = unix.Read(f.fd, in)
		} else {
			n, from, err = unix.Recvfrom(f.fd, in, 0)
		}
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil:
			f.end(err)
			return
		case n < 4:
			f.end(fmt.Errorf("packet of %d bytes", n))
			return
		}
		if !f.connected {
			f.firstReply = time.Since(f.started)
			if err := unix.Connect(f.fd, from); err != nil {
				f.end(err)
				return
			}
			f.connected = true
		}
		f.tried = 0
		f.packet(in[:n])
		f.heard = time.Now()
	}
}

func (f *fetch) packet(p []byte) {
	switch binary.BigEndian.Uint16(p) {
	case 6:
		if f.options == nil {
			f.options = parseOptions(p[2:])
			if v, ok := f.options["blksize"]; ok {
				f.block, _ = strconv.Atoi(v)
			}
			if v, ok := f.options["windowsize"]; ok {
				f.wnd, _ = strconv.Atoi(v)
			}
		}
		f.ack()
	case 3:
		if binary.BigEndian.Uint16(p[2:]) != uint16(f.last+1) {
			if !f.gap && f.last > 0 { // once per gap, RFC 7440 section 4
				f.gap = true
				f.retransmitted++
				f.ack()
			}
			return
		}
		f.gap = false
		f.last++
		f.sinceACK++
		f.size += int64(len(p) - 4)
		f.sum = crc32.Update(f.sum, castagnoli, p[4:])
		short := len(p)-4 < f.block
		if f.sinceACK == f.wnd || short {
			f.ack()
		}
		if short {
			f.end(f.err)
		}
	case 5:
		f.end(fmt.Errorf("error %d: %s", binary.BigEndian.Uint16(p[2:]), strings.TrimRight(string(p[4:]), "\x00")))
	}
}

func parseOptions(b []byte) map[string]string {
	m := make(map[string]string)
	parts := strings.Split(string(b), "\x00")
	for i := 0; i+1 < len(parts); i += 2 {
		m[strings.ToLower(parts[i])] = parts[i+1]
	}
	return m
}

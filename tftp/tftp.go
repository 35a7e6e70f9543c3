// SPDX-License-Identifier: GPL-2.0-or-later

// Package tftp serves files to boot firmware: read-only TFTP (RFC 1350) with the
// options of RFC 2347, 2348, 2349 and 7440, for many clients at once.
//
// It knows names, blocks and clients. What lies behind a name is the business of
// [Server.Open]; which loader a machine should ask for is not decided here.
//
// The sender is our own, because the library (github.com/pin/tftp) has neither
// windows nor a path MTU nor a way to stop a transfer. What the library does do
// is translate to netascii.
package tftp

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// File is what a transfer reads. Its content and size must not change while it
// is open. ReadAt is called by the loop that drives all transfers: what waits
// there for longer than a disk does holds up every client.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Server answers read requests. Open is required; for every other field the zero
// value stands for the default. The fields must not change once Serve is called.
// Serve may be called for several connections; the limits hold for all together.
type Server struct {
	// Open finds the file of a name. The name is relative, slash separated and
	// free of "." and ".." elements. An error that is fs.ErrNotExist or
	// fs.ErrPermission is told to the client as such, any other as a fault of the
	// server. Open may be called by many goroutines at once.
	Open func(name string, client netip.AddrPort) (File, error)

	// Log takes one line per transfer. Nil: silent.
	Log *slog.Logger

	// Events, if set, is told of each request and how it ended, by the goroutine
	// that serves it: it must not block, and may be called by many at once.
	Events func(Event)

	// MaxTransfers is how many transfers run at the same time. A request beyond
	// it gets no answer: firmware asks again after silence, but gives up after an
	// error. Default 512.
	MaxTransfers int

	// MaxPerClient is the same for one client address. Default 16.
	MaxPerClient int

	// MaxBlockSize is the largest block agreed to. It never exceeds what fits the
	// path's MTU without fragments, which is also the default.
	MaxBlockSize int

	// MaxWindow is the largest number of blocks sent without waiting. Default 64.
	MaxWindow int

	// Timeout is how long to wait for an acknowledgement before the second
	// retransmission; the wait doubles with each further one, up to MaxTimeout.
	// Only the first comes sooner if the round trips of the transfer allow. A
	// client may choose another value with the timeout option. Default 1 s.
	Timeout time.Duration

	// MaxTimeout bounds the doubling. Default 8 s.
	MaxTimeout time.Duration

	// Retries is how often a packet is sent again before the client counts as
	// gone. Default 6, which with the other defaults is half a minute.
	Retries int

	mu       sync.Mutex
	sessions map[netip.AddrPort]*session
	running  int
	perAddr  map[netip.Addr]int

	buffers sync.Pool
	noise   brake // garbage and refused requests
	results brake // ends of transfers
}

// EventKind says what happened to a request.
type EventKind uint8

// What can happen to a request. Each Requested is followed by exactly one of the
// others; Refused also comes alone, for a request that names no file.
const (
	Requested EventKind = iota // the name was asked for
	Done                       // the client has the whole file
	Probed                     // the client wanted to know the size and then hung up: not a failure
	Failed                     // the transfer began and did not end well
	Refused                    // no transfer: no such file, not allowed, too many
)

func (k EventKind) String() string {
	switch k {
	case Requested:
		return "requested"
	case Done:
		return "done"
	case Probed:
		return "probed"
	case Failed:
		return "failed"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// Event is one step of one request.
type Event struct {
	Kind   EventKind
	Time   time.Time
	Client netip.AddrPort
	Local  netip.Addr // the address of ours that was asked
	Name   string     // as cleaned; as asked for, if that is impossible

	// For all but Requested.
	Reason   string // why it ended, for people; empty for a plain Done
	Size     int64  // of the file
	Bytes    int64  // acknowledged by the client
	Duration time.Duration

	// The terms agreed on, and how often packets had to be sent again.
	BlockSize     int
	Window        int
	Retransmitted int
}

// Bytes makes a File of content in memory.
func Bytes(b []byte) File { return memFile{bytes.NewReader(b)} }

type memFile struct{ *bytes.Reader }

func (memFile) Close() error { return nil }

// OSFile makes a File of an open regular file, and closes it if it is not one.
func OSFile(f *os.File) (File, error) {
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file: %w", f.Name(), fs.ErrNotExist)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	// The whole file will be read, and soon: begin now, so that the transfers do
	// not wait for the disk. It is only advice.
	_ = unix.Fadvise(int(f.Fd()), 0, st.Size(), unix.FADV_WILLNEED)
	return osFile{f, st.Size()}, nil
}

type osFile struct {
	*os.File
	size int64
}

func (f osFile) Size() int64 { return f.size }

// Dir makes an Open function for the files below a directory. No name and no
// symbolic link leads out of it.
func Dir(root *os.Root) func(string, netip.AddrPort) (File, error) {
	return func(name string, _ netip.AddrPort) (File, error) {
		f, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		return OSFile(f)
	}
}

const (
	defaultMaxTransfers = 512
	defaultMaxPerClient = 16
	defaultMaxWindow    = 64
	defaultTimeout      = time.Second
	defaultMaxTimeout   = 8 * time.Second
	defaultRetries      = 6
)

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

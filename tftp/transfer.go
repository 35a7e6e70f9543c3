// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// link is the way to one client. Tests have others than the UDP socket.
type link interface {
	// send transmits buf as packets of size bytes, the last one being shorter.
	send(buf []byte, size int) error
	// receive waits for one packet; os.ErrDeadlineExceeded: none came in time.
	receive(buf []byte, deadline time.Time) (int, error)
	// maxBlock is the largest block that fits the path in one piece.
	maxBlock() int
	close()
}

// The ways a transfer ends before its time.
var (
	// errSilent: nothing came from the client after all retransmissions.
	errSilent = errors.New("no answer from the client")
	// errGone: the client's system says that nobody listens on the port any more.
	errGone = errors.New("the client closed its port")
)

// peerError is an ERROR packet from the client.
type peerError struct {
	code uint16
	text string
}

func (e *peerError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("the client sent error %d", e.code)
	}
	return fmt.Sprintf("the client sent error %d: %s", e.code, e.text)
}

// minWait is the shortest wait before a packet is sent again, however fast the
// round trips: a ROM that writes to slow memory may pause at any time.
const minWait = 200 * time.Millisecond

// transfer sends one file. Blocks are counted from 1 without wrapping; only the
// packets carry the low 16 bits.
type transfer struct {
	link  link
	file  io.ReaderAt
	size  int64
	terms terms
	last  int64 // number of the last block, which is the one that is not full

	timeout, maxTimeout time.Duration
	retries             int

	// buf holds the blocks [lo, hi) as finished packets, one after the other.
	buf    []byte
	lo, hi int64

	acked         int64 // all blocks up to this one have arrived
	retransmitted int
	heard         atomic.Int64 // when the client last sent something, Unix ns

	fastest, smooth, spread time.Duration // round trips: shortest, mean, mean deviation
	sendErr                 error         // the last trouble with sending, for the reason
	in                      [512]byte
}

// packet is the size of a full DATA packet.
func (t *transfer) packet() int { return t.terms.blockSize + headerLen }

// bufferSize is the room a transfer needs for its packets: a window, and some
// read-ahead, so that a file is not read block by block.
func bufferSize(t terms) int {
	packet := t.blockSize + headerLen
	ahead := max(1, readAhead/(packet*t.window))
	return ahead * packet * t.window
}

const readAhead = 32 << 10

// run sends the file. It returns nil when the client has all of it.
func (t *transfer) run() error {
	t.last = t.size/int64(t.terms.blockSize) + 1
	t.lo, t.hi = 1, 1
	if len(t.terms.oack) > 0 {
		if _, err := t.exchange(0, 1); err != nil {
			return err
		}
	}
	for t.acked < t.last {
		first := t.acked + 1
		n := min(int64(t.terms.window), t.last-t.acked)
		if err := t.load(first, n); err != nil {
			return err
		}
		got, err := t.exchange(first, n)
		if err != nil {
			return err
		}
		t.acked += got
	}
	return nil
}

// bytes is how much of the file the client has acknowledged.
func (t *transfer) bytes() int64 {
	return min(t.acked*int64(t.terms.blockSize), t.size)
}

// exchange sends the n packets from first on (first 0: the OACK) until the
// client acknowledges one of them, and returns how many are known to have arrived.
//
// An ACK for anything but these packets never causes a packet in answer, so
// that a duplicate on the way cannot double the whole rest of the transfer
// ("sorcerer's apprentice", RFC 1123 section 4.2.3.1). The one exception is the
// ACK for the block before the window: a client sends it when the first packet of
// a window is lost and the second arrives. It is believed once per window, and
// only if it could be an answer to this window, that is, if it comes no sooner
// than a round trip after it.
func (t *transfer) exchange(first, n int64) (int64, error) {
	believed := false
	for attempt := 0; ; attempt++ {
		if err := t.transmit(first, n); err != nil {
			return 0, err
		}
		sent := time.Now()
		deadline := sent.Add(t.wait(attempt))
		for {
			r, err := t.await(deadline)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return 0, err
			}
			// The distance in the 16 bits of the packet: a window is far smaller.
			ahead := int64(r.block - uint16(first))
			if ahead < n {
				if attempt == 0 && !believed { // otherwise it may answer either copy
					t.observe(time.Since(sent))
				}
				return ahead + 1, nil
			}
			before := r.block == uint16(first-1)
			if before && t.terms.window > 1 && first > 0 && !believed && time.Since(sent) >= t.fastest {
				believed = true
				t.retransmitted += int(n)
				if err := t.transmit(first, n); err != nil {
					return 0, err
				}
			}
		}
		if attempt == t.retries {
			return 0, t.silent(first)
		}
		t.retransmitted += int(n)
	}
}

// verdict says what the end of run means.
func (t *transfer) verdict(err error) (EventKind, string) {
	var perr *peerError
	left := t.last - t.acked
	switch {
	case err == nil:
		return Done, ""
	case t.acked == 0 && len(t.terms.oack) > 0 && (errors.Is(err, errGone) || errors.As(err, &perr)):
		// PXE ROMs ask for a file once to learn its size and end that with an error
		// or by closing the port, then ask again.
		return Probed, err.Error()
	case t.acked > 0 && errors.Is(err, errGone) && left <= int64(t.terms.window),
		t.acked > 0 && errors.Is(err, errSilent) && left == 1 && t.terms.window == 1:
		// A loader may start what it got without a word.
		return Done, "the last block was not acknowledged"
	}
	return Failed, err.Error()
}

func (t *transfer) silent(first int64) error {
	where := fmt.Sprintf("at block %d of %d", first, t.last)
	if first == 0 {
		where = "to the options"
	}
	if t.sendErr != nil {
		return fmt.Errorf("%w %s; last send: %w", errSilent, where, t.sendErr)
	}
	return fmt.Errorf("%w %s", errSilent, where)
}

// transmit sends the packets once. What may be better with the next try counts
// as lost on the way.
func (t *transfer) transmit(first, n int64) error {
	var err error
	if first == 0 {
		oack := encodeOACK(t.terms.oack)
		err = t.link.send(oack, len(oack))
	} else {
		size := int64(t.packet())
		from := (first - t.lo) * size
		to := from + n*size
		if first+n > t.last {
			to -= int64(t.terms.blockSize) - t.size%int64(t.terms.blockSize)
		}
		err = t.link.send(t.buf[from:to], int(size))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return errGone
	case errors.Is(err, net.ErrClosed):
		return err
	}
	t.sendErr = err
	return nil
}

// await returns the next ACK.
func (t *transfer) await(deadline time.Time) (reply, error) {
	for {
		n, err := t.link.receive(t.in[:], deadline)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return reply{}, errGone
		}
		if err != nil {
			return reply{}, err
		}
		t.heard.Store(time.Now().UnixNano())
		switch r, ok := parseReply(t.in[:n]); {
		case !ok: // not for us to judge; a client in trouble falls silent or sends an ERROR
		case r.op == opERROR:
			return reply{}, &peerError{r.code, r.text}
		default:
			return r, nil
		}
	}
}

// load makes sure that the n blocks from first on are in the buffer.
func (t *transfer) load(first, n int64) error {
	if first >= t.lo && first+n <= t.hi {
		return nil
	}
	block, packet := int64(t.terms.blockSize), int64(t.packet())
	count := min(int64(len(t.buf))/packet, t.last-first+1)
	off := (first - 1) * block
	want := min(count*block, t.size-off)
	// The blocks are read in one go, to the end of the buffer, and then moved
	// forward to behind their headers. A block never lands on one that has not
	// been moved yet, as the gap shrinks by one header with each.
	raw := t.buf[count*headerLen:][:want]
	if got, err := t.file.ReadAt(raw, off); int64(got) < want {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read at %d: %w", off, err)
	}
	for i := range count {
		part := raw[min(i*block, want):min((i+1)*block, want)]
		at := t.buf[i*packet:]
		copy(at[headerLen:], part)
		putDATA(at, uint16(first+i))
	}
	t.lo, t.hi = first, first+count
	return nil
}

// observe takes in the time of one round trip (RFC 6298, section 2).
func (t *transfer) observe(rtt time.Duration) {
	if t.fastest == 0 {
		t.fastest, t.smooth, t.spread = rtt, rtt, rtt/2
		return
	}
	t.fastest = min(t.fastest, rtt)
	t.spread += ((t.smooth - rtt).Abs() - t.spread) / 4
	t.smooth += (rtt - t.smooth) / 8
}

// wait is how long to wait for an answer to the first, second … transmission.
func (t *transfer) wait(attempt int) time.Duration {
	if t.terms.timeout > 0 {
		return t.terms.timeout // the client's wish, RFC 2349: no back-off
	}
	if attempt == 0 && t.smooth > 0 {
		return min(max(t.smooth+4*t.spread, minWait), t.timeout)
	}
	if t.smooth > 0 {
		attempt-- // the first one was the quick one
	}
	return min(t.timeout<<min(attempt, 16), t.maxTimeout)
}

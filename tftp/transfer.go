// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"
)

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

// transfer sends one file. It is a state machine without a clock or a socket:
// start, packet and expire are told the time and what came in, and one
// goroutine calls them. Blocks are counted from 1 without wrapping; only the
// packets carry the low 16 bits.
type transfer struct {
	// send transmits buf as packets of size bytes, the last one being shorter.
	send  func(buf []byte, size int) error
	file  io.ReaderAt
	size  int64
	terms terms

	timeout, maxTimeout time.Duration
	retries             int

	// buf holds the blocks [lo, hi) as finished packets, one after the other.
	buf    []byte
	lo, hi int64

	// What is under way: the n packets from first on, which is 0 for the OACK.
	first, n int64
	last     int64 // number of the last block, which is the one that is not full
	attempt  int   // how often they have been sent again for lack of an answer
	believed bool  // they have been sent again because the client seemed to want it
	sent     time.Time
	deadline time.Time // when to call expire

	acked         int64 // all blocks up to this one have arrived
	retransmitted int
	heard         atomic.Int64 // when the client last sent something, Unix ns

	fastest, smooth, spread time.Duration // round trips: shortest, mean, mean deviation
	sendErr                 error         // the last trouble with sending, for the reason

	over bool  // the transfer has ended
	err  error // and why, if not well
}

// packetSize is the size of a full DATA packet.
func (t *transfer) packetSize() int { return t.terms.blockSize + headerLen }

// bufferSize is the room a transfer needs for its packets: a window, and some
// read-ahead, so that a file is not read block by block.
func bufferSize(t terms) int {
	window := (t.blockSize + headerLen) * t.window
	return max(1, readAhead/window) * window
}

const readAhead = 32 << 10

// start sends the first packets.
func (t *transfer) start(now time.Time) {
	t.last = t.size/int64(t.terms.blockSize) + 1
	t.lo, t.hi = 1, 1
	if len(t.terms.oack) > 0 {
		t.first, t.n = 0, 1
		t.transmit(now)
		return
	}
	t.nextWindow(now)
}

// nextWindow sends what follows the last block known to have arrived.
func (t *transfer) nextWindow(now time.Time) {
	t.first, t.n = t.acked+1, min(int64(t.terms.window), t.last-t.acked)
	t.attempt, t.believed = 0, false
	if err := t.load(); err != nil {
		t.end(err)
		return
	}
	t.transmit(now)
}

// packet takes in what came from the client.
//
// An ACK for anything but the packets under way never causes a packet in answer,
// so that a duplicate on the way cannot double the whole rest of the transfer
// ("sorcerer's apprentice", RFC 1123 section 4.2.3.1). The one exception is the
// ACK for the block before the window: a client sends it when the first packet of
// a window is lost and the second arrives. It is believed once per window, and
// only if it could be an answer to this window, that is, if it comes no sooner
// than a round trip after it.
func (t *transfer) packet(p []byte, now time.Time) {
	t.heard.Store(now.UnixNano())
	r, ok := parseReply(p)
	switch {
	case !ok: // a client in trouble falls silent or sends an ERROR
		return
	case r.op == opERROR:
		t.end(&peerError{r.code, r.text})
		return
	}
	// The distance in the 16 bits of the packet: a window is far smaller.
	ahead := int64(r.block - uint16(t.first))
	switch {
	case ahead < t.n:
		if t.attempt == 0 && !t.believed { // otherwise it may answer either copy
			t.observe(now.Sub(t.sent))
		}
		t.acked = t.first + ahead
		if t.acked == t.last {
			t.end(nil)
			return
		}
		t.nextWindow(now)
	case r.block == uint16(t.first-1) && t.terms.window > 1 && t.first > 0 && !t.believed && now.Sub(t.sent) >= t.fastest:
		t.believed = true
		t.retransmitted += int(t.n)
		t.transmit(now)
	}
}

// expire is called when the deadline has passed: the answer does not come.
func (t *transfer) expire(now time.Time) {
	if t.attempt == t.retries {
		t.end(t.silent())
		return
	}
	t.attempt++
	t.retransmitted += int(t.n)
	t.transmit(now)
}

func (t *transfer) end(err error) { t.over, t.err = true, err }

// bytes is how much of the file the client has acknowledged.
func (t *transfer) bytes() int64 {
	return min(t.acked*int64(t.terms.blockSize), t.size)
}

// verdict says what the end of the transfer means.
func (t *transfer) verdict() (EventKind, string) {
	err := t.err
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

func (t *transfer) silent() error {
	where := fmt.Sprintf("at block %d of %d", t.first, t.last)
	if t.first == 0 {
		where = "to the options"
	}
	if t.sendErr != nil {
		return fmt.Errorf("%w %s; last send: %w", errSilent, where, t.sendErr)
	}
	return fmt.Errorf("%w %s", errSilent, where)
}

// transmit sends the packets under way. What may go better the next time counts
// as lost on the way.
func (t *transfer) transmit(now time.Time) {
	var err error
	if t.first == 0 {
		oack := encodeOACK(t.terms.oack)
		err = t.send(oack, len(oack))
	} else {
		size, block := int64(t.packetSize()), int64(t.terms.blockSize)
		from := (t.first - t.lo) * size
		to := from + t.n*size
		if t.first+t.n > t.last {
			to -= block - t.size%block
		}
		err = t.send(t.buf[from:to], int(size))
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		t.end(errGone)
		return
	}
	if err != nil {
		t.sendErr = err
	}
	t.sent = now
	t.deadline = now.Add(t.wait())
}

// load makes sure that the packets under way are in the buffer.
func (t *transfer) load() error {
	if t.first >= t.lo && t.first+t.n <= t.hi {
		return nil
	}
	block, packet := int64(t.terms.blockSize), int64(t.packetSize())
	count := min(int64(len(t.buf))/packet, t.last-t.first+1)
	off := (t.first - 1) * block
	want := min(count*block, t.size-off)
	// The blocks are read in one go, to the end of the buffer, and then moved
	// forward to behind their headers. A block never lands on one that has not
	// been moved yet, as the gap shrinks by one header with each.
	raw := t.buf[count*headerLen:][:want]
	if got, err := t.file.ReadAt(raw, off); int64(got) < want {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return &refusal{text: textUnreadable, err: fmt.Errorf("read at %d: %w", off, err)}
	}
	for i := range count {
		at := t.buf[i*packet:]
		copy(at[headerLen:], raw[min(i*block, want):min((i+1)*block, want)])
		putDATA(at, uint16(t.first+i))
	}
	t.lo, t.hi = t.first, t.first+count
	return nil
}

// observe takes in the time of one round trip (RFC 6298, section 2).
func (t *transfer) observe(rtt time.Duration) {
	if t.smooth == 0 {
		t.fastest, t.smooth, t.spread = rtt, rtt, rtt/2
		return
	}
	t.fastest = min(t.fastest, rtt)
	t.spread += ((t.smooth - rtt).Abs() - t.spread) / 4
	t.smooth += (rtt - t.smooth) / 8
}

// wait is how long to wait for an answer to this attempt.
func (t *transfer) wait() time.Duration {
	if t.terms.timeout > 0 {
		return t.terms.timeout // the client's wish, RFC 2349: no back-off
	}
	doublings := t.attempt
	if t.smooth > 0 {
		if t.attempt == 0 {
			return min(max(t.smooth+4*t.spread, minWait), t.timeout)
		}
		doublings-- // the first wait was the quick one
	}
	return min(t.timeout<<min(doublings, 16), t.maxTimeout)
}

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

	// The OACK counts as block 0. All blocks up to acked have arrived, those up to
	// sent are under way, and last is the one that is not full.
	acked, sent, last int64
	twice             int64     // blocks up to this one have been sent more than once, some after acked
	attempt           int       // how often the client has failed to answer
	believed          bool      // an ACK for acked, come twice, has been taken as a cry for help
	sentAt            time.Time // when something was sent last
	deadline          time.Time // when to call expire

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
	t.twice = -1
	if len(t.terms.oack) > 0 {
		t.acked, t.sent = -1, -1
		t.transmit(0, 0, now)
		return
	}
	t.transmit(1, t.windowEnd(), now)
}

// windowEnd is the last block that may be under way.
func (t *transfer) windowEnd() int64 {
	return min(max(t.acked, 0)+int64(t.terms.window), t.last)
}

// packet takes in what came from the client.
func (t *transfer) packet(p []byte, now time.Time) {
	t.heard.Store(now.UnixNano())
	r, ok := parseReply(p)
	switch {
	case !ok: // a client in trouble falls silent or sends an ERROR
	case r.op == opERROR:
		t.end(&peerError{r.code, r.text})
	default:
		// The distance in the 16 bits of the packet: a window is far smaller.
		ahead := int64(r.block - uint16(t.acked+1))
		if ahead < t.sent-t.acked {
			t.progress(t.acked+1+ahead, now)
		} else if r.block == uint16(t.acked) {
			t.repeated(now)
		}
	}
}

// progress is called when the client has all blocks up to the given one, of
// those under way.
//
// If it is not the last of them, the client misses the one after it, and by
// RFC 7440 the window starts anew from there. But clients also acknowledge what
// they have when an old block comes a second time (EDK2 does). Blocks under way
// would then be sent twice, cause more such ACKs a round trip later, and so on to
// the end of the file. So an ACK that these blocks may have caused only makes the
// window move on.
func (t *transfer) progress(block int64, now time.Time) {
	if block == t.sent && block > t.twice && t.attempt == 0 {
		t.observe(now.Sub(t.sentAt)) // of all others it is not known which copy they answer
	}
	from := t.sent + 1
	if block < t.sent && block > t.twice {
		from = block + 1
	}
	t.acked, t.attempt, t.believed = block, 0, false
	if block == t.last {
		t.end(nil)
		return
	}
	t.transmit(from, t.windowEnd(), now)
}

// repeated is called for another ACK of the block before the window. That is no
// reason to send anything, or one duplicate on the way could double all that
// follows ("sorcerer's apprentice", RFC 1123 section 4.2.3.1). But a client also
// sends it when the first block of a window is lost and the second arrives. It is
// believed once per window, and only if it can be an answer to this window, that
// is, if it comes no sooner than a round trip after it.
func (t *transfer) repeated(now time.Time) {
	if t.terms.window == 1 || t.acked < 0 || t.believed || now.Sub(t.sentAt) < t.fastest {
		return
	}
	t.believed = true
	t.again(now)
}

// expire is called when the deadline has passed: the answer does not come.
func (t *transfer) expire(now time.Time) {
	if t.attempt == t.retries {
		t.end(t.silent())
		return
	}
	t.attempt++
	t.again(now)
}

// again sends what is under way once more.
func (t *transfer) again(now time.Time) { t.transmit(t.acked+1, t.sent, now) }

func (t *transfer) end(err error) { t.over, t.err = true, err }

// bytes is how much of the file the client has acknowledged.
func (t *transfer) bytes() int64 {
	return min(max(t.acked, 0)*int64(t.terms.blockSize), t.size)
}

// verdict says what the end of the transfer means.
func (t *transfer) verdict() (EventKind, string) {
	err := t.err
	var perr *peerError
	left := t.last - t.acked
	switch {
	case err == nil:
		return Done, ""
	case t.acked <= 0 && len(t.terms.oack) > 0 && (errors.Is(err, errGone) || errors.As(err, &perr)):
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
	where := fmt.Sprintf("at block %d of %d", t.acked+1, t.last)
	if t.acked < 0 {
		where = "to the options"
	}
	if t.sendErr != nil {
		return fmt.Errorf("%w %s; last send: %w", errSilent, where, t.sendErr)
	}
	return fmt.Errorf("%w %s", errSilent, where)
}

// transmit sends the blocks from one to another, if there are any. What may go
// better the next time counts as lost on the way.
func (t *transfer) transmit(from, to int64, now time.Time) {
	t.deadline = now.Add(t.wait())
	if from > to {
		return
	}
	var packets []byte
	size := t.packetSize()
	if from == 0 {
		packets = encodeOACK(t.terms.oack)
		size = len(packets)
	} else {
		var err error
		if packets, err = t.load(from, to); err != nil {
			t.end(err)
			return
		}
	}
	if from <= t.sent {
		t.retransmitted += int(min(t.sent, to) - from + 1)
		t.twice = t.sent
	}
	t.sent, t.sentAt = max(t.sent, to), now
	switch err := t.send(packets, size); {
	case errors.Is(err, syscall.ECONNREFUSED):
		t.end(errGone)
	case err != nil:
		t.sendErr = err
	}
}

// load returns the packets of the blocks from one to another.
func (t *transfer) load(from, to int64) ([]byte, error) {
	if from < t.lo || to >= t.hi {
		if err := t.fill(from); err != nil {
			return nil, err
		}
	}
	packet := int64(t.packetSize())
	end := (to + 1 - t.lo) * packet
	if to == t.last {
		end -= int64(t.terms.blockSize) - t.size%int64(t.terms.blockSize)
	}
	return t.buf[(from-t.lo)*packet : end], nil
}

// fill reads as many blocks as the buffer holds.
func (t *transfer) fill(from int64) error {
	block, packet := int64(t.terms.blockSize), int64(t.packetSize())
	count := min(int64(len(t.buf))/packet, t.last-from+1)
	off := (from - 1) * block
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
		putDATA(at, uint16(from+i))
	}
	t.lo, t.hi = from, from+count
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

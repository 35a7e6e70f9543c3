// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// network simulates a path and a client with a clock of its own: the same seed
// gives the same run.
type network struct {
	rng               *rand.Rand
	drop, twice, late float64 // chances for each packet
	twiceOnly         int     // only the packet of this number arrives twice
	delay             time.Duration
	now               time.Time
	flying            []flight
	packets, blocks   int // put on the way; DATA sent by the server

	// The client.
	block, window int
	everyGap      bool // it sends an ACK for each block it did not expect, not one per gap
	got           bytes.Buffer
	last          int64
	sinceACK      int
	gap, done     bool
	due           time.Time // when it repeats its ACK
}

type flight struct {
	at       time.Time
	seq      int
	toClient bool
	p        []byte
}

func (n *network) fly(p []byte, toClient bool) {
	copies := 1
	if n.packets++; n.packets == n.twiceOnly {
		copies = 2
	} else if n.rng.Float64() < n.drop {
		copies = 0
	} else if n.rng.Float64() < n.twice {
		copies = 2
	}
	for range copies {
		d := n.delay
		if n.rng.Float64() < n.late {
			d += time.Duration(n.rng.Int64N(int64(5 * n.delay)))
		}
		n.flying = append(n.flying, flight{n.now.Add(d), n.packets, toClient, bytes.Clone(p)})
	}
}

func (n *network) send(buf []byte, size int) error {
	for chunk := range slices.Chunk(buf, size) {
		if binary.BigEndian.Uint16(chunk) == opDATA {
			n.blocks++
		}
		n.fly(chunk, true)
	}
	return nil
}

func (n *network) ack() {
	n.sinceACK = 0
	n.fly([]byte{0, opACK, byte(n.last >> 8), byte(n.last)}, false)
}

// client takes a packet the way EDK2 (everyGap) and other firmware do.
func (n *network) client(p []byte) {
	n.due = n.now.Add(300 * time.Millisecond)
	switch binary.BigEndian.Uint16(p) {
	case opOACK:
		if n.last == 0 {
			n.ack()
		}
	case opDATA:
		if binary.BigEndian.Uint16(p[2:]) != uint16(n.last+1) {
			if n.window == 1 || n.everyGap || !n.gap {
				n.gap = true
				n.ack()
			}
			return
		}
		n.gap = false
		n.last++
		n.sinceACK++
		n.got.Write(p[headerLen:])
		n.done = len(p)-headerLen < n.block
		if n.sinceACK == n.window || n.done {
			n.ack()
		}
	}
}

// run carries packets until the transfer is over.
func (n *network) run(t *transfer) {
	n.now = time.Unix(1e9, 0)
	t.start(n.now)
	for !t.over {
		next := -1
		for i, f := range n.flying {
			if next < 0 || cmp.Or(f.at.Compare(n.flying[next].at), cmp.Compare(f.seq, n.flying[next].seq)) < 0 {
				next = i
			}
		}
		if next < 0 || n.flying[next].at.After(earlier(t.deadline, n.due)) {
			if n.now = earlier(t.deadline, n.due); n.now == n.due {
				n.gap, n.due = false, n.now.Add(300*time.Millisecond)
				n.ack()
			} else {
				t.expire(n.now)
			}
			continue
		}
		f := n.flying[next]
		n.flying = slices.Delete(n.flying, next, next+1)
		n.now = f.at
		if f.toClient {
			n.client(f.p)
		} else {
			t.packet(f.p, n.now)
		}
	}
}

// earlier is the first of two times, of which the second may be zero.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// simulate joins a transfer of content and a client.
func simulate(content []byte, n *network) *transfer {
	asked := []option{}
	if n.block != defaultBlockSize {
		asked = append(asked, option{"blksize", fmt.Sprint(n.block)})
	}
	if n.window != 1 {
		asked = append(asked, option{"windowsize", fmt.Sprint(n.window)})
	}
	terms := negotiate(asked, int64(len(content)), bounds{blockSize: n.block, window: n.window})
	return &transfer{
		send: n.send, file: bytes.NewReader(content), size: int64(len(content)), terms: terms,
		buf:     make([]byte, bufferSize(terms)),
		timeout: defaultTimeout, maxTimeout: defaultMaxTimeout, retries: 30,
	}
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func TestBadNetwork(t *testing.T) {
	for _, window := range []int{1, 4, 16} {
		for _, everyGap := range []bool{false, true} {
			t.Run(fmt.Sprintf("window %d, ACK for each gap %v", window, everyGap), func(t *testing.T) {
				for seed := range uint64(60) {
					content := randomBytes(seed, 100*512+int(seed%3)*200)
					n := &network{rng: rand.New(rand.NewPCG(seed, 1)), drop: 0.1, twice: 0.1, late: 0.1,
						delay: time.Millisecond, block: 512, window: window, everyGap: everyGap}
					x := simulate(content, n)
					n.run(x)
					if x.err != nil {
						t.Fatalf("seed %d: %v", seed, x.err)
					}
					if !bytes.Equal(n.got.Bytes(), content) {
						t.Fatalf("seed %d: content differs after %d of %d bytes", seed, n.got.Len(), len(content))
					}
					// 3 losses in a window of 16 make three partial windows of it.
					if limit := int(x.last) * (2 + window/3); n.blocks > limit {
						t.Errorf("seed %d: %d blocks sent for a file of %d", seed, n.blocks, x.last)
					}
				}
			})
		}
	}
}

// One packet that arrives twice must not make all that follow be sent twice.
func TestNoSorcerersApprentice(t *testing.T) {
	content := randomBytes(7, 200*512)
	for _, window := range []int{1, 4, 16} {
		for _, everyGap := range []bool{false, true} {
			for nth := range 60 {
				n := &network{rng: rand.New(rand.NewPCG(1, 1)), delay: time.Millisecond, block: 512, window: window, everyGap: everyGap}
				n.twiceOnly = nth + 1
				x := simulate(content, n)
				n.run(x)
				if x.err != nil || !bytes.Equal(n.got.Bytes(), content) {
					t.Fatalf("window %d: %v, %d bytes", window, x.err, n.got.Len())
				}
				spare := 0
				if window > 1 {
					spare = 2 * window // the ACK that the second copy causes looks like one for a loss
				}
				if n.blocks > int(x.last)+spare {
					t.Errorf("window %d, ACK for each gap %v, packet %d twice: %d blocks sent, want at most %d", window, everyGap, nth, n.blocks, int(x.last)+spare)
				}
			}
		}
	}
}

// With every packet arriving twice, nothing is sent twice without windows, and
// with them no more than that.
func TestEverythingTwice(t *testing.T) {
	content := randomBytes(7, 200*512)
	for _, window := range []int{1, 4, 16} {
		n := &network{rng: rand.New(rand.NewPCG(1, 1)), twice: 1, delay: time.Millisecond, block: 512, window: window, everyGap: true}
		x := simulate(content, n)
		n.run(x)
		if x.err != nil || !bytes.Equal(n.got.Bytes(), content) {
			t.Fatalf("window %d: %v, %d bytes", window, x.err, n.got.Len())
		}
		limit := int(x.last)
		if window > 1 {
			limit *= 2
		}
		if n.blocks > limit {
			t.Errorf("window %d: %d blocks sent, want at most %d", window, n.blocks, limit)
		}
	}
}

// A lost first packet of a window is sent again when the client says so, and not
// only after a time-out.
func TestFirstOfWindowLost(t *testing.T) {
	content := randomBytes(3, 64*512)
	n := &network{rng: rand.New(rand.NewPCG(1, 1)), delay: time.Millisecond, block: 512, window: 8}
	x := simulate(content, n)
	carry, lost := n.send, false
	x.send = func(buf []byte, size int) error {
		if !lost && binary.BigEndian.Uint16(buf) == opDATA && binary.BigEndian.Uint16(buf[2:]) == 17 {
			lost = true
			buf = buf[size:]
		}
		return carry(buf, size)
	}
	n.run(x)
	if x.err != nil || !bytes.Equal(n.got.Bytes(), content) {
		t.Fatalf("transfer: %v, %d bytes", x.err, n.got.Len())
	}
	if took := n.now.Sub(time.Unix(1e9, 0)); !lost || took >= minWait {
		t.Errorf("block lost: %v; took %v, want less than a time-out", lost, took)
	}
}

func TestBlockNumbersWrap(t *testing.T) {
	for _, window := range []int{1, 64} {
		content := randomBytes(5, 8*70_000+3)
		n := &network{rng: rand.New(rand.NewPCG(1, 1)), delay: time.Millisecond, block: 8, window: window}
		x := simulate(content, n)
		n.run(x)
		if x.err != nil || x.last != 70_001 || !bytes.Equal(n.got.Bytes(), content) {
			t.Errorf("window %d: %v, last block %d, %d of %d bytes", window, x.err, x.last, n.got.Len(), len(content))
		}
	}
}

func TestSizes(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 1023, 1024, 8*512 - 1, 8 * 512, 8*512 + 1, readAhead, 3*readAhead + 5} {
		for _, window := range []int{1, 3, 8} {
			content := randomBytes(uint64(size), size)
			n := &network{rng: rand.New(rand.NewPCG(1, 1)), delay: time.Millisecond, block: 512, window: window}
			x := simulate(content, n)
			n.run(x)
			if x.err != nil || !bytes.Equal(n.got.Bytes(), content) || !n.done {
				t.Errorf("%d bytes, window %d: %v, got %d, complete %v", size, window, x.err, n.got.Len(), n.done)
			}
			if x.bytes() != int64(size) {
				t.Errorf("%d bytes, window %d: bytes() = %d", size, window, x.bytes())
			}
		}
	}
}

// sends records when packets were sent to a client that says nothing.
func sends(t *testing.T, x *transfer) []time.Duration {
	t.Helper()
	start := time.Unix(1e9, 0)
	now := start
	var at []time.Duration
	x.send = func([]byte, int) error { at = append(at, now.Sub(start)); return nil }
	for x.start(now); !x.over; x.expire(now) {
		now = x.deadline
	}
	if !errors.Is(x.err, errSilent) {
		t.Errorf("transfer ended with %v, want errSilent", x.err)
	}
	return append(at, now.Sub(start))
}

func TestBackOff(t *testing.T) {
	const s = time.Second
	x := simulate([]byte("x"), &network{block: 512, window: 1})
	x.retries = defaultRetries
	if got, want := sends(t, x), []time.Duration{0, 1 * s, 3 * s, 7 * s, 15 * s, 23 * s, 31 * s, 39 * s}; !slices.Equal(got, want) {
		t.Errorf("a silent client is sent to at %v, want %v", got, want)
	}
	if kind, reason := x.verdict(); kind != Failed || !strings.Contains(reason, "block 1 of 1") {
		t.Errorf("verdict() = %v, %q", kind, reason)
	}

	x = simulate([]byte("x"), &network{block: 512, window: 1})
	x.retries, x.terms.timeout = 2, 3*s
	if got, want := sends(t, x), []time.Duration{0, 3 * s, 6 * s, 9 * s}; !slices.Equal(got, want) {
		t.Errorf("a client that asked for 3 s is sent to at %v, want %v", got, want)
	}
}

// After fast answers the first repetition comes soon, the others as usual.
func TestWaitFollowsRoundTrip(t *testing.T) {
	x := simulate(make([]byte, 5000), &network{block: 512, window: 1})
	x.send = func([]byte, int) error { return nil }
	now := time.Unix(1e9, 0)
	x.start(now)
	for block := byte(1); block <= 5; block++ {
		now = now.Add(time.Millisecond)
		x.packet([]byte{0, opACK, 0, block}, now)
	}
	var waits []time.Duration
	for range 4 {
		waits = append(waits, x.deadline.Sub(now))
		now = x.deadline
		x.expire(now)
	}
	if want := []time.Duration{minWait, time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
}

func TestVerdict(t *testing.T) {
	oack := []option{{"tsize", "1"}}
	aborted := &peerError{8, "User aborted"}
	tests := []struct {
		name        string
		err         error
		oack        []option
		acked, last int64
		window      int
		want        EventKind
	}{
		{"complete", nil, nil, 5, 5, 1, Done},
		{"size asked, then error", aborted, oack, 0, 5, 1, Probed},
		{"size asked, then port closed", errGone, oack, 0, 5, 1, Probed},
		{"size asked, then silence", errSilent, oack, 0, 5, 1, Failed},
		{"error before the first block without options", aborted, nil, 0, 5, 1, Failed},
		{"error in the middle", aborted, oack, 2, 5, 1, Failed},
		{"port closed in the middle", errGone, oack, 2, 50, 16, Failed},
		{"port closed at the end", errGone, oack, 40, 50, 16, Done},
		{"silent at the last block", errSilent, nil, 4, 5, 1, Done},
		{"silent in the last window", errSilent, oack, 40, 50, 16, Failed},
		{"silent at the only block", errSilent, nil, 0, 1, 1, Failed},
		{"stopped", errStopping, oack, 2, 5, 1, Failed},
	}
	for _, tt := range tests {
		x := &transfer{err: tt.err, acked: tt.acked, last: tt.last, terms: terms{oack: tt.oack, window: tt.window}}
		if got, reason := x.verdict(); got != tt.want || (reason == "") != (tt.err == nil) {
			t.Errorf("%s: verdict() = %v, %q, want %v", tt.name, got, reason, tt.want)
		}
	}
}

type failingReader struct{ after int64 }

func (f failingReader) ReadAt(b []byte, off int64) (int, error) {
	if off >= f.after {
		return 0, errors.New("disk on fire")
	}
	return len(b), nil
}

func TestTransferEndsOnFault(t *testing.T) {
	start := func(file func(*transfer)) *transfer {
		x := simulate(make([]byte, 1<<20), &network{block: 512, window: 1})
		x.send = func([]byte, int) error { return nil }
		file(x)
		x.start(time.Unix(1e9, 0))
		for b := byte(1); b < 100 && !x.over; b++ {
			x.packet([]byte{0, opACK, 0, b}, time.Unix(1e9, 0))
		}
		return x
	}
	x := start(func(x *transfer) { x.file = failingReader{20_000} })
	if ref := (*refusal)(nil); !errors.As(x.err, &ref) || ref.text != textUnreadable || !strings.Contains(x.err.Error(), "disk on fire") {
		t.Errorf("read error: transfer ended with %v", x.err)
	}
	x = start(func(x *transfer) { x.file = bytes.NewReader(make([]byte, 30_000)) })
	if x.err == nil || !strings.Contains(x.err.Error(), "unexpected EOF") {
		t.Errorf("shrunk file: transfer ended with %v", x.err)
	}
	x = start(func(x *transfer) { x.send = func([]byte, int) error { return syscall.ECONNREFUSED } })
	if !errors.Is(x.err, errGone) {
		t.Errorf("closed port: transfer ended with %v", x.err)
	}
	x = start(func(x *transfer) {})
	x.packet([]byte("\x00\x05\x00\x03disk full\x00"), time.Unix(1e9, 0))
	if want := "the client sent error 3: disk full"; x.err == nil || x.err.Error() != want {
		t.Errorf("ERROR packet: transfer ended with %v, want %q", x.err, want)
	}
}

// What the reply names as trouble with sending is what a person needs to know.
func TestSilenceNamesSendError(t *testing.T) {
	x := simulate([]byte("x"), &network{block: 512, window: 1})
	now := time.Unix(1e9, 0)
	x.send = func([]byte, int) error { return syscall.ENETUNREACH }
	for x.start(now); !x.over; x.expire(now) {
		now = x.deadline
	}
	if !errors.Is(x.err, errSilent) || !errors.Is(x.err, syscall.ENETUNREACH) {
		t.Errorf("transfer ended with %v, want errSilent with ENETUNREACH", x.err)
	}
}

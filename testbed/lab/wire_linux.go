// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Link is what a bad cable or a slow switch does to frames. The zero value is a
// perfect link.
type Link struct {
	Loss  float64       // share of frames lost in each direction, 0 to 1
	Delay time.Duration // in each direction
	// Hold is how long after power-on, or after the link was set, nothing
	// passes although the link is up: a switch port that waits for spanning
	// tree, commonly 30 s.
	Hold time.Duration
	Seed uint64 // of the losses: the same seed loses the same frames
}

// queueLimit is how many delayed frames are kept for each direction.
const queueLimit = 1000

// wire carries frames between two ends and does to them what its link says.
type wire struct {
	ends [2]io.ReadWriteCloser
	done sync.WaitGroup

	mu    sync.Mutex
	link  Link
	until time.Time // Hold ends
	rand  *rand.Rand
}

// newWire starts carrying frames. It ends when either end does, and then closes
// the other.
func newWire(a, b io.ReadWriteCloser, l Link) *wire {
	w := &wire{ends: [2]io.ReadWriteCloser{a, b}}
	w.set(l)
	w.done.Go(func() { w.carry(a, b) })
	w.done.Go(func() { w.carry(b, a) })
	return w
}

// set changes the link from now on.
func (w *wire) set(l Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.link = l
	w.until = time.Now().Add(l.Hold)
	w.rand = rand.New(rand.NewPCG(l.Seed, 0))
}

// close takes both ends away and waits.
func (w *wire) close() {
	w.ends[0].Close()
	w.ends[1].Close()
	w.done.Wait()
}

// fate decides over one frame: whether it passes, and when.
func (w *wire) fate(now time.Time) (due time.Time, passes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Before(w.until) || w.link.Loss > 0 && w.rand.Float64() < w.link.Loss {
		return time.Time{}, false
	}
	return now.Add(w.link.Delay), true
}

type delayed struct {
	due   time.Time
	frame []byte
}

func (w *wire) carry(from, to io.ReadWriteCloser) {
	queue := make(chan delayed, queueLimit)
	var sender sync.WaitGroup
	sender.Go(func() {
		for d := range queue {
			if wait := time.Until(d.due); wait > 0 {
				time.Sleep(wait)
			}
			// A full receiver loses the frame, as on a real cable.
			_, _ = to.Write(d.frame)
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		if due, ok := w.fate(time.Now()); ok {
			select {
			case queue <- delayed{due, append([]byte(nil), buf[:n]...)}:
			default: // more than fits on this cable
			}
		}
	}
	close(queue)
	sender.Wait()
	to.Close()
}

// datagramPair returns two connected ends that keep frames apart, the second as a
// file for another process.
func datagramPair() (near net.Conn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "near")
	defer f.Close()
	far = os.NewFile(uintptr(fds[1]), "far")
	if near, err = net.FileConn(f); err != nil {
		far.Close()
		return nil, nil, err
	}
	return near, far, nil
}

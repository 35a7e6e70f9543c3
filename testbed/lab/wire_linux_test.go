// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// end is one end of a cable, whose other side the test holds.
type end struct {
	in     chan []byte // frames for the wire
	out    chan []byte // frames from the wire
	closed chan struct{}
}

func newEnd() *end {
	return &end{make(chan []byte), make(chan []byte, 10_000), make(chan struct{})}
}

func (e *end) Read(b []byte) (int, error) {
	select {
	case f := <-e.in:
		return copy(b, f), nil
	case <-e.closed:
		return 0, io.EOF
	}
}

func (e *end) Write(b []byte) (int, error) {
	e.out <- slices.Clone(b)
	return len(b), nil
}

func (e *end) Close() error {
	select {
	case <-e.closed:
	default:
		close(e.closed)
	}
	return nil
}

// passed sends numbered frames into a and returns which come out of b.
func passed(a, b *end, frames int) []byte {
	for i := range frames {
		a.in <- []byte{byte(i)}
	}
	synctest.Wait()
	var got []byte
	for len(b.out) > 0 {
		got = append(got, (<-b.out)[0])
	}
	return got
}

func withWire(t *testing.T, l Link, f func(w *wire, a, b *end)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newEnd(), newEnd()
		w := newWire(a, b, l)
		f(w, a, b)
		w.close()
	})
}

func TestLossIsTheShareAsked(t *testing.T) {
	lost := map[uint64][]byte{}
	for _, seed := range []uint64{1, 1, 2} {
		withWire(t, Link{Loss: 0.1, Seed: seed}, func(_ *wire, a, b *end) {
			var all []byte
			for range 20 {
				all = append(all, passed(a, b, 250)...)
			}
			if n := 5000 - len(all); n < 400 || n > 600 {
				t.Errorf("seed %d: %d of 5000 frames lost, want about 500", seed, n)
			}
			if before, ok := lost[seed]; ok && !slices.Equal(before, all) {
				t.Errorf("seed %d loses other frames the second time", seed)
			}
			lost[seed] = all
		})
	}
	if slices.Equal(lost[1], lost[2]) {
		t.Error("two seeds lose the same frames")
	}
}

func TestHoldAndChange(t *testing.T) {
	withWire(t, Link{Hold: 35 * time.Second}, func(w *wire, a, b *end) {
		time.Sleep(34 * time.Second)
		if got := passed(a, b, 3); got != nil {
			t.Errorf("%v passed while the port was held", got)
		}
		time.Sleep(time.Second)
		if got := passed(a, b, 3); len(got) != 3 {
			t.Errorf("%d of 3 passed after the hold", len(got))
		}
		w.set(Link{Loss: 1})
		if got := passed(b, a, 3); got != nil {
			t.Errorf("%v passed although all should be lost", got)
		}
	})
}

func TestDelayKeepsOrder(t *testing.T) {
	withWire(t, Link{Delay: 100 * time.Millisecond}, func(_ *wire, a, b *end) {
		began := time.Now()
		if got := passed(a, b, 5); got != nil {
			t.Errorf("%v passed at once", got)
		}
		for i := range 5 {
			if f := <-b.out; f[0] != byte(i) {
				t.Errorf("frame %d came as number %d", f[0], i)
			}
		}
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestWireEndsWithEitherEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newEnd(), newEnd()
		w := newWire(a, b, Link{})
		b.Close()
		<-a.closed
		w.close()
	})
}

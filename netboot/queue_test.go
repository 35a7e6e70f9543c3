// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"fmt"
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := newQueue(2, turnLimit)
	q.now = func() time.Time { return now }
	ask := func(mac string, want int, wantFresh bool) {
		t.Helper()
		if got, fresh := q.ask(mac); got != want || fresh != wantFresh {
			t.Errorf("ask(%s) = %d, %v, want %d, %v", mac, got, fresh, want, wantFresh)
		}
	}
	ask("a", 0, true)
	q.start("a", "boot-a")
	ask("b", 0, true)
	q.start("b", "boot-b")
	ask("c", 1, true)
	ask("d", 2, true)
	ask("d", 2, false)
	ask("a", 0, true) // it restarts in its turn
	q.start("a", "boot-a2")
	q.done("boot-a") // of the boot that was given up
	ask("c", 1, false)

	// One place: the first in the queue has it, though another asks earlier.
	q.done("boot-a2")
	ask("d", 2, false)
	ask("c", 0, false)
	q.start("c", "boot-c")
	ask("d", 1, false)

	// Machines that are never heard of again lose their turn, and their place.
	now = now.Add(turnLimit + time.Second)
	ask("e", 0, true)
	ask("f", 0, true)
	ask("g", 1, true)
	now = now.Add(waitLimit + time.Second)
	ask("h", 1, true)

	// Who fetches keeps its turn as long as it is at it.
	q = newQueue(1, idleLimit)
	q.now = func() time.Time { return now }
	ask("a", 0, true)
	q.busy("a", 1)
	now = now.Add(time.Hour)
	ask("b", 1, true)
	q.busy("a", -1)
	now = now.Add(idleLimit)
	ask("a", 0, true)
	now = now.Add(idleLimit)
	ask("b", 1, false)
	now = now.Add(time.Second)
	ask("b", 0, false)
	q.busy("a", -1) // comes late
	ask("a", 1, true)
	q.left("b")
	ask("a", 0, false)

	free := newQueue(0, turnLimit)
	for i := range 1000 {
		if p, _ := free.ask(fmt.Sprint(i)); p != 0 {
			t.Fatalf("without a limit, machine %d waits at place %d", i, p)
		}
	}
}

// A storm: everybody gets a turn, never more than the limit at once, in order.
func TestQueueStorm(t *testing.T) {
	const machines, limit = 300, 8
	now := time.Unix(1e9, 0)
	q := newQueue(limit, turnLimit)
	q.now = func() time.Time { return now }
	var order []int
	until := map[int]time.Time{} // of those that load
	next := make([]time.Time, machines)
	finished := 0
	for finished < machines {
		if now = now.Add(time.Second); now.Sub(time.Unix(1e9, 0)) > time.Hour {
			t.Fatalf("%d of %d machines have started after an hour", finished, machines)
		}
		for i, end := range until {
			if now.After(end) {
				q.done(fmt.Sprint("boot", i))
				delete(until, i)
				finished++
			}
		}
		for i := range machines {
			if next[i].After(now) {
				continue
			}
			place, _ := q.ask(fmt.Sprint(i))
			next[i] = now.Add(pauseOf(place))
			if place == 0 {
				q.start(fmt.Sprint(i), fmt.Sprint("boot", i))
				until[i], next[i] = now.Add(5*time.Second), now.Add(100*time.Hour)
				order = append(order, i)
			}
		}
		if len(until) > limit {
			t.Fatalf("%d machines load at once, want at most %d", len(until), limit)
		}
	}
	for k, i := range order {
		if d := k - i; d > 0 && d > limit || d < -limit {
			t.Fatalf("machine %d is number %d to load, want about its turn", i, k)
		}
	}
}

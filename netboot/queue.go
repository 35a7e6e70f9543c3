// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"slices"
	"sync"
	"time"
)

// DefaultBoots is how many machines load their kernel at the same time. With the
// usual 40 MB each and a gigabit network they take some 20 s.
const DefaultBoots = 64

// How long the queue waits for machines that are never heard of again.
const (
	turnLimit = 3 * time.Minute  // for the kernel, once a machine was told to load it
	waitLimit = 90 * time.Second // for the next question of one that waits
)

// queue lets a limited number of machines load their kernel at the same time.
// When a whole building is switched on, all others wait at their loader, which
// tells them their place, instead of loading ever slower until they time out.
type queue struct {
	limit int // 0: none
	now   func() time.Time

	mu      sync.Mutex
	loading map[string]turn // by MAC
	waiting []waiter        // in the order in which they first asked
}

type turn struct {
	since time.Time
	boot  string // id
}

type waiter struct {
	mac  string
	seen time.Time
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, now: time.Now, loading: map[string]turn{}}
}

// ask says where the machine is in the queue: 0, and it is its turn; else how many
// are before it, itself included. fresh tells that it has not waited so far.
func (q *queue) ask(mac string) (place int, fresh bool) {
	if q.limit == 0 {
		return 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	for m, t := range q.loading {
		if now.Sub(t.since) > turnLimit {
			delete(q.loading, m)
		}
	}
	q.waiting = slices.DeleteFunc(q.waiting, func(w waiter) bool { return w.mac != mac && now.Sub(w.seen) > waitLimit })
	i := slices.IndexFunc(q.waiting, func(w waiter) bool { return w.mac == mac })
	if fresh = i < 0; fresh {
		i = len(q.waiting)
		q.waiting = append(q.waiting, waiter{mac: mac})
	}
	_, again := q.loading[mac] // its turn is not over: it starts anew
	if !again && i >= q.limit-len(q.loading) {
		q.waiting[i].seen = now
		return i + 1, fresh
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.loading[mac] = turn{since: now}
	return 0, fresh
}

// start notes the boot that a machine's turn is for.
func (q *queue) start(mac, boot string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t, ok := q.loading[mac]; ok {
		t.boot = boot
		q.loading[mac] = t
	}
}

// done ends the turn of a boot.
func (q *queue) done(boot string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for m, t := range q.loading {
		if t.boot == boot {
			delete(q.loading, m)
		}
	}
}

// pauseOf is how long a machine waits before it asks again: the longer the more
// are before it, so that the questions of many do not become a storm themselves.
func pauseOf(place int) time.Duration {
	return min(3*time.Second+time.Duration(place/16)*time.Second, 20*time.Second)
}

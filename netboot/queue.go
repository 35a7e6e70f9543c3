// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"slate/netboot/api"
	"slate/netboot/nodes"
)

// How many machines do the same at the same time.
const (
	// DefaultBoots load their kernel. With the usual 40 MB each and a gigabit
	// network they take some 20 s.
	DefaultBoots = 64
	// DefaultFetches fetch the contents of a version, to be installed or updated,
	// which is a hundred times as much each.
	DefaultFetches = 16
)

// How long a queue waits for machines that are never heard of again.
const (
	turnLimit = 3 * time.Minute  // for the kernel, once a machine was told to load it
	idleLimit = 20 * time.Second // for the next request of one that fetches a version
	waitLimit = 90 * time.Second // for the next question of one that waits
)

// queue lets a limited number of machines do one kind of thing at the same time.
// When a whole building is switched on, all others are told their place and wait,
// instead of loading ever slower until they time out.
type queue struct {
	limit int           // 0: none
	turn  time.Duration // is over when nothing is heard for as long
	now   func() time.Time

	mu      sync.Mutex
	loading map[string]turn // by MAC, or by address
	waiting []waiter        // in the order in which they first asked
}

type turn struct {
	since time.Time
	boot  string // id
	busy  int    // requests that are being answered
}

type waiter struct {
	mac  string
	seen time.Time
}

func newQueue(limit int, turnTime time.Duration) *queue {
	return &queue{limit: limit, turn: turnTime, now: time.Now, loading: map[string]turn{}}
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
		if t.busy == 0 && now.Sub(t.since) > q.turn {
			delete(q.loading, m)
		}
	}
	q.waiting = slices.DeleteFunc(q.waiting, func(w waiter) bool { return w.mac != mac && now.Sub(w.seen) > waitLimit })
	i := slices.IndexFunc(q.waiting, func(w waiter) bool { return w.mac == mac })
	if fresh = i < 0; fresh {
		i = len(q.waiting)
		q.waiting = append(q.waiting, waiter{mac: mac})
	}
	old, again := q.loading[mac] // its turn is not over: it starts anew
	if !again && i >= q.limit-len(q.loading) {
		q.waiting[i].seen = now
		return i + 1, fresh
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.loading[mac] = turn{since: now, busy: old.busy}
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

// left ends the turn of a machine.
func (q *queue) left(mac string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.loading, mac)
}

// busy notes that a machine in its turn makes a request, or has got the answer.
func (q *queue) busy(mac string, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t, ok := q.loading[mac]; ok {
		t.busy += n
		t.since = q.now()
		q.loading[mac] = t
	}
}

// pauseOf is how long a machine waits before it asks again: the longer the more
// are before it, so that the questions of many do not become a storm themselves.
func pauseOf(place int) time.Duration {
	return min(3*time.Second+time.Duration(place/16)*time.Second, 20*time.Second)
}

// length counts the machines that load and those that wait.
func (q *queue) length() (loading, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.loading), len(q.waiting)
}

// turnOf is a machine's place in the queue for its kernel, 0 if it may load. Its
// timeline says when it begins to wait.
func (s *Server) turnOf(f nodes.Facts) int {
	place, fresh := s.queue.ask(f.MAC)
	if place > 0 && fresh {
		s.nodes.Firmware(f, api.Event{Step: api.StepScript, State: api.StateNote, Text: fmt.Sprintf("waits for its turn to load: place %d in the queue", place)})
	}
	return place
}

// fetchTurns serves the contents of versions to those whose turn it is, and tells
// the others when to ask again; see transfer.Client.Waiting.
func (s *Server) fetchTurns(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, api.PathSync), "/")
		if s.fetches.limit == 0 || kind == "record" || kind == "tree" { // little, and who asks may have all the rest
			next.ServeHTTP(w, r)
			return
		}
		who, _, _ := net.SplitHostPort(r.RemoteAddr)
		if place, _ := s.fetches.ask(who); place > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(pauseOf(place).Seconds())))
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, fmt.Sprintf("as many machines as may (%d) fetch a version: place %d in the queue", s.fetches.limit, place), http.StatusServiceUnavailable)
			return
		}
		s.fetches.busy(who, 1)
		defer s.fetches.busy(who, -1)
		next.ServeHTTP(w, r)
	})
}

// queues says how many machines do what, and wait to.
func (s *Server) queues() []api.Queue {
	var list []api.Queue
	for _, k := range []struct {
		kind string
		q    *queue
	}{{api.QueueBoots, s.queue}, {api.QueueFetches, s.fetches}} {
		busy, waiting := k.q.length()
		list = append(list, api.Queue{Kind: k.kind, Busy: busy, Waiting: waiting, Limit: k.q.limit})
	}
	return list
}

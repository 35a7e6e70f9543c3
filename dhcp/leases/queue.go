// SPDX-License-Identifier: GPL-2.0-or-later

package leases

import "container/heap"

// queue orders a pool's used addresses by when they become free: a heap whose
// first element is the next to reuse.
type queue []*entry

// update puts e where it belongs after a change, or adds it.
func (q *queue) update(e *entry) {
	if e.pos < 0 {
		heap.Push(q, e)
		return
	}
	heap.Fix(q, e.pos)
}

// Len is for container/heap, as are the rest.
func (q queue) Len() int { return len(q) }

// Less orders by the end of the lease, and by address if they ended together.
func (q queue) Less(i, j int) bool {
	if c := q[i].Expires.Compare(q[j].Expires); c != 0 {
		return c < 0
	}
	return q[i].Addr.Less(q[j].Addr)
}

// Swap keeps each entry's position.
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].pos, q[j].pos = i, j
}

// Push adds an *entry.
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.pos = len(*q)
	*q = append(*q, e)
}

// Pop removes the last one.
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	e.pos = -1
	return e
}

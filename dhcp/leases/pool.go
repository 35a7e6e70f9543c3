// SPDX-License-Identifier: GPL-2.0-or-later

package leases

import (
	"container/heap"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Why an address cannot be had.
var (
	ErrExhausted = errors.New("no free address left")
	ErrTaken     = errors.New("address belongs to another machine")
	ErrOutside   = errors.New("address is not ours to give")
)

// offerTime is for how long an address is held for a client that was offered it:
// longer than any firmware thinks about its offers.
const offerTime = time.Minute

// Range is the addresses of one subnet that may be given to anyone.
type Range struct {
	Prefix      netip.Prefix // the subnet; fixed addresses may lie anywhere in it
	First, Last netip.Addr   // both included; both invalid: only fixed addresses are given

	// Reserved reports addresses inside First to Last that are not for anyone:
	// the appliance's own, the gateway, other machines' fixed ones. Nil: none. It
	// is called with the store locked: it must not call the store.
	Reserved func(netip.Addr) bool
}

func (r Range) check() error {
	switch {
	case !r.Prefix.IsValid() || !r.Prefix.Addr().Is4():
		return fmt.Errorf("subnet %v: not an IPv4 prefix", r.Prefix)
	case !r.First.IsValid() && !r.Last.IsValid():
		return nil
	case !r.First.Is4() || !r.Last.Is4():
		return fmt.Errorf("range %v to %v: not IPv4 addresses", r.First, r.Last)
	case r.Last.Less(r.First):
		return fmt.Errorf("range %v to %v: the end is before the start", r.First, r.Last)
	case !r.Prefix.Contains(r.First) || !r.Prefix.Contains(r.Last):
		return fmt.Errorf("range %v to %v: not inside subnet %v", r.First, r.Last, r.Prefix.Masked())
	}
	return nil
}

// Pool gives out the addresses of one subnet.
type Pool struct {
	r Range
	s *Store

	// Guarded by s.mu.
	fresh  netip.Addr   // the lowest address that was never looked at; beyond r.Last: none left
	passed []netip.Addr // below fresh, and reserved when it went by
	queue  queue        // addresses that were used before, the longest unused first
}

// Pool adds a subnet to the store. What is already known of its addresses counts.
func (s *Store) Pool(r Range) (*Pool, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	p := &Pool{r: r, s: s, fresh: r.First}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.pools {
		if other.r.Prefix.Overlaps(r.Prefix) {
			return nil, fmt.Errorf("subnet %v overlaps subnet %v", r.Prefix.Masked(), other.r.Prefix.Masked())
		}
	}
	s.pools = append(s.pools, p)
	for addr, e := range s.addrs {
		if p.inRange(addr) {
			e.pool = p
			p.queue.update(e)
		}
	}
	return p, nil
}

func (p *Pool) inRange(a netip.Addr) bool {
	return p.r.First.IsValid() && !a.Less(p.r.First) && !p.r.Last.Less(a)
}

// givable reports whether the address may be given to anyone.
func (p *Pool) givable(a netip.Addr) bool {
	if !p.inRange(a) || a == p.r.Prefix.Masked().Addr() || a == broadcast(p.r.Prefix) {
		return false
	}
	return p.r.Reserved == nil || !p.r.Reserved(a)
}

func broadcast(p netip.Prefix) netip.Addr {
	if p.Bits() > 30 {
		return netip.Addr{} // no such thing in a subnet of two or one
	}
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// Offer chooses an address for the client and holds it for a while: the one it
// has or had; the one it wants, if that is free; one never used; the one unused
// the longest. changed reports that the client was not the last to have it, so
// that it is worth a look whether somebody uses it unasked.
func (p *Pool) Offer(client string, want netip.Addr) (addr netip.Addr, changed bool, err error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	now := p.s.now()
	if e := p.find(client); e != nil && p.givable(e.Addr) {
		if !e.Active(now) {
			p.hold(client, e.Addr, now)
		}
		return e.Addr, false, nil
	}
	if !want.IsValid() || !p.givable(want) || !p.available(want, now) {
		want = p.choose(now)
	}
	if !want.IsValid() {
		return netip.Addr{}, false, fmt.Errorf("range %v to %v: %w", p.r.First, p.r.Last, ErrExhausted)
	}
	p.hold(client, want, now)
	return want, true, nil
}

// OfferFixed holds that very address, in the range or not, for the client.
func (p *Pool) OfferFixed(client string, addr netip.Addr) (changed bool, err error) {
	if !p.r.Prefix.Contains(addr) {
		return false, fmt.Errorf("fixed address %v, subnet %v: %w", addr, p.r.Prefix.Masked(), ErrOutside)
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	now := p.s.now()
	e := p.s.addrs[addr]
	switch {
	case e != nil && e.Client == client && e.State != Declined:
		if !e.Active(now) {
			p.hold(client, addr, now)
		}
		return false, nil
	case e != nil && !e.free(now):
		return false, fmt.Errorf("fixed address %v: %w (%s, until %s)", addr, ErrTaken, e.Client, e.Expires.Format(time.RFC3339))
	}
	p.hold(client, addr, now)
	return true, nil
}

func (p *Pool) hold(client string, addr netip.Addr, now time.Time) {
	p.s.put(Lease{Addr: addr, Client: client, State: Offered, Start: now, Expires: now.Add(offerTime)})
}

// find is the client's entry in this subnet, the newest if there are several.
func (p *Pool) find(client string) *entry {
	var best *entry
	for _, e := range p.s.held[client] {
		if e.State != Declined && p.r.Prefix.Contains(e.Addr) && (best == nil || e.Expires.After(best.Expires)) {
			best = e
		}
	}
	return best
}

func (p *Pool) available(a netip.Addr, now time.Time) bool {
	e := p.s.addrs[a]
	return e == nil || e.free(now)
}

// choose finds an address for a newcomer: never used ones first, in order, then
// the one that was given up the longest ago. Invalid: none.
func (p *Pool) choose(now time.Time) netip.Addr {
	for ; p.fresh.IsValid() && !p.r.Last.Less(p.fresh); p.fresh = p.fresh.Next() {
		if p.s.addrs[p.fresh] != nil {
			continue
		}
		if p.givable(p.fresh) {
			return p.fresh
		}
		p.passed = append(p.passed, p.fresh)
	}
	var skipped []*entry
	defer func() {
		for _, e := range skipped {
			heap.Push(&p.queue, e)
		}
	}()
	for len(p.queue) > 0 && p.queue[0].free(now) {
		if p.givable(p.queue[0].Addr) {
			return p.queue[0].Addr
		}
		skipped = append(skipped, heap.Pop(&p.queue).(*entry))
	}
	return p.lateFree(now)
}

// lateFree is the last resort: an address that was reserved when choose passed
// it, and is not any more.
func (p *Pool) lateFree(now time.Time) netip.Addr {
	for _, a := range p.passed {
		if p.givable(a) && p.available(a, now) {
			return a
		}
	}
	return netip.Addr{}
}

// Bind makes the address the client's until l.Expires, and returns when that is
// on disk. ErrTaken: it is another client's; ErrOutside: it is not in the subnet,
// or not in the range (any more) and not fixed.
func (p *Pool) Bind(l Lease) error {
	done := make(chan error, 1)
	if err := p.BindThen(l, func(err error) { done <- err }); err != nil {
		return err
	}
	p.s.Flush()
	return <-done // another goroutine's Flush may have had it
}

// BindThen is Bind without the wait. If it returns nil, the next Flush of the store
// makes the lease durable and calls written, with the reason if it cannot.
func (p *Pool) BindThen(l Lease, written func(error)) error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if !p.r.Prefix.Contains(l.Addr) {
		return ErrOutside
	}
	now := p.s.now()
	e := p.s.addrs[l.Addr]
	mine := e != nil && e.Client == l.Client
	switch {
	case mine && e.State == Declined && !e.free(now):
		return ErrTaken
	case !mine && e != nil && !e.free(now):
		return ErrTaken
	case !l.Fixed && !p.givable(l.Addr):
		return ErrOutside
	}
	l.State, l.Start = Bound, now
	if mine && e.State == Bound {
		l.Start = e.Start
	}
	p.s.put(l)
	return p.s.save(l, written)
}

// Find is the lease the client has or had in this subnet.
func (p *Pool) Find(client string) (Lease, bool) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if e := p.find(client); e != nil {
		return e.Lease, true
	}
	return Lease{}, false
}

// Withdraw ends an offer the client did not take. A lease stays.
func (p *Pool) Withdraw(client string) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	now := p.s.now()
	if e := p.find(client); e != nil && e.State == Offered && e.Active(now) {
		l := e.Lease
		l.Expires = now
		p.s.put(l)
	}
}

// Release gives the client's address back. False: it is not the client's.
func (p *Pool) Release(client string, addr netip.Addr) bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	e := p.s.addrs[addr]
	if e == nil || e.Client != client || e.State == Declined {
		return false
	}
	if e.State == Released {
		return true // said again: nothing to write
	}
	l := e.Lease
	l.State, l.Expires = Released, p.s.now()
	p.s.put(l)
	_ = p.s.save(l, nil) // with the next Flush; if it is lost, the lease just runs out
	return true
}

// Decline takes the address out of use until the given time, because a machine
// that should not has it. client is who found out.
func (p *Pool) Decline(client string, addr netip.Addr, until time.Time) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if !p.r.Prefix.Contains(addr) {
		return
	}
	l := Lease{Addr: addr, Client: client, State: Declined, Start: p.s.now(), Expires: until}
	p.s.put(l)
	_ = p.s.save(l, nil) // with the next Flush; if it is lost, the next client finds out again
}

// Usage counts the addresses of a pool's range.
type Usage struct {
	Size     int // in the range, reserved ones included
	Active   int // bound or offered
	Declined int
}

// Usage counts now.
func (p *Pool) Usage() Usage {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	var u Usage
	if p.r.First.IsValid() {
		first, last := p.r.First.As4(), p.r.Last.As4()
		u.Size = int(be32(last)-be32(first)) + 1
	}
	now := p.s.now()
	for _, e := range p.queue {
		switch {
		case e.Active(now):
			u.Active++
		case e.State == Declined && !e.free(now):
			u.Declined++
		}
	}
	return u
}

func be32(b [4]byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

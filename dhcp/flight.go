// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"net/netip"
	"sync"
)

// singleflight lets several packets of one client share one ARP probe.
type singleflight struct {
	mu   sync.Mutex
	open map[netip.Addr]*flight
}

type flight struct {
	done   chan struct{}
	holder string
	err    error
}

// do joins the open question about addr. If there is none it asks, or answers ""
// at once if start is false.
func (s *singleflight) do(addr netip.Addr, start bool, ask func() (string, error)) (holder string, err error) {
	s.mu.Lock()
	f := s.open[addr]
	if f != nil || !start {
		s.mu.Unlock()
		if f == nil {
			return "", nil
		}
		<-f.done
		return f.holder, f.err
	}
	if s.open == nil {
		s.open = map[netip.Addr]*flight{}
	}
	f = &flight{done: make(chan struct{})}
	s.open[addr] = f
	s.mu.Unlock()

	f.holder, f.err = ask()
	s.mu.Lock()
	delete(s.open, addr)
	s.mu.Unlock()
	close(f.done)
	return f.holder, f.err
}

// asking reports whether a question about addr is open.
func (s *singleflight) asking(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[addr] != nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"context"
	"sync"
	"time"

	"slate/netboot/api"
	"slate/netboot/state"
)

// news wakes whoever waits for a change of what nodes are configured by.
type news struct {
	mu sync.Mutex
	ch chan struct{}
}

// next is closed at the next change.
func (n *news) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *news) spread() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}

// configPause is between two looks whether config.d has changed, for the sake of
// the machines that run.
const configPause = 2 * time.Second

// watchConfig tells running machines when config.d changes.
func (s *Server) watchConfig(ctx context.Context) error {
	tick := time.NewTicker(configPause)
	defer tick.Stop()
	for last := s.site.current(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if now := s.site.current(); now != last {
			last = now
			s.news.spread()
		}
	}
}

// orders waits until there is an order for the machine that runs the boot, or ctx
// ends. That its configuration is another than the one it has seen last is one.
func (s *Server) orders(ctx context.Context, boot string, revision int64) (api.Order, bool) {
	for {
		changed := s.news.next()
		outdated := revision >= 0 && s.outdated(ctx, boot, revision)
		if outdated {
			done := make(chan struct{})
			close(done)
			changed = done
		}
		o, ok := s.nodes.Listening(ctx, boot, changed)
		switch {
		case !ok || o.Do != "" || ctx.Err() != nil:
			return o, ok
		case outdated:
			return api.Order{Do: api.OrderConfig}, true
		}
	}
}

// outdated tells whether the bundle of a boot's node is another than that with the
// revision. It looks only: the new one gets its number when it is fetched.
func (s *Server) outdated(ctx context.Context, boot string, revision int64) bool {
	n, ok := s.nodes.ByBoot(boot)
	if !ok || s.key == nil {
		return false
	}
	digest := s.site.current().Bundle(s.scopeOf(n)).Digest()
	var last sentBundle
	if err := s.state.View(ctx, func(tx state.Tx) error { return readBundle(tx, bucketBundles, n.Name, &last) }); err != nil {
		s.Log.Error("what a node's configuration was last cannot be read", "node", n.Name, "err", err)
		return false
	}
	return last.Digest != digest || last.Revision > revision
}

// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"slate/images"
	"slate/installer/machine"
	"slate/installer/redirect"
	"slate/installer/servers"
	"slate/netboot/api"
)

// How often a diskless machine looks whether the server of its root is there, and how
// often that must be in vain before another takes its place: a restart of the appliance
// is shorter.
const (
	rootLook   = 10 * time.Second
	rootDial   = 5 * time.Second
	rootMisses = 3
)

// redirection has the root's connections end at another server.
type redirection interface {
	To(netip.AddrPort)
	Close() error
}

// rootState is where the root of a diskless machine comes from.
type rootState struct {
	mu   sync.Mutex
	from netip.AddrPort // that it was mounted from
	now  netip.AddrPort
	via  redirection // nil: from is now
}

func (a *Agent) rootServer() netip.AddrPort {
	a.root.mu.Lock()
	defer a.root.mu.Unlock()
	return a.root.now
}

// sendRoot has the root come from a server on.
func (a *Agent) sendRoot(to netip.AddrPort) (err error) {
	r := &a.root
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case to == r.now:
		return nil
	case to == r.from:
		err, r.via = r.via.Close(), nil
	case r.via != nil:
		r.via.To(to)
	default:
		var via redirection
		if via, err = a.redirect(r.from, to); err != nil {
			return err
		}
		r.via = via
	}
	r.now = to
	return err
}

// watchRoot has the root come from another server when its own is gone. It takes no lock
// that is held while the system is asked or changed: that waits for the root.
func (a *Agent) watchRoot(ctx context.Context, c Config, fleet *servers.Fleet, tell func(api.Event)) {
	misses, lacking := 0, ""
	for {
		select {
		case <-time.After(rootLook):
		case <-ctx.Done():
			return
		}
		now := a.rootServer()
		if a.reach(ctx, now) == nil {
			misses, lacking = 0, ""
			continue
		}
		if misses++; misses < rootMisses || ctx.Err() != nil {
			continue
		}
		text, err := a.moveRoot(ctx, c, fleet.Servers())
		if err != nil {
			if text = err.Error(); text == lacking {
				continue // it was said
			}
			lacking = text
		} else {
			misses, lacking = 0, ""
		}
		text = fmt.Sprintf("the root's server %s does not answer: %s", now, text)
		a.logf("%s", text)
		tell(api.Event{Step: api.StepConfig, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
	}
}

// reach tells whether a server takes connections.
func reach(ctx context.Context, to netip.AddrPort) error {
	d := net.Dialer{Timeout: rootDial}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	return c.Close()
}

// moveRoot has the root come from the best of some other servers that has this version,
// and tells which.
func (a *Agent) moveRoot(ctx context.Context, c Config, list []machine.Server) (string, error) {
	keys, err := images.LoadPublicKeys(filepath.Join(a.Dir, KeysFile))
	if err != nil {
		return "", err
	}
	p := servers.Probe{Measure: machine.Measure{Timeout: rootDial, Samples: 1}, Keys: keys, Tree: c.Tree, Name: c.Version}
	for _, r := range servers.Rank(p.All(ctx, list), c.Node) {
		to, ok := r.NFS()
		if !r.Usable() || !ok || to == a.rootServer() {
			continue
		}
		if err := a.sendRoot(to); err != nil {
			return "", fmt.Errorf("it cannot come from %s: %w", to, err)
		}
		return fmt.Sprintf("the root comes from %s now", to), nil
	}
	return "", fmt.Errorf("no other server has %s", c.Version)
}

func openRedirect(from, to netip.AddrPort) (redirection, error) { return redirect.Open(from, to) }

// SPDX-License-Identifier: GPL-2.0-or-later

package nodes

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"slate/netboot/api"
	"slate/netboot/state"
)

// order ranks the steps, so that a step seen for the second time tells a new
// boot from a repetition within one.
var order = []api.Step{api.StepDHCP, api.StepLoader, api.StepScript, api.StepKernel, api.StepEarly, api.StepSelfCheck, api.StepHardware,
	api.StepNetwork, api.StepServer, api.StepConfig, api.StepSystem, api.StepInstall, api.StepVersion, api.StepRoot, api.StepHandover, api.StepLogin, api.StepHealth}

// staleBoot is how long a boot that got no further than its loader is waited
// for: a request after that is a new attempt.
const staleBoot = 5 * time.Minute

// overtaken is how late a step may be noted: on a busy appliance the machine is at
// its next one already, and what it sent twice is answered twice. No machine starts
// anew as fast as that.
const overtaken = 2 * time.Second

// Firmware records a step that happens before the machine has its boot id: DHCP,
// or the loader's download. A DHCP request from firmware, or from iPXE in the ROM,
// opens a new boot unless the machine is just repeating itself.
func (r *Registry) Firmware(f Facts, e api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	node := r.seen(f)
	if node == nil {
		return
	}
	if b := r.newest(node); b == nil || startsNew(*b, e, r.now()) {
		r.open(node)
	}
	r.append(node, &node.Boots[0], e)
}

// ByAddress records a step of the machine that has the address; an unknown
// address is ignored.
func (r *Registry) ByAddress(addr string, e api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if node := r.byAddr[addr]; node != nil && r.newest(node) != nil {
		r.append(node, &node.Boots[0], e)
	}
}

// Script records that the machine was sent its boot script for an image, and
// why for this one. It returns the node's name and the id of the boot.
func (r *Registry) Script(f Facts, image, reason string) (node, boot string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.seen(f)
	if n == nil {
		return "", "", false
	}
	e := api.Event{Step: api.StepScript, State: api.StateDone, Text: reason}
	if b := r.newest(n); b == nil || startsNew(*b, e, r.now()) {
		r.open(n)
	}
	n.Boots[0].Image = image
	r.append(n, &n.Boots[0], e)
	return n.Name, n.Boots[0].ID, true
}

// Report records an event that a machine reports for the boot with the id. It
// returns false if there is no such boot.
func (r *Registry) Report(boot string, e api.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	node := r.byBoot[boot]
	if node == nil {
		return false
	}
	b := r.newest(node)
	if b == nil || b.ID != boot {
		if b = r.older(boot); b == nil {
			return false
		}
		r.shelf[boot] = b
	}
	r.append(node, b, e)
	if e.Step == api.StepInstall && e.State == api.StateDone {
		node.Install = false // what was asked for is done
	}
	if e.Uptime > 0 {
		retime(b, r.now().Add(-seconds(e.Uptime)))
		settle(b)
	}
	return true
}

// older returns a copy of a boot that is in the store; nil if it is gone.
func (r *Registry) older(id string) *api.Boot {
	b, ok := r.shelf[id]
	if ok {
		if b == nil {
			return nil
		}
		c := *b
		c.Events = slices.Clone(b.Events)
		return &c
	}
	err := r.store.View(context.Background(), func(tx state.Tx) error {
		data, err := tx.Get(bucketBoots, id)
		if err == nil {
			err = json.Unmarshal(data, &b)
		}
		return err
	})
	if err != nil {
		r.log.Warn("a boot is not in the state file", "boot", id, "err", err)
		return nil
	}
	return b
}

// retime puts the events that a machine reported at the time when they happened.
// It could report the first ones only once its network was up; what tells when
// its kernel started is the report that was under way for the shortest time.
func retime(b *api.Boot, kernel time.Time) {
	if b.Kernel.IsZero() || kernel.Before(b.Kernel) {
		b.Kernel = kernel
	}
	for i := range b.Events {
		if e := &b.Events[i]; e.Uptime > 0 {
			e.Time = b.Kernel.Add(seconds(e.Uptime))
		}
	}
	slices.SortStableFunc(b.Events, func(x, y api.Event) int { return x.Time.Compare(y.Time) })
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func current(n *api.Node) *api.Boot {
	if len(n.Boots) == 0 {
		return nil
	}
	return &n.Boots[0]
}

// newest returns the node's newest boot with its events, nil if it has none.
func (r *Registry) newest(n *api.Node) *api.Boot {
	b := current(n)
	if b != nil && r.unread[b.ID] {
		delete(r.unread, b.ID)
		if stored := r.older(b.ID); stored != nil {
			b.Events = stored.Events
		}
	}
	return b
}

// settle notes what is asked for most: how far the boot got, and when. A machine may be
// known to be well, or not to be, before it asks for a login.
func settle(b *api.Boot) {
	b.Last, b.Word = api.Event{}, time.Time{}
	for _, e := range b.Events {
		b.Word = e.Time
		if e.State == api.StateNote || e.Step == api.StepLogin && b.Last.Step == api.StepHealth {
			continue
		}
		b.Last = e
	}
}

// startsNew says whether e cannot belong to the boot b: the machine has been
// further already, or has been silent for too long.
func startsNew(b api.Boot, e api.Event, now time.Time) bool {
	furthest := 0
	for _, old := range b.Events {
		furthest = max(furthest, slices.Index(order, old.Step))
	}
	last := b.Started
	if len(b.Events) > 0 {
		last = b.Events[len(b.Events)-1].Time
	}
	if now.Sub(last) > staleBoot {
		return true
	}
	if furthest <= rank(api.StepKernel) && now.Sub(last) < overtaken {
		return false
	}
	// The loader asks for an address of its own after the firmware has, and a
	// script may be fetched again by a retry: only what comes after is further.
	step := slices.Index(order, e.Step)
	reached := slices.Index(order, api.StepLoader)
	if e.Step == api.StepScript {
		reached = slices.Index(order, api.StepScript)
	}
	return furthest > max(step, reached)
}

// open starts a new boot, puts the one before on the shelf, and drops the oldest.
func (r *Registry) open(n *api.Node) {
	if old := r.newest(n); old != nil {
		r.shelf[old.ID] = old
		n.Older = slices.Insert(n.Older, 0, old.ID)
		delete(r.orders, old.ID)
	}
	b := api.Boot{ID: newID(), Started: r.now()}
	n.Boots = []api.Boot{b}
	r.byBoot[b.ID] = n
	for len(n.Older) >= maxBoots {
		last := len(n.Older) - 1
		delete(r.byBoot, n.Older[last])
		r.shelf[n.Older[last]] = nil
		n.Older = n.Older[:last]
	}
}

func (r *Registry) append(n *api.Node, b *api.Boot, e api.Event) {
	e.Time = r.now()
	n.Seen = e.Time
	r.dirty[n.Name] = true
	if len(b.Events) >= maxEvents {
		return
	}
	if k := len(b.Events); k > 0 {
		if last := b.Events[k-1]; last.Step == e.Step && last.State == e.State && last.Text == e.Text {
			return
		}
	}
	b.Events = append(b.Events, e)
	settle(b)
	level := r.log.Info
	if e.State == api.StateFailed {
		level = r.log.Warn
	}
	level("boot", "node", n.Name, "step", e.Step, "state", e.State, "text", e.Text)
}

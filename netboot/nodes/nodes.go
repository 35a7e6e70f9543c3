// SPDX-License-Identifier: GPL-2.0-or-later

// Package nodes keeps what the appliance knows of its client machines: who they
// are, and the timeline of their boots. It knows nothing of protocols: others
// tell it what they saw.
package nodes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"slate/netboot/api"
	"slate/netboot/state"
)

// Bounds on what is kept, so that no client can fill the memory.
const (
	maxNodes  = 20_000
	maxBoots  = 10  // per node
	maxEvents = 200 // per boot
	maxMACs   = 16  // per node
)

// Where things lie in the state store: nodes by name, and boots by their id. The
// events of a boot are by far the most of it, and read only when somebody asks:
// so an appliance with ten thousand nodes starts as fast as one with ten.
const (
	bucket      = "nodes"
	bucketBoots = "boots"
)

// Registry is the set of known nodes. It is safe for concurrent use. Make one
// with Open.
type Registry struct {
	// Named is the node that the admin says a machine is; "" if nothing is said of
	// it. Nil: of none. It is called often, with the registry locked.
	Named func(Facts) string
	// Renamed is told when a node gets another name; nil: nobody asks. It is called
	// with the registry locked.
	Renamed func(from, to string)

	store state.Store
	log   *slog.Logger
	name  func(mac, serial string) string
	now   func() time.Time

	writing sync.Mutex // held while changes go to the store, so that they keep their order

	mu       sync.Mutex
	byName   map[string]*api.Node
	byMAC    map[string]*api.Node
	byUUID   map[string][]*api.Node // cheap boards share UUIDs and serials
	bySerial map[string][]*api.Node
	byAddr   map[string]*api.Node // IPv4 address last seen
	byBoot   map[string]*api.Node // boot id
	dirty    map[string]bool      // names not yet written to the store; those of forgotten nodes too
	shelf    map[string]*api.Boot // older boots not yet written; nil: to be removed
	unread   map[string]bool      // newest boots whose events are still in the store only
	orders   map[string]chan api.Order
	opened   time.Time
}

// Open reads the nodes of the store. name makes the name of a new node. A nil
// logger is silent.
func Open(ctx context.Context, store state.Store, log *slog.Logger, name func(mac, serial string) string) (*Registry, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{
		store: store, log: log, name: name, now: time.Now,
		byName: map[string]*api.Node{}, byMAC: map[string]*api.Node{}, byAddr: map[string]*api.Node{}, byBoot: map[string]*api.Node{},
		byUUID: map[string][]*api.Node{}, bySerial: map[string][]*api.Node{},
		dirty: map[string]bool{}, shelf: map[string]*api.Boot{}, unread: map[string]bool{}, orders: map[string]chan api.Order{},
		opened: time.Now(),
	}
	err := store.View(ctx, func(tx state.Tx) error {
		return tx.Each(bucket, "", func(key string, value []byte) error {
			n := new(api.Node)
			if err := json.Unmarshal(value, n); err != nil || n.Name != key {
				// The machine is taken for a new one; no reason to boot none at all.
				log.Error("a node in the state file is damaged and left out", "node", key, "err", err)
				return nil
			}
			r.takeIn(n)
			r.index(n)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// takeIn prepares a node's record for the memory. An earlier version kept all its
// boots in it.
func (r *Registry) takeIn(n *api.Node) {
	if len(n.Boots) == 0 {
		return
	}
	for _, b := range n.Boots[1:] {
		settle(&b)
		r.shelf[b.ID] = &b
		n.Older = append(n.Older, b.ID)
	}
	n.Boots = n.Boots[:1]
	if newest := &n.Boots[0]; len(newest.Events) > 0 {
		settle(newest)
		r.dirty[n.Name] = true
	} else {
		r.unread[newest.ID] = true
	}
}

// Run writes changed nodes to the store, a few at a time, until ctx ends, and
// then once more. A node's history is worth keeping but not worth a disk
// synchronisation for each event.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.flush(context.WithoutCancel(ctx))
		case <-tick.C:
			if err := r.flush(ctx); err != nil && ctx.Err() == nil {
				r.log.Error("nodes are not written to the state file", "err", err)
			}
		}
	}
}

// flush writes what has changed. When it returns nil, all that was changed before
// it was called is durable.
func (r *Registry) flush(ctx context.Context) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	dirty, shelf := r.dirty, maps.Clone(r.shelf)
	values, boots := map[string][]byte{}, map[string][]byte{}
	for name := range dirty {
		n := r.byName[name]
		if n == nil {
			continue
		}
		bare := *n
		if b := current(n); b != nil {
			if !r.unread[b.ID] {
				boots[b.ID] = encode(b)
			}
			bare.Boots = []api.Boot{*b}
			bare.Boots[0].Events = nil
		}
		values[name] = encode(bare)
	}
	for id, b := range shelf {
		if boots[id] = nil; b != nil {
			boots[id] = encode(b)
		}
	}
	r.dirty = map[string]bool{}
	r.mu.Unlock()
	if len(dirty) == 0 && len(shelf) == 0 {
		return nil
	}
	err := r.store.Update(ctx, func(tx state.Tx) error {
		for name := range dirty {
			if err := put(tx, bucket, name, values[name]); err != nil {
				return err
			}
		}
		for id := range boots {
			if err := put(tx, bucketBoots, id, boots[id]); err != nil {
				return err
			}
		}
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		maps.Copy(r.dirty, dirty)
		return err
	}
	for id, b := range shelf {
		if r.shelf[id] == b { // a boot on the shelf is replaced, never changed
			delete(r.shelf, id)
		}
	}
	return nil
}

// put writes a value; nil removes what is there.
func put(tx state.Tx, bucket, key string, value []byte) error {
	if value == nil {
		return tx.Delete(bucket, key)
	}
	return tx.Put(bucket, key, value)
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return data
}

// Moved notes that the machine has a new address, if it is known at all.
func (r *Registry) Moved(mac, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byMAC[strings.ToLower(mac)] != nil {
		r.seen(Facts{MAC: mac, Address: addr})
	}
}

// List returns a copy of all nodes, by name, each with its newest boot only, and
// that without its events.
func (r *Registry) List() []api.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]api.Node, 0, len(r.byName))
	for _, n := range r.byName {
		out = append(out, clone(n))
	}
	slices.SortFunc(out, func(a, b api.Node) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Events adds the events of their newest boots to nodes.
func (r *Registry) Events(list []api.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range list {
		if n := r.byName[c.Name]; n != nil && len(c.Boots) > 0 && r.newest(n).ID == c.Boots[0].ID {
			list[i].Boots[0].Events = slices.Clone(current(n).Events)
		}
	}
}

// clone copies a node, without the events of its boot.
func clone(n *api.Node) api.Node {
	c := *n
	c.MACs = slices.Clone(n.MACs)
	c.Groups = slices.Clone(n.Groups)
	c.Older = nil
	c.Set.Cmdline = slices.Clone(n.Set.Cmdline)
	c.Boots = slices.Clone(n.Boots)
	for i := range c.Boots {
		c.Boots[i].Events = nil
	}
	return c
}

// newID makes the id of a boot: 16 hex digits, so that nobody guesses another's.
func newID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

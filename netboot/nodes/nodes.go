// SPDX-License-Identifier: GPL-2.0-or-later

// Package nodes keeps what the appliance knows of its client machines: who they
// are, and the timeline of their boots. It knows nothing of protocols: others
// tell it what they saw.
package nodes

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
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
)

// bucket is where nodes lie in the state store, by name.
const bucket = "nodes"

// Registry is the set of known nodes. It is safe for concurrent use. Make one
// with Open.
type Registry struct {
	store state.Store
	log   *slog.Logger
	name  func(mac, serial string) string
	now   func() time.Time

	mu     sync.Mutex
	byName map[string]*api.Node
	byMAC  map[string]*api.Node
	byAddr map[string]*api.Node // IPv4 address last seen
	byBoot map[string]*api.Node // boot id
	dirty  map[string]bool      // names not yet written to the store
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
		dirty: map[string]bool{},
	}
	err := store.View(ctx, func(tx state.Tx) error {
		return tx.Each(bucket, "", func(key string, value []byte) error {
			n := new(api.Node)
			if err := json.Unmarshal(value, n); err != nil || n.Name != key {
				return fmt.Errorf("state: node %q is damaged: %w", key, err)
			}
			r.index(n)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return r, nil
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

func (r *Registry) flush(ctx context.Context) error {
	r.mu.Lock()
	values := map[string][]byte{}
	for name := range r.dirty {
		data, err := json.Marshal(r.byName[name])
		if err != nil {
			panic("BUG: " + err.Error())
		}
		values[name] = data
	}
	clear(r.dirty)
	r.mu.Unlock()
	if len(values) == 0 {
		return nil
	}
	err := r.store.Update(ctx, func(tx state.Tx) error {
		for name, data := range values {
			if err := tx.Put(bucket, name, data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.mu.Lock()
		for name := range values {
			r.dirty[name] = true
		}
		r.mu.Unlock()
	}
	return err
}

// Facts are what is learned of a machine at one time; empty fields say nothing.
type Facts struct {
	MAC      string // aa:bb:cc:dd:ee:ff
	UUID     string
	Serial   string
	Product  string
	Firmware string // as the boot decision names it, e.g. "BIOS"
	Address  string // its IPv4 address
}

// Seen finds the machine by its MAC address, else by its UUID, creates it at
// first sight, and notes what is new. It returns a copy; ok is false if there is
// no room for one more node.
func (r *Registry) Seen(f Facts) (n api.Node, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	node := r.seen(f)
	if node == nil {
		return api.Node{}, false
	}
	return clone(node), true
}

func (r *Registry) seen(f Facts) *api.Node {
	f.MAC = strings.ToLower(f.MAC)
	node := r.byMAC[f.MAC]
	if node == nil && plausibleUUID(f.UUID) {
		for _, other := range r.byName {
			if strings.EqualFold(other.UUID, f.UUID) {
				node = other
				break
			}
		}
	}
	if node == nil {
		if len(r.byName) >= maxNodes {
			r.log.Error("too many nodes: this one is not taken in", "mac", f.MAC, "limit", maxNodes)
			return nil
		}
		node = &api.Node{Name: r.freeName(f)}
		r.log.Info("new node", "node", node.Name, "mac", f.MAC)
	}
	if f.MAC != "" && !slices.Contains(node.MACs, f.MAC) {
		node.MACs = append(node.MACs, f.MAC)
	}
	if plausibleUUID(f.UUID) {
		node.UUID = strings.ToLower(f.UUID)
	}
	node.Serial = cmp.Or(f.Serial, node.Serial)
	node.Product = cmp.Or(f.Product, node.Product)
	node.Firmware = cmp.Or(f.Firmware, node.Firmware)
	if f.Address != "" && f.Address != node.Address {
		delete(r.byAddr, node.Address)
		node.Address = f.Address
	}
	node.Seen = r.now()
	r.index(node)
	r.dirty[node.Name] = true
	return node
}

// Moved notes that the machine has a new address, if it is known at all.
func (r *Registry) Moved(mac, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byMAC[strings.ToLower(mac)] != nil {
		r.seen(Facts{MAC: mac, Address: addr})
	}
}

// plausibleUUID leaves out what firmware reports when nobody set a UUID.
func plausibleUUID(u string) bool {
	digits := strings.ReplaceAll(u, "-", "")
	return len(digits) == 32 && strings.Trim(digits, "0") != "" && strings.Trim(strings.ToLower(digits), "f") != ""
}

func (r *Registry) freeName(f Facts) string {
	base := cmp.Or(r.name(f.MAC, f.Serial), "node")
	name := base
	for i := 2; r.byName[name] != nil; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	return name
}

func (r *Registry) index(n *api.Node) {
	r.byName[n.Name] = n
	for _, mac := range n.MACs {
		r.byMAC[mac] = n
	}
	if n.Address != "" {
		r.byAddr[n.Address] = n
	}
	for _, b := range n.Boots {
		r.byBoot[b.ID] = n
	}
}

// List returns a copy of all nodes, by name.
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

func clone(n *api.Node) api.Node {
	c := *n
	c.MACs = slices.Clone(n.MACs)
	c.Boots = slices.Clone(n.Boots)
	for i := range c.Boots {
		c.Boots[i].Events = slices.Clone(c.Boots[i].Events)
	}
	return c
}

// newID makes the id of a boot: 16 hex digits, so that nobody guesses another's.
func newID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nodes

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"slate/netboot/api"
)

// groupName is what a group may be called: it is a directory of config.d too.
var groupName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// maxGroups bounds the groups of one node.
const maxGroups = 16

// ChangeError is something wrong with what an admin asked for.
type ChangeError struct{ Text, Help string }

func (e *ChangeError) Error() string { return e.Text }

// Hint says what to do about it.
func (e *ChangeError) Hint() string { return e.Help }

// Get returns a node with all boots that are kept.
func (r *Registry) Get(name string) (api.Node, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.byName[name]
	if n == nil {
		return api.Node{}, r.noSuch(name)
	}
	c := clone(n)
	if b := r.newest(n); b != nil {
		c.Boots[0].Events = slices.Clone(b.Events)
	}
	for _, id := range n.Older {
		if b := r.older(id); b != nil {
			c.Boots = append(c.Boots, *b)
		}
	}
	return c, nil
}

// Change changes the nodes that the targets name, all or none, and returns them
// once it is durable. What the image and the words of the command line mean is
// the caller's to check.
func (r *Registry) Change(ctx context.Context, c api.Change) ([]api.Node, error) {
	for _, g := range c.Join {
		if !groupName.MatchString(g) {
			return nil, &ChangeError{fmt.Sprintf("%q cannot be a group's name", g), "use small letters, digits, '.', '_' and '-'"}
		}
	}
	r.mu.Lock()
	chosen, err := r.choose(c.Targets.Targets)
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	groups := make([][]string, len(chosen))
	for i, n := range chosen {
		if groups[i] = regroup(n.Groups, c); len(groups[i]) > maxGroups {
			r.mu.Unlock()
			return nil, &ChangeError{fmt.Sprintf("node %s would be in %d groups: %d is the most", n.Name, len(groups[i]), maxGroups), ""}
		}
	}
	var out []api.Node
	for i, n := range chosen {
		n.Groups = groups[i]
		if c.Image != nil {
			n.Set.Image = *c.Image
		}
		if c.Mode != nil {
			n.Set.Mode = *c.Mode
		}
		if c.Cmdline != nil {
			n.Set.Cmdline = slices.Clone(*c.Cmdline)
		}
		if c.Install != nil {
			n.Install = *c.Install
		}
		r.dirty[n.Name] = true
		out = append(out, clone(n))
	}
	r.mu.Unlock()
	return out, r.flush(ctx)
}

// regroup takes groups away and appends those to join: the last has precedence.
func regroup(groups []string, c api.Change) []string {
	if c.LeaveAll {
		groups = nil
	}
	groups = slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return slices.Contains(c.Leave, g) || slices.Contains(c.Join, g) })
	for i, g := range c.Join {
		if !slices.Contains(c.Join[i+1:], g) {
			groups = append(groups, g)
		}
	}
	return groups
}

// Forget removes the nodes that the targets name, with all that is known of them.
// A machine that starts again is then a new node.
func (r *Registry) Forget(ctx context.Context, targets []string) ([]string, error) {
	r.mu.Lock()
	chosen, err := r.choose(targets)
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	var names []string
	for _, n := range chosen {
		r.unindex(n)
		delete(r.byName, n.Name)
		ids := n.Older
		for _, b := range n.Boots {
			ids = append(ids, b.ID)
		}
		for _, id := range ids {
			delete(r.byBoot, id)
			delete(r.orders, id)
			delete(r.unread, id)
			r.shelf[id] = nil
		}
		r.dirty[n.Name] = true
		names = append(names, n.Name)
	}
	r.mu.Unlock()
	return names, r.flush(ctx)
}

// Hardware takes the facts that the machine reports which runs the boot. It returns
// false if there is no such boot.
func (r *Registry) Hardware(boot string, f api.Facts) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.byBoot[boot]
	if n == nil {
		return false
	}
	n.Hardware = &f
	r.unindex(n)
	if plausibleSerial(f.Serial) {
		n.Serial = f.Serial
	}
	if n.UUID == "" && plausibleUUID(f.UUID) {
		n.UUID = strings.ToLower(f.UUID)
	}
	if f.Product != "" {
		n.Product = strings.TrimSpace(f.Vendor + " " + f.Product)
	}
	r.index(n)
	r.dirty[n.Name] = true
	return true
}

// Running takes what the agent of the machine that runs the boot reports. It returns
// false if there is no such boot; what an older boot's agent still says is passed over.
func (r *Registry) Running(boot string, rep api.Report) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.byBoot[boot]
	if n == nil {
		return false
	}
	if current(n).ID != boot {
		return true
	}
	rep.Time = r.now()
	n.Seen, n.Report = rep.Time, &rep
	r.dirty[n.Name] = true
	return true
}

// Listening waits for an order to the machine that runs the boot, until ctx
// ends, or news is closed; the order is empty then. It returns false if that is not
// its node's newest boot.
func (r *Registry) Listening(ctx context.Context, boot string, news <-chan struct{}) (api.Order, bool) {
	c, ok := r.listener(boot)
	if !ok {
		return api.Order{}, false
	}
	defer r.listener(boot) // until the end it was there
	select {
	case o := <-c:
		return o, true
	case <-news:
		return api.Order{}, true
	case <-ctx.Done():
		return api.Order{}, true
	}
}

// listener notes that the machine listens, and returns where its orders come.
func (r *Registry) listener(boot string) (chan api.Order, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.byBoot[boot]
	if n == nil || current(n).ID != boot {
		return nil, false
	}
	b := current(n)
	if b.Heard.IsZero() {
		r.dirty[n.Name] = true // once; the time itself is not worth writing each minute
	}
	b.Heard = r.now()
	n.Seen = b.Heard
	c := r.orders[boot]
	if c == nil {
		c = make(chan api.Order, 1)
		r.orders[boot] = c
	}
	return c, true
}

// Order gives the node an order, if its agent listens.
func (r *Registry) Order(name string, o api.Order) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.byName[name]
	if n == nil {
		return r.noSuch(name)
	}
	b := current(n)
	if b == nil || r.now().Sub(b.Heard) > deaf {
		return &ChangeError{fmt.Sprintf("node %s does not listen", name), "it is off, or still starting: see slate node show " + name}
	}
	select {
	case r.orders[b.ID] <- o:
		return nil
	default:
		return &ChangeError{fmt.Sprintf("node %s has not taken its last order yet", name), "try again in a minute"}
	}
}

// deaf is how long after it was last known to listen an agent counts as gone: it
// asks again at once when its question was not answered for a while.
const deaf = 2 * time.Minute

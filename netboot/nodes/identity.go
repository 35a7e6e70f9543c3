// SPDX-License-Identifier: GPL-2.0-or-later

package nodes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"slate/netboot/api"
)

// Facts are what is learned of a machine at one time; empty fields say nothing.
type Facts struct {
	MAC      string // aa:bb:cc:dd:ee:ff
	UUID     string
	Serial   string
	Product  string
	Firmware string // as the boot decision names it, e.g. "BIOS"
	Address  string // its IPv4 address
	ClientID string // DHCP's, in hex; only Named looks at it
}

// Find finds the machine without taking note of anything.
func (r *Registry) Find(f Facts) (n api.Node, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if node := r.find(f); node != nil {
		return clone(node), true
	}
	return api.Node{}, false
}

// ByBoot finds the node that a boot is of.
func (r *Registry) ByBoot(id string) (n api.Node, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if node := r.byBoot[id]; node != nil {
		return clone(node), true
	}
	return api.Node{}, false
}

// Seen finds the machine by what the admin says, else by its MAC address, else by its UUID, else by its serial
// number, creates it at first sight, and notes what is new. It returns a copy; ok is false if there is
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
	name := r.named(f)
	node := r.find(f)
	if node != nil && name != "" && node.Name != name && r.isOthers(node, f.MAC) {
		node = nil
	}
	switch {
	case node != nil && name != "" && node.Name != name:
		r.rename(node, name)
	case node == nil:
		if len(r.byName) >= maxNodes {
			r.log.Error("too many nodes: this one is not taken in", "mac", f.MAC, "limit", maxNodes)
			return nil
		}
		node = &api.Node{Name: cmp.Or(name, r.freeName(f))}
		r.log.Info("new node", "node", node.Name, "mac", f.MAC)
	}
	r.takeCard(node, f.MAC)
	r.unindex(node)
	if f.MAC != "" && !slices.Contains(node.MACs, f.MAC) {
		if len(node.MACs) >= maxMACs { // the one that was new most recently is the likeliest to come again
			node.MACs = slices.Delete(node.MACs, 1, 2)
		}
		node.MACs = append(node.MACs, f.MAC)
	}
	if plausibleUUID(f.UUID) {
		node.UUID = strings.ToLower(f.UUID)
	}
	if plausibleSerial(f.Serial) {
		node.Serial = f.Serial
	}
	node.Product = cmp.Or(f.Product, node.Product)
	node.Firmware = cmp.Or(f.Firmware, node.Firmware)
	node.Address = cmp.Or(f.Address, node.Address)
	node.Seen = r.now()
	r.index(node)
	r.dirty[node.Name] = true
	return node
}

// named is the node that the admin says the machine is; "" if nothing is said.
func (r *Registry) named(f Facts) string {
	if r.Named == nil {
		return ""
	}
	return r.Named(f)
}

// isOthers tells whether the admin says that the node is another machine: one of its
// other cards has its name. The two were one node until then.
func (r *Registry) isOthers(n *api.Node, mac string) bool {
	return slices.ContainsFunc(n.MACs, func(m string) bool { return m != mac && r.named(Facts{MAC: m}) == n.Name })
}

// rename gives a node the name that the admin has chosen since it was first seen.
func (r *Registry) rename(n *api.Node, name string) {
	r.log.Info("node has a new name", "node", name, "before", n.Name)
	delete(r.byName, n.Name)
	r.dirty[n.Name] = true
	from := n.Name
	n.Name = name
	if r.Renamed != nil {
		r.Renamed(from, name)
	}
}

// takeCard takes a network card away from the node that had it so far.
func (r *Registry) takeCard(to *api.Node, mac string) {
	old := r.byMAC[mac]
	if old == nil || old == to {
		return
	}
	r.unindex(old)
	old.MACs = slices.DeleteFunc(old.MACs, func(m string) bool { return m == mac })
	r.index(old)
	r.dirty[old.Name] = true
}

// find looks for the machine: the node that the admin says it is, or the one it was
// last time. A UUID or serial number counts only if one node
// alone has it and nothing else speaks against that node: makers of boards give
// whole series the same ones.
func (r *Registry) find(f Facts) *api.Node {
	if n := r.byName[r.named(f)]; n != nil {
		return n
	}
	if n := r.byMAC[strings.ToLower(f.MAC)]; n != nil {
		return n
	}
	if plausibleUUID(f.UUID) {
		if same := r.byUUID[strings.ToLower(f.UUID)]; len(same) == 1 && !differ(f.Serial, same[0].Serial, plausibleSerial) {
			return same[0]
		}
	}
	if plausibleSerial(f.Serial) {
		if same := r.bySerial[f.Serial]; len(same) == 1 && !differ(f.UUID, same[0].UUID, plausibleUUID) && !differ(f.Product, same[0].Product, known) {
			return same[0]
		}
	}
	return nil
}

func known(s string) bool { return s != "" }

// differ tells whether both mean something and are not the same.
func differ(a, b string, means func(string) bool) bool {
	return means(a) && means(b) && !strings.EqualFold(a, b)
}

// plausibleUUID leaves out what firmware reports when nobody set a UUID.
func plausibleUUID(u string) bool {
	digits := strings.ToLower(strings.ReplaceAll(u, "-", ""))
	return len(digits) == 32 && strings.Trim(digits, digits[:1]) != "" && digits != "03000200040005000006000700080009"
}

// plausibleSerial leaves out what firmware reports when nobody set a serial number.
func plausibleSerial(s string) bool {
	s = strings.ToLower(strings.TrimSpace(s))
	if len(s) < 2 || strings.Trim(s, s[:1]) == "" || strings.HasPrefix("123456789012345678901234567890", s) || strings.HasPrefix("0123456789abcdef", s) {
		return false
	}
	switch strings.Trim(s, ". ") {
	case "to be filled by o.e.m", "default string", "system serial number", "chassis serial number", "not specified", "not applicable",
		"not available", "none", "n/a", "unknown", "serial number", "empty", "invalid", "oem":
		return false
	}
	return true
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
	if n.UUID != "" {
		r.byUUID[n.UUID] = append(r.byUUID[n.UUID], n)
	}
	if n.Serial != "" {
		r.bySerial[n.Serial] = append(r.bySerial[n.Serial], n)
	}
	if n.Address != "" {
		r.byAddr[n.Address] = n
	}
	for _, b := range n.Boots {
		r.byBoot[b.ID] = n
	}
	for _, id := range n.Older {
		r.byBoot[id] = n
	}
}

func (r *Registry) unindex(n *api.Node) {
	for _, mac := range n.MACs {
		delete(r.byMAC, mac)
	}
	for _, x := range []struct {
		index map[string][]*api.Node
		key   string
	}{{r.byUUID, n.UUID}, {r.bySerial, n.Serial}} {
		left := slices.DeleteFunc(x.index[x.key], func(o *api.Node) bool { return o == n })
		if len(left) == 0 {
			delete(x.index, x.key)
		} else {
			x.index[x.key] = left
		}
	}
	if r.byAddr[n.Address] == n {
		delete(r.byAddr, n.Address)
	}
}

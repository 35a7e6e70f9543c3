// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"slate/dhcp"
	"slate/netboot/api"
	"slate/netboot/config"
	"slate/netboot/nodes"
)

// hosts tells the DHCP server what config.d says of single machines.
type hosts struct {
	*Server
	cache sync.Map // node's name to hostEntry
}

// hostEntry is a node's settings, and what they were worked out from.
type hostEntry struct {
	site   *config.Site
	groups string
	host   dhcp.Host
}

// reasonUnknown is why a machine gets no answer that is no node.
const reasonUnknown = `it is no node, and config.d says unknown = "ignore"`

// Host is what is special about the client: its node's name, address and options.
func (h *hosts) Host(_ context.Context, c dhcp.Client) (dhcp.Host, bool) {
	if c.UserClass == dhcp.ProbeClass {
		return dhcp.Host{}, false
	}
	site := h.site.recent()
	n, known := h.nodeOf(site, factsOf(c))
	if !known && site.Node("").DHCP.Unknown == config.UnknownIgnore {
		h.stranger(c)
		return dhcp.Host{Ignore: reasonUnknown}, true
	}
	from := strings.Join(n.Groups, "\n")
	if e, ok := h.cache.Load(n.Name); ok && e.(hostEntry).site == site && e.(hostEntry).groups == from {
		return e.(hostEntry).host, true
	}
	host, err := hostOf(n.Name, site.For(config.Scope{Node: n.Name, Groups: n.Groups}).DHCP)
	if err != nil {
		h.Log.Error("DHCP settings of a node", "node", n.Name, "err", err) // config.d was checked: a fault of ours
	}
	h.cache.Store(n.Name, hostEntry{site, from, host})
	return host, true
}

// Reserved reports whether the address is some node's own.
func (h *hosts) Reserved(a netip.Addr) bool { return h.site.recent().FixedTo(a) != "" }

func hostOf(name string, c config.DHCP) (dhcp.Host, error) {
	lease, err := config.ParseLease(c.Lease)
	if err != nil {
		return dhcp.Host{}, err
	}
	options, err := config.ParseOptions(c.Options)
	return dhcp.Host{
		Name: name, Addr: c.Address, Gateway: c.Gateway, DNS: c.DNS, Domain: c.Domain, NTP: c.NTP, LeaseTime: lease, Options: options,
	}, err
}

func factsOf(c dhcp.Client) nodes.Facts {
	return nodes.Facts{MAC: c.MAC.String(), UUID: c.UUID, ClientID: c.ClientID}
}

// nodeOf finds the node that a machine is, or will be when it first asks what to
// boot: then all that is known is its name. False: it is none.
func (s *Server) nodeOf(site *config.Site, f nodes.Facts) (api.Node, bool) {
	if n, ok := s.nodes.Find(f); ok {
		n.Name = cmp.Or(site.NodeOf(identityOf(f)), n.Name)
		return n, true
	}
	name := site.NodeOf(identityOf(f))
	return api.Node{Name: name}, name != ""
}

func identityOf(f nodes.Facts) config.Identity {
	return config.Identity{MAC: f.MAC, UUID: f.UUID, ClientID: f.ClientID}
}

// unwanted tells whether a machine is no node, and not to become one.
func (s *Server) unwanted(f nodes.Facts) bool {
	site := s.site.current()
	if site.Node("").DHCP.Unknown != config.UnknownIgnore {
		return false
	}
	_, known := s.nodeOf(site, f)
	return !known
}

// strangersMax bounds the machines that are remembered as named in the log.
const strangersMax = 1000

// strangers are the machines whose being ignored is in the log already.
type strangers struct {
	mu   sync.Mutex
	seen map[string]bool
}

// stranger logs a machine that is ignored, once.
func (s *Server) stranger(c dhcp.Client) {
	mac := c.MAC.String()
	s.strangers.mu.Lock()
	fresh := !s.strangers.seen[mac] && len(s.strangers.seen) < strangersMax
	if fresh {
		if s.strangers.seen == nil {
			s.strangers.seen = map[string]bool{}
		}
		s.strangers.seen[mac] = true
	}
	s.strangers.mu.Unlock()
	if fresh {
		s.Log.Info("a machine is ignored", "mac", mac, "uuid", c.UUID, "kind", c.Kind(), "why", reasonUnknown,
			"to know it", fmt.Sprintf("mac = [%q] in config.d/nodes/<node>/system/dhcp.conf", mac))
	}
}

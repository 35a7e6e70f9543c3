// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"slate/images"
	"slate/netboot/api"
	"slate/netboot/boot"
	"slate/netboot/config"
	"slate/netboot/nodes"
)

// scopeOf is the scope of a node's configuration. What was set for it and has no
// meaning any more, perhaps after an update of slate, is left out.
func (s *Server) scopeOf(n api.Node) config.Scope {
	set := config.Set(n.Set)
	if err := set.Check(); err != nil {
		s.Log.Error("what was set for a node is not valid and does not count", "node", n.Name, "err", err)
		set = config.Set{}
	}
	return config.Scope{Node: n.Name, Groups: n.Groups, Set: set}
}

// configOf merges what config.d and the admin say about a node.
func (s *Server) configOf(n api.Node) *config.Node { return s.site.current().For(s.scopeOf(n)) }

// decide decides what a node boots. mac is the card that it boots by, self our
// address as it reaches us.
func (s *Server) decide(n api.Node, mac string, self netip.Addr) boot.Decision {
	published, err := s.published()
	if err != nil {
		return boot.Decision{Err: err}
	}
	return boot.Decide(boot.Facts{
		Node: n.Name, Groups: n.Groups, Install: n.Install, Firmware: n.Firmware, MAC: mac, Config: s.configOf(n),
		Published: published, Resolve: func(r images.Ref) (images.Record, error) { return s.store.Resolve(r) },
		Server: s.bootServer(self), NFSPort: s.Settings.NFS.Port, Controller: s.controllerDigest,
	})
}

// explain says in words what a node would boot now.
func (s *Server) explain(_ context.Context, name string) (api.Explanation, error) {
	n, err := s.nodes.Get(name)
	if err != nil {
		return api.Explanation{}, err
	}
	mac := "00:00:00:00:00:00"
	if len(n.MACs) > 0 {
		mac = n.MACs[0]
	}
	d := s.decide(n, mac, s.towardsText(n.Address))
	e := api.Explanation{Node: n.Name, Lines: d.Lines}
	if d.Err == nil && !d.Ignore {
		e.Version = d.Start.Version.Ref()
	}
	if d.Err != nil {
		e.Error, e.Hint = d.Err.Error(), hintOf(d.Err)
	}
	return e, nil
}

// modeEntry is a node's mode, and what it was worked out from.
type modeEntry struct {
	site  *config.Site
	from  string
	mode  string
	image string
	// channel of update.chk.conf
	channel string
}

// ignored tells whether the node is to be left alone.
func (s *Server) ignored(n api.Node) bool { return s.bootOf(n).mode == config.ModeIgnore }

// bootOf is what a node is to boot, as configured. It is asked for each DHCP request
// and for each node of a status, so the answer is kept while nothing it depends on
// changes.
func (s *Server) bootOf(n api.Node) modeEntry {
	site := s.site.current()
	from := fmt.Sprintf("%q %q %q", n.Groups, n.Set.Mode, n.Set.Image)
	if e, ok := s.modes.Load(n.Name); ok && e.(modeEntry).site == site && e.(modeEntry).from == from {
		return e.(modeEntry)
	}
	c := site.For(s.scopeOf(n))
	e := modeEntry{site, from, c.Boot.Mode, c.Boot.Image, c.Update.Channel}
	s.modes.Store(n.Name, e)
	return e
}

// versionOf is the version that a node is to run: that of its image, or, installed, of
// the channel that update.chk.conf names.
func (s *Server) versionOf(n api.Node, published map[string][]string) (images.Record, error) {
	ref, _, err := boot.ChooseImage(s.imageRef(n), published)
	if err != nil {
		return images.Record{}, err
	}
	return s.store.Resolve(ref)
}

// imageRef is what is configured for a node.
func (s *Server) imageRef(n api.Node) string {
	e := s.bootOf(n)
	if e.channel != "" && n.Set.Image == "" && n.Report != nil && n.Report.Slot != "" {
		return e.channel
	}
	return e.image
}

// assign adds to nodes the versions that they are to run.
func (s *Server) assign(list []api.Node) {
	published, err := s.published()
	if err != nil {
		s.Log.Error("the channels cannot be read", "err", err)
		return
	}
	known := map[string]string{} // by what is configured: they are few
	for i, n := range list {
		ref := s.imageRef(n)
		version, ok := known[ref]
		if !ok {
			if rec, err := s.versionOf(n, published); err == nil {
				version = rec.Ref()
			}
			known[ref] = version
		}
		list[i].Assigned = version
	}
}

// ignores tells whether a machine that may not be known yet is to be left alone.
func (s *Server) ignores(f nodes.Facts) bool {
	n, _ := s.nodes.Find(f)
	return s.ignored(n)
}

// change changes nodes, after a look at what the words mean.
func (s *Server) change(ctx context.Context, c api.Change) ([]api.Done, error) {
	var set config.Set
	if c.Image != nil {
		set.Image = *c.Image
	}
	if c.Mode != nil {
		set.Mode = *c.Mode
	}
	if c.Cmdline != nil {
		set.Cmdline = *c.Cmdline
	}
	if err := set.Check(); err != nil {
		return nil, err
	}
	if set.Image != "" { // one that is not there yet can be set, but is more often a slip
		ref, err := images.ParseRef(set.Image)
		if err == nil {
			_, err = s.store.Resolve(ref)
		}
		if err != nil {
			return nil, &nodes.ChangeError{Text: err.Error(), Help: cmp.Or(hintOf(err), "see what there is: slate image list")}
		}
	}
	changed, err := s.nodes.Change(ctx, c)
	s.news.spread()
	var done []api.Done
	for _, n := range changed {
		done = append(done, api.Done{Node: n.Name, Text: describeSet(n)})
	}
	return done, err
}

// describeSet says what is set for a node after a change.
func describeSet(n api.Node) string {
	var parts []string
	add := func(what, value string) {
		if value != "" {
			parts = append(parts, what+" "+value)
		}
	}
	add("groups", strings.Join(n.Groups, ", "))
	add("image", n.Set.Image)
	add("mode", n.Set.Mode)
	add("cmdline", strings.Join(n.Set.Cmdline, " "))
	if n.Install {
		parts = append(parts, "it is installed at its next start")
	}
	if len(parts) == 0 {
		return "nothing set: config.d alone decides"
	}
	return strings.Join(parts, "; ")
}

// refusal is why a machine is not started, for its screen.
type refusal struct{ node, reason, hint string }

// admit decides what the machine that asks for its script boots. If that is
// nothing, the refusal says why, and so do the log and the timeline.
func (s *Server) admit(f nodes.Facts) (boot.Decision, *refusal) {
	if s.unwanted(f) {
		return boot.Decision{}, &refusal{f.MAC, reasonUnknown, "name it in config.d: nodes/<node>/system/dhcp.conf"}
	}
	node, ok := s.nodes.Seen(f)
	if !ok {
		return boot.Decision{}, &refusal{f.MAC, "the appliance knows too many nodes already", ""}
	}
	d := s.decide(node, f.MAC, s.towardsText(f.Address))
	switch {
	case d.Ignore:
		return d, &refusal{node.Name, boot.ReasonIgnored, ""}
	case d.Err != nil:
		s.Log.Warn("a node is not started", "node", node.Name, "err", d.Err)
		s.nodes.Firmware(f, api.Event{Step: api.StepScript, State: api.StateFailed, Text: d.Err.Error()})
		return d, &refusal{node.Name, d.Err.Error(), hintOf(d.Err)}
	}
	return d, nil
}

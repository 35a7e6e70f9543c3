// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"fmt"

	"slate/images"
	"slate/netboot/api"
)

// status describes the appliance.
func (s *Server) status(events bool) (api.Status, error) {
	published, err := s.published()
	if err != nil {
		return api.Status{}, err
	}
	st := api.Status{Version: s.Version, Started: s.started, Address: s.addr().String(), DHCP: string(s.Settings.DHCP.Mode), Nodes: s.listNodes(events), Rivals: s.rivals.list(), Queues: s.queues()}
	for name, channels := range published {
		for _, c := range channels {
			rec, err := s.store.Resolve(images.Ref{Name: name, Channel: c})
			if err != nil {
				return st, err
			}
			st.Images = append(st.Images, fmt.Sprintf("%s@%s = %s", name, c, rec.Ref()))
		}
	}
	return st, nil
}

// adminStatus is the status with who has mounted what.
func (s *Server) adminStatus(events bool) (api.Status, error) {
	st, err := s.status(events)
	st.Mounts = s.mounts()
	return st, err
}

// publicStatus is the status for whoever asks over the network: without the ids of
// boots, which are what a machine proves by that it runs one.
func (s *Server) publicStatus(events bool) (api.Status, error) {
	st, err := s.status(events)
	for i := range st.Nodes {
		for k := range st.Nodes[i].Boots {
			st.Nodes[i].Boots[k].ID = ""
		}
	}
	return st, err
}

// listNodes lists the nodes with how they are.
func (s *Server) listNodes(events bool) []api.Node {
	list := s.nodes.List()
	if events {
		s.nodes.Events(list)
	}
	s.addProgress(list)
	return list
}

func (s *Server) addProgress(list []api.Node) {
	for i, n := range list {
		p := s.nodes.Progress(n)
		if s.ignored(n) {
			p = api.Progress{Condition: api.Ignored}
		}
		list[i].Progress = &p
	}
	s.assign(list)
}

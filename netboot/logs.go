// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"slate/netboot/api"
	"slate/netboot/logs"
)

// LogDir is where the logs of nodes lie, below the data directory.
const LogDir = "logs"

// takeLog takes a part of the log of a boot; false if there is no such boot.
func (s *Server) takeLog(boot string, from int64, text []byte) (int64, bool, error) {
	node, ok := s.nodes.ByBoot(boot)
	if !ok {
		return 0, false, nil
	}
	size, err := s.logs.Append(node.Name, boot, from, text)
	return size, true, err
}

// nodeLogs are the logs as the admin asks for them.
type nodeLogs struct {
	*logs.Store
	get func(node string) (api.Node, error)
}

// List lists the logs of a node that is known.
func (l nodeLogs) List(node string) ([]api.LogEntry, error) {
	if _, err := l.get(node); err != nil {
		return nil, err
	}
	entries, err := l.Store.List(node)
	out := make([]api.LogEntry, 0, len(entries))
	for i, e := range entries {
		out = append(out, api.LogEntry{Number: i + 1, Boot: e.Boot, Changed: e.Changed})
	}
	return out, err
}

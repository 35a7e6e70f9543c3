// SPDX-License-Identifier: GPL-2.0-or-later

package servers

import (
	"slices"
	"time"

	"slate/installer/machine"
	"slate/netboot/config"
)

// Listed are the servers that a configuration names, as a command line would.
func Listed(info config.ServerInfo) (list []machine.Server, err error) {
	for _, s := range info.Servers {
		one, err := machine.ParseServer(s.Word())
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, nil
}

// MeasureOf says how a configuration wants servers to be looked at.
func MeasureOf(info config.ServerInfo) machine.Measure {
	return machine.Measure{Timeout: time.Duration(info.Measure.Timeout) * time.Second, Samples: info.Measure.Samples}
}

// Same tells whether the present list is the wanted one, but for servers on
// standby: the appliance that wrote the command line is on it as the last resort.
func Same(want, have []machine.Server) bool {
	in := func(list []machine.Server, s machine.Server) bool {
		return slices.ContainsFunc(list, func(o machine.Server) bool { return o.String() == s.String() })
	}
	for _, s := range want {
		if !in(have, s) {
			return false
		}
	}
	for _, s := range have {
		if !in(want, s) && !s.Standby {
			return false
		}
	}
	return true
}

// WithLastResort adds the server that is spoken to now to a list that it is not on: it
// is taken when no other answers.
func WithLastResort(list, have []machine.Server) []machine.Server {
	for _, s := range have[:min(1, len(have))] {
		if !slices.ContainsFunc(list, func(o machine.Server) bool { return o.URL.String() == s.URL.String() }) {
			s.Standby = true
			list = append(list, s)
		}
	}
	return list
}

// OrderOf is the order in which servers that were looked at are taken. One that did not
// answer may come back; a stranger is none of them.
func OrderOf(ranked []Ranked) (order []machine.Server) {
	for _, r := range ranked {
		if !r.Stranger {
			order = append(order, r.Server)
		}
	}
	return order
}

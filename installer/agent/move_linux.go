// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"context"
	"fmt"
	"path/filepath"

	"slate/images"
	"slate/installer/machine"
	"slate/installer/servers"
	"slate/netboot/api"
	"slate/netboot/config"
)

// followServers goes to the servers that the newest configuration names, and chooses
// among them as a start does: one file moves running machines, too. The root of one that
// is diskless follows when its server is gone.
func (a *Agent) followServers(ctx context.Context, c Config, f *servers.Fleet, tell func(api.Event)) {
	info := a.serverConf()
	if info.Running.Move == config.MoveNever || len(info.Servers) == 0 {
		return
	}
	list, err := servers.Listed(info)
	have := f.Servers()
	if err == nil && servers.Same(list, have) {
		return
	}
	keys, kerr := images.LoadPublicKeys(filepath.Join(a.Dir, KeysFile))
	if err == nil {
		err = kerr
	}
	if err != nil {
		a.logf("the servers that the configuration names: %v", err)
		return
	}
	p := servers.Probe{Measure: servers.MeasureOf(info), Keys: keys}
	ranked := servers.Rank(p.All(ctx, servers.WithLastResort(list, have)), c.Node)
	for _, r := range ranked {
		a.logf("%s: %s", r.Server.URL, r.Why)
	}
	if !ranked[0].Usable() {
		a.logf("none of the servers that the configuration names can be taken")
		return
	}
	f.Order(servers.OrderOf(ranked))
	from, to := have[0], ranked[0].Server
	text := fmt.Sprintf("the configuration names other servers: going on with %s instead of %s", to.URL, from.URL)
	if from.URL.String() == to.URL.String() {
		text = fmt.Sprintf("the configuration names other servers: staying with %s", to.URL)
	}
	if root := a.rootServer(); root.IsValid() {
		text += fmt.Sprintf("; the root stays on %s while that answers", root)
	}
	a.logf("%s", text)
	tell(api.Event{Step: api.StepConfig, State: api.StateNote, Text: text, Uptime: machine.Uptime()})
}

// serverConf is what server.info.conf says now.
func (a *Agent) serverConf() config.ServerInfo {
	a.config.mu.Lock()
	defer a.config.mu.Unlock()
	if a.config.node == nil {
		return config.ServerInfo{}
	}
	return a.config.node.Servers
}

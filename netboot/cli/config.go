// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"slate/netboot/api"
	"slate/netboot/config"
)

type configCmd struct {
	Check   configCheckCmd   `cmd:"" help:"Read config.d and name everything that is wrong with it."`
	Explain configExplainCmd `cmd:"" help:"Show what a node is configured to, and where each value comes from."`
}

type configDir struct {
	Dir string `help:"The config.d to read. Default: the one slate.toml names." type:"path" placeholder:"DIR"`
}

func (d configDir) load(a *app) (*config.Site, string, error) {
	dir := d.Dir
	if dir == "" {
		s, err := a.settings()
		if err != nil {
			return nil, "", err
		}
		dir = s.ConfigD
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, dir, err
	}
	site, err := config.Load(os.DirFS(dir))
	return site, dir, err
}

type configCheckCmd struct{ configDir }

// Run checks config.d.
func (c *configCheckCmd) Run(a *app) error {
	site, dir, err := c.load(a)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s is good; %d groups and %d nodes have files of their own\n", dir, len(site.Groups()), len(site.Nodes()))
	return nil
}

type configExplainCmd struct {
	configDir
	Node  string   `arg:"" help:"The node's name."`
	Key   string   `arg:"" optional:"" help:"Show only keys and files that contain this text."`
	Group []string `help:"Take the node to be in these groups, the last with precedence, and do not ask the appliance." placeholder:"GROUP"`
	JSON  bool     `help:"Print JSON."`
}

// Help is shown by slate config explain --help.
func (configExplainCmd) Help() string {
	return `The appliance is asked which groups the node is in and what was set for it with slate
node set. With --group or --dir it is not, and only config.d counts.`
}

// scope finds out whose configuration it is.
func (c *configExplainCmd) scope(ctx context.Context, a *app) config.Scope {
	scope := config.Scope{Node: c.Node, Groups: c.Group}
	if len(c.Group) > 0 || c.Dir != "" {
		return scope
	}
	err := a.admin(ctx, func(ctx context.Context, client *api.Client) error {
		n, err := client.Node(ctx, c.Node)
		scope.Groups, scope.Set = n.Groups, config.Set(n.Set)
		return err
	})
	if err != nil {
		a.log.Warn("groups and what was set for the node are left out", "why", err)
	}
	return scope
}

// Run explains a node's configuration.
func (c *configExplainCmd) Run(ctx context.Context, a *app) error {
	site, _, err := c.load(a)
	if err != nil {
		return err
	}
	var values []config.Value
	for _, v := range site.For(c.scope(ctx, a)).Explain() {
		if strings.Contains(v.File+" "+v.Key, c.Key) {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return hintError{fmt.Errorf("no setting has %q in its file or key", c.Key), "leave it out to see them all"}
	}
	if c.JSON {
		return printJSON(a.stdout, values)
	}
	for _, v := range values {
		fmt.Fprintln(a.stdout, v)
	}
	return nil
}

func printJSON(w interface{ Write([]byte) (int, error) }, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

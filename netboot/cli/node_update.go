// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"slate/netboot/api"
	"slate/netboot/rollout"
)

type nodeUpdateCmd struct {
	nodeTargets
	Canary int           `default:"1" help:"So many nodes go first and must be well before any other is begun; 0: none." placeholder:"N"`
	AtOnce int           `default:"5" help:"So many nodes are under way at the same time." placeholder:"K"`
	Limit  time.Duration `default:"20m" help:"A node that is not well after this has failed." placeholder:"TIME"`
	DryRun bool          `help:"Only say what would be done with which node."`
}

// Help is shown by slate node update --help.
func (nodeUpdateCmd) Help() string {
	return `Brings running nodes to the version that they are to run now: slate image publish moves a
channel, this makes the room follow. A diskless node restarts. An installed one fetches
what it lacks while it runs, and then restarts into it; if that does not become healthy
it goes back by itself. A node is done when its start-up is healthy with that version. No further node is begun once one has failed, and the exit
status is 1 then. Ctrl-C begins no further node; those under way go on by themselves.

Nodes that are off get their version when they start: installed ones as update.chk.conf says.`
}

// lookPause is between two looks at the nodes of a roll-out.
const lookPause = 2 * time.Second

// Run rolls a version out.
func (c *nodeUpdateCmd) Run(ctx context.Context, a *app) error {
	if c.Canary < 0 || c.AtOnce < 1 || c.Limit <= 0 {
		return usageError{errors.New("--at-once is 1 or more, --canary 0 or more, --limit more than nothing")}
	}
	socket, err := a.adminSocket()
	if err != nil {
		return err
	}
	client := api.DialAdmin(socket)
	seen, err := client.Nodes(ctx, c.Nodes...)
	if err != nil {
		return adminHint(err)
	}
	want := map[string]string{}
	for _, n := range seen {
		want[n.Name] = n.Assigned
	}
	r := rollout.New(rollout.Plan{Canary: c.Canary, AtOnce: c.AtOnce, Limit: c.Limit}, seen, want)
	show := c.reporter(a)
	if !c.DryRun {
		if err := c.roll(ctx, client, r, show); err != nil {
			return err
		}
	}
	show(r.Nodes)
	if c.JSON {
		if err := printJSON(a.stdout, r.Nodes); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(r.Nodes, func(n rollout.Node) bool { return n.State == rollout.Failed }) {
		return hintError{errors.New("the roll-out stopped at a node that failed"), "why: slate node logs NODE; back to the version before: slate image rollback"}
	}
	return nil
}

// roll goes on until every node is at its end.
func (c *nodeUpdateCmd) roll(ctx context.Context, client *api.Client, r *rollout.Rollout, show func([]rollout.Node)) error {
	for {
		seen, err := client.Nodes(ctx, c.Nodes...)
		if err != nil && ctx.Err() == nil {
			return adminHint(err)
		}
		if ctx.Err() != nil {
			r.Stop("not begun: the roll-out was interrupted")
			return nil
		}
		for _, name := range r.Step(time.Now(), seen) {
			i := slices.IndexFunc(seen, func(n api.Node) bool { return n.Name == name })
			done, err := client.Act(ctx, api.OrderUpdate, name)
			if err == nil && len(done) == 1 && done[0].Error != "" {
				err = errors.New(done[0].Error)
			}
			r.Told(name, seen[i], time.Now(), err)
		}
		show(r.Nodes)
		if r.Over() {
			return nil
		}
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
		}
	}
}

// reporter prints a line when the state of a node changes.
func (c *nodeUpdateCmd) reporter(a *app) func([]rollout.Node) {
	shown := map[string]string{}
	return func(nodes []rollout.Node) {
		for _, n := range nodes {
			line := fmt.Sprintf("%s: %s: %s", n.Name, n.State, printable(n.Text))
			if n.State == rollout.Waiting {
				line = fmt.Sprintf("%s: waits to go to %s", n.Name, n.Want)
			}
			if shown[n.Name] != line && !c.JSON {
				fmt.Fprintln(a.stdout, line)
			}
			shown[n.Name] = line
		}
	}
}

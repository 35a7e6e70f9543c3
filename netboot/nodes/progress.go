// SPDX-License-Identifier: GPL-2.0-or-later

package nodes

import (
	"fmt"
	"slices"
	"time"

	"slate/netboot/api"
)

// silence is how long a machine that starts may send nothing before that means
// something.
const silence = 10 * time.Minute

// Progress works out how a node is. since is when the appliance began to listen:
// what machines did before then it could not hear.
func Progress(n api.Node, since, now time.Time) api.Progress {
	b := current(&n)
	if b == nil {
		return api.Progress{Condition: api.Off, Text: "has not started from here"}
	}
	last := b.Last
	if last.Step == "" {
		last = api.Event{Step: api.StepDHCP, Time: b.Started}
	}
	p := api.Progress{Condition: api.Booting, Step: last.Step, Since: last.Time}
	quiet := now.Sub(latest(b.Started, b.Word, b.Heard, since))
	system := rank(last.Step) >= rank(api.StepHandover) && last.State == api.StateDone
	switch {
	case last.State == api.StateFailed:
		p.Condition, p.Text = api.Failed, last.Text
	case system && !b.Heard.IsZero() && quiet > deaf:
		p.Condition, p.Since, p.Text = api.Off, b.Heard, "its agent was last heard then"
	case system && (rank(last.Step) >= rank(api.StepLogin) || now.Sub(last.Time) > silence):
		p.Condition = api.Running
	case quiet <= silence || last.Step == api.StepSystem: // there it may wait for a person
	case rank(last.Step) < rank(api.StepKernel):
		p.Condition, p.Text = api.Off, fmt.Sprintf("went no further than step %s", last.Step)
	default:
		p.Condition, p.Text = api.Failed, "no word since"
	}
	return p
}

func rank(s api.Step) int { return slices.Index(order, s) }

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// Progress works out how a node is now.
func (r *Registry) Progress(n api.Node) api.Progress { return Progress(n, r.opened, r.now()) }

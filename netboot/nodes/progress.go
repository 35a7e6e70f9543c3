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

// hesitation is how long it may send nothing before what it did not do is shown.
const hesitation = time.Minute

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
	if rank(last.Step) < rank(api.StepKernel) { // one that waits in the queue asks again and again
		quiet = min(quiet, now.Sub(latest(n.Seen, since)))
	}
	system := rank(last.Step) >= rank(api.StepHandover) && last.State == api.StateDone
	switch {
	case last.State == api.StateFailed:
		p.Condition, p.Text = api.Failed, last.Text
	case system && !b.Heard.IsZero() && quiet > deaf:
		p.Condition, p.Since, p.Text = api.Off, b.Heard, "its agent was last heard then"
	case system && (rank(last.Step) >= rank(api.StepLogin) || now.Sub(last.Time) > silence):
		p.Condition = api.Running
	case quiet <= hesitation || last.Step == api.StepSystem: // there it may wait for a person
	case rank(last.Step) < rank(api.StepKernel):
		p.Text = stuck(last)
		if quiet > silence {
			p.Condition = api.Off
		}
	case quiet <= silence:
	default:
		p.Condition, p.Text = api.Failed, "no word since"
	}
	return p
}

// stuck says what a machine did not do that got no further than a step of its
// firmware or loader, and what is commonly in the way.
func stuck(last api.Event) string {
	switch {
	case last.Step == api.StepDHCP && last.State == api.StateStart:
		return "it did not take the address that it was offered: another server's, or a bad cable"
	case last.Step == api.StepDHCP:
		return "it did not fetch what it was told to load: a firewall in the way, or a bad cable"
	case last.Step == api.StepLoader:
		return "its loader did not ask for the boot script: a firewall before the HTTP port, or Secure Boot refused the loader"
	case last.Step == api.StepScript && last.State == api.StateDone:
		return "it did not load the kernel that its boot script names"
	}
	return fmt.Sprintf("went no further than step %s", last.Step)
}

func rank(s api.Step) int { return slices.Index(order, s) }

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// Progress works out how a node is now.
func (r *Registry) Progress(n api.Node) api.Progress { return Progress(n, r.opened, r.now()) }

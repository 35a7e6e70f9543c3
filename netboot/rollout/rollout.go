// SPDX-License-Identifier: GPL-2.0-or-later

// Package rollout brings the nodes of a site to another version, a few at a time:
// first a canary or more, then the others, and no further node once one has failed.
// It decides what to do next from what is known of the nodes; it does nothing itself.
package rollout

import (
	"fmt"
	"slices"
	"time"

	"slate/netboot/api"
)

// Plan says how many nodes are brought to their version at once.
type Plan struct {
	Canary int           // nodes that must be well before any other is begun; 0: none
	AtOnce int           // nodes under way at the same time, 1 or more
	Limit  time.Duration // for a node to be well again
}

// State is how far a node is.
type State string

// The states of a node.
const (
	Waiting State = "waiting" // for its turn
	Begun   State = "begun"   // told, and not well yet
	Done    State = "done"
	Skipped State = "skipped" // nothing to do, or nobody to tell
	Failed  State = "failed"
	Left    State = "left" // not begun, because another failed
)

// Node is one node of a roll-out.
type Node struct {
	Name  string `json:"name"`
	Want  string `json:"want"` // the version it is to run, e.g. lab/4
	State State  `json:"state"`
	Text  string `json:"text,omitempty"` // why

	boot  string    // it was in when it was told
	since time.Time // when that was
}

// Rollout is one roll-out, in the order of its nodes.
type Rollout struct {
	Plan
	Nodes []Node
}

// New begins a roll-out. want gives the version that each node is to run; nodes that
// run it already, and those that cannot be told, are skipped.
func New(p Plan, nodes []api.Node, want map[string]string) *Rollout {
	r := &Rollout{Plan: p}
	for _, n := range nodes {
		e := Node{Name: n.Name, Want: want[n.Name], State: Waiting}
		switch {
		case e.Want == "":
			e.State, e.Text = Skipped, "there is nothing for it to run: see slate node explain "+n.Name
		case n.Progress == nil || n.Progress.Condition == api.Off || n.Progress.Condition == api.Ignored:
			e.State, e.Text = Skipped, "is not running; it gets "+e.Want+" when it starts"
		case n.Runs() == e.Want && well(n):
			e.State, e.Text = Skipped, "runs "+e.Want+" already"
		}
		r.Nodes = append(r.Nodes, e)
	}
	return r
}

// Step takes in how the nodes are now, and returns those to be told next. The
// caller says with Told what came of that.
func (r *Rollout) Step(now time.Time, seen []api.Node) []string {
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if n.State != Begun {
			continue
		}
		k := slices.IndexFunc(seen, func(s api.Node) bool { return s.Name == n.Name })
		if k < 0 {
			n.State, n.Text = Failed, "is not known any more"
			continue
		}
		n.judge(now.Sub(n.since), r.Limit, seen[k])
	}
	failed := r.count(Failed) > 0
	room := r.room()
	var next []string
	for i := range r.Nodes {
		n := &r.Nodes[i]
		switch {
		case n.State != Waiting:
		case failed:
			n.State, n.Text = Left, "not begun, since another node failed"
		case len(next) < room:
			next = append(next, n.Name)
		}
	}
	return next
}

// room is how many nodes may be begun now.
func (r *Rollout) room() int {
	under := r.count(Begun)
	if done := r.count(Done); done < r.Canary {
		return r.Canary - done - under
	}
	return r.AtOnce - under
}

// Told notes that a node was told to go to its version, or why it could not be.
func (r *Rollout) Told(name string, n api.Node, now time.Time, err error) {
	i := slices.IndexFunc(r.Nodes, func(n Node) bool { return n.Name == name })
	e := &r.Nodes[i]
	if err != nil {
		e.State, e.Text = Failed, err.Error()
		return
	}
	e.State, e.Text, e.since = Begun, "told to go to "+e.Want, now
	if len(n.Boots) > 0 {
		e.boot = n.Boots[0].ID
	}
}

// Over tells whether nothing is left to wait for.
func (r *Rollout) Over() bool { return r.count(Waiting) == 0 && r.count(Begun) == 0 }

// Stop leaves the nodes that are not begun as they are.
func (r *Rollout) Stop(why string) {
	for i := range r.Nodes {
		if n := &r.Nodes[i]; n.State == Waiting {
			n.State, n.Text = Left, why
		}
	}
}

func (r *Rollout) count(s State) int {
	c := 0
	for _, n := range r.Nodes {
		if n.State == s {
			c++
		}
	}
	return c
}

// judge looks at a node that was told.
func (n *Node) judge(took, limit time.Duration, seen api.Node) {
	fresh := len(seen.Boots) > 0 && seen.Boots[0].ID != n.boot
	switch {
	case fresh && seen.Boots[0].Last.State == api.StateFailed:
		n.State, n.Text = Failed, fmt.Sprintf("step %s: %s", seen.Boots[0].Last.Step, seen.Boots[0].Last.Text)
	case fresh && well(seen) && seen.Runs() == n.Want:
		n.State, n.Text = Done, fmt.Sprintf("runs %s, well after %v", n.Want, took.Round(time.Second))
	case fresh && well(seen):
		n.State, n.Text = Failed, "came up with "+seen.Runs()+why(seen)
	case !fresh && seen.Report != nil && seen.Report.Time.After(n.since) && seen.Report.Update.State == api.UpdateFailed:
		n.State, n.Text = Failed, seen.Report.Update.Text
	case took > limit:
		n.State, n.Text = Failed, fmt.Sprintf("is not well %v after it was told", limit)
	}
}

// why is what the node says of a version that it did not stay with.
func why(n api.Node) string {
	if n.Report == nil || n.Report.Failure == "" {
		return ""
	}
	return ": " + n.Report.Failure
}

// well tells whether the node's newest start-up is healthy.
func well(n api.Node) bool {
	return len(n.Boots) > 0 && n.Boots[0].Last.Step == api.StepHealth && n.Boots[0].Last.State == api.StateDone
}

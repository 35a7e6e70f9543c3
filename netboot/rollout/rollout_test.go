// SPDX-License-Identifier: GPL-2.0-or-later

package rollout_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/netboot/api"
	"slate/netboot/rollout"
)

// room is a simulated room: each node, once told, comes up well after ten seconds,
// unless its script says otherwise.
type room struct {
	now   time.Time
	nodes map[string]*machine
	most  int // nodes under way at the same time
	told  []string
}

type machine struct {
	api.Node
	told   time.Time
	script func(m *machine, age time.Duration)
}

func comesUp(m *machine, age time.Duration) {
	if age >= 10*time.Second {
		m.Boots[0] = boot("new", "lab/2", api.StepHealth, api.StateDone, "")
	} else if age >= 5*time.Second {
		m.Boots[0] = boot("new", "lab/2", api.StepRoot, api.StateDone, "")
	}
}

func boot(id, image string, step api.Step, state api.State, text string) api.Boot {
	return api.Boot{ID: id, Image: image, Last: api.Event{Step: step, State: state, Text: text}}
}

func newRoom(names ...string) *room {
	r := &room{now: time.Unix(1e9, 0), nodes: map[string]*machine{}}
	for _, name := range names {
		r.nodes[name] = &machine{script: comesUp, Node: api.Node{Name: name, Progress: &api.Progress{Condition: api.Running},
			Boots: []api.Boot{boot("old", "lab/1", api.StepHealth, api.StateDone, "")}}}
	}
	return r
}

func (r *room) seen() []api.Node {
	var out []api.Node
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		m := r.nodes[name]
		if !m.told.IsZero() {
			m.script(m, r.now.Sub(m.told))
		}
		n := m.Node
		n.Boots = slices.Clone(m.Boots)
		out = append(out, n)
	}
	return out
}

// run plays the roll-out and returns its end, a line for each node.
func (r *room) run(t *testing.T, p rollout.Plan) []string {
	t.Helper()
	want := map[string]string{}
	for name := range r.nodes {
		want[name] = "lab/2"
	}
	ro := rollout.New(p, r.seen(), want)
	for !ro.Over() {
		if r.now.Sub(time.Unix(1e9, 0)) > time.Hour {
			t.Fatalf("still not over: %+v", ro.Nodes)
		}
		seen := r.seen()
		for _, name := range ro.Step(r.now, seen) {
			m := r.nodes[name]
			var err error
			if m.script == nil {
				err = errors.New("does not listen")
			}
			i := slices.IndexFunc(seen, func(n api.Node) bool { return n.Name == name })
			ro.Told(name, seen[i], r.now, err)
			if err == nil {
				m.told = r.now
			}
			r.told = append(r.told, name)
		}
		under := 0
		for _, n := range ro.Nodes {
			if n.State == rollout.Begun {
				under++
			}
		}
		r.most = max(r.most, under)
		r.now = r.now.Add(time.Second)
	}
	var out []string
	for _, n := range ro.Nodes {
		out = append(out, strings.TrimSpace(fmt.Sprint(n.Name, " ", n.State, " ", n.Text)))
	}
	return out
}

func TestACanaryGoesFirst(t *testing.T) {
	r := newRoom("a", "b", "c", "d", "e", "f")
	first := ""
	r.nodes["a"].script = func(m *machine, age time.Duration) {
		comesUp(m, age)
		if m.Boots[0].Last.Step != api.StepHealth && len(r.told) > 1 {
			first = strings.Join(r.told, " ")
		}
	}
	got := r.run(t, rollout.Plan{Canary: 1, AtOnce: 3, Limit: time.Minute})
	for _, line := range got {
		if !strings.Contains(line, "done runs lab/2") {
			t.Errorf("%s; want it done", line)
		}
	}
	if first != "" {
		t.Errorf("%s were told before the canary was well", first)
	}
	if r.most != 3 {
		t.Errorf("%d nodes were under way at once, want 3", r.most)
	}
}

func TestTheFirstFailureStopsIt(t *testing.T) {
	for _, c := range []struct {
		name   string
		script func(*machine, time.Duration)
		text   string
	}{
		{"a step fails", func(m *machine, age time.Duration) {
			m.Boots[0] = boot("new", "lab/2", api.StepRoot, api.StateFailed, "no such version")
		}, "a failed step root: no such version"},
		{"it is not well", func(m *machine, age time.Duration) {
			m.Boots[0] = boot("new", "lab/2", api.StepHealth, api.StateFailed, "ssh.service is failed")
		}, "a failed step health: ssh.service is failed"},
		{"it goes back", func(m *machine, age time.Duration) {
			m.Boots[0] = boot("new", "lab/1", api.StepHealth, api.StateDone, "")
		}, "a failed came up with lab/1"},
		{"it is not seen again", func(*machine, time.Duration) {}, "a failed is not well 1m0s after it was told"},
		{"it cannot be told", nil, "a failed does not listen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoom("a", "b", "c")
			r.nodes["a"].script = c.script
			want := []string{c.text, "b left not begun, since another node failed", "c left not begun, since another node failed"}
			if d := cmp.Diff(want, r.run(t, rollout.Plan{Canary: 1, AtOnce: 2, Limit: time.Minute})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if len(r.told) != 1 {
				t.Errorf("told %v, want a alone", r.told)
			}
		})
	}
}

func TestWhoHasNothingToDoIsSkipped(t *testing.T) {
	r := newRoom("already", "off", "other")
	r.nodes["already"].Boots[0].Image = "lab/2"
	r.nodes["off"].Progress = &api.Progress{Condition: api.Off}
	want := []string{"already skipped runs lab/2 already", "off skipped is not running; it gets lab/2 when it starts", "other done runs lab/2, well after 10s"}
	if d := cmp.Diff(want, r.run(t, rollout.Plan{Canary: 1, AtOnce: 1, Limit: time.Minute})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A node that is told is judged by its next boot, not by the one it is still in.
func TestTheOldBootDoesNotCount(t *testing.T) {
	r := newRoom("a")
	r.nodes["a"].Boots[0] = boot("old", "lab/2", api.StepHealth, api.StateFailed, "ssh.service is failed")
	if d := cmp.Diff([]string{"a done runs lab/2, well after 10s"}, r.run(t, rollout.Plan{AtOnce: 1, Limit: time.Minute})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestStop(t *testing.T) {
	r := newRoom("a", "b")
	ro := rollout.New(rollout.Plan{AtOnce: 1, Limit: time.Minute}, r.seen(), map[string]string{"a": "lab/2", "b": "lab/2"})
	for _, name := range ro.Step(r.now, r.seen()) {
		ro.Told(name, r.nodes[name].Node, r.now, nil)
	}
	ro.Stop("interrupted")
	if ro.Nodes[0].State != rollout.Begun || ro.Nodes[1].State != rollout.Left || ro.Over() {
		t.Errorf("after Stop: %+v, want a begun and b left", ro.Nodes)
	}
}

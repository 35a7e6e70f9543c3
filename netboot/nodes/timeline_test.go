// SPDX-License-Identifier: GPL-2.0-or-later

package nodes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"slate/netboot/api"
	"slate/netboot/state/bolt"
)

func open(t *testing.T, file string) *Registry {
	t.Helper()
	store, err := bolt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	r, err := Open(context.Background(), store, nil, func(mac, serial string) string {
		return "node-" + strings.ReplaceAll(mac, ":", "")[6:]
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const mac1, mac2 = "52:54:00:00:00:01", "52:54:00:00:00:02"

func steps(n api.Node) string {
	var out []string
	for _, b := range n.Boots {
		var s []string
		for _, e := range b.Events {
			s = append(s, string(e.Step))
		}
		out = append(out, strings.Join(s, " "))
	}
	return strings.Join(out, " | ")
}

func get(t *testing.T, r *Registry, name string) api.Node {
	t.Helper()
	n, err := r.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBootsAreToldApart(t *testing.T) {
	r := open(t, t.TempDir()+"/state")
	now := time.Unix(1_000_000, 0)
	r.now = func() time.Time { return now }
	f := Facts{MAC: mac1, Address: "10.0.0.7"}
	firmware := func(step api.Step, text string) {
		r.Firmware(f, api.Event{Step: step, State: api.StateDone, Text: text})
	}
	node := func() api.Node { return get(t, r, "node-000001") }

	firmware(api.StepDHCP, "offer")
	firmware(api.StepDHCP, "ack")
	firmware(api.StepLoader, "undionly.kpxe")
	firmware(api.StepDHCP, "ack to iPXE")
	name, id, ok := r.Script(f, "demo/1", "stable")
	if !ok || name != "node-000001" || id == "" {
		t.Fatalf("Script = %q, %q, %v", name, id, ok)
	}
	if _, again, _ := r.Script(f, "demo/1", "stable"); again != id {
		t.Errorf("a repeated script request has boot id %s, want the same %s", again, id)
	}
	if !r.Report(id, api.Event{Step: api.StepRoot, State: api.StateDone}) {
		t.Error("Report does not know the boot")
	}
	r.ByAddress("10.0.0.7", api.Event{Step: api.StepLogin, State: api.StateDone})
	if got, want := steps(node()), "dhcp dhcp loader dhcp script root login"; got != want {
		t.Errorf("first boot = %q, want %q", got, want)
	}

	firmware(api.StepDHCP, "offer")
	if got := steps(node()); !strings.HasPrefix(got, "dhcp | ") {
		t.Errorf("after the machine was restarted: %q, want a second boot", got)
	}
	if !r.Report(id, api.Event{Step: api.StepHandover, State: api.StateNote}) {
		t.Error("a late report of the first boot is not taken")
	}
	now = now.Add(staleBoot + time.Second)
	firmware(api.StepDHCP, "offer")
	if got := len(node().Boots); got != 3 {
		t.Errorf("%d boots after a long silence, want 3", got)
	}
	if r.Report("nobody's", api.Event{Step: api.StepRoot, State: api.StateDone}) {
		t.Error("Report took an event of an unknown boot")
	}
}

// A machine reports its first steps together, once its network is up; the
// timeline has them when they happened.
// On a busy appliance a step is noted when the machine is at the next one.
func TestLateStepIsNoNewBoot(t *testing.T) {
	r := open(t, t.TempDir()+"/state")
	now := time.Unix(1_000_000, 0)
	r.now = func() time.Time { return now }
	f := Facts{MAC: mac1}
	r.Firmware(f, api.Event{Step: api.StepDHCP, State: api.StateStart})
	r.Script(f, "demo/1", "stable")
	now = now.Add(time.Second)
	r.Firmware(f, api.Event{Step: api.StepDHCP, State: api.StateDone})
	if got, want := steps(get(t, r, "node-000001")), "dhcp script dhcp"; got != want {
		t.Errorf("boots = %q, want %q", got, want)
	}
	r.Firmware(f, api.Event{Step: api.StepDHCP, State: api.StateStart, Text: "an answer to what was sent twice"})
	now = now.Add(time.Minute)
	r.Firmware(f, api.Event{Step: api.StepDHCP, State: api.StateDone})
	if got, want := steps(get(t, r, "node-000001")), "dhcp | dhcp script dhcp dhcp"; got != want {
		t.Errorf("boots = %q, want %q", got, want)
	}
}

func TestReportsArePutAtTheirTime(t *testing.T) {
	r := open(t, t.TempDir()+"/state")
	start := time.Unix(1_000_000, 0)
	now := start
	r.now = func() time.Time { return now }
	_, id, _ := r.Script(Facts{MAC: mac1}, "demo/1", "stable")
	report := func(at, uptime float64, step api.Step) {
		now = start.Add(seconds(at))
		r.Report(id, api.Event{Step: step, State: api.StateDone, Uptime: uptime})
	}
	report(40, 10, api.StepEarly)    // 10 s too late
	report(40, 15, api.StepHardware) // 5 s
	report(40, 19, api.StepNetwork)  // 1 s
	report(45, 25, api.StepRoot)     // at once: the kernel started at 20
	var got []float64
	for _, e := range get(t, r, "node-000001").Boots[0].Events {
		got = append(got, e.Time.Sub(start).Seconds())
	}
	if want := []float64{0, 30, 35, 39, 45}; !slices.Equal(got, want) {
		t.Errorf("events are at %v s, want %v", got, want)
	}
}

func TestNodesAreFoundAgain(t *testing.T) {
	r := open(t, t.TempDir()+"/state")
	const uuid = "aabbccdd-0000-1111-2222-333344445555"
	a, _ := r.Seen(Facts{MAC: mac1, UUID: uuid, Serial: "S1"})
	b, _ := r.Seen(Facts{MAC: mac2, UUID: strings.ToUpper(uuid)})
	if a.Name != b.Name || len(b.MACs) != 2 || b.Serial != "S1" {
		t.Errorf("second card of a machine: %+v, want the node %s with both", b, a.Name)
	}
	none := "00000000-0000-0000-0000-000000000000"
	c, _ := r.Seen(Facts{MAC: "52:54:00:00:00:03", UUID: none})
	d, _ := r.Seen(Facts{MAC: "52:54:00:00:00:04", UUID: none})
	if c.Name == d.Name {
		t.Error("two machines without a UUID are taken for one")
	}
	e, _ := r.Seen(Facts{MAC: "52:54:01:00:00:03"})
	if e.Name != c.Name+"-2" {
		t.Errorf("a second machine with the name %s is called %s", c.Name, e.Name)
	}
}

func TestNodesOutliveTheAppliance(t *testing.T) {
	file := t.TempDir() + "/state"
	store, err := bolt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	name := func(mac, _ string) string { return mac }
	r, err := Open(context.Background(), store, nil, name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	_, id, _ := r.Script(Facts{MAC: mac1, Address: "10.0.0.9"}, "demo/1", "stable")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, file)
	if !again.Report(id, api.Event{Step: api.StepRoot, State: api.StateDone}) {
		t.Error("the boot is forgotten after a restart")
	}
	again.ByAddress("10.0.0.9", api.Event{Step: api.StepLogin, State: api.StateDone})
	if got, want := steps(get(t, again, mac1)), "script root login"; got != want {
		t.Errorf("steps = %q, want %q", got, want)
	}
}

func TestBoundsHold(t *testing.T) {
	r := open(t, t.TempDir()+"/state")
	f := Facts{MAC: mac1}
	for i := range maxBoots + 5 {
		_, id, _ := r.Script(f, "demo/1", "stable")
		for k := range maxEvents + 10 {
			r.Report(id, api.Event{Step: api.StepRoot, State: api.StateNote, Text: fmt.Sprint(i, k)})
		}
		r.Firmware(f, api.Event{Step: api.StepDHCP, State: api.StateDone})
	}
	n := get(t, r, "node-000001")
	if len(n.Boots) != maxBoots || len(r.byBoot) != maxBoots {
		t.Errorf("%d boots kept, %d in the index, want %d", len(n.Boots), len(r.byBoot), maxBoots)
	}
	for _, b := range n.Boots {
		if len(b.Events) > maxEvents {
			t.Errorf("%d events kept, want at most %d", len(b.Events), maxEvents)
		}
	}
}

// The admin says who a machine is: it takes that name, with its history, or that
// of the machine it replaces.
func TestNamedByTheAdmin(t *testing.T) {
	file := t.TempDir() + "/state"
	r := open(t, file)
	said := map[string]string{}
	r.Named = func(f Facts) string { return said[f.MAC] }
	var renamed []string
	r.Renamed = func(from, to string) { renamed = append(renamed, from+" "+to) }

	r.Firmware(Facts{MAC: mac1}, api.Event{Step: api.StepDHCP, State: api.StateDone})
	said[mac1] = "pc1"
	if n, ok := r.Find(Facts{MAC: mac1}); !ok || n.Name != "node-000001" {
		t.Errorf("Find before it is seen again = %q", n.Name)
	}
	if n, _ := r.Seen(Facts{MAC: mac1}); n.Name != "pc1" || len(n.Boots) != 1 {
		t.Errorf("seen again it is %q with %d boots, want pc1 with its boot", n.Name, len(n.Boots))
	}
	if err := r.flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Another machine takes its place.
	r.Seen(Facts{MAC: mac2})
	said[mac2] = "pc1"
	if n, _ := r.Seen(Facts{MAC: mac2}); n.Name != "pc1" || !slices.Equal(n.MACs, []string{mac1, mac2}) {
		t.Errorf("the new machine is %+v, want pc1 with both cards", n)
	}
	if n := get(t, r, "node-000002"); len(n.MACs) != 0 {
		t.Errorf("the node it was has the cards %q, want none", n.MACs)
	}
	said[mac1] = "old"
	if n, _ := r.Seen(Facts{MAC: mac1}); n.Name != "old" || !slices.Equal(n.MACs, []string{mac1}) {
		t.Errorf("the first machine is %q with the cards %q, want old with its own", n.Name, n.MACs)
	}
	if n, _ := r.Seen(Facts{MAC: mac2}); n.Name != "pc1" || !slices.Equal(n.MACs, []string{mac2}) {
		t.Errorf("the second machine is %q with the cards %q, want pc1 with its own", n.Name, n.MACs)
	}
	if want := []string{"node-000001 pc1"}; !slices.Equal(renamed, want) {
		t.Errorf("renamed %q, want %q", renamed, want)
	}
}

func TestLoginAfterHealth(t *testing.T) {
	ev := func(step api.Step, state api.State) api.Event { return api.Event{Step: step, State: state} }
	for _, c := range []struct {
		events []api.Event
		want   api.Step
	}{
		{[]api.Event{ev(api.StepHandover, api.StateDone), ev(api.StepLogin, api.StateDone)}, api.StepLogin},
		{[]api.Event{ev(api.StepLogin, api.StateDone), ev(api.StepHealth, api.StateDone), ev(api.StepConfig, api.StateNote)}, api.StepHealth},
		{[]api.Event{ev(api.StepHandover, api.StateDone), ev(api.StepHealth, api.StateDone), ev(api.StepLogin, api.StateDone)}, api.StepHealth},
	} {
		b := api.Boot{Events: c.events}
		if settle(&b); b.Last.Step != c.want {
			t.Errorf("after %v the boot is at %s, want %s", c.events, b.Last.Step, c.want)
		}
	}
}

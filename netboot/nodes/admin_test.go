// SPDX-License-Identifier: GPL-2.0-or-later

package nodes

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slate/netboot/api"
	"slate/netboot/state"
	"slate/netboot/state/bolt"
)

// room makes a registry with nodes of the given names; their MAC addresses count up.
func room(t *testing.T, file string, names ...string) *Registry {
	t.Helper()
	r := open(t, file)
	r.name = func(mac, _ string) string { return names[mac[len(mac)-1]-'0'] }
	for k := range names {
		r.Seen(Facts{MAC: fmt.Sprintf("52:54:00:00:00:0%d", k)})
	}
	return r
}

func names(ns []api.Node) string {
	var out []string
	for _, n := range ns {
		out = append(out, n.Name)
	}
	return strings.Join(out, " ")
}

func TestSelect(t *testing.T) {
	r := room(t, t.TempDir()+"/state", "pc1", "pc2", "pc10", "srv")
	if _, err := r.Change(t.Context(), api.Change{Targets: api.Targets{Targets: []string{"pc1", "srv"}}, Join: []string{"room1"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		targets   []string
		want, err string
	}{
		{[]string{"pc1"}, "pc1", ""},
		{[]string{"srv", "pc1", "pc1"}, "pc1 srv", ""},
		{[]string{"pc?"}, "pc1 pc2", ""},
		{[]string{"*"}, "pc1 pc10 pc2 srv", ""},
		{[]string{"@room1"}, "pc1 srv", ""},
		{[]string{"@room*", "pc2"}, "pc1 pc2 srv", ""},
		{nil, "", ""},
		{[]string{"pc1", "pc3"}, "", `there is no node "pc3": nodes: pc1, pc10, pc2, srv`},
		{[]string{"x*"}, "", `no node's name matches "x*": nodes: pc1`},
		{[]string{"@room2"}, "", `no node is in group @room2: groups with nodes: @room1`},
		{[]string{"["}, "", `"[" is not a node, a glob or an @group`},
		{[]string{""}, "", `"" is not a node`},
		{[]string{"@"}, "", `"@" is not a node`},
	} {
		got, err := r.Select(c.targets...)
		text := ""
		if te, ok := err.(*TargetError); ok {
			text = te.Text + ": " + te.Help
		}
		if names(got) != c.want || (c.err == "") != (err == nil) || !strings.HasPrefix(text, c.err) {
			t.Errorf("Select(%q) = %q, %q, want %q, %q", c.targets, names(got), text, c.want, c.err)
		}
	}
}

func TestChangesAreDurable(t *testing.T) {
	file := t.TempDir() + "/state"
	store, err := bolt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	name := func(mac, _ string) string { return "pc" + mac[len(mac)-1:] }
	r, err := Open(t.Context(), store, nil, name)
	if err != nil {
		t.Fatal(err)
	}
	r.Seen(Facts{MAC: mac1})
	r.Seen(Facts{MAC: mac2})
	image, mode, words := "lab@testing", "ignore", []string{"debug"}
	all := api.Targets{Targets: []string{"*"}}
	for _, c := range []api.Change{
		{Targets: all, Image: &image, Mode: &mode, Cmdline: &words, Join: []string{"a", "b", "c"}},
		{Targets: all, Leave: []string{"b"}, Join: []string{"a"}},
	} {
		if _, err := r.Change(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Forget(t.Context(), []string{"pc2"}); err != nil {
		t.Fatal(err)
	}
	// No Run, and no flush at the end: it must be there already.
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, file)
	list := again.List()
	if len(list) != 1 {
		t.Fatalf("nodes after a restart: %q, want pc1", names(list))
	}
	if diff := cmp.Diff(api.Set{Image: image, Mode: mode, Cmdline: words}, list[0].Set); diff != "" {
		t.Errorf("Set after a restart (-want +got):\n%s", diff)
	}
	if got := strings.Join(list[0].Groups, " "); got != "c a" {
		t.Errorf("groups = %q, want %q: the one joined last has precedence", got, "c a")
	}
	n, _ := again.Seen(Facts{MAC: mac2})
	if len(n.Groups) != 0 || n.Set.Image != "" {
		t.Errorf("a forgotten node comes back as %+v, want a new one", n)
	}
}

func TestBadChangesChangeNothing(t *testing.T) {
	r := room(t, t.TempDir()+"/state", "pc1", "pc2")
	var many []string
	for k := range maxGroups + 1 {
		many = append(many, fmt.Sprintf("g%d", k))
	}
	for _, c := range []struct {
		change api.Change
		want   string
	}{
		{api.Change{Targets: api.Targets{Targets: []string{"*"}}, Join: []string{"../x"}}, `"../x" cannot be a group's name`},
		{api.Change{Targets: api.Targets{Targets: []string{"*"}}, Join: []string{""}}, `"" cannot be a group's name`},
		{api.Change{Targets: api.Targets{Targets: []string{"*"}}, Join: many}, "in 17 groups"},
		{api.Change{Targets: api.Targets{Targets: []string{"pc1", "nobody"}}, Join: []string{"a"}}, `no node "nobody"`},
	} {
		if _, err := r.Change(t.Context(), c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Change error = %v, want %q", err, c.want)
		}
	}
	for _, n := range r.List() {
		if len(n.Groups) > 0 {
			t.Errorf("%s is in groups %q after bad changes", n.Name, n.Groups)
		}
	}
}

// Boots before the newest lie in the store only, and are changed there too.
func TestOlderBootsAreKept(t *testing.T) {
	file := t.TempDir() + "/state"
	store, err := bolt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), store, nil, func(string, string) string { return "pc" })
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range 3 {
		_, id, _ := r.Script(Facts{MAC: mac1}, "demo/1", "stable")
		r.Report(id, api.Event{Step: api.StepRoot, State: api.StateDone})
		ids = append(ids, id)
		if err := r.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Firmware(Facts{MAC: mac1}, api.Event{Step: api.StepDHCP, State: api.StateDone})
		r.append(r.byName["pc"], current(r.byName["pc"]), api.Event{Step: api.StepRoot, State: api.StateFailed})
	}
	if !r.Report(ids[0], api.Event{Step: api.StepLogin, State: api.StateDone}) {
		t.Error("a late report of an older boot is not taken")
	}
	want := steps(get(t, r, "pc"))
	if !strings.HasSuffix(want, "| script root login") {
		t.Errorf("boots = %q, want the oldest with its late report", want)
	}
	if err := r.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.shelf) != 0 {
		t.Errorf("%d boots still wait to be written", len(r.shelf))
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, file)
	if got := steps(get(t, again, "pc")); got != want {
		t.Errorf("boots after a restart = %q, want %q", got, want)
	}
	if _, err := again.Forget(t.Context(), []string{"pc"}); err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, b := range []string{bucket, bucketBoots} {
		err := again.store.View(t.Context(), func(tx state.Tx) error {
			return tx.Each(b, "", func(string, []byte) error { left++; return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if left != 0 || again.Report(ids[0], api.Event{Step: api.StepLogin}) {
		t.Errorf("%d records are left of a forgotten node", left)
	}
}

// A damaged record is no reason to boot no machine at all.
func TestDamagedRecordIsLeftOut(t *testing.T) {
	file := t.TempDir() + "/state"
	store, err := bolt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	err = store.Update(t.Context(), func(tx state.Tx) error {
		for key, text := range map[string]string{"a": `{"name":"a"}`, "b": `{"name":`, "c": `{"name":"d"}`} {
			if err := tx.Put(bucket, key, []byte(text)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || store.Close() != nil {
		t.Fatal(err)
	}
	if got := names(open(t, file).List()); got != "a" {
		t.Errorf("nodes = %q, want a alone", got)
	}
}

func TestIdentity(t *testing.T) {
	const u1, u2 = "aabbccdd-0000-1111-2222-333344445555", "aabbccdd-0000-1111-2222-333344445566"
	first := Facts{MAC: mac1, UUID: u1, Serial: "PF0ABC12", Product: "Model A"}
	for _, c := range []struct {
		name  string
		first Facts
		then  Facts
		same  bool
	}{
		{"by MAC", first, Facts{MAC: strings.ToUpper(mac1)}, true},
		{"by UUID", first, Facts{MAC: mac2, UUID: u1}, true},
		{"by serial", first, Facts{MAC: mac2, Serial: "PF0ABC12", Product: "Model A"}, true},
		{"UUID of a whole series", first, Facts{MAC: mac2, UUID: u1, Serial: "PF0ABC13"}, false},
		{"serial of a whole series", first, Facts{MAC: mac2, UUID: u2, Serial: "PF0ABC12"}, false},
		{"same serial, other product", first, Facts{MAC: mac2, Serial: "PF0ABC12", Product: "Model B"}, false},
		{"filler", Facts{MAC: mac1, Serial: "To Be Filled By O.E.M."}, Facts{MAC: mac2, Serial: "To Be Filled By O.E.M."}, false},
		{"counted", Facts{MAC: mac1, Serial: "0123456789"}, Facts{MAC: mac2, Serial: "0123456789"}, false},
		{"zeros", Facts{MAC: mac1, Serial: "00000000"}, Facts{MAC: mac2, Serial: "00000000"}, false},
		{"UUID of a careless maker", Facts{MAC: mac1, UUID: "03000200-0400-0500-0006-000700080009"}, Facts{MAC: mac2, UUID: "03000200-0400-0500-0006-000700080009"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t, t.TempDir()+"/state")
			r.Seen(c.first)
			r.Seen(c.then)
			if got := len(r.List()) == 1; got != c.same {
				t.Errorf("taken for the same machine: %v, want %v", got, c.same)
			}
			if _, ok := r.Find(c.then); !ok {
				t.Error("Find does not find it again")
			}
		})
	}
	r := open(t, t.TempDir()+"/state")
	r.Seen(first)
	r.Seen(Facts{MAC: mac2, UUID: u2, Serial: "PF0ABC12"})
	if _, ok := r.Find(Facts{MAC: "52:54:00:00:00:09", Serial: "PF0ABC12"}); ok {
		t.Error("a serial number that two nodes have finds one of them")
	}
	for k := range 100 {
		r.Seen(Facts{MAC: fmt.Sprintf("52:54:01:00:00:%02x", k), UUID: u1})
	}
	if n, _ := r.Find(Facts{MAC: mac1}); len(n.MACs) != maxMACs {
		t.Errorf("%d MAC addresses of one node are kept, want %d", len(n.MACs), maxMACs)
	}
}

func TestOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, t.TempDir()+"/state")
		_, id, _ := r.Script(Facts{MAC: mac1}, "demo/1", "stable")
		reboot := api.Order{Do: api.OrderReboot}
		if err := r.Order("node-000001", reboot); err == nil {
			t.Error("a node that does not listen takes an order")
		}
		got := make(chan api.Order)
		go func() { o, _ := r.Listening(t.Context(), id, nil); got <- o }()
		synctest.Wait()
		if err := r.Order("node-000001", reboot); err != nil {
			t.Error(err)
		}
		if o := <-got; o != reboot {
			t.Errorf("order = %v, want %v", o, reboot)
		}
		// Between two questions an order waits; a second one does not.
		if err := r.Order("node-000001", reboot); err != nil {
			t.Error(err)
		}
		if err := r.Order("node-000001", reboot); err == nil {
			t.Error("a second order is taken before the first is fetched")
		}
		if o, ok := r.Listening(t.Context(), id, nil); o != reboot || !ok {
			t.Errorf("Listening = %v, %v, want the order that waited", o, ok)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if o, ok := r.Listening(ctx, id, nil); o.Do != "" || !ok {
			t.Errorf("Listening = %v, %v after a minute, want an empty order", o, ok)
		}
		time.Sleep(deaf + time.Second) // the fake clock's
		if err := r.Order("node-000001", reboot); err == nil {
			t.Error("a node that was not heard for long takes an order")
		}
		if _, ok := r.Listening(t.Context(), "nobody's", nil); ok {
			t.Error("an unknown boot may listen")
		}
	})
}

func TestHardware(t *testing.T) {
	r := open(t, t.TempDir()+"/state")
	_, id, _ := r.Script(Facts{MAC: mac1}, "demo/1", "stable")
	if !r.Hardware(id, api.Facts{Vendor: "Dell", Product: "X1", Serial: "ABC1234", MemoryMiB: 512}) || r.Hardware("no", api.Facts{}) {
		t.Error("Hardware takes the wrong boots")
	}
	n := r.List()[0]
	if n.Hardware == nil || n.Hardware.MemoryMiB != 512 || n.Product != "Dell X1" {
		t.Errorf("node = %+v", n)
	}
	if _, ok := r.Find(Facts{MAC: mac2, Serial: "ABC1234"}); !ok {
		t.Error("the node is not found by the serial number that its hardware facts have")
	}
}

func TestConcurrentUse(t *testing.T) {
	r := open(t, t.TempDir()+"/state")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for k := range 20 {
				f := Facts{MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", w, k%5), UUID: "aabbccdd-0000-1111-2222-33334444555" + fmt.Sprint(w)}
				_, id, _ := r.Script(f, "demo/1", "stable")
				r.Report(id, api.Event{Step: api.StepRoot, State: api.StateDone})
				r.Firmware(f, api.Event{Step: api.StepDHCP, State: api.StateDone})
				if k%7 == 0 {
					r.Change(t.Context(), api.Change{Targets: api.Targets{Targets: []string{"*"}}, Join: []string{"g"}})
				}
				for _, n := range r.List() {
					r.Progress(n)
				}
				if n, ok := r.Find(f); ok {
					if _, err := r.Get(n.Name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestProgress(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(s float64) time.Time { return start.Add(seconds(s)) }
	ev := func(s float64, step api.Step, st api.State, text string) api.Event {
		return api.Event{Time: at(s), Step: step, State: st, Text: text}
	}
	up := []api.Event{ev(1, api.StepScript, api.StateDone, ""), ev(9, api.StepHandover, api.StateDone, ""), ev(12, api.StepLogin, api.StateDone, "")}
	for _, c := range []struct {
		name   string
		events []api.Event
		heard  time.Time
		since  time.Time
		now    float64
		want   api.Progress
	}{
		{"firmware", []api.Event{ev(1, api.StepDHCP, api.StateDone, "")}, time.Time{}, start, 5, api.Progress{Condition: api.Booting, Step: api.StepDHCP, Since: at(1)}},
		{"a remark is no step", []api.Event{ev(1, api.StepRoot, api.StateStart, ""), ev(2, api.StepServer, api.StateNote, "x")}, time.Time{}, start, 5, api.Progress{Condition: api.Booting, Step: api.StepRoot, Since: at(1)}},
		{"failed", []api.Event{ev(3, api.StepRoot, api.StateFailed, "refused")}, time.Time{}, start, 5, api.Progress{Condition: api.Failed, Step: api.StepRoot, Since: at(3), Text: "refused"}},
		{"went on after a failure", []api.Event{ev(3, api.StepServer, api.StateFailed, "x"), ev(4, api.StepRoot, api.StateStart, "")}, time.Time{}, start, 5, api.Progress{Condition: api.Booting, Step: api.StepRoot, Since: at(4)}},
		{"handed over", up[:2], time.Time{}, start, 15, api.Progress{Condition: api.Booting, Step: api.StepHandover, Since: at(9)}},
		{"without a login", up[:2], time.Time{}, start, 9000, api.Progress{Condition: api.Running, Step: api.StepHandover, Since: at(9)}},
		{"running", up, time.Time{}, start, 9000, api.Progress{Condition: api.Running, Step: api.StepLogin, Since: at(12)}},
		{"agent listens", up, at(8950), start, 9000, api.Progress{Condition: api.Running, Step: api.StepLogin, Since: at(12)}},
		{"agent gone", up, at(100), start, 9000, api.Progress{Condition: api.Off, Step: api.StepLogin, Since: at(100), Text: "its agent was last heard then"}},
		{"appliance was not there to hear it", up, at(100), at(8950), 9000, api.Progress{Condition: api.Running, Step: api.StepLogin, Since: at(12)}},
		{"disk was booted", []api.Event{ev(1, api.StepDHCP, api.StateDone, "")}, time.Time{}, start, 9000, api.Progress{Condition: api.Off, Step: api.StepDHCP, Since: at(1), Text: "it did not fetch what it was told to load: a firewall in the way, or a bad cable"}},
		{"does not take its address", []api.Event{ev(1, api.StepDHCP, api.StateStart, "")}, time.Time{}, start, 90, api.Progress{Condition: api.Booting, Step: api.StepDHCP, Since: at(1), Text: "it did not take the address that it was offered: another server's, or a bad cable"}},
		{"loader does not get through", []api.Event{ev(1, api.StepDHCP, api.StateDone, ""), ev(2, api.StepLoader, api.StateDone, "")}, time.Time{}, start, 90, api.Progress{Condition: api.Booting, Step: api.StepLoader, Since: at(2), Text: "its loader did not ask for the boot script: a firewall before the HTTP port, or Secure Boot refused the loader"}},
		{"loads no kernel", []api.Event{ev(1, api.StepScript, api.StateDone, "")}, time.Time{}, start, 90, api.Progress{Condition: api.Booting, Step: api.StepScript, Since: at(1), Text: "it did not load the kernel that its boot script names"}},
		{"loads slowly", []api.Event{ev(1, api.StepScript, api.StateDone, ""), ev(80, api.StepKernel, api.StateNote, "kernel")}, time.Time{}, start, 90, api.Progress{Condition: api.Booting, Step: api.StepScript, Since: at(1)}},
		{"takes its time", []api.Event{ev(1, api.StepKernel, api.StateDone, "")}, time.Time{}, start, 90, api.Progress{Condition: api.Booting, Step: api.StepKernel, Since: at(1)}},
		{"hangs", []api.Event{ev(1, api.StepKernel, api.StateDone, "")}, time.Time{}, start, 9000, api.Progress{Condition: api.Failed, Step: api.StepKernel, Since: at(1), Text: "no word since"}},
		{"waits for a person", []api.Event{ev(1, api.StepSystem, api.StateStart, "")}, time.Time{}, start, 9000, api.Progress{Condition: api.Booting, Step: api.StepSystem, Since: at(1)}},
		{"nothing yet", nil, time.Time{}, start, 5, api.Progress{Condition: api.Booting, Step: api.StepDHCP, Since: start}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := api.Node{Boots: []api.Boot{{Started: start, Heard: c.heard, Events: c.events}}}
			settle(&n.Boots[0])
			if diff := cmp.Diff(c.want, Progress(n, c.since, at(c.now))); diff != "" {
				t.Errorf("Progress (-want +got):\n%s", diff)
			}
		})
	}
	queued := api.Node{Seen: at(85), Boots: []api.Boot{{Started: start, Last: ev(1, api.StepLoader, api.StateDone, ""), Word: at(2)}}}
	if p := Progress(queued, start, at(90)); p.Text != "" {
		t.Errorf("of a machine that waits for its turn and was seen 5 s ago it is said: %s", p.Text)
	}
	if p := Progress(api.Node{}, start, start); p.Condition != api.Off {
		t.Errorf("a node without boots is %s, want off", p.Condition)
	}
}

// tenThousand writes the state of a large site: each node with a typical boot
// and an older one.
func tenThousand(t testing.TB, file string) {
	t.Helper()
	store, err := bolt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	var events []api.Event
	for k, s := range slices.Repeat(order, 2) {
		events = append(events, api.Event{Step: s, State: api.StateDone, Text: "some words about the step", Uptime: float64(k), Time: time.Unix(int64(k), 0)})
	}
	boot := encode(api.Boot{Events: events})
	err = store.Update(context.Background(), func(tx state.Tx) error {
		for k := range 10_000 {
			n := api.Node{
				Name: fmt.Sprintf("pc%05d", k), MACs: []string{fmt.Sprintf("52:54:00:00:%02x:%02x", k>>8, k&255)}, UUID: fmt.Sprintf("aabbccdd-0000-1111-2222-3333%08x", k),
				Serial: fmt.Sprintf("SN%07d", k), Groups: []string{"room1"}, Hardware: &api.Facts{CPU: "a processor", Disks: []api.Disk{{Name: "sda", Model: "a disk"}}, NICs: []api.NIC{{Name: "eth0"}}},
				Boots: []api.Boot{{ID: fmt.Sprintf("%016x", k), Last: events[len(events)-1]}}, Older: []string{fmt.Sprintf("ff%014x", k)},
			}
			if err := tx.Put(bucket, n.Name, encode(n)); err != nil {
				return err
			}
			for _, id := range []string{n.Boots[0].ID, n.Older[0]} {
				if err := tx.Put(bucketBoots, id, boot); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// raceCost is how many times slower the race detector makes things, generously.
const raceCost = 8

// processorTime is what this process has used: unlike a clock's, its differences
// do not depend on what else the machine does.
func processorTime(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestTenThousandNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a large file")
	}
	file := t.TempDir() + "/state"
	tenThousand(t, file)
	limit := func(what string, bound time.Duration, f func()) {
		t.Helper()
		if raceEnabled {
			bound *= raceCost
		}
		runtime.GC()
		start, before := time.Now(), processorTime(t)
		f()
		took := processorTime(t) - before
		t.Logf("%s: %v, %v of processor time", what, time.Since(start), took)
		if took > bound {
			t.Errorf("%s takes %v, want at most %v", what, took, bound)
		}
	}
	var r *Registry
	limit("Open", 2*time.Second, func() { r = open(t, file) })
	limit("List", time.Second, func() {
		if n := len(r.List()); n != 10_000 {
			t.Errorf("%d nodes", n)
		}
	})
	limit("1,000 look-ups of new cards by UUID, serial and not at all", 100*time.Millisecond, func() {
		for k := range 1000 {
			if _, ok := r.Find(Facts{MAC: mac1[:3], UUID: fmt.Sprintf("aabbccdd-0000-1111-2222-3333%08x", k)}); !ok {
				t.Fatal("not found by UUID")
			}
			if _, ok := r.Find(Facts{MAC: mac1[:3], Serial: fmt.Sprintf("SN%07d", k)}); !ok {
				t.Fatal("not found by serial")
			}
			if _, ok := r.Find(Facts{MAC: "x"}); ok {
				t.Fatal("found without a reason")
			}
		}
	})
	limit("Select by glob", 100*time.Millisecond, func() {
		if n, err := r.Select("pc0001?"); len(n) != 10 || err != nil {
			t.Errorf("%d nodes, %v", len(n), err)
		}
	})
	limit("Get", 20*time.Millisecond, func() {
		if n, err := r.Get("pc00042"); err != nil || len(n.Boots) != 2 || len(n.Boots[0].Events) != 2*len(order) {
			t.Errorf("%+v, %v", n, err)
		}
	})
}

// A node is told once to be installed: until a machine says that it was.
func TestInstallOnce(t *testing.T) {
	store, err := bolt.Open(t.TempDir() + "/state")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	r, err := Open(t.Context(), store, nil, func(string, string) string { return "pc1" })
	if err != nil {
		t.Fatal(err)
	}
	r.Seen(Facts{MAC: mac1})
	install := true
	if _, err := r.Change(t.Context(), api.Change{Targets: api.Targets{Targets: []string{"pc1"}}, Install: &install}); err != nil {
		t.Fatal(err)
	}
	_, boot, _ := r.Script(Facts{MAC: mac1}, "demo/1", "")
	want := func(want bool, after string) {
		t.Helper()
		if n, err := r.Get("pc1"); err != nil || n.Install != want {
			t.Errorf("after %s: install = %v, %v; want %v", after, n.Install, err, want)
		}
	}
	want(true, "the start")
	for _, s := range []api.State{api.StateStart, api.StateFailed} {
		r.Report(boot, api.Event{Step: api.StepInstall, State: s})
		want(true, string(s))
	}
	r.Report(boot, api.Event{Step: api.StepInstall, State: api.StateDone})
	want(false, "the end")
}

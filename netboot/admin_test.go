// SPDX-License-Identifier: GPL-2.0-or-later

package netboot_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"slate/images"
	"slate/netboot"
	"slate/netboot/api"
	"slate/testbed/netns"
)

// bootID lets a machine ask for its script, and returns the id of its boot.
func bootID(t *testing.T, query string) string {
	t.Helper()
	resp, err := http.Get("http://" + labAddr + ":8070/boot.ipxe?" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`slate\.boot=([0-9a-f]{16}) `).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no boot id in the script:\n%s", text)
	}
	return string(m[1])
}

// What a machine reports, and an order to it, over the network as in a real boot.
func TestFactsAndOrders(t *testing.T) {
	s := newAppliance(t)
	stop := start(t, s)
	machine := &api.Client{Base: "http://" + labAddr + ":8070"}
	admin := api.DialAdmin(filepath.Join(s.Settings.Data, api.AdminSocket))
	id := bootID(t, "mac=52:54:00:aa:bb:cc")
	if err := machine.PostFacts(t.Context(), id, api.Facts{CPU: "c", Disks: []api.Disk{{Name: "sda", Serial: "D1", Size: 5}}}); err != nil {
		t.Fatal(err)
	}
	n, err := admin.Node(t.Context(), "node-aabbcc")
	if err != nil || n.Hardware == nil || n.Hardware.Disks[0].Serial != "D1" || n.Boots[0].ID != id {
		t.Errorf("node = %+v, %v", n, err)
	}
	st, err := machine.Status(t.Context())
	if err != nil || st.Nodes[0].Boots[0].ID != "" || len(st.Nodes[0].Boots[0].Events) == 0 {
		t.Errorf("the status on the network has %+v, %v, want steps and no id", st.Nodes, err)
	}

	// What it runs by is not what it is to run by: it is told so at once.
	if o, err := machine.WaitOrder(t.Context(), id, 0); err != nil || o.Do != api.OrderConfig {
		t.Errorf("order of a machine without a configuration = %v, %v, want %s", o, err, api.OrderConfig)
	}
	keys, err := images.LoadPublicKeys(s.Settings.Key + netboot.PublicKeySuffix)
	if err != nil {
		t.Fatal(err)
	}
	revision := fetchBundle(t, keys, id).Revision
	report := api.Report{Version: "demo/1", Config: api.ConfigReport{Revision: revision, Waits: []string{"a"}}}
	if err := machine.PostReport(t.Context(), id, report); err != nil {
		t.Fatal(err)
	}
	if n, err := admin.Node(t.Context(), "node-aabbcc"); err != nil || n.Report == nil || n.Report.Config.Revision != revision || n.Report.Time.IsZero() || n.Assigned != "demo/1" {
		t.Errorf("after its report the node is %+v, %v", n, err)
	}
	report.Load = -1
	if err := machine.PostReport(t.Context(), id, report); err == nil {
		t.Error("a report with an impossible load is taken")
	}

	got := make(chan api.Order, 1)
	go func() {
		o, err := machine.WaitOrder(t.Context(), id, revision)
		if err != nil {
			t.Error(err)
		}
		got <- o
	}()
	deadline := time.After(20 * time.Second)
	for ordered := false; !ordered; { // it takes a moment until the machine listens
		done, err := admin.Act(t.Context(), "reboot", "node-aabbcc")
		if err != nil || len(done) != 1 {
			t.Fatalf("reboot = %v, %v", done, err)
		}
		ordered = done[0].Error == ""
		select {
		case <-deadline:
			t.Fatalf("no order is taken: %v", done)
		default:
		}
	}
	if o := <-got; o.Do != api.OrderReboot {
		t.Errorf("order = %v, want reboot", o)
	}

	// A change of config.d reaches a machine that waits.
	go func() {
		o, err := machine.WaitOrder(t.Context(), id, revision)
		if err != nil {
			t.Error(err)
		}
		got <- o
	}()
	if err := os.WriteFile(filepath.Join(s.Settings.ConfigD, "system/fstab.conf"), []byte("[[mount]]\nwhat = \"none\"\nwhere = \"/mnt/x\"\ntype = \"tmpfs\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if o := <-got; o.Do != api.OrderConfig {
		t.Errorf("order = %v, want %s", o, api.OrderConfig)
	}
	revision = fetchBundle(t, keys, id).Revision

	// A machine that waits does not keep the appliance from ending.
	waiting := make(chan error, 1)
	go func() { _, err := machine.WaitOrder(t.Context(), id, revision); waiting <- err }()
	began := time.Now()
	stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the appliance took %v to end", took)
	}
	<-waiting
	if _, err := os.Stat(filepath.Join(s.Settings.Data, api.AdminSocket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after the end: %v, want it gone", err)
	}
}

// A magic packet reaches a machine on the nodes' network.
func TestWake(t *testing.T) {
	s := newAppliance(t)
	start(t, s)
	bootID(t, "mac=52:54:00:aa:bb:cc")
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	sleeper, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer sleeper.Close()
	if err := errors.Join(ns.Veth("port0", sleeper, "eth0"), ns.Attach("port0", "lab0"), ns.Up("port0"), sleeper.Up("eth0"),
		sleeper.Address("eth0", netip.MustParsePrefix("10.77.0.9/24"))); err != nil {
		t.Fatal(err)
	}
	var card net.PacketConn
	if err := sleeper.Do(func() (err error) { card, err = net.ListenPacket("udp4", ":9"); return err }); err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	admin := api.DialAdmin(filepath.Join(s.Settings.Data, api.AdminSocket))
	b := make([]byte, 200)
	k, err := 0, os.ErrDeadlineExceeded
	for range 40 { // the port of a bridge needs a moment before it forwards
		done, actErr := admin.Act(t.Context(), "wake", "*")
		if actErr != nil || len(done) != 1 || !strings.Contains(done[0].Text, "52:54:00:aa:bb:cc") {
			t.Fatalf("wake = %v, %v", done, actErr)
		}
		card.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if k, _, err = card.ReadFrom(b); err == nil {
			break
		}
	}
	want := append(bytes.Repeat([]byte{0xff}, 6), bytes.Repeat([]byte{0x52, 0x54, 0, 0xaa, 0xbb, 0xcc}, 16)...)
	if err != nil || !bytes.Equal(b[:k], want) {
		t.Errorf("the card hears %x, %v, want %x", b[:k], err, want)
	}
}

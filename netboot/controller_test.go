// SPDX-License-Identifier: GPL-2.0-or-later

package netboot_test

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
	"time"

	"slate/images"
	"slate/images/store"
	cmdline "slate/installer/machine"
	"slate/installer/servers"
	"slate/netboot"
	"slate/netboot/api"
)

// The controller's half and the appliance's understand each other: the proof of
// the key, what the appliance has, the greeting, events, and a restart that has
// forgotten the boot.
func TestControllerAndAppliance(t *testing.T) {
	s := newAppliance(t)
	stop := start(t, s)
	st, err := store.Open(s.Settings.Data, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := st.Resolve(images.Ref{Name: "demo", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := images.LoadPublicKeys(s.Settings.Key + netboot.PublicKeySuffix)
	if err != nil {
		t.Fatal(err)
	}
	other, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	var list []cmdline.Server
	for _, word := range []string{"http://" + labAddr + ":1", "http://" + labAddr + ":8070,weight=2"} {
		one, err := cmdline.ParseServer(word)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, one)
	}
	measure := cmdline.Measure{Timeout: 5 * time.Second, Samples: 3}
	for _, c := range []struct {
		name   string
		keys   []ed25519.PublicKey
		tree   string
		usable bool
		why    string
	}{
		{"good", keys, rec.Tree.String(), true, "answers in"},
		{"another site's key", []ed25519.PublicKey{other.Public().(ed25519.PublicKey)}, "", false, "not trusted here"},
		{"another image", keys, strings.Repeat("ab", 32), false, "does not have lab/9"},
	} {
		p := servers.Probe{Measure: measure, Keys: c.keys, Tree: c.tree, Name: "lab/9"}
		ranked := servers.Rank(p.All(t.Context(), list), "pc1")
		i := slices.IndexFunc(ranked, func(r servers.Ranked) bool { return r.Server.URL.Port() == "8070" })
		if r := ranked[i]; r.Usable() != c.usable || !strings.Contains(r.Why, c.why) || c.usable && (i != 0 || r.Load.NFSPort != 2049) {
			t.Errorf("%s: place %d, usable %v: %s", c.name, i, r.Usable(), r.Why)
		}
	}

	f := servers.NewFleet(list, "unknown")
	f.Introduce(api.Hello{MAC: "52:54:00:00:00:09", Image: "demo/1", From: "elsewhere"})
	post := func(text string) {
		t.Helper()
		if err := f.Post(t.Context(), api.Event{Step: api.StepRoot, State: api.StateNote, Text: text, Uptime: 3}); err != nil {
			t.Fatal(err)
		}
	}
	post("the first server is dead")
	u, boot := f.Known()
	if u.Port() != "8070" || boot == "" {
		t.Fatalf("Known = %s %q", u, boot)
	}
	f.Adopt(u, "0123456789abcdef") // as if the appliance had lost its state
	post("it is told again")
	status, err := (&api.Client{Base: u.String()}).Status(t.Context())
	if err != nil || len(status.Nodes) != 1 || len(status.Nodes[0].Boots) == 0 {
		t.Fatalf("status: %+v, %v", status.Nodes, err)
	}
	var got []string
	for _, e := range status.Nodes[0].Boots[0].Events {
		got = append(got, e.Text)
	}
	for _, want := range []string{"demo/1, came from elsewhere", "it is told again"} {
		if !slices.Contains(got, want) {
			t.Errorf("the timeline lacks %q: %q", want, got)
		}
	}
	stop()
	if err := f.Post(t.Context(), api.Event{Step: api.StepRoot, State: api.StateNote}); err == nil {
		t.Error("an event was delivered with no server there")
	}
}

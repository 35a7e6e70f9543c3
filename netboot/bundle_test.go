// SPDX-License-Identifier: GPL-2.0-or-later

package netboot_test

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/images"
	"slate/netboot"
	"slate/netboot/api"
	"slate/netboot/config"
)

func fetchBundle(t *testing.T, keys []ed25519.PublicKey, boot string) config.Bundle {
	t.Helper()
	c, err := api.Secure(t.Context(), "http://"+labAddr+":8070", keys)
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.Config(t.Context(), boot, config.MaxBundle)
	if err != nil {
		t.Fatal(err)
	}
	b, err := config.OpenBundle(keys, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A node gets what slate config explain says of it, under a number that changes
// only with the content, also over a restart of the appliance.
func TestBundle(t *testing.T) {
	s := newAppliance(t)
	keys, err := images.LoadPublicKeys(s.Settings.Key + netboot.PublicKeySuffix)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Settings.ConfigD, "nodes/node-aabbcc/system/etc.conf")
	write := func(text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("timezone = \"UTC\"\n")
	stop := start(t, s)
	id := bootID(t, "mac=52:54:00:aa:bb:cc")
	first := fetchBundle(t, keys, id)
	if first.Node != "node-aabbcc" || first.Revision <= 0 {
		t.Errorf("bundle of %q, revision %d", first.Node, first.Revision)
	}
	n, err := first.Config()
	if err != nil {
		t.Fatal(err)
	}
	site, err := config.Load(os.DirFS(s.Settings.ConfigD))
	if err != nil {
		t.Fatal(err)
	}
	// Where builds come from is no node's business, and does not travel.
	ofNodes := func(values []config.Value) []config.Value {
		return slices.DeleteFunc(values, func(v config.Value) bool { return strings.HasPrefix(v.File, "sources/") })
	}
	if diff := cmp.Diff(ofNodes(site.Node("node-aabbcc").Explain()), ofNodes(n.Explain())); diff != "" {
		t.Errorf("the node is configured otherwise than explained (-explained +node):\n%s", diff)
	}
	if again := fetchBundle(t, keys, id); again.Revision != first.Revision {
		t.Errorf("the same content has the revisions %d and %d", first.Revision, again.Revision)
	}

	write("timezone = \"Europe/Berlin\"\n")
	second := fetchBundle(t, keys, id)
	if second.Revision <= first.Revision {
		t.Errorf("after a change the revision is %d, before it was %d", second.Revision, first.Revision)
	}
	stop()
	start(t, &netboot.Server{Settings: s.Settings})
	if after := fetchBundle(t, keys, bootID(t, "mac=52:54:00:aa:bb:cc")); after.Revision != second.Revision {
		t.Errorf("after a restart the revision is %d, before it was %d", after.Revision, second.Revision)
	}
	plain := &api.Client{Base: "http://" + labAddr + ":8070"}
	if _, err := plain.Config(t.Context(), bootID(t, "mac=52:54:00:aa:bb:cc"), config.MaxBundle); err == nil || !strings.Contains(err.Error(), "ask by TLS") {
		t.Errorf("over plain HTTP: %v, want a refusal", err)
	}
	c, err := api.Secure(t.Context(), plain.Base, keys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Config(t.Context(), "0123456789abcdef", config.MaxBundle); err == nil || !strings.Contains(err.Error(), "no such boot") {
		t.Errorf("the bundle of no boot: %v", err)
	}
}

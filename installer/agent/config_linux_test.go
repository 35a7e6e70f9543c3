// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/images"
	"slate/installer/bootpart"
	"slate/installer/live"
	"slate/netboot/config"
)

// What becomes of bundles that come while the machine runs: applied, kept, named, and
// refused as at the start.
func TestReconfigure(t *testing.T) {
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kept := filepath.Join(dir, BootDir, bootpart.ConfigDir)
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, KeysFile), images.FormatPublicKey(key), 0o644); err != nil {
		t.Fatal(err)
	}
	bundle := func(revision int64, zone string) config.Bundle {
		return config.Bundle{Format: 1, Node: "pc1", Revision: revision, Files: map[string][]byte{"system/etc.conf": []byte("timezone = \"" + zone + "\"\n")}}
	}
	first := bundle(5, "UTC").Sign(key)
	if err := os.WriteFile(filepath.Join(dir, BundleFile), first, 0o600); err != nil {
		t.Fatal(err)
	}
	var asked []live.Input
	answer := live.Result{Done: []string{"mount /mnt/x"}, Failed: []live.Failed{{What: "mount /mnt/y", Why: "busy"}}, Waits: []string{"system/etc.conf timezone"}}
	a := &Agent{Dir: dir, Log: new(bytes.Buffer), Live: func(_ context.Context, in live.Input) (live.Result, error) {
		asked = append(asked, in)
		return answer, nil
	}}
	a.defaults("pc1")
	a.loadConfig("the appliance")
	if a.seenRevision() != 5 {
		t.Fatalf("seen %d at the start, want 5", a.seenRevision())
	}
	for _, c := range []struct {
		name  string
		data  []byte
		err   error
		want  string
		seen  int64
		waits []string
	}{
		{"nobody answers", nil, errors.New("no route"), "no route", 5, nil},
		{"the same", first, nil, "revision 5, as before", 5, nil},
		{"forged", bundle(9, "X").Sign(stranger), nil, "refused", 5, nil},
		{"older", bundle(4, "X").Sign(key), nil, "refused", 5, nil},
		{"another's", config.Bundle{Format: 1, Node: "pc2", Revision: 9}.Sign(key), nil, "refused", 5, nil},
		{"new", bundle(6, "Etc/GMT").Sign(key), nil, "done: mount /mnt/x; waits for a restart: system/etc.conf timezone, mount /mnt/y: busy", 6, []string{"system/etc.conf timezone", "mount /mnt/y: busy"}},
	} {
		text, err := a.reconfigure(t.Context(), "pc1", func(context.Context) ([]byte, error) { return c.data, c.err })
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, c.want) || a.seenRevision() != c.seen {
			t.Errorf("%s: %q, seen %d; want %q, %d", c.name, text, a.seenRevision(), c.want, c.seen)
		}
		if d := cmp.Diff(c.waits, a.configReport().Waits); d != "" {
			t.Errorf("%s: waits (-want +got):\n%s", c.name, d)
		}
	}
	// What had failed is done now, and nothing waits any more.
	answer = live.Result{Done: []string{"mount /mnt/y"}}
	last := bundle(7, "UTC").Sign(key)
	if text, err := a.reconfigure(t.Context(), "pc1", func(context.Context) ([]byte, error) { return last, nil }); err != nil || text != "configuration revision 7; done: mount /mnt/y" {
		t.Errorf("at last: %q, %v", text, err)
	}
	if len(asked) != 2 || asked[1].Boot.Revision != 5 || asked[1].Last.Revision != 6 || asked[1].Next.Revision != 7 {
		t.Errorf("%d changes of the running system: %+v", len(asked), asked)
	}
	if got, err := os.ReadFile(filepath.Join(kept, "bundle")); err != nil || !bytes.Equal(got, last) {
		t.Errorf("the bundle on the boot partition: %d bytes, %v, want the last one", len(got), err)
	}
}

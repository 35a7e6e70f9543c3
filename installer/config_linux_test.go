// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"slate/images"
	"slate/installer/machine"
	"slate/installer/root"
	"slate/installer/servers"
	"slate/netboot/api"
	"slate/netboot/config"
)

// One machine with a disk over several starts: it takes what its site signed, keeps
// it, goes on with it when nobody answers, and refuses what was changed or is older.
func TestConfigure(t *testing.T) {
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	bundle := func(revision int64, timeout string) []byte {
		s, err := config.Load(fstest.MapFS{"system/boot.conf": {Data: []byte("timeout = " + timeout + "\nmode = \"diskless\"\n")}})
		if err != nil {
			t.Fatal(err)
		}
		b := s.Bundle(config.Scope{Node: "pc1"})
		b.Revision = revision
		return b.Sign(key)
	}
	var answer []byte
	status := http.StatusOK
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != api.ConfigPath("b1") {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(status)
		w.Write(answer)
	}))
	defer secure.Close()
	port := secure.Listener.Addr().(*net.TCPAddr).Port
	pin := api.Secured{Port: port, Pin: api.PinOf(secure.Certificate())}.Sign(key)
	appliance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != api.PathTLS {
			t.Errorf("asked for %s without TLS", r.URL.Path)
		}
		w.Write(pin)
	}))
	defer appliance.Close()
	server, err := url.Parse(appliance.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pub := filepath.Join(dir, siteKeys)
	if err := os.MkdirAll(filepath.Dir(pub), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := images.WritePublicKey(pub, key); err != nil {
		t.Fatal(err)
	}
	start := func(configDir string) (*Boot, error) {
		b := &Boot{Root: dir, ConfigDir: configDir, Fleet: servers.NewFleet([]machine.Server{{URL: server, Weight: 1}}, "b1")}
		b.Settings = machine.ParseCmdline("slate.node=pc1")
		return b, configure(t.Context(), b)
	}
	kept := t.TempDir()
	good, newer := bundle(10, "11"), bundle(20, "22")
	for _, step := range []struct {
		name    string
		answer  []byte
		status  int
		dir     string
		timeout int
		mode    machine.Mode
		err     string
		log     string
		starts  bool // diskless
	}{
		{"first", good, 200, kept, 11, machine.Diskless, "", "configured by the appliance, revision 10", true},
		{"newer", newer, 200, kept, 22, machine.Diskless, "", "configured by the appliance, revision 20", true},
		{"no answer", []byte("down for today"), 404, kept, 22, machine.Diskless, "", "down for today (not found)\n", true},
		{"older", good, 200, kept, 22, machine.Diskless, "its revision is 10, older than 20", "going on with the copy kept on this machine", false},
		{"changed on the way", bytes.Replace(newer, []byte(`"node"`), []byte(`"Node"`), 1), 200, kept, 22, machine.Diskless, "was altered", "going on with the copy", false},
		{"changed, nothing kept", append(bytes.Clone(newer), '\n'), 200, "", 10, machine.Ask, "was altered", "going on with the defaults", false},
		{"no answer, nothing kept", nil, 404, "", 10, machine.Ask, "", "configured by the defaults", true},
	} {
		answer, status = step.answer, step.status
		b, err := start(step.dir)
		if got := b.config().Boot.Timeout; got != step.timeout || b.Settings.Timeout != time.Duration(step.timeout)*time.Second || b.Settings.Mode != step.mode {
			t.Errorf("%s: timeout %d and %v, mode %s; want %d, %s", step.name, got, b.Settings.Timeout, b.Settings.Mode, step.timeout, step.mode)
		}
		if (err != nil) != (step.err != "") || err != nil && !strings.Contains(err.Error(), step.err) {
			t.Errorf("%s: configure() = %v, want %q", step.name, err, step.err)
		}
		if !strings.Contains(b.Log(), step.log) {
			t.Errorf("%s: the log lacks %q:\n%s", step.name, step.log, b.Log())
		}
		if err := b.checkRefused(); (err == nil) != step.starts {
			t.Errorf("%s: a diskless start is refused with %v, want %v", step.name, err, !step.starts)
		}
		b.Lower = root.Lower{Slot: machine.Mount{What: "/dev/vda2", Type: "ext4"}}
		if err := b.checkRefused(); err != nil {
			t.Errorf("%s: a node with a good slot is kept from starting: %v", step.name, err)
		}
	}
}

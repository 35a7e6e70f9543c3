// SPDX-License-Identifier: GPL-2.0-or-later

package grub_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/netboot/grub"
	"slate/testbed/golden"
	"slate/testbed/labtest"
)

func configs(t *testing.T) map[string][]byte {
	t.Helper()
	c, err := grub.New()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	keep := func(name string, text []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		out[name] = text
	}
	text, err := c.Main("10.77.0.1")
	keep("main", text, err)
	text, err = c.Boot(grub.Boot{
		Node: "node-123456", Image: "demo/3", BootID: "0123456789abcdef", Server: "10.77.0.1",
		Kernel: "boot/aa/kernel", Initrds: []string{"boot/bb/controller.cpio", "boot/cc/modules.cpio"},
		Cmdline: []string{"console=ttyS0,115200", "quiet", `odd="it's;so"`, "slate.server=http://10.77.0.1:8070"},
	})
	keep("boot", text, err)
	text, err = c.Wait("node-123456", 3, 5*time.Second)
	keep("wait", text, err)
	text, err = c.Refuse("node-123456", "no image; reboot $x \"y\" 'z'\nsecond line", "publish one with: slate image publish demo")
	keep("refuse", text, err)
	return out
}

func TestConfigs(t *testing.T) {
	for name, text := range configs(t) {
		golden.Check(t, "testdata/"+name+".cfg.golden", text)
		if name == "wait" {
			continue
		}
		if !strings.Contains(string(text), "\n\t\tchainloader $loader\n") || !strings.HasSuffix(string(text), "\nexit 1\n") {
			t.Errorf("%s does not end in the loader of a drive, or else in the firmware", name)
		}
	}
}

// GRUB's own parser takes every configuration.
func TestSyntax(t *testing.T) {
	labtest.Need(t, "grub-script-check")
	for name, text := range configs(t) {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("grub-script-check", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestNodeMAC(t *testing.T) {
	for file, want := range map[string]string{
		"grub/node-52:54:5a:1e:01:01.cfg":       "52:54:5a:1e:01:01",
		"grub/node-52:54:5A:1E:01:01.cfg":       "52:54:5a:1e:01:01",
		"grub/node-.cfg":                        "",
		"grub/node-52:54:5a:1e:01:01":           "",
		"grub/grub.cfg":                         "",
		"grub/node-00:00:00:00:00:00:00:01.cfg": "",
	} {
		mac, ok := grub.NodeMAC(file)
		if ok != (want != "") || (ok && mac.String() != want) {
			t.Errorf("NodeMAC(%q) = %v, %v, want %q", file, mac, ok, want)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package root_test

import (
	"os"
	"path/filepath"
	"testing"

	"slate/installer/root"
)

func TestSpare(t *testing.T) {
	const openrc = "start()\n{\n\tkill_all 15 ${killall5_opts}\n}\n"
	for _, tt := range []struct{ name, script, conf, want string }{
		{name: "systemd"},
		{name: "System V", script: "killall5 -15\n"},
		{name: "OpenRC", script: openrc, conf: "# options", want: "# options\nkillall5_opts=\"${killall5_opts} -o 77\" # the agent that the root may hang on\n"},
		{name: "OpenRC without settings", script: openrc, want: "\nkillall5_opts=\"${killall5_opts} -o 77\" # the agent that the root may hang on\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"etc/init.d/killprocs": tt.script, "etc/conf.d/killprocs": tt.conf} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := root.Spare(dir, 77); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "run/sendsigs.omit.d/slate-agent")); err != nil || string(got) != "77\n" {
				t.Errorf("the numbers that are omitted are %q, %v", got, err)
			}
			if got, _ := os.ReadFile(filepath.Join(dir, "etc/conf.d/killprocs")); string(got) != tt.want {
				t.Errorf("conf.d/killprocs is %q, want %q", got, tt.want)
			}
		})
	}
}

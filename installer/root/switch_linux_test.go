// SPDX-License-Identifier: GPL-2.0-or-later

package root_test

import (
	"os"
	"path/filepath"
	"testing"

	"slate/installer/root"
)

func TestFindInit(t *testing.T) {
	for _, tt := range []struct {
		name, link, program, wanted string
		want                        string // "": an error
	}{
		{"the usual", "", "sbin/init", "", "/sbin/init"},
		{"a link that leads nowhere from here", "sbin/init", "", "", "/sbin/init"},
		{"systemd without a link", "", "usr/lib/systemd/systemd", "", "/usr/lib/systemd/systemd"},
		{"asked for", "", "bin/sh", "/bin/sh", "/bin/sh"},
		{"asked for and not there", "", "sbin/init", "/bin/sh", ""},
		{"none", "", "bin/sh", "", ""},
	} {
		dir := t.TempDir()
		for _, name := range []string{tt.link, tt.program} {
			if name == "" {
				continue
			}
			name = filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			var err error
			if tt.link != "" {
				err = os.Symlink("/lib/systemd/systemd", name)
			} else {
				err = os.WriteFile(name, nil, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := root.FindInit(dir, tt.wanted)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: FindInit() = %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

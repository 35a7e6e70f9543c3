// SPDX-License-Identifier: GPL-2.0-or-later

package root_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"slate/installer/root"
)

func TestEndHook(t *testing.T) {
	const program = root.Program + " ended"
	for _, c := range []struct {
		name string
		tree fstest.MapFS
		want []string // paths
		text string
	}{
		{"systemd", fstest.MapFS{"usr/lib/systemd/systemd": {}}, []string{"/etc/systemd/system/slate-end.service", "/etc/systemd/system/sysinit.target.wants/slate-end.service"}, "ExecStop=" + program + "\n"},
		{"Debian's OpenRC", fstest.MapFS{"sbin/openrc": {}, "etc/runlevels/boot": dir(), "etc/runlevels/default/ssh": {}}, []string{"/etc/init.d/slate-end", "/etc/runlevels/default/slate-end"}, "stop() {\n\t" + program + "\n"},
		{"OpenRC", fstest.MapFS{"sbin/openrc": {}, "etc/runlevels/boot/bootmisc": {}}, []string{"/etc/init.d/slate-end", "/etc/runlevels/boot/slate-end"}, "stop() {\n\t" + program + "\n"},
		{"another", fstest.MapFS{}, nil, ""},
	} {
		var got []string
		text := ""
		for _, change := range root.EndHook(c.tree, program) {
			got, text = append(got, change.Path), text+change.Text
		}
		if strings.Join(got, " ") != strings.Join(c.want, " ") || !strings.Contains(text, c.text) {
			t.Errorf("%s: %v, want %v; text\n%s", c.name, got, c.want, text)
		}
		// Debian has no localmount, and OpenRC does not start what needs something that is
		// not there.
		if strings.Contains(text, "need ") {
			t.Errorf("%s needs a service that not every system has:\n%s", c.name, text)
		}
	}
}

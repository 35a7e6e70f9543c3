// SPDX-License-Identifier: GPL-2.0-or-later

package lint

import (
	"context"
	"path"
	"strings"

	"slate/builder/initramfs"
)

// checkModules finds out whether the kernel has what a diskless node cannot do
// without. It packs nothing but looks as packing does.
func checkModules(l *linter) {
	k, err := initramfs.FindKernel(l.fsys)
	if err != nil || k.Modules == "" {
		return // checkKernel has said so
	}
	lacks, err := initramfs.Lacking(context.Background(), l.fsys, k.Release)
	if err != nil {
		l.add(Warning, "modules", k.Modules, "install the kernel's package again", "the modules cannot be read: %v", err)
		return
	}
	for _, what := range lacks {
		l.add(Error, "diskless-module", k.Modules, "take a kernel that has it, as a module or built in", "kernel %s has no %s: nodes cannot boot it diskless", k.Release, what)
	}
}

// readOnly are the directories that no node can write to.
var readOnly = []string{"/usr/", "/opt/", "/bin/", "/sbin/", "/lib/", "/boot/"}

func isReadOnly(p string) bool {
	for _, dir := range readOnly {
		if strings.HasPrefix(p+"/", dir) {
			return true
		}
	}
	return false
}

// writing are the settings of a systemd unit whose paths it writes to.
var writing = []string{"ReadWritePaths", "ReadWriteDirectories", "PIDFile"}

// checkWriters finds services that want to write where nothing can be written.
func checkWriters(l *linter) {
	for _, root := range []string{"etc/systemd/system", "usr/lib/systemd/system"} {
		for _, e := range l.list(root) {
			p := path.Join(root, e.Name())
			if e.IsDir() || path.Ext(p) != ".service" {
				continue
			}
			for line := range settings(l.read(p)) {
				key, value, _ := strings.Cut(line, "=")
				value, optional := strings.CutPrefix(strings.TrimSpace(value), "-")
				for _, w := range writing {
					if key == w && isReadOnly(value) && !optional {
						l.add(Warning, "writes-read-only", p, "let it write below /var, /run or /etc", "writes to %s, where nodes can write nothing", value)
					}
				}
			}
		}
	}
	for _, root := range []string{"etc/tmpfiles.d", "usr/lib/tmpfiles.d"} {
		for _, e := range l.list(root) {
			for line := range settings(l.read(path.Join(root, e.Name()))) {
				f := strings.Fields(line)
				// f, d and the like make something; z, x, r and others only change or remove.
				if len(f) > 1 && strings.ContainsAny(f[0][:1], "fdDvqQpLcbCw") && isReadOnly(f[1]) {
					l.add(Note, "writes-read-only", path.Join(root, e.Name()), "make it when the image is built", "makes %s at each start, where nodes can write nothing", f[1])
				}
			}
		}
	}
	for _, e := range l.list("etc/init.d") {
		for line := range settings(l.read(path.Join("etc/init.d", e.Name()))) {
			key, value, ok := strings.Cut(line, "=")
			if value = strings.Trim(value, `"'`); ok && (key == "pidfile" || key == "PIDFILE" || key == "output_log" || key == "error_log") && isReadOnly(value) {
				l.add(Warning, "writes-read-only", path.Join("etc/init.d", e.Name()), "let it write below /run or /var", "writes to %s, where nodes can write nothing", value)
			}
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package root

import "io/fs"

// EndHook makes the system run a program as the last thing before it unmounts what is
// kept, when it shuts down in order. An init system that is neither systemd nor
// OpenRC has none.
func EndHook(tree fs.FS, program string) []Change {
	switch DetectInit(tree) {
	case Systemd:
		const unit = "slate-end.service"
		return []Change{
			{Path: "/etc/systemd/system/" + unit, Text: `[Unit]
Description=Record that this machine was shut down in order (slate)
DefaultDependencies=no
RequiresMountsFor=` + UserData + ` /run/slate/boot
Before=sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStop=` + program + `
`},
			{Path: "/etc/systemd/system/sysinit.target.wants/" + unit, Link: "/etc/systemd/system/" + unit},
		}
	case OpenRC:
		// Debian has this runlevel, and never enters it.
		level := "boot"
		if entries, _ := fs.ReadDir(tree, "etc/runlevels/boot"); len(entries) == 0 {
			level = "default"
		}
		return []Change{
			{Path: "/etc/init.d/slate-end", Mode: 0o755, Text: `#!/sbin/openrc-run
description="Records that this machine was shut down in order (slate)"

depend() {
	after localmount mountall
	before bootmisc
	keyword -timeout
}

start() {
	return 0
}

stop() {
	` + program + `
}
`},
			{Path: "/etc/runlevels/" + level + "/slate-end", Link: "/etc/init.d/slate-end"},
		}
	}
	return nil
}

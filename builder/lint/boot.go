// SPDX-License-Identifier: GPL-2.0-or-later

package lint

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"slate/builder/initramfs"
)

func checkMtab(l *linter) {
	fi, err := fs.Lstat(l.fsys, "etc/mtab")
	if err != nil {
		return
	}
	if fi.Mode()&fs.ModeSymlink == 0 {
		l.add(Warning, "mtab", "etc/mtab", "make it a link to ../proc/self/mounts", "a file: mount writes into it, and it is wrong from the first boot on")
	}
}

// checkFstab looks for what the base's installation left: the root and drives
// of one machine. A missing drive makes systemd wait for it a minute and a half,
// then stop.
func checkFstab(l *linter) {
	rootLine := false
	for line := range settings(l.read("etc/fstab")) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		opts := strings.Split(f[3], ",")
		switch {
		case f[1] == "/":
			rootLine = true
			if !slices.Contains(opts, "ro") {
				l.add(Warning, "fstab-root", "etc/fstab", "remove the line, or make it ro", "mounts / again to write, from %s", f[0])
			}
		case slices.Contains([]string{"/proc", "/sys", "/run", "/dev"}, f[1]):
		case (strings.HasPrefix(f[0], "/dev/") || strings.Contains(f[0], "UUID=") || strings.Contains(f[0], "LABEL=")) && !slices.Contains(opts, "nofail") && !slices.Contains(opts, "noauto"):
			l.add(Warning, "fstab-drive", "etc/fstab", "remove the line, or add nofail", "%s on %s: nodes without that drive stop here", f[0], f[1])
		}
	}
	if l.sys.Init == "openrc" && !rootLine {
		l.add(Warning, "fstab-root", "etc/fstab", "add: rootfs / auto ro 0 0", "no line for /: OpenRC tries to make it writable")
	}
}

// checkLinks finds services that are switched on and not there.
func checkLinks(l *linter) {
	var dirs []string
	for _, e := range l.list("etc/systemd/system") {
		if strings.HasSuffix(e.Name(), ".wants") || strings.HasSuffix(e.Name(), ".requires") {
			dirs = append(dirs, path.Join("etc/systemd/system", e.Name()))
		}
	}
	for _, e := range l.list("etc/runlevels") {
		dirs = append(dirs, path.Join("etc/runlevels", e.Name()))
	}
	for _, dir := range dirs {
		for _, e := range l.list(dir) {
			p := path.Join(dir, e.Name())
			if _, err := fs.Stat(l.fsys, p); err != nil {
				l.add(Warning, "dangling-service", p, "remove the link, or install the service", "leads nowhere")
			}
		}
	}
}

// checkInstall finds out whether the image can be put on a machine's own drive. Many
// are only ever run diskless, so it is no warning.
func checkInstall(l *linter) {
	if lacks := initramfs.LackingTools(l.fsys); len(lacks) > 0 {
		l.add(Note, "not-installable", "", "add packages such as fdisk, e2fsprogs, dosfstools, grub-pc-bin, grub-efi-amd64-signed and shim-signed",
			"nodes can run it diskless only; an installation lacks: %s", strings.Join(lacks, "; "))
	}
}

// units are systemd's units that do harm or nothing on a node, when they are
// not masked.
var units = []struct{ name, why string }{
	{"apt-daily.timer", "fetches package lists into memory on every node"},
	{"apt-daily-upgrade.timer", "upgrades packages in memory, all nodes at once"},
	{"unattended-upgrades.service", "upgrades packages in memory, all nodes at once"},
	{"fstrim.timer", "there is nothing to trim below an overlay"},
	{"man-db.timer", "rebuilds an index that is gone at the next start"},
	{"e2scrub_all.timer", "looks for volumes that are not there"},
	{"updatedb.timer", "reads the whole root over the network"},
	{"plocate-updatedb.timer", "reads the whole root over the network"},
}

func checkUnits(l *linter) {
	if l.sys.Init != "systemd" {
		return
	}
	for _, u := range units {
		if target, err := fs.ReadLink(l.fsys, "etc/systemd/system/"+u.name); err == nil && target == "/dev/null" {
			continue
		}
		for _, dir := range []string{"timers.target.wants", "multi-user.target.wants", "sysinit.target.wants"} {
			if p := path.Join("etc/systemd/system", dir, u.name); l.exists(p) {
				l.add(Note, "useless-unit", p, "systemctl mask "+u.name, "%s", u.why)
				break
			}
		}
	}
	if l.exists("usr/sbin/sshd") && !l.exists("etc/ssh/ssh_host_ed25519_key") && !l.makesHostKeys() {
		l.add(Warning, "ssh-no-keys", "usr/sbin/sshd", "add a drop-in for ssh.service whose first ExecStartPre calls ssh-keygen", "nothing makes host keys: the service will not start")
	}
}

// makesHostKeys looks for a unit or drop-in that calls ssh-keygen.
func (l *linter) makesHostKeys() bool {
	for _, root := range []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"} {
		for _, e := range l.list(root) {
			if !strings.HasPrefix(e.Name(), "ssh") {
				continue
			}
			p := path.Join(root, e.Name())
			texts := []string{l.read(p)}
			for _, d := range l.list(p) {
				texts = append(texts, l.read(path.Join(p, d.Name())))
			}
			if slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(t, "ssh-keygen") }) {
				return true
			}
		}
	}
	return false
}

// checkNetwork finds what may take the interface of the root's NFS mount down
// or give it another address.
func checkNetwork(l *linter) {
	iface := ""
	for line := range settings(l.read("etc/network/interfaces")) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[0] == "iface" && f[1] != "lo" && (f[2] == "inet" || f[2] == "inet6") {
			iface = f[1]
		}
	}
	if iface != "" {
		l.add(Warning, "network-interface", "etc/network/interfaces", "leave the interface out: it is up before the system starts",
			"configures %s: if a node booted from it, it loses its root", iface)
	}
	for _, s := range []struct{ dir, unit, name string }{
		{"multi-user.target.wants", "NetworkManager.service", "NetworkManager"},
		{"multi-user.target.wants", "dhcpcd.service", "dhcpcd"},
	} {
		if l.exists(path.Join("etc/systemd/system", s.dir, s.unit)) {
			l.add(Note, "network-manager", path.Join("etc/systemd/system", s.dir, s.unit), "tell it to leave the boot interface alone", "%s must not touch the interface a node booted from", s.name)
		}
	}
}

// fighting are OpenRC services that work against a root that is not its own.
var fighting = []struct{ name, why string }{
	{"fsck", "there is no file system of the node's own to check"},
	{"hwclock", "writes /etc/adjtime; the controller sets the clock"},
	{"mount-ro", "cannot work on a root over the network"},
}

func checkOpenRC(l *linter) {
	if l.sys.Init != "openrc" {
		return
	}
	for _, level := range l.list("etc/runlevels") {
		for _, s := range fighting {
			if p := path.Join("etc/runlevels", level.Name(), s.name); l.exists(p) {
				l.add(Note, "useless-service", p, "rc-update del "+s.name+" "+level.Name(), "%s", s.why)
			}
		}
		for _, e := range l.list(path.Join("etc/runlevels", level.Name())) {
			if n := e.Name(); strings.HasPrefix(n, "net.") && n != "net.lo" {
				l.add(Warning, "network-interface", path.Join("etc/runlevels", level.Name(), n), "rc-update del "+n+" "+level.Name(),
					"configures an interface: if a node booted from it, it loses its root")
			}
		}
	}
	for line := range settings(l.read("etc/rc.conf")) {
		k, v, _ := strings.Cut(line, "=")
		v = strings.Trim(v, `"'`)
		switch {
		case k == "rc_sys" && v != "":
			l.add(Warning, "rc-sys", "etc/rc.conf", `rc_sys=""`, "rc_sys is %q: half of the services do not start", v)
		case k == "rc_interactive" && strings.EqualFold(v, "yes"):
			l.add(Note, "rc-interactive", "etc/rc.conf", `rc_interactive="NO"`, "a key that is pressed stops an unattended start")
		}
	}
}

func checkLeftovers(l *linter) {
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		for _, e := range l.list(dir) {
			p := path.Join(dir, e.Name())
			switch {
			case strings.HasPrefix(e.Name(), "._cfg"):
				l.add(Warning, "config-update", p, "dispatch-conf or etc-update", "a new version of a configuration file that nobody has merged")
			case strings.HasSuffix(e.Name(), ".dpkg-new") || strings.HasSuffix(e.Name(), ".dpkg-dist"):
				l.add(Note, "config-update", p, "compare and remove", "a new version of a configuration file that was not taken")
			case e.IsDir() && depth < shallow:
				walk(p, depth+1)
			}
		}
	}
	walk("etc", 1)
	for _, p := range []string{"root/.bash_history", "usr/sbin/policy-rc.d", "var/lib/dpkg/lock-frontend.old"} {
		if l.exists(p) {
			l.add(Note, "leftover", p, "remove it", "left over from building")
		}
	}
}

func checkInitrd(l *linter) {
	for _, e := range l.list("boot") {
		if n := e.Name(); strings.HasPrefix(n, "initrd") || strings.HasPrefix(n, "initramfs") {
			l.add(Note, "initrd", path.Join("boot", n), "remove it, and keep the kernel package from making one", "nodes start with the controller, not with this")
		}
	}
}

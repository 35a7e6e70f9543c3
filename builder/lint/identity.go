// SPDX-License-Identifier: GPL-2.0-or-later

package lint

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"slate/builder/initramfs"
)

func checkKernel(l *linter) {
	k, err := initramfs.FindKernel(l.fsys)
	var none *initramfs.NoKernelError
	switch {
	case errors.As(err, &none):
		l.add(Error, "no-kernel", "", none.Hint(), "%v: nodes cannot boot it", none)
	case err == nil && k.Modules == "":
		l.add(Warning, "no-modules", k.Path, "put them into /lib/modules/"+k.Release, "no modules of this kernel: what is not compiled in is missing")
	}
}

func checkInit(l *linter) {
	if l.sys.Init == "" {
		l.add(Error, "no-init", "sbin/init", "install an init system: systemd-sysv, sysvinit-core, openrc", "nothing that could be started")
	}
}

// checkMachineID wants an empty file: systemd then takes the node's, which the
// controller lays over it. A file that is missing cannot be made on a read-only
// /etc; one with an id makes all nodes the same for DHCP, journal and D-Bus.
func checkMachineID(l *linter) {
	id := strings.TrimSpace(l.read("etc/machine-id"))
	switch {
	case id == "uninitialized":
		l.add(Warning, "machine-id", "etc/machine-id", "empty the file", "systemd takes each boot for the first and resets its presets")
	case id != "":
		l.add(Warning, "machine-id", "etc/machine-id", "empty the file, but keep it", "all nodes would be the same machine")
	case l.sys.Init == "systemd" && !l.exists("etc/machine-id"):
		l.add(Warning, "machine-id", "etc/machine-id", "make an empty file", "missing: systemd needs it where /etc is read-only")
	}
	if fi, err := fs.Lstat(l.fsys, "var/lib/dbus/machine-id"); err == nil && fi.Mode().IsRegular() && fi.Size() > 0 {
		l.add(Warning, "machine-id", "var/lib/dbus/machine-id", "make it a link to /etc/machine-id", "all nodes would be the same machine for D-Bus")
	}
}

func checkIdentity(l *linter) {
	if h := strings.TrimSpace(l.read("etc/hostname")); h != "" && h != "localhost" {
		l.add(Note, "hostname", "etc/hostname", "remove it", "says %q; the controller gives each node its own name", h)
	}
	if fi, err := fs.Lstat(l.fsys, "etc/resolv.conf"); err == nil && fi.Mode().IsRegular() && strings.Contains(l.read("etc/resolv.conf"), "nameserver") {
		l.add(Note, "resolv.conf", "etc/resolv.conf", "remove it", "name servers of the machine it was built on")
	}
	for _, dir := range []string{"var/lib/dhcp", "var/lib/dhcpcd", "var/lib/NetworkManager"} {
		for _, e := range l.list(dir) {
			if strings.HasSuffix(e.Name(), ".leases") || strings.HasSuffix(e.Name(), ".lease") {
				l.add(Warning, "dhcp-lease", path.Join(dir, e.Name()), "remove it", "a lease of another machine: nodes would all ask for its address")
			}
		}
	}
}

func checkSeeds(l *linter) {
	for _, p := range []string{"var/lib/systemd/random-seed", "var/lib/urandom/random-seed", "var/lib/seedrng/seed.credit", "var/lib/misc/random-seed"} {
		if l.exists(p) {
			l.add(Warning, "random-seed", p, "remove it", "all nodes would start their random numbers from it")
		}
	}
}

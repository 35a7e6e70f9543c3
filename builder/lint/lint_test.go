// SPDX-License-Identifier: GPL-2.0-or-later

package lint_test

import (
	"encoding/binary"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"slate/builder/lint"
)

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o644} }
func link(s string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(s), Mode: fs.ModeSymlink | 0o777}
}

// good is a tree in which there is nothing to find.
func good() fstest.MapFS {
	k := make([]byte, 0x1000)
	binary.LittleEndian.PutUint16(k[0x1fe:], 0xaa55)
	copy(k[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(k[0x20e:], 0x400)
	copy(k[0x600:], "6.1.0 x\x00")
	return fstest.MapFS{
		"boot/vmlinuz-6.1.0":            file(string(k)),
		"lib/modules/6.1.0/modules.dep": file(""), "lib/modules/6.1.0/modules.builtin": file("kernel/fs/overlayfs/overlay.ko\nkernel/fs/nfs/nfsv3.ko\n"),
		"etc/machine-id":               file(""),
		"etc/mtab":                     link("../proc/self/mounts"),
		"etc/fstab":                    file("# nothing\nrootfs / auto ro 0 0\ntmpfs /tmp tmpfs size=1g 0 0\n"),
		"etc/shadow":                   file("root:*:1::::::\nada:$6$x$y:1::::::\n"),
		"usr/sbin/sshd":                file("x"),
		"etc/ssh/ssh_host_rsa_key.pub": file("ssh-rsa"),
		"etc/systemd/system/ssh.service.d/keys.conf":             file("[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\n"),
		"etc/systemd/system/multi-user.target.wants/ssh.service": link("../../../../lib/systemd/system/ssh.service"),
		"lib/systemd/system/ssh.service":                         file("[Service]\n"),
		"etc/systemd/system/apt-daily.timer":                     link("/dev/null"),
		"etc/systemd/system/timers.target.wants/apt-daily.timer": link("../apt-daily.timer.real"),
		"etc/systemd/system/apt-daily.timer.real":                file(""),
		"usr/sbin/sfdisk": file(""), "usr/sbin/blkid": file(""), "usr/sbin/wipefs": file(""), "usr/sbin/mkfs.ext4": file(""), "usr/sbin/e2fsck": file(""),
		"usr/sbin/mkfs.fat": file(""), "usr/sbin/fsck.fat": file(""), "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": file(""),
		"tmp":                    &fstest.MapFile{Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		"etc/network/interfaces": file("auto lo\niface lo inet loopback\n"),
	}
}

func TestGoodTree(t *testing.T) {
	for _, init := range []string{"systemd", "openrc"} {
		for _, f := range lint.Check(good(), lint.System{Init: init}) {
			t.Errorf("%s: %v %v", init, f.Severity, f)
		}
	}
}

func TestFindings(t *testing.T) {
	for _, tc := range []struct {
		name     string // of the finding
		severity lint.Severity
		path     string
		init     string // default systemd
		change   func(fstest.MapFS)
	}{
		{"no-kernel", lint.Error, "", "", func(m fstest.MapFS) { delete(m, "boot/vmlinuz-6.1.0") }},
		{"no-modules", lint.Warning, "/boot/vmlinuz-6.1.0", "", func(m fstest.MapFS) { delete(m, "lib/modules/6.1.0/modules.dep") }},
		{"diskless-module", lint.Error, "/lib/modules/6.1.0", "", func(m fstest.MapFS) { m["lib/modules/6.1.0/modules.builtin"] = file("kernel/fs/nfs/nfsv3.ko\n") }},
		{"writes-read-only", lint.Warning, "/etc/systemd/system/x.service", "", func(m fstest.MapFS) {
			m["etc/systemd/system/x.service"] = file("[Service]\nReadWritePaths=/opt/x/data\n")
		}},
		{"writes-read-only", lint.Note, "/usr/lib/tmpfiles.d/x.conf", "", func(m fstest.MapFS) { m["usr/lib/tmpfiles.d/x.conf"] = file("d /run/x\nL+ /usr/share/x - - - - y\n") }},
		{"writes-read-only", lint.Warning, "/etc/init.d/x", "openrc", func(m fstest.MapFS) { m["etc/init.d/x"] = file("pidfile=\"/usr/x.pid\"\n") }},
		{"private-key", lint.Error, "/etc/portage/gnupg/private-keys-v1.d/x.key", "", func(m fstest.MapFS) { m["etc/portage/gnupg/private-keys-v1.d/x.key"] = file("Key: (private-key\n") }},
		{"no-init", lint.Error, "/sbin/init", "none", func(fstest.MapFS) {}},
		{"ssh-host-key", lint.Error, "/etc/ssh/ssh_host_ed25519_key", "", func(m fstest.MapFS) { m["etc/ssh/ssh_host_ed25519_key"] = file("x") }},
		{"private-key", lint.Error, "/root/.ssh/id_rsa", "", func(m fstest.MapFS) { m["root/.ssh/id_rsa"] = file("-----BEGIN OPENSSH PRIVATE KEY-----\n") }},
		{"private-key", lint.Error, "/home/ada/.ssh/k", "", func(m fstest.MapFS) { m["home/ada/.ssh/k"] = file("-----BEGIN RSA PRIVATE KEY-----\n") }},
		{"private-key", lint.Error, "/etc/wireguard/wg0.conf", "", func(m fstest.MapFS) { m["etc/wireguard/wg0.conf"] = file("[Interface]\nPrivateKey = x\n") }},
		{"empty-password", lint.Error, "/etc/shadow", "", func(m fstest.MapFS) { m["etc/shadow"] = file("root::1::::::\n") }},
		{"empty-password", lint.Error, "/etc/passwd", "", func(m fstest.MapFS) { delete(m, "etc/shadow"); m["etc/passwd"] = file("root::0:0:::\n") }},
		{"world-writable", lint.Warning, "/srv", "", func(m fstest.MapFS) { m["srv"] = &fstest.MapFile{Mode: fs.ModeDir | 0o777} }},
		{"machine-id", lint.Warning, "/etc/machine-id", "", func(m fstest.MapFS) { m["etc/machine-id"] = file("0123456789abcdef0123456789abcdef\n") }},
		{"machine-id", lint.Warning, "/etc/machine-id", "", func(m fstest.MapFS) { m["etc/machine-id"] = file("uninitialized\n") }},
		{"machine-id", lint.Warning, "/etc/machine-id", "", func(m fstest.MapFS) { delete(m, "etc/machine-id") }},
		{"machine-id", lint.Warning, "/var/lib/dbus/machine-id", "", func(m fstest.MapFS) { m["var/lib/dbus/machine-id"] = file("abc\n") }},
		{"hostname", lint.Note, "/etc/hostname", "", func(m fstest.MapFS) { m["etc/hostname"] = file("builder\n") }},
		{"resolv.conf", lint.Note, "/etc/resolv.conf", "", func(m fstest.MapFS) { m["etc/resolv.conf"] = file("nameserver 192.0.2.1\n") }},
		{"dhcp-lease", lint.Warning, "/var/lib/dhcp/dhclient.eth0.leases", "", func(m fstest.MapFS) { m["var/lib/dhcp/dhclient.eth0.leases"] = file("lease {}") }},
		{"random-seed", lint.Warning, "/var/lib/systemd/random-seed", "", func(m fstest.MapFS) { m["var/lib/systemd/random-seed"] = file("x") }},
		{"mtab", lint.Warning, "/etc/mtab", "", func(m fstest.MapFS) { m["etc/mtab"] = file("/dev/sda1 / ext4 rw 0 0\n") }},
		{"fstab-root", lint.Warning, "/etc/fstab", "", func(m fstest.MapFS) { m["etc/fstab"] = file("UUID=1234 / ext4 errors=remount-ro 0 1\n") }},
		{"fstab-root", lint.Warning, "/etc/fstab", "openrc", func(m fstest.MapFS) { m["etc/fstab"] = file("# none\n") }},
		{"fstab-drive", lint.Warning, "/etc/fstab", "", func(m fstest.MapFS) { m["etc/fstab"] = file("/dev/sda2 /home ext4 defaults 0 2\n") }},
		{"dangling-service", lint.Warning, "/etc/systemd/system/x.target.wants/gone.service", "", func(m fstest.MapFS) {
			m["etc/systemd/system/x.target.wants/gone.service"] = link("../gone.service")
		}},
		{"dangling-service", lint.Warning, "/etc/runlevels/default/sshd", "openrc", func(m fstest.MapFS) { m["etc/runlevels/default/sshd"] = link("../../init.d/sshd") }},
		{"useless-unit", lint.Note, "/etc/systemd/system/timers.target.wants/fstrim.timer", "", func(m fstest.MapFS) {
			m["etc/systemd/system/timers.target.wants/fstrim.timer"] = file("")
		}},
		{"ssh-no-keys", lint.Warning, "/usr/sbin/sshd", "", func(m fstest.MapFS) { delete(m, "etc/systemd/system/ssh.service.d/keys.conf") }},
		{"network-interface", lint.Warning, "/etc/network/interfaces", "", func(m fstest.MapFS) { m["etc/network/interfaces"] = file("iface eth0 inet dhcp\n") }},
		{"network-interface", lint.Warning, "/etc/runlevels/default/net.eth0", "openrc", func(m fstest.MapFS) { m["etc/runlevels/default/net.eth0"] = file("") }},
		{"network-manager", lint.Note, "/etc/systemd/system/multi-user.target.wants/NetworkManager.service", "", func(m fstest.MapFS) {
			m["etc/systemd/system/multi-user.target.wants/NetworkManager.service"] = file("")
		}},
		{"useless-service", lint.Note, "/etc/runlevels/boot/hwclock", "openrc", func(m fstest.MapFS) { m["etc/runlevels/boot/hwclock"] = file("") }},
		{"rc-sys", lint.Warning, "/etc/rc.conf", "openrc", func(m fstest.MapFS) { m["etc/rc.conf"] = file("rc_sys=\"docker\"\n") }},
		{"rc-interactive", lint.Note, "/etc/rc.conf", "openrc", func(m fstest.MapFS) { m["etc/rc.conf"] = file("rc_interactive=\"YES\"\n") }},
		{"config-update", lint.Warning, "/etc/conf.d/._cfg0000_sshd", "", func(m fstest.MapFS) { m["etc/conf.d/._cfg0000_sshd"] = file("") }},
		{"leftover", lint.Note, "/root/.bash_history", "", func(m fstest.MapFS) { m["root/.bash_history"] = file("") }},
		{"not-installable", lint.Note, "", "", func(m fstest.MapFS) { delete(m, "usr/sbin/sfdisk") }},
		{"not-installable", lint.Note, "", "", func(m fstest.MapFS) { delete(m, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed") }},
		{"initrd", lint.Note, "/boot/initrd.img-6.1.0", "", func(m fstest.MapFS) { m["boot/initrd.img-6.1.0"] = file("") }},
	} {
		t.Run(tc.name+strings.ReplaceAll(tc.path, "/", "_"), func(t *testing.T) {
			m := maps.Clone(good())
			tc.change(m)
			sys := lint.System{Init: tc.init}
			switch tc.init {
			case "":
				sys.Init = "systemd"
			case "none":
				sys.Init = ""
			}
			got := lint.Check(m, sys)
			is := func(f lint.Finding) bool {
				return f.Name == tc.name && f.Severity == tc.severity && f.Path == tc.path && f.Text != ""
			}
			if !slices.ContainsFunc(got, is) {
				t.Errorf("Check = %v, want %v %s at %s", got, tc.severity, tc.name, tc.path)
			}
			if len(got) > 2 {
				t.Errorf("Check = %v: one change, too many findings", got)
			}
		})
	}
}

func TestWorstFirst(t *testing.T) {
	m := good()
	m["boot/initrd.img"] = file("")
	m["etc/mtab"] = file("")
	m["etc/shadow"] = file("root::\n")
	got := lint.Check(m, lint.System{Init: "systemd"})
	if !slices.IsSortedFunc(got, func(a, b lint.Finding) int { return int(b.Severity) - int(a.Severity) }) || len(got) != 3 {
		t.Errorf("Check = %v, want three findings, the worst first", got)
	}
}

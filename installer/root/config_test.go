// SPDX-License-Identifier: GPL-2.0-or-later

package root_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"slate/installer/root"
	"slate/netboot/config"
	"slate/testbed/golden"
)

// configured merges a config.d.
func configured(t *testing.T, files map[string]string) *config.Node {
	t.Helper()
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	s, err := config.Load(m)
	if err != nil {
		t.Fatal(err)
	}
	return s.Node("lab-0a1b2c")
}

// Two small systems, with what the decisions look at.
func systemdTree() fstest.MapFS {
	tree := fstest.MapFS{
		"sbin/init": link("/lib/systemd/systemd"), "usr/bin/bash": file(""), "bin/bash": file(""), "etc/default": dir(), "etc/ssh": dir(),
		"etc/ssh/sshd_config": file("Include /etc/ssh/sshd_config.d/*.conf\nPort 22\n"), "usr/sbin/sshd": file(""),
		"etc/passwd": file("root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n"),
		"etc/shadow": file("root:*:19000:0:99999:7:::\nuser:!:19000::::::\n"), "etc/group": file("root:x:0:\nshadow:x:42:\nsudo:x:27:user\nuser:x:1000:\n"),
		"etc/gshadow": file("root:*::\nshadow:*::\nsudo:*::user\nuser:!::\n"), "etc/skel/.profile": file("# skel\n"),
		"etc/fstab": file("nas:/pool /srv/pool nfs ro 0 0\nnas:/old /srv/old nfs ro 0 0\n"), "srv/pool": dir(), "srv/old": dir(),
		"usr/share/zoneinfo/Europe/Berlin": file(""), "etc/hosts": file("127.0.0.1 localhost\n"),
		"lib/systemd/system/ssh.service":                          file("[Unit]\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n"),
		"lib/systemd/system/cron.service":                         file("[Install]\nWantedBy=multi-user.target\n"),
		"lib/systemd/system/systemd-networkd.service":             file("[Install]\nWantedBy=multi-user.target\nAlias=dbus-org.freedesktop.network1.service\n"),
		"lib/systemd/system/static.service":                       file("[Unit]\n"),
		"lib/systemd/system/timers.target.wants/static.service":   link("../static.service"),
		"etc/systemd/system/multi-user.target.wants/cron.service": link("/lib/systemd/system/cron.service"),
	}
	for name, d := range usual {
		tree[name] = d
	}
	return tree
}

func openrcTree() fstest.MapFS {
	tree := fstest.MapFS{
		"sbin/init": file(""), "sbin/openrc": file(""), "etc/conf.d": dir(), "etc/env.d": dir(), "etc/profile.env": file("export A='b'\n"),
		"etc/passwd": file("root:x:0:0:root:/root:/bin/sh\n"), "etc/shadow": file("root:*:19000:0:99999:7:::\n"), "etc/group": file("root:x:0:\nwheel:x:10:root\n"),
		"etc/ssh/sshd_config": file("Port 22\n"), "usr/sbin/sshd": file(""), "usr/share/zoneinfo/Europe/Berlin": file(""),
		"etc/init.d/sshd": file(""), "etc/init.d/cronie": file(""), "etc/init.d/net.lo": file(""),
		"etc/runlevels/default/cronie": link("/etc/init.d/cronie"), "etc/runlevels/boot/cronie": link("/etc/init.d/cronie"),
	}
	for name, d := range usual {
		if name != "user-data" {
			tree[name] = d
		}
	}
	return tree
}

// What each file of config.d makes of the plan, on both kinds of system: only what
// differs from the plan without it is shown.
func TestEachConfigFile(t *testing.T) {
	for name, text := range map[string]map[string]string{
		"overlays": {"system/overlays.conf": "[[overlay]]\npath = \"/srv\"\nupper = \"user-data\"\n[[overlay]]\npath = \"/var\"\nsize = \"64M\"\n" +
			"[[overlay]]\npath = \"/usr\"\n[[overlay]]\npath = \"/media\"\nremove = true\n[[overlay]]\npath = \"/data\"\n"},
		"tmpfs": {"controller/tmpfs.conf": "[limit]\ntotal = \"256M\"\n[[tmpfs]]\npath = \"/tmp\"\nsize = \"10%\"\nmode = \"1777\"\n" +
			"[[tmpfs]]\npath = \"/var\"\nsize = \"128M\"\ncopy = [\"lib\", \"cache/rc\"]\n"},
		"fstab": {"system/fstab.conf": "[[mount]]\nwhat = \"10.77.0.1:/sw\"\nwhere = \"/user-data/persistent/rmount/sw\"\ntype = \"nfs\"\noptions = [\"ro\"]\n" +
			"[[mount]]\nwhat = \"new:/pool\"\nwhere = \"/srv/pool\"\ntype = \"nfs\"\n[[mount]]\nwhat = \"x\"\nwhere = \"/opt/none\"\ntype = \"tmpfs\"\n"},
		"cfstab": {"system/fstab.conf": "[[mount]]\nwhat = \"a\"\nwhere = \"/srv/a\"\ntype = \"tmpfs\"\n", "controller/cfstab.conf": "[[mount]]\naction = \"remove\"\nwhere = \"/srv/old\"\n" +
			"[[mount]]\naction = \"replace\"\nwhere = \"/srv/a\"\nwhat = \"b\"\ntype = \"tmpfs\"\noptions = [\"size=1M\"]\n" +
			"[[mount]]\naction = \"replace\"\nwhere = \"/srv/nowhere\"\nwhat = \"b\"\ntype = \"tmpfs\"\n[[mount]]\naction = \"add\"\nwhere = \"/mnt/c\"\nwhat = \"c\"\ntype = \"tmpfs\"\n"},
		"etc": {"files/motd": "hello\n", "system/etc.conf": "timezone = \"Europe/Berlin\"\nlocale = \"de_DE.UTF-8\"\n[[file]]\npath = \"/etc/motd\"\nfrom = \"files/motd\"\n" +
			"[[file]]\npath = \"/etc/secret\"\ntext = \"s\"\nmode = \"0640\"\nowner = \"0:42\"\n" +
			"[[user]]\nname = \"admin\"\ngroups = [\"sudo\", \"ops\"]\nkeys = [\"ssh-ed25519 AAAA me\"]\n[[user]]\nname = \"root\"\npassword = \"$6$salt$hashhash\"\n"},
		"network": {"system/network.conf": "dns = [\"10.9.9.9\"]\nsearch = [\"example.net\"]\n[[host]]\nname = \"nas\"\naddress = \"10.77.0.9\"\naliases = [\"files\"]\n" +
			"[[interface]]\nmatch = \"eth1\"\nmethod = \"static\"\naddress = [\"10.5.0.2/24\", \"fd00::2/64\"]\ngateway = \"10.5.0.1\"\nmtu = 9000\n[[interface]]\nmatch = \"eth*\"\nmethod = \"dhcp\"\n"},
		"services": {"controller/services/default-runlevel": "enable = [\"sshd\", \"nonsense\"]\ndisable = [\"cron\", \"static\"]\n"},
	} {
		for system, tree := range map[string]fstest.MapFS{"systemd": systemdTree(), "openrc": openrcTree()} {
			before := plan(tree, config.Defaults())
			var b strings.Builder
			for _, line := range plan(tree, configured(t, text)) {
				if !contains(before, line) {
					b.WriteString(line)
				}
			}
			golden.Check(t, "testdata/conf-"+name+"-"+system+".golden", []byte(b.String()))
		}
	}
}

// plan prints everything that would be done, in pieces.
func plan(tree fs.FS, c *config.Node) (out []string) {
	in := input()
	in.Config = c
	w := root.PlanWritable(in, tree)
	for _, m := range append(root.Base(in), w.Mounts...) {
		out = append(out, strings.TrimRight(m.String(), " ")+"\n")
	}
	for _, c := range w.Copies {
		out = append(out, "copy "+c.From+" "+c.To+"\n")
	}
	for _, name := range w.Absent {
		out = append(out, "absent "+name+"\n")
	}
	f := facts()
	f.Config, f.Mounted = c, w.Dirs()
	f.Others = []root.Interface{{Name: "eth1", MAC: "52:54:00:00:00:01"}, {Name: "eth2", MAC: "52:54:00:00:00:02"}}
	changes, problems := root.Changes(tree, f)
	for _, c := range changes {
		out = append(out, "== "+c.String()+"\n"+c.Text)
	}
	for _, p := range append(w.Problems, problems...) {
		out = append(out, "problem: "+p+"\n")
	}
	return out
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// NetworkManager and ifupdown are told of interfaces in their own ways.
func TestNetworkManagers(t *testing.T) {
	const text = "[[interface]]\nmatch = \"eth1\"\nmethod = \"static\"\naddress = [\"10.5.0.2/24\", \"fd00::2/64\"]\ngateway = \"10.5.0.1\"\nmtu = 9000\n" +
		"[[interface]]\nmatch = \"52:54:00:00:00:02\"\nmethod = \"off\"\n"
	var b strings.Builder
	for _, manager := range []string{"networkmanager", "ifupdown", "netifrc", "networkd"} {
		tree := systemdTree()
		tree["etc/network/interfaces"] = file("auto eth0 eth1\niface eth0 inet dhcp\niface eth1 inet dhcp\n")
		c := configured(t, map[string]string{"system/network.conf": "manager = \"" + manager + "\"\n" + text})
		b.WriteString("# " + manager + "\n")
		before := plan(tree, config.Defaults())
		for _, line := range plan(tree, c) {
			if !contains(before, line) {
				b.WriteString(line)
			}
		}
	}
	golden.Check(t, "testdata/managers.golden", []byte(b.String()))
	none := configured(t, map[string]string{"system/network.conf": "manager = \"none\"\n" + text})
	if got := plan(systemdTree(), none); len(got) != len(plan(systemdTree(), config.Defaults())) {
		t.Errorf("manager = none still changes something: %q", got)
	}
}

func TestHealthyServices(t *testing.T) {
	c := configured(t, map[string]string{"controller/services/default-runlevel": "healthy = [\"sshd\", \"cron\", \"nonsense\"]\n"})
	for want, tree := range map[string]fs.FS{"ssh.service cron.service nonsense": systemdTree(), "sshd cronie nonsense": openrcTree()} {
		if got := strings.Join(root.HealthyServices(tree, c.Services), " "); got != want {
			t.Errorf("HealthyServices() = %q, want %q", got, want)
		}
	}
}

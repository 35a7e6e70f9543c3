// SPDX-License-Identifier: GPL-2.0-or-later

package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/netboot/config"
)

// explain gives the lines of slate config explain that contain a text.
func explain(n *config.Node, contains string) []string {
	var out []string
	for _, v := range n.Explain() {
		if strings.Contains(v.String(), contains) {
			out = append(out, v.String())
		}
	}
	return out
}

func TestListsMergeEntryByEntry(t *testing.T) {
	s, err := config.Load(site(map[string]string{
		"system/overlays.conf":                             "[[overlay]]\npath = \"/srv\"\nremove = true\n\n[[overlay]]\npath = \"/opt/data\"\nsize = \"64M\"\n",
		"groups/room/system/overlays.conf":                 "[[overlay]]\npath = \"/var\"\nupper = \"user-data\"\n",
		"nodes/pc1/system/overlays.conf":                   "# ours\n\n[[overlay]]\npath = \"/opt/data\"\nupper = \"user-data\"\n",
		"system/coverlays.conf":                            "[[overlay]]\npath = \"/home\"\nupper = \"memory\"\n",
		"system/fstab.conf":                                "[[mount]]\nwhat = \"a:/x\"\nwhere = \"/srv/x\"\ntype = \"nfs\"\noptions = [\"ro\"]\n",
		"nodes/pc1/controller/cfstab.conf":                 "[[mount]]\naction = \"remove\"\nwhere = \"/srv/x\"\n",
		"controller/services/default-runlevel":             "# plain\nsshd\ncups # printing\n",
		"nodes/pc1/controller/services/default-runlevel":   "disable = [\"cups\"]\nenable = [\"cron\"]\n",
		"controller/services/cdefault-runlevel":            "disable = [\"cron\"]\n",
		"groups/room/controller/services/default-runlevel": "[openrc]\nrunlevel = \"single\"\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	n := s.For(config.Scope{Node: "pc1", Groups: []string{"room"}})
	var got []string
	for _, o := range n.Overlays.Overlay {
		got = append(got, o.Path+" "+o.Upper+o.Size)
	}
	want := []string{"/etc memory", "/var user-data", "/root user-data", "/home memory", "/mnt user-data", "/media user-data", "/opt/data user-data"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("overlays (-want +got):\n%s", diff)
	}
	want = []string{
		`controller/services/default-runlevel enable[sshd] = true   (controller/services/default-runlevel:2)`,
		`controller/services/default-runlevel disable[cups] = true   (nodes/pc1/controller/services/default-runlevel:1)`,
		`controller/services/default-runlevel disable[cron] = true   (controller/services/cdefault-runlevel:1)`,
		`controller/services/default-runlevel openrc.runlevel = "single"   (groups/room/controller/services/default-runlevel:2)`,
		`system/fstab.conf mount[/srv/x] = {"options":["ro"],"type":"nfs","what":"a:/x","where":"/srv/x"}   (system/fstab.conf:1)`,
		`controller/cfstab.conf mount[/srv/x] = {"action":"remove","type":"","what":"","where":"/srv/x"}   (nodes/pc1/controller/cfstab.conf:1)`,
		`system/overlays.conf overlay[/opt/data] = {"path":"/opt/data","size":"","upper":"user-data"}   (nodes/pc1/system/overlays.conf:3)`,
	}
	for _, w := range want {
		if got := explain(n, w); len(got) != 1 {
			key, _, _ := strings.Cut(w, " =")
			t.Errorf("explain lacks %s\nit has %q", w, explain(n, key))
		}
	}
	if other := s.Node("pc2"); len(other.Overlays.Overlay) != 7 || other.Overlays.Overlay[6].Size != "64M" {
		t.Errorf("another node has the overlays %+v", other.Overlays.Overlay)
	}
}

func TestFilesOfEtcConf(t *testing.T) {
	text := "[[file]]\npath = \"/etc/motd\"\nfrom = \"files/motd\"\nmode = \"0600\"\nowner = \"7:8\"\n\n[[file]]\npath = \"/etc/own\"\ntext = \"own\"\n"
	files := map[string]string{
		"system/etc.conf": text, "files/motd": "site", "groups/room/files/motd": "room", "nodes/pc1/files/motd": "pc1", "files/other.conf": "not config",
	}
	s, err := config.Load(site(files))
	if err != nil {
		t.Fatal(err)
	}
	for want, scope := range map[string]config.Scope{"site": {Node: "pc2"}, "room": {Node: "pc2", Groups: []string{"room"}}, "pc1": {Node: "pc1", Groups: []string{"room"}}} {
		f := s.For(scope).Etc.File
		uid, gid := f[0].Owners()
		if string(f[0].Content()) != want || string(f[1].Content()) != "own" || f[0].Perm() != 0o600 || f[1].Perm() != 0o644 || uid != 7 || gid != 8 {
			t.Errorf("%s: files %+v", want, f)
		}
	}
	delete(files, "files/motd")
	_, err = config.Load(site(files))
	if err == nil || !strings.Contains(err.Error(), "system/etc.conf:1: file[/etc/motd]: there is no file files/motd") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestBadListsNameLineAndKey(t *testing.T) {
	const first = "[[overlay]]\npath = \"/opt\"\n"
	for _, c := range []struct{ file, text, want string }{
		{"system/overlays.conf", first + "[[overlay]]\npath = \"/\"\n", `system/overlays.conf:4: overlay.path: "/" is the image itself`},
		{"system/overlays.conf", first + "[[overlay]]\npath = \"/run/x\"\n", `:4: overlay.path: "/run/x" is below /run`},
		{"system/overlays.conf", first + "[[overlay]]\npath = \"/a,b\"\n", `has a blank or one of`},
		{"system/overlays.conf", first + first, `system/overlays.conf:3: overlay[1]: /opt is there twice`},
		{"system/overlays.conf", first + "upper = \"disk\"\n", `:3: overlay.upper: "disk" is not one of memory, user-data`},
		{"system/overlays.conf", first + "uper = \"disk\"\n", `:3: overlay.uper: unknown key`},
		{"system/overlays.conf", first + "upper = \"user-data\"\nsize = \"1M\"\n", `:4: overlay.size: what is kept on user-data`},
		{"system/overlays.conf", "[[overlay]]\npath = \"/etc\"\nupper = \"user-data\"\n", `:3: overlay.upper: /etc is made anew`},
		{"system/overlays.conf", "[[overlay]]\npath = \"/var\"\nremove = true\n", `system/overlays.conf:1: overlay[/var]: nothing makes /var writable`},
		{"controller/tmpfs.conf", "[[tmpfs]]\npath = \"/x\"\n", `:1: tmpfs.size: "" is not a size`},
		{"controller/tmpfs.conf", "[[tmpfs]]\npath = \"/x\"\nsize = \"99%\"\n", `:3: tmpfs.size: "99%" leaves the system no memory`},
		{"controller/tmpfs.conf", "[[tmpfs]]\npath = \"/x\"\nsize = \"9%\"\nmode = \"rwx\"\n", `:4: tmpfs.mode: "rwx" is not a mode`},
		{"controller/tmpfs.conf", "[[tmpfs]]\npath = \"/x\"\nsize = \"9%\"\ncopy = [\"../etc\"]\n", `:4: tmpfs.copy: "../etc" is not a path below /x`},
		{"controller/tmpfs.conf", "[[tmpfs]]\npath = \"/etc\"\nsize = \"9%\"\n", `/etc must be copied as a whole`},
		{"system/fstab.conf", "[[mount]]\nwhat = \"a:/b\"\nwhere = \"/\"\ntype = \"nfs\"\n", `:3: mount.where: "/" is the image itself`},
		{"system/fstab.conf", "[[mount]]\nwhat = \"a:/b\"\nwhere = \"/var\"\ntype = \"nfs\"\n", `:3: mount.where: /var is made by the controller`},
		{"system/fstab.conf", "[[mount]]\nwhere = \"/srv/x\"\ntype = \"nfs\"\n", `mount.what: "" is not one word`},
		{"system/fstab.conf", "[[mount]]\nwhat = \"/dev/sda2\"\nwhere = \"/srv/x\"\ntype = \"swap\"\n", `a node does not swap`},
		{"system/fstab.conf", "[[mount]]\nwhat = \"a\"\nwhere = \"/srv/x\"\ntype = \"nfs\"\noptions = [\"ro,vers=4\"]\n", `"ro,vers=4" is not one option`},
		{"controller/cfstab.conf", "[[mount]]\naction = \"drop\"\nwhere = \"/srv/x\"\n", `:2: mount.action: "drop" is not one of add, replace, remove`},
		{"controller/cfstab.conf", "[[mount]]\naction = \"remove\"\nwhere = \"/srv/x\"\nwhat = \"y\"\n", `remove needs only where`},
		{"system/network.conf", "manager = \"dhcpcd\"\n", `:1: manager: "dhcpcd" is not one of`},
		{"system/network.conf", "[[interface]]\nmatch = \"eth1\"\nmethod = \"static\"\n", `:1: interface.address: a static interface needs an address`},
		{"system/network.conf", "[[interface]]\nmatch = \"eth1\"\nmethod = \"dhcp\"\ngateway = \"10.0.0.1\"\n", `:3: interface.method: address and gateway go with`},
		{"system/network.conf", "[[interface]]\nmatch = \"eth1\"\nmethod = \"static\"\naddress = [\"10.0.0.1\"]\n", `is not an address with a prefix length`},
		{"system/network.conf", "dns = [\"ns.example\"]\n", `:1: dns: "ns.example" is not an IP address`},
		{"system/network.conf", "[[host]]\nname = \"a b\"\naddress = \"10.0.0.1\"\n", `:2: host.name: "a b" is not a host name`},
		{"system/etc.conf", "[[file]]\npath = \"/usr/x\"\n", `"/usr/x" is not the path of a file below /etc`},
		{"system/etc.conf", "[[file]]\npath = \"/etc/passwd\"\n", `/etc/passwd is made from [[user]]`},
		{"system/etc.conf", "[[file]]\npath = \"/etc/x\"\nfrom = \"../x\"\n", `:3: file.from: "../x" is not below files/`},
		{"system/etc.conf", "[[user]]\nname = \"Bad Name\"\n", `"Bad Name" is not the name of a user`},
		{"system/etc.conf", "[[user]]\nname = \"a\"\npassword = \"secret\"\n", `:3: user.password: it must be a hash`},
		{"system/etc.conf", "[[user]]\nname = \"a\"\nkeys = [\"nonsense\"]\n", `:3: user.keys: "nonsense" is not a public key`},
		{"system/etc.conf", "[[user]]\nname = \"root\"\nuid = 5\n", `:3: user.uid: 5 is not`},
		{"system/etc.conf", "timezone = \"../../etc\"\n", `:1: timezone: `},
		{"system/etc.conf", "locale = \"a b\"\n", `:1: locale: `},
		{"controller/services/default-runlevel", "enable = [\"a\"]\ndisable = [\"a\"]\n", `:2: disable: a is enabled and disabled in one file`},
		{"controller/services/default-runlevel", "ssh\n../x\n", `enable: "../x" is not the name of a service`},
	} {
		_, err := config.Load(site(map[string]string{c.file: c.text}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with\n%s\nLoad error = %v, want %q", c.file, c.text, err, c.want)
		}
	}
}

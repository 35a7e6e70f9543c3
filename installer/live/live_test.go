// SPDX-License-Identifier: GPL-2.0-or-later

package live_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"slate/installer/live"
	"slate/installer/root"
	"slate/netboot/config"
)

// node merges files of config.d.
func node(t *testing.T, files map[string]string) *config.Node {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	site, err := config.Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return site.Node("pc1")
}

const (
	scratch = "[[mount]]\nwhat = \"none\"\nwhere = \"/mnt/scratch\"\ntype = \"tmpfs\"\noptions = [\"size=1M\"]\n"
	userAda = "[[user]]\nname = \"ada\"\nuid = 1500\nkeys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB6gqNbrzqV8mFdXoUlyXWmUKQgIhFcVS5p1qjK3wN8f a\"]\n"
)

var tree = fstest.MapFS{
	"etc/fstab":           {Data: []byte("proc /proc proc defaults 0 0\n")},
	"sbin/init":           {Data: []byte("/lib/systemd/systemd")},
	"etc/passwd":          {Data: []byte("root:x:0:0::/root:/bin/sh\n")},
	"etc/shadow":          {Data: []byte("root:*:::::::\n")},
	"etc/group":           {Data: []byte("root:x:0:\n")},
	"etc/ssh/sshd_config": {Data: []byte("Include /etc/ssh/sshd_config.d/*.conf\n")},
}

func TestMake(t *testing.T) {
	type files = map[string]string
	for _, c := range []struct {
		name             string
		boot, last, next files
		want             live.Plan // without the texts of files
	}{
		{"nothing", nil, nil, nil, live.Plan{}},
		{"a new mount", nil, nil, files{"system/fstab.conf": scratch}, live.Plan{Mount: []string{"/mnt/scratch"}}},
		{"with other options", nil, files{"system/fstab.conf": scratch}, files{"system/fstab.conf": scratch, "controller/cfstab.conf": "[[mount]]\naction = \"replace\"\nwhat = \"none\"\nwhere = \"/mnt/scratch\"\ntype = \"tmpfs\"\n"},
			live.Plan{Unmount: []string{"/mnt/scratch"}, Mount: []string{"/mnt/scratch"}}},
		{"gone", files{"system/fstab.conf": scratch}, files{"system/fstab.conf": scratch}, nil, live.Plan{Unmount: []string{"/mnt/scratch"}}},
		{"one that is not mounted by itself", nil, nil, files{"system/fstab.conf": "[[mount]]\nwhat = \"nas:/x\"\nwhere = \"/mnt/x\"\ntype = \"nfs\"\noptions = [\"noauto\"]\n"}, live.Plan{}},
		{"caps", nil, nil, files{"controller/tmpfs.conf": "[limit]\ntotal = \"40%\"\n[[tmpfs]]\npath = \"/tmp\"\nsize = \"10M\"\nmode = \"1777\"\n"},
			live.Plan{Remount: []live.Remount{{root.Upper, "40%", "tmpfs.conf limit.total"}, {"/tmp", "10M", "tmpfs.conf tmpfs[/tmp]"}}}},
		{"memory with another mode", nil, nil, files{"controller/tmpfs.conf": "[[tmpfs]]\npath = \"/tmp\"\nsize = \"25%\"\nmode = \"0700\"\n"},
			live.Plan{Waits: []string{"tmpfs.conf tmpfs[/tmp]"}}},
		{"new memory, and overlays", nil, nil, files{"controller/tmpfs.conf": "[[tmpfs]]\npath = \"/srv\"\nsize = \"1M\"\n", "system/overlays.conf": "[[overlay]]\npath = \"/opt\"\n[[overlay]]\npath = \"/media\"\nremove = true\n"},
			live.Plan{Waits: []string{"overlays.conf overlay[/media] is gone", "overlays.conf overlay[/opt]", "tmpfs.conf tmpfs[/srv]"}}},
		{"an overlay's cap", files{"system/overlays.conf": "[[overlay]]\npath = \"/opt\"\nsize = \"1M\"\n"}, files{"system/overlays.conf": "[[overlay]]\npath = \"/opt\"\nsize = \"2M\"\n"},
			files{"system/overlays.conf": "[[overlay]]\npath = \"/opt\"\nsize = \"3M\"\n"}, live.Plan{Remount: []live.Remount{{root.Upper + "/opt", "3M", "overlays.conf overlay[/opt]"}}}},
		{"a user", nil, nil, files{"system/etc.conf": userAda}, live.Plan{Users: []string{"ada"}, SSH: true}},
		{"the same again", nil, files{"system/etc.conf": userAda}, files{"system/etc.conf": userAda}, live.Plan{}},
		{"gone again", files{"system/etc.conf": userAda}, files{"system/etc.conf": userAda}, nil, live.Plan{Users: []string{"ada"}, Waits: []string{"etc.conf user[ada] is gone"}}},
		{"another number", files{"system/etc.conf": userAda}, files{"system/etc.conf": userAda}, files{"system/etc.conf": strings.Replace(userAda, "1500", "1501", 1)}, live.Plan{Waits: []string{"etc.conf user[ada]"}}},
		{"what only a start can do", nil, nil, files{"system/boot.conf": "cmdline = [\"quiet\"]\n", "system/etc.conf": "timezone = \"UTC\"\n[[file]]\npath = \"/etc/motd\"\ntext = \"hi\"\n",
			"controller/services/default-runlevel": "enable = [\"x\"]\nhealthy = [\"y\"]\n"},
			live.Plan{Waits: []string{"controller/services/default-runlevel enable[x]", "system/boot.conf cmdline", "system/etc.conf file[/etc/motd]", "system/etc.conf timezone"}}},
		{"and back", nil, files{"system/boot.conf": "cmdline = [\"quiet\"]\n"}, nil, live.Plan{}},
		{"what is no matter of the system", nil, nil, files{"controller/drives.conf": "[[drive]]\nname = \"x\"\nmatch = { serial = \"Y\" }\n", "system/dhcp.conf": "unknown = \"ignore\"\n"}, live.Plan{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := live.Make(live.Facts{Boot: node(t, c.boot), Last: node(t, c.last), Next: node(t, c.next), Tree: tree, System: tree})
			if (got.Fstab != "") != (len(c.want.Mount)+len(c.want.Unmount) > 0) && c.name != "one that is not mounted by itself" {
				t.Errorf("a new fstab: %q", got.Fstab)
			}
			got.Fstab, got.Changes = "", nil
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

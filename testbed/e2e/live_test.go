// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"net"
	"strings"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/labtest"
)

// liveLimit is how long a change of config.d may take to reach a machine that runs.
const liveLimit = time.Minute

// A new mount, another cap of memory and a new user reach a diskless machine that
// runs; what only a start can do is named, for the admin and at the console.
func TestConfigChangesLive(t *testing.T) {
	t.Parallel()
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.serve()
	n := s.Node(lab.NodeSpec{Name: "live", Boot: []string{"net"}, NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x06, 0x01}}}})
	s.login(n)
	name := s.nodeName(n)
	status := s.Run(n, commandLimit, "slate-agent status")
	if !strings.Contains(status, name) || !strings.Contains(status, "diskless") || !strings.Contains(status, "revision") {
		t.Errorf("slate-agent status prints\n%s", status)
	}
	s.Run(n, commandLimit, "slate-agent log | grep -q 'configured by the appliance'")
	before := s.Run(n, commandLimit, "cat /proc/sys/kernel/random/boot_id")

	s.conf("system/fstab.conf", "[[mount]]\nwhat = \"none\"\nwhere = \"/mnt/fresh\"\ntype = \"tmpfs\"\noptions = [\"size=3M\"]\n")
	s.conf("controller/tmpfs.conf", "[limit]\ntotal = \"70M\"\n\n[[tmpfs]]\npath = \"/tmp\"\nsize = \"5M\"\nmode = \"1777\"\n")
	s.conf("system/etc.conf", "timezone = \"Etc/GMT-3\"\n\n[[user]]\nname = \"operator\"\nuid = 1234\ngroups = [\"adm\"]\n"+
		"keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB6gqNbrzqV8mFdXoUlyXWmUKQgIhFcVS5p1qjK3wN8f op\"]\n")
	changed := time.Now()
	s.Expect(n, liveLimit, `this waits for a restart: .*system/etc\.conf timezone`)
	took := time.Since(changed)
	checkLooks(t, s, n, []look{
		{"the new mount", "df -m --output=size /mnt/fresh | tail -1", "3"},
		{"the cap of all that is written", "df -m --output=size /run/slate/rw | tail -1", "70"},
		{"a cap", "df -m --output=size /tmp | tail -1", "5"},
		{"the new user", "id -u operator; stat -c '%U %a' /home/operator; grep -c op$ /etc/ssh/slate-keys/operator", "1234\noperator 700\n1"},
		{"the ssh server's mind", "mkdir -p /run/sshd; /usr/sbin/sshd -T 2>/dev/null | grep -i authorizedkeysfile", "authorizedkeysfile .ssh/authorized_keys /etc/ssh/slate-keys/%u"},
		{"root is still there", "getent shadow root | cut -c1-6", "root:$"},
		{"the time zone waits", "date -d @0 +%H:%M", "00:00"},
		{"the same start", "cat /proc/sys/kernel/random/boot_id", strings.TrimSpace(before)},
	})
	t.Logf("config.d changed, and the machine with it after %.1f s", took.Seconds())
	s.waitFor("slate node show", "system/etc.conf timezone", "node", "show", name)

	// Taken back, nothing waits, and what was mounted goes unless it is in use.
	s.conf("system/fstab.conf", "")
	s.conf("system/etc.conf", "[[user]]\nname = \"operator\"\nuid = 1234\n")
	s.waitFor("slate node show", "done: unmount /mnt/fresh", "node", "show", name)
	checkLooks(t, s, n, []look{
		{"the mount is gone", "findmnt -no FSTYPE /mnt/fresh || echo none", "none"},
		{"the user's key is gone", "ls /etc/ssh/slate-keys", ""},
	})
	s.slate("node", "reboot", name)
	s.login(n)
}

// waitFor runs a slate command until it prints a text.
func (s *site) waitFor(what, text string, words ...string) {
	s.t.Helper()
	s.waitWithin(commandLimit, what, text, words...)
}

func (s *site) waitWithin(limit time.Duration, what, text string, words ...string) {
	s.t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	end := time.Now().Add(limit)
	for {
		out := s.slate(words...)
		if strings.Contains(out, text) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s does not say %s:\n%s", what, text, out)
		}
		<-tick.C
	}
}

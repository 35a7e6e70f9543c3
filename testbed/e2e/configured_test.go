// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/labtest"
)

// everything is a config.d that sets something of every file that the controller
// acts on.
var everything = map[string]string{
	"system/overlays.conf": "[[overlay]]\npath = \"/opt\"\nsize = \"8M\"\n",
	"controller/tmpfs.conf": "[limit]\ntotal = \"64M\"\n\n[[tmpfs]]\npath = \"/var/backups\"\nsize = \"4M\"\nmode = \"0711\"\n\n" +
		"[[tmpfs]]\npath = \"/srv\"\nsize = \"2M\"\n",
	"system/fstab.conf": "[[mount]]\nwhat = \"none\"\nwhere = \"/mnt/scratch\"\ntype = \"tmpfs\"\noptions = [\"size=1M\"]\n\n" +
		"[[mount]]\nwhat = \"10.77.0.1:/nothing\"\nwhere = \"/user-data/persistent/rmount/away\"\ntype = \"nfs\"\noptions = [\"noauto\"]\n",
	"controller/cfstab.conf": "[[mount]]\naction = \"replace\"\nwhat = \"none\"\nwhere = \"/mnt/scratch\"\ntype = \"tmpfs\"\noptions = [\"size=3M\"]\n",
	"files/motd":             "configured by the site\n",
	"system/etc.conf": "timezone = \"Etc/GMT-3\"\nlocale = \"C.UTF-8\"\n\n[[file]]\npath = \"/etc/motd\"\nfrom = \"files/motd\"\nmode = \"0640\"\n\n" +
		"[[user]]\nname = \"operator\"\nuid = 1234\ngroups = [\"adm\"]\nkeys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB6gqNbrzqV8mFdXoUlyXWmUKQgIhFcVS5p1qjK3wN8f op\"]\n",
	"system/network.conf": "search = [\"lab.test\"]\n\n[[host]]\nname = \"nas\"\naddress = \"10.77.0.9\"\n\n" +
		"[[interface]]\nmatch = \"52:54:5a:1e:02:02\"\nmethod = \"static\"\naddress = [\"10.99.0.2/24\"]\n",
	"controller/services/default-runlevel": "disable = [\"sshd\"]\nenable = [\"getty@tty3\"]\nhealthy = [\"dbus\"]\n",
}

// look is what is looked up on a running machine: a command and what it prints.
type look struct{ what, cmd, want string }

// looks hold whatever the init system is.
var looks = []look{
	{"the cap of all that is written", "df -m --output=size /run/slate/rw | tail -1", "64"},
	{"an overlay with a cap", "df -m --output=size /opt | tail -1", "8"},
	{"a directory in memory", "stat -fc %T /var/backups; stat -c %a /var/backups; df -m --output=size /var/backups | tail -1", "tmpfs\n711\n4"},
	{"another", "df -m --output=size /srv | tail -1", "2"},
	{"the fstab, changed by cfstab", "df -m --output=size /mnt/scratch | tail -1", "3"},
	{"a remote mount's place", "ls -d /run/slate/user-data/persistent/rmount/away", "/run/slate/user-data/persistent/rmount/away"},
	{"a file", "cat /etc/motd; stat -c %a /etc/motd", "configured by the site\n640"},
	{"the time zone", "date -d @0 +%H:%M", "03:00"},
	{"a user", "id -u operator; id -Gn operator | tr ' ' '\\n' | grep adm; stat -c '%U %a' /home/operator; grep -c op$ /etc/ssh/slate-keys/operator", "1234\nadm\noperator 700\n1"},
	{"the ssh server's mind", "mkdir -p /run/sshd; /usr/sbin/sshd -T 2>/dev/null | grep -i authorizedkeysfile", "authorizedkeysfile .ssh/authorized_keys /etc/ssh/slate-keys/%u"},
	{"names", "grep -c '^search lab.test' /etc/resolv.conf; getent hosts nas | awk '{print $1}'", "1\n10.77.0.9"},
	{"room in memory", "stat -c %a /run/slate/user-data/tmpfs/tmp; stat -fc %T /run/slate/user-data/tmpfs/var", "1777\ntmpfs"},
	{"homes in memory", "touch /home/x /root/x && rm /home/x /root/x; findmnt -no FSTYPE /home", "overlay"},
	{"machine-id", "grep -cE '^[0-9a-f]{32}$' /etc/machine-id", "1"},
	{"a host key of its own", "ls /etc/ssh/ssh_host_*_key | wc -l", "1"},
}

// second is a card on a network without an appliance.
var second = lab.NIC{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x02, 0x02}}

func checkLooks(t *testing.T, s *site, n *lab.Node, list []look) {
	t.Helper()
	for _, l := range list {
		out, _, err := n.Console().Run(t.Context(), commandLimit, l.cmd)
		if err != nil {
			t.Fatalf("%s: %v", l.what, err)
		}
		var lines []string
		for _, line := range strings.Split(strings.TrimSpace(strings.ReplaceAll(out, "\r", "")), "\n") {
			lines = append(lines, strings.TrimSpace(line))
		}
		if got := strings.Join(lines, "\n"); got != l.want {
			t.Errorf("%s: %s prints\n%s\nwant\n%s", l.what, l.cmd, got, l.want)
		}
	}
}

// A machine with 512 MB is what every file of config.d says, on systemd; when the
// memory for what is written is full the writer gets an error, the person at the
// console and the admin a warning, and the machine lives and shuts down.
func TestConfiguredSystemd(t *testing.T) {
	s := newSite(t, labtest.New(t, lab.Options{}))
	for name, text := range everything {
		s.conf(name, text)
	}
	s.serve()
	n := s.Node(lab.NodeSpec{Name: "small", Memory: 512, Boot: []string{"net"},
		NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x02, 0x01}}, second}})
	s.Expect(n, bootLimit, `configured by the appliance, revision [0-9]+`)
	s.login(n)
	checkLooks(t, s, n, append([]look{
		{"a service that is off, and one that is on", "systemctl is-active ssh; systemctl is-active getty@tty3", "inactive\nactive"},
		{"the second card", "ip -4 -brief address show | grep -o 10.99.0.2/24", "10.99.0.2/24"},
		{"nothing failed", "systemctl is-system-running --wait", "running"},
		{"the journal", "journalctl -b -q | head -1 | wc -l", "1"},
	}, looks...))
	checkFull(t, s, n)
	checkShutdown(t, s, n, shutdownLimit, newRounds(t, "shutdown-systemd", 2, 20))
}

// checkFull fills the memory for what is written.
func checkFull(t *testing.T, s *site, n *lab.Node) {
	out, status, err := n.Console().Run(t.Context(), commandLimit, "LC_ALL=C dd if=/dev/zero of=/var/tmp/big bs=1M")
	if err != nil || status == 0 || !strings.Contains(out, "No space left on device") {
		t.Errorf("filling the overlay: status %d, %v, %q; want ENOSPC", status, err, out)
	}
	s.Expect(n, commandLimit, `slate: The memory for what is written on this machine is (full|9[0-9]% full)`)
	s.Run(n, commandLimit, "ls /usr/bin > /dev/null; rm /var/tmp/big; touch /var/tmp/small")
	wait := time.Now().Add(commandLimit)
	for !strings.Contains(s.slate("node", "show", s.nodeName(n)), "The memory for what is written on this machine is") {
		if time.Now().After(wait) {
			t.Fatal("the timeline has no warning of the full memory")
		}
		s.Run(n, commandLimit, "sleep 1")
	}
}

// nodeName asks a machine for its name.
func (s *site) nodeName(n *lab.Node) string {
	return strings.TrimSpace(s.Run(n, commandLimit, "hostname"))
}

// How long a machine may take from poweroff to off. systemd gives a service that does
// not stop 90 s. OpenRC waits for good, and its scripts are slow on a busy host.
const (
	shutdownLimit       = 80 * time.Second
	shutdownLimitOpenRC = 4 * time.Minute
)

// checkShutdown shuts the machine down again and again; it must be off in time.
func checkShutdown(t *testing.T, s *site, n *lab.Node, limit time.Duration, r *rounds) {
	t.Helper()
	for first := true; r.left(); first = false {
		if !first {
			if err := n.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.login(n)
		}
		start := time.Now()
		if err := n.Console().SendLine("poweroff"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := n.Wait(ctx)
		cancel()
		if err != nil {
			t.Fatalf("shut-down %d hangs, not off after %v: %v\n%s", r.done+1, limit, err, strings.Join(n.Console().Tail(30), "\n"))
		}
		r.passed("shut-down in %.1f s", time.Since(start).Seconds())
	}
}

// The same on OpenRC, whose image the Makefile builds beside the demo's.
func TestConfiguredOpenRC(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("part of make soak: it takes minutes")
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	if _, err := s.try("image", "show", "openrc@stable"); err != nil {
		t.Fatalf("the store has no image openrc: make lab builds it (%v)", err)
	}
	for name, text := range everything {
		s.conf(name, text)
	}
	s.conf("controller/services/default-runlevel", strings.Replace(everything["controller/services/default-runlevel"], "dbus", "udev", 1))
	s.conf("system/boot.conf", "image = \"openrc@stable\"\ntimeout = 3\n"+slowMachine)
	s.serve()
	n := s.Node(lab.NodeSpec{Name: "openrc", Memory: 512, Boot: []string{"net"},
		NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x03, 0x01}}}})
	s.Expect(n, bootLimit, `configured by the appliance, revision [0-9]+`)
	s.login(n)
	checkLooks(t, s, n, append([]look{
		{"a service that is off", "ls /etc/runlevels/*/ssh 2>/dev/null; rc-service ssh status 2>&1 | grep -c started", "0"},
		{"nothing crashed", "rc-status -a | grep -c crashed", "0"},
	}, looks...))
	if text := s.slate("node", "show", s.nodeName(n)); !strings.Contains(text, "the image has no service getty@tty3") {
		t.Errorf("the timeline does not say what the image lacks:\n%s", text)
	}
	checkFull(t, s, n)
	checkShutdown(t, s, n, shutdownLimitOpenRC, newRounds(t, "shutdown-openrc", 1, 20))
}

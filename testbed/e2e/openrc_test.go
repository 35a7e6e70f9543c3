// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"os"
	"strings"
	"testing"

	"slate/testbed/lab"
	"slate/testbed/labtest"
)

// A Debian whose init is OpenRC, with packages, a file and a script of a recipe,
// runs diskless to its login prompt, and again after a reboot.
func TestOpenRC(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("part of make soak: it takes minutes")
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.conf("system/boot.conf", "image = \"openrc@stable\"\ntimeout = 3\n"+slowMachine)
	s.serve()
	n := s.Node(lab.NodeSpec{Name: "bios", Boot: []string{"net"}})
	s.login(n)
	run := func(cmd string) string { return strings.TrimSpace(s.Run(n, commandLimit, cmd)) }
	for cmd, want := range map[string]string{
		"cat /etc/slate-recipe /usr/share/slate-recipe":              "from the recipe\nfrom the script",
		"stat -c '%a %U %G' /etc/slate-recipe":                       "640 root adm",
		"tree --version | cut -d' ' -f1":                             "tree",
		"cat /proc/1/comm":                                           "init",
		"rc-status --crashed || true":                                "",
		"rc-status -f ini default | grep -c -E '= *crashed' || true": "0",
		"touch /usr/new 2>&1 | grep -o 'Read-only file system'":      "Read-only file system",
		"touch /etc/new /var/lib/new /root/new && echo writable":     "writable",
		"ls /etc/ssh/*_key | wc -l":                                  "1",
	} {
		if got := strings.ReplaceAll(run(cmd), "\r", ""); got != want {
			t.Errorf("%s = %q, want %q", cmd, got, want)
		}
	}
	if got := run("pidof sshd || true"); got == "" {
		t.Errorf("no ssh server runs:\n%s", run("rc-status -a"))
	}
	if err := n.Console().SendLine("reboot"); err != nil {
		t.Fatal(err)
	}
	s.login(n)
	if got := run("ls /etc/new /var/lib/new /root/new 2>/dev/null || true"); got != "" {
		t.Errorf("after a reboot there is still %s", got)
	}
}

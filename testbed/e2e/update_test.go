// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/process"
	"slate/testbed/qemu"
)

// installedNode is a machine that was installed unasked, with a filesystem, and is well.
func installedNode(t *testing.T, s *site, spec lab.NodeSpec, fs, update string) *lab.Node {
	t.Helper()
	name := nodeName(spec.NICs[0].MAC)
	s.conf("nodes/"+name+"/system/cboot.conf", "mode = \"installed\"\ntimeout = 3\n")
	s.conf("nodes/"+name+"/controller/drives.conf", "[[drive]]\nname = \"it\"\nmatch = { serial = \"THEDISK\" }\nfilesystem = \""+fs+"\"\n")
	s.conf("controller/update.chk.conf", update)
	s.serve()
	spec.Boot, spec.Disks = []string{"disk", "net"}, []lab.Disk{{Size: 5 << 30, Serial: "THEDISK"}}
	n := s.Node(spec)
	s.loginAfter(`slate:   demo/[0-9]+ is installed on vda, in`, n)
	s.waitFor("slate node show", "health ", "node", "show", name)
	return n
}

// nextVersion imports the version before with changes made by a script in its tree, and
// publishes it.
func (s *site) nextVersion(from, note, script string) string {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "tree")
	s.slate("image", "export", from, dir, "--format", "dir")
	shell(s.t, dir, script)
	out := s.slate("image", "import", dir, "--name", "demo", "--publish", "stable", "--note", note)
	if err := os.RemoveAll(dir); err != nil {
		s.t.Error(err)
	}
	return regexp.MustCompile(`demo/[0-9]+`).FindString(out)
}

// updateLimit is how long a running machine may take to fetch a version, which it does
// after everything else, and to start it.
const updateLimit = 2 * bootLimit

// loginUpdated waits for a machine that was told to update, and logs in.
func (s *site) loginUpdated(n *lab.Node, marker string) {
	s.t.Helper()
	s.Expect(n, updateLimit, marker)
	if err := n.Console().Login(s.t.Context(), bootLimit, "root", "slate"); err != nil {
		s.t.Fatal(err)
	}
}

// restart has the machine restart itself.
func restart(t *testing.T, n *lab.Node) {
	t.Helper()
	if err := n.Console().SendLine("systemctl reboot"); err != nil {
		t.Fatal(err)
	}
}

// runsNow asks the agent what runs.
func (s *site) runsNow(n *lab.Node) string {
	s.t.Helper()
	return s.Run(n, commandLimit, "slate-agent status; cat /etc/next-version 2>/dev/null; true")
}

// A BIOS machine on ext4 is asked for its next version: put off to the next start, it
// comes then unasked, proves itself, and is permanent; the admin brings it back.
func TestUpdateAsked(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("part of make soak: it takes a quarter of an hour")
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	n := installedNode(t, s, lab.NodeSpec{Name: "ask", NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x07, 0x01}}}}, "ext4", "timeout = 0\n")
	name := s.nodeName(n)
	v1 := regexp.MustCompile(`demo/[0-9]+`).FindString(s.runsNow(n))
	v2 := s.nextVersion("demo@stable", "one file more", "echo two > etc/next-version")

	restart(t, n)
	s.Expect(n, bootLimit, `There is another version of this machine's system`, `is to have `+v2+`: up to [0-9.]+ MB to fetch`, `note: one file more`)
	sender(t, n)("2")
	s.loginAfter(v2+`: at the next start`, n)
	if got := s.runsNow(n); !strings.Contains(got, v1+", system A") {
		t.Errorf("put off, the machine runs\n%s", got)
	}
	s.waitFor("slate status", v2, "status")

	restart(t, n)
	s.Expect(n, bootLimit, `update: `+v2+` instead of `+v1+`, as was said at the last start`)
	s.Expect(n, bootLimit, `[0-9]+ KB were fetched for `+v2)
	s.loginAfter(`system B, `+v2+`, is on trial`, n)
	if got := s.runsNow(n); !strings.Contains(got, v2+", system B") || !strings.Contains(got, "two") {
		t.Errorf("after the update the machine runs\n%s", got)
	}
	s.waitFor("slate node show", "runs      "+v2, "node", "show", name)
	t.Logf("for one file more: %s", regexp.MustCompile(`[0-9]+ KB were fetched.*`).FindString(s.slate("node", "show", name)))
	s.waitFor("slate node show", "health ", "node", "show", name)

	restart(t, n)
	s.loginAfter(`system B has earned its boot flag`, n)
	s.Run(n, commandLimit, "sync")
	if out := s.slate("node", "rollback", name); !strings.Contains(out, "goes back to "+v1) {
		t.Errorf("rollback says %s", out)
	}
	s.loginAfter(`starting `+v1+` from system A`, n)
	if got := s.runsNow(n); !strings.Contains(got, v1+", system A") {
		t.Errorf("after going back the machine runs\n%s", got)
	}
}

// A UEFI machine on btrfs is updated from the running system; without an appliance it
// starts as it is, and finds that when it is back.
func TestUpdateUnattended(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("part of make soak: it takes a quarter of an hour")
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	n := installedNode(t, s, lab.NodeSpec{Name: "auto", Firmware: qemu.UEFI, Memory: 1280, NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x07, 0x02}}}}, "btrfs",
		"mode = \"auto\"\nhealth-limit = 240\n")
	name := s.nodeName(n)

	// From the running system, by the admin.
	updateInUse(t, s, n)

	// Without an appliance it starts as it is.
	s.stop()
	restart(t, n)
	s.Expect(n, bootLimit, `what this machine is to run is not known`)
	s.loginAfter(`start [0-9]+ of this machine`, n)
	s.serve()
	s.waitFor("slate node show", "this machine started without a network, and has found one", "node", "show", name)
	s.waitFor("slate node logs", "what this machine is to run is not known", "node", "logs", name)
}

// tryLong runs a slate command that may take as long as some starts.
func (s *site) tryLong(words ...string) (string, error) {
	var out strings.Builder
	p, err := s.on.StartSpec(s.t.Context(), process.Spec{Name: "slate-" + words[0], Argv: s.args(words...), Log: &out})
	if err != nil {
		return "", err
	}
	err = p.Wait(s.t.Context())
	return out.String(), err
}

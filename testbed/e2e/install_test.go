// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

// Two machines are installed: one by a person at the console, one by what config.d
// says, through a power cut. Then the appliance is gone, they lose power, and they come
// up from their own drives; nothing else was touched. Their drives as other power cuts
// would have left them hold a whole system or none, and one that is whole when the power
// goes again at the start that earns the boot flag. In make soak the first is updated
// while it runs, and its drive always holds a system; what lost its boot flag then is
// not started.
func TestInstallAtTheConsole(t *testing.T) {
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.conf("system/cboot.conf", "timeout = 0\n") // the chooser waits for a person
	s.conf("nodes/node-1e0102/system/cboot.conf", "mode = \"installed\"\ntimeout = 3\n")
	s.conf("nodes/node-1e0102/controller/drives.conf", "[[drive]]\nname = \"it\"\nmatch = { serial = \"THE*\" }\nwipe = true\nfilesystem = \"btrfs\"\n")
	s.serve()
	bios := s.Node(lab.NodeSpec{Name: "bios", Boot: []string{"disk", "net"}, Disks: []lab.Disk{{Size: 5 << 30, Serial: "THEDISK", Record: true}},
		NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x01, 0x01}}}})
	other, lost := foreignDisks(t)
	uefi := s.Node(lab.NodeSpec{Name: "uefi", Firmware: qemu.UEFI, Boot: []string{"disk", "net"}, Memory: 1536,
		Disks: []lab.Disk{{File: other, Serial: "OTHER", Bus: "sata"}, {File: lost, Serial: "THEDISK", Record: true}},
		NICs:  []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x01, 0x02}}}})
	before := hashFile(t, other)

	rng := rand.New(rand.NewPCG(cutSeed(t), 0))
	middle := lost + ".middle"
	var g errgroup.Group
	g.Go(func() error { return cutInstall(t, uefi, lost, middle, rng) })
	installByHand(t, s, bios)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for n, marker := range map[*lab.Node]string{bios: `slate:   demo/[0-9]+ is installed on vda, in`, uefi: `slate:   demo/[0-9]+ is installed on vda, in`} {
		g.Go(func() error { return s.loginOne(n, marker) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	installed := checkCuts(t, s, bios, uefi, middle, rng)
	want := s.treeSurvey()
	for _, n := range []*lab.Node{bios, uefi} {
		checkInstalled(t, s, n, want)
		if got := s.Run(n, commandLimit, keep); strings.TrimSpace(got) != "kept" {
			t.Errorf("%s: a file in /home holds %q, want what was written", n.Name(), got)
		}
	}
	s.wantEvents(bios, "health done")
	comesUp := `system A has earned its boot flag`
	soak := os.Getenv("SLATE_SOAK") != "" // copying and comparing after everything else takes minutes
	if soak {
		updateInUse(t, s, bios)
		updated := newCuts(t, s, bios, 0, "cp --sparse=always "+installed.whole+" $D", installed.log.Len())
		updated.checkSlots(rng, 8, installed.log.Len(), slotRules{records: updated.records(), earned: []string{"a " + updated.records()[0].Ref()}})
		comesUp = `system B has earned its boot flag`
	}
	// The appliance is gone and the power is cut.
	s.stop()
	beforeSecond := filepath.Join(t.TempDir(), "before")
	for _, n := range []*lab.Node{bios, uefi} {
		n.PowerCut()
		if n == bios {
			shell(t, "/", fmt.Sprintf("cp --reflink=auto --sparse=always %q %q", n.DiskFile(0), beforeSecond))
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for n, marker := range map[*lab.Node]string{bios: comesUp, uefi: `slate:   starting demo/[0-9]+ from system A`} {
		g.Go(func() error { return s.loginOne(n, marker) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*lab.Node{bios, uefi} {
		if got := strings.TrimSpace(s.Run(n, commandLimit, ". /run/slate/facts; echo $SLATE_MODE $(cat /home/kept) $(stat -c %a:%s /run/slate/user-data/persistent/.slate/random-seed) $(cmp /home/machine-id /etc/machine-id && echo same)")); got != "installed kept 600:64 same" {
			t.Errorf("%s after the power cut: %q, want it installed, with what was kept, and the same machine; there is:\n%s", n.Name(), got,
				s.Run(n, commandLimit, "stat /home/kept; od -c /home/kept; dmesg | grep -i -e vda -e btrfs"))
		}
	}
	bios.PowerCut()
	uefi.PowerCut()
	if !soak { // TestUpdatePowerCuts has more of them
		second := newCuts(t, s, bios, 0, "cp --reflink=auto --sparse=always "+beforeSecond+" $D", 0)
		second.checkSlots(rng, 4, 0, slotRules{records: second.records(), earned: []string{"a " + second.records()[0].Ref()}})
	}
	if soak {
		m := &installedMachine{s, bios}
		m.on("b", `rm .slate/flag`)
		m.start()
		s.Expect(bios, bootLimit, `system B on vda is demo/[0-9]+: damaged \(its boot flag is missing\)`)
		s.loginAfter(startsA, bios)
	}
	if after := hashFile(t, other); after != before {
		t.Error("the drive that config.d does not name was changed")
	}
}

// keep writes a file that a power cut must leave alone, and what must stay the same, with
// a network or without.
const keep = "cp /etc/machine-id /home; echo kept > /home/kept; sync /home/*; cat /home/kept"

// cutInstall cuts the power in the middle of an installation, keeps a copy of the drive
// as it is then, and switches the machine on again.
func cutInstall(t *testing.T, n *lab.Node, drive, middle string, rng *rand.Rand) error {
	moments := []string{`make the file system of slate-data`, `slate: +[1-9][0-9]? % of`, `slate: +[4-8][0-9] % of`, `writing kernel and loaders`, `making the tree`, `writing to the disk`, `verifying`}
	at := moments[rng.IntN(len(moments))]
	if _, err := n.Console().Expect(t.Context(), bootLimit, at); err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	n.PowerCut()
	t.Logf("the power of %s is cut at: %s", n.Name(), at)
	if _, err := run("cp", "--reflink=auto", "--sparse=always", drive, middle); err != nil {
		return err
	}
	return n.Start(t.Context())
}

// checkCuts judges the drives as power cuts would have left them during what was
// recorded. It returns those of the first.
func checkCuts(t *testing.T, s *site, bios, uefi *lab.Node, middle string, rng *rand.Rand) *cuts {
	t.Helper()
	first := newCuts(t, s, bios, 0, "truncate -s 5G $D", 0)
	first.check(rng, 8)
	newCuts(t, s, uefi, 1, "cp --sparse=always "+middle+" $D", 0).check(rng, 8)
	return first
}

// updateInUse makes another version, and has a machine that is installed fetch it and
// start it, told by the admin.
func updateInUse(t *testing.T, s *site, n *lab.Node) {
	t.Helper()
	name := nodeName(n.Spec.NICs[0].MAC)
	s.waitFor("slate node show", "health ", "node", "show", name)
	next := s.nextVersion("demo@stable", "one file more", "echo two > etc/next-version")
	done := make(chan error, 1)
	go func() { _, err := s.tryLong("node", "update", name); done <- err }()
	s.loginUpdated(n, `starting `+next+` from system B`)
	if err := <-done; err != nil {
		t.Errorf("slate node update: %v", err)
	}
	if got := s.runsNow(n); !strings.Contains(got, next+", system B") || !strings.Contains(got, "two") {
		t.Errorf("after the update the machine runs\n%s", got)
	}
	t.Logf("%s", regexp.MustCompile(`.*KB fetched.*`).FindString(s.slate("node", "show", name)))
}

// foreignDisks makes a drive that must not be touched, and one that may be wiped.
func foreignDisks(t *testing.T) (other, lost string) {
	t.Helper()
	labtest.Need(t, "mkfs.ntfs")
	labtest.Need(t, "mkfs.ext4")
	dir := t.TempDir()
	shell(t, dir, `truncate -s 6G other lost; mkfs.ntfs -q -F -Q -L data other > /dev/null 2>&1; mkfs.ext4 -q -F -L old lost`)
	return filepath.Join(dir, "other"), filepath.Join(dir, "lost")
}

func hashFile(t *testing.T, name string) string {
	t.Helper()
	return strings.Fields(shell(t, filepath.Dir(name), "sha256sum "+filepath.Base(name)))[0]
}

// installByHand looks at what would be done in the shell, goes back twice, and installs.
func installByHand(t *testing.T, s *site, n *lab.Node) {
	t.Helper()
	send := sender(t, n)
	s.Expect(n, bootLimit, `No system image was found on this machine\.`, `Image +demo/`)
	send("3")
	s.Expect(n, commandLimit, `slate# `)
	send("install --dry-run vda\r")
	s.Expect(n, commandLimit, `THEDISK`, `confirm: no rule of drives\.conf fits it`, `more lines`)
	send(" ")
	s.Expect(n, commandLimit, `mkfs\.ext4`, `slate# `)
	send("exit\r")
	s.Expect(n, commandLimit, `No system image was found on this machine\.`, `Image +demo/`)
	send("2")
	s.Expect(n, commandLimit, `Install demo/[0-9]+ on which drive\?`, `vda, 5\.4 GB, virtio, serial THEDISK: empty`)
	send("1")
	s.Expect(n, commandLimit, `Type yes to install`)
	send("no\r")
	s.Expect(n, commandLimit, `nothing was changed`, `on which drive\?`, `vda, 5\.4 GB`)
	send("1")
	s.Expect(n, commandLimit, `Type yes to install`)
	send("yes\r")
}

func sender(t *testing.T, n *lab.Node) func(string) {
	return func(text string) {
		t.Helper()
		if err := n.Console().Send(text); err != nil {
			t.Fatal(err)
		}
	}
}

// checkInstalled looks at the root of a machine that is installed from inside, and
// compares all of it with the version.
func checkInstalled(t *testing.T, s *site, n *lab.Node, want string) {
	t.Helper()
	run := func(cmd string) string { return strings.TrimSpace(s.Run(n, 4*commandLimit, cmd)) }
	if got := run(". /run/slate/facts; echo $SLATE_MODE"); got != "installed" {
		t.Errorf("the machine says that it runs %q, want installed", got)
	}
	if out, status, err := n.Console().Run(t.Context(), commandLimit, "touch /usr/new"); err != nil || status == 0 || !strings.Contains(out, "Read-only file system") {
		t.Errorf("writing to /usr: status %d, %q, %v; want it refused as read-only", status, out, err)
	}
	if got := run("cd /run/slate/root && " + surveyInstalled); got != want {
		t.Errorf("the survey of the tree on the machine is %q, want that of the version, %q", got, want)
	}
}

// surveyInstalled leaves out what slate keeps beside the tree. The times of the root
// directory are its own.
var surveyInstalled = strings.NewReplacer("find . -xdev", "find . -xdev -path ./.slate -prune -o").Replace(survey)

// treeSurvey is the survey of the version that the tests boot, as a directory.
func (s *site) treeSurvey() string {
	s.t.Helper()
	labtest.NeedRoot(s.t)
	dir := filepath.Join(s.t.TempDir(), "version")
	s.slate("image", "export", "demo@stable", dir, "--format", "dir")
	out := shell(s.t, dir, survey)
	if err := os.RemoveAll(dir); err != nil {
		s.t.Error(err)
	}
	return out
}

func shell(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

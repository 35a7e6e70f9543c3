// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"slate/testbed/lab"
)

// keptMachine is the BIOS machine with ext4 that the soak keeps.
func keptMachine(t *testing.T) *installedMachine {
	t.Helper()
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("part of make soak: it takes a quarter of an hour")
	}
	return kinds[0].machine(t)
}

// What must not become of a machine that updates by itself: it takes nothing from an
// appliance with another key, nothing that an appliance said earlier, and when the
// appliance goes in the middle of an update it starts as it is and does it the next time.
func TestUpdateRefused(t *testing.T) {
	m := keptMachine(t)
	m.conf("controller/update.chk.conf", "mode = \"auto\"\n")
	start := func(want ...string) {
		t.Helper()
		m.start()
		m.Expect(m.n, bootLimit, want...)
	}
	login := func() {
		t.Helper()
		if err := m.n.Console().Login(t.Context(), bootLimit, "root", "slate"); err != nil {
			t.Fatal(err)
		}
	}
	// swap ends the appliance, has a script change its files, and starts it.
	swap := func(script string) {
		t.Helper()
		m.stop()
		shell(t, m.dir, script)
		m.serve()
	}
	dir := t.TempDir()
	start(startsB, `no update: demo/[0-9]+ is what runs`)
	login()
	m.endHealthy()
	swap("cp -a . " + dir + "/early")

	// Somebody else's appliance has taken the place of ours.
	m.stop()
	shell(t, m.dir, "cp -a . "+dir+"/ours; rm site.key* tls.*")
	m.slate("init", "--interface", lab.MainBridge)
	m.nextVersion("demo@stable", "", "echo evil > etc/next-version")
	m.slate("image", "sign", "demo@stable")
	m.serve()
	start(`the last start, [0-9]+, was of system B with demo/[0-9]+: ended`, `refused: it does not prove the site's key`, startsB)
	login()
	m.n.PowerCut()
	swap("rm -r *; cp -a " + dir + "/ours/. .")

	// The appliance goes while the machine fetches.
	v2 := m.nextVersion("demo@stable", "", "dd if=/dev/urandom of=opt/big bs=1M count=96 status=none; echo two > etc/next-version")
	m.n.Spec.NICs[0].Link = lab.Link{Delay: time.Millisecond} // a perfect one stays so
	start(`update: ` + v2 + ` instead of`)
	if err := m.n.SetLink(0, lab.Link{Delay: 200 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	m.Expect(m.n, bootLimit, `[0-9]+ % of [0-9]+ MB, [0-9.]+ MB/s, `)
	m.proc.Kill()
	if err := m.n.SetLink(0, lab.Link{}); err != nil {
		t.Fatal(err)
	}
	m.Expect(m.n, bootLimit, v2+` is not installed, going on with`)
	login()
	m.serve()
	m.endHealthy()
	start(`update: `+v2+` instead of`, `KB were fetched for `+v2, `system A, `+v2+`, is on trial`)
	login()
	m.endHealthy()

	// What the appliance said earlier.
	swap("rm -r *; cp -a " + dir + "/early/. .")
	start(`starting `+v2+` from system A`, `what this machine is to run is not known: the appliance says .*, before: refused`)
	login()
}

// A machine that is asked for its next version is told later, then nothing, which means
// now here, and the version after that is told now.
func TestUpdateAnswers(t *testing.T) {
	m := keptMachine(t)
	m.conf("controller/update.chk.conf", "timeout = 0\n")
	v2 := m.nextVersion("demo@stable", "two", "echo two > etc/next-version")
	m.start()
	m.Expect(m.n, bootLimit, `is to have `+v2+`: up to [0-9.]+ MB to fetch`, `note: two`)
	sender(t, m.n)("3")
	m.loginAfter(v2+`: later`, m.n)
	if got := m.runsNow(m.n); !strings.Contains(got, "demo/1, system B") {
		t.Errorf("told later, the machine runs\n%s", got)
	}
	m.conf("controller/update.chk.conf", "timeout = 3\nsilence = \"now\"\n")
	m.halt()
	m.start()
	m.loginAfter(v2+`: now`, m.n)
	if got := m.runsNow(m.n); !strings.Contains(got, v2+", system A") || !strings.Contains(got, "two") {
		t.Errorf("told nothing, the machine runs\n%s", got)
	}
	m.wantEvents(m.n, "health done")
	m.conf("controller/update.chk.conf", "timeout = 0\n")
	v3 := m.nextVersion("demo@stable", "", "echo three > etc/next-version")
	m.halt()
	m.start()
	m.Expect(m.n, bootLimit, `is to have `+v3+`: up to`)
	sender(t, m.n)("1")
	m.loginAfter(v3+`: now`, m.n)
	if got := m.runsNow(m.n); !strings.Contains(got, v3+", system B") || !strings.Contains(got, "three") {
		t.Errorf("told now, the machine runs\n%s", got)
	}
}

// At night a running machine fetches its next version, no faster than it may; in the
// morning it only has to be started.
func TestUpdateNight(t *testing.T) {
	m := keptMachine(t)
	const rate, size = 2 << 20, 24 << 20
	next := m.nextVersion("demo@stable", "", fmt.Sprintf("head -c %d /dev/urandom > opt/big", size))
	// The machine's clock is the appliance's.
	hour := func(d time.Duration) string { return time.Now().UTC().Add(d).Format("15:04") }
	m.conf("controller/update.chk.conf", fmt.Sprintf("timeout = 3\nnight = \"%s-%s\"\nrate = \"%d\"\n", hour(-10*time.Minute), hour(15*time.Minute), rate))
	m.start()
	m.loginAfter(next+`: later`, m.n)
	m.waitWithin(updateLimit, "slate node show", next+" is there, and is started at the next start", "node", "show", cycleNode)
	log := m.Run(m.n, commandLimit, `grep -e 'update: `+next+`' -e '`+next+` is there' /run/slate/boot.log`)
	at := regexp.MustCompile(`\[ *([0-9.]+)\] slate-agent: `).FindAllStringSubmatch(log, -1)
	if len(at) != 2 {
		t.Fatalf("the agent's log has %q", log)
	}
	from, _ := strconv.ParseFloat(at[0][1], 64)
	to, _ := strconv.ParseFloat(at[1][1], 64)
	if least := float64(size / rate); to-from < least {
		t.Errorf("fetched in %.0f s, which at %d bytes a second takes %.0f", to-from, rate, least)
	}
	t.Logf("fetched in %.0f s", to-from)
	m.halt()
	m.start()
	m.loginAfter(`starting `+next+` from system A`, m.n)
}

// A roll-out goes no further than its canary if that does not become healthy, which goes
// back by itself; a good one comes to all, a diskless machine too.
func TestUpdateCanary(t *testing.T) {
	m := keptMachine(t)
	m.conf("controller/services/default-runlevel", "healthy = [\"dbus\"]\n")
	m.conf("controller/update.chk.conf", "mode = \"auto\"\nhealth-limit = 240\ntries = 1\n")
	other := m.Node(lab.NodeSpec{Name: "other", Boot: []string{"net"}, NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x07, 0x03}}}})
	otherName := nodeName(other.Spec.NICs[0].MAC)
	m.start()
	m.loginAfter(startsB, m.n)
	m.login(other)
	m.wantEvents(m.n, "health done")
	m.wantEvents(other, "health done")
	rollOut := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			out, err := m.tryLong("node", "update", cycleNode, otherName)
			t.Logf("slate node update: %v\n%s", err, out)
			done <- err
		}()
		return done
	}

	// Without its bus; systemd would take the script of System V's for it.
	v1 := regexp.MustCompile(`demo/[0-9]+`).FindString(m.runsNow(m.n))
	ill := m.nextVersion("demo@stable", "", "rm usr/lib/systemd/system/dbus.service usr/lib/systemd/system/dbus.socket etc/init.d/dbus")
	done := rollOut()
	m.Expect(m.n, updateLimit, `starting `+ill+` from system A`)
	m.Expect(m.n, bootLimit, `starting `+v1+` from system B`)
	if err := m.n.Console().Login(t.Context(), bootLimit, "root", "slate"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("a roll-out whose canary failed ends well")
	}
	if got := m.slate("node", "show", otherName); strings.Contains(got, "runs      "+ill) {
		t.Errorf("the other node went on:\n%s", got)
	}
	m.waitFor("slate node show", "last failure", "node", "show", cycleNode)
	m.waitFor("slate node show", "dbus", "node", "show", cycleNode)

	good := m.nextVersion(v1, "", "echo good > etc/next-version")
	done = rollOut()
	m.loginUpdated(m.n, `starting `+good+` from system A`)
	m.loginAfter(good, other)
	if err := <-done; err != nil {
		t.Errorf("slate node update: %v", err)
	}
	for _, n := range []*lab.Node{m.n, other} {
		if got := m.runsNow(n); !strings.Contains(got, good) || !strings.Contains(got, "good") {
			t.Errorf("%s runs\n%s", n.Name(), got)
		}
	}
}

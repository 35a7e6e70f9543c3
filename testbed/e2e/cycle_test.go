// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"slate/netboot/config"
	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

// A machine is installed and comes through its first cycles; then it is damaged on its
// drive, again and again, and looks after itself. make soak keeps the machine as it
// is when both its systems are good, and which faults it came through.
func TestCycle(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("hours: make soak runs it")
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			var left []fault
			for _, f := range faults {
				if _, err := os.Stat(k.mark(t, f)); err != nil && (f.all || k.all && f.fs == "" || f.fs == k.fs) {
					left = append(left, f)
				}
			}
			if len(left) == 0 {
				return
			}
			m := k.machine(t)
			for _, f := range left {
				if f.offline {
					m.stop()
				}
				t.Run(f.name, func(t *testing.T) {
					m.part(t).suffer(f, filepath.Join(k.dir(t), "disk"))
					if err := os.WriteFile(k.mark(t, f), nil, 0o644); err != nil {
						t.Error(err)
					}
				})
				if f.offline {
					m.serve()
				}
			}
		})
	}
}

// kind is one of the machines that the soak keeps from one run to the next.
type kind struct {
	name, fs string
	fw       qemu.Firmware
	all      bool // has all the faults
}

var kinds = []kind{{"bios-ext4", config.Ext4, qemu.BIOS, true}, {"uefi-btrfs", config.Btrfs, qemu.UEFI, false}}

// dir is where it is kept. Another slate is another trial.
func (k kind) dir(t *testing.T) string {
	return filepath.Join(os.Getenv("SLATE_SOAK"), "cycle-"+k.name+"-"+hashFile(t, slateBinary(t))[:12])
}

func (k kind) mark(t *testing.T, f fault) string { return filepath.Join(k.dir(t), "passed "+f.name) }

// machine is it, with both its systems good, B being the active one, and its power off.
func (k kind) machine(t *testing.T) *installedMachine {
	t.Helper()
	m := newInstalled(t, k.fw, k.fs)
	m.bothGood(k.dir(t))
	return m
}

// installedMachine is one with a system on its drive.
type installedMachine struct {
	*site
	n *lab.Node
}

const cycleNode = "node-1e0301"

// newInstalled is a machine with an empty drive, on which it installs itself with a file
// system.
func newInstalled(t *testing.T, fw qemu.Firmware, fs string) *installedMachine {
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.conf("nodes/"+cycleNode+"/system/cboot.conf", "mode = \"installed\"\ntimeout = 3\ncmdline = [\"quiet\", \"panic=1\", \"systemd.default_device_timeout_sec=600\", \"no_timer_check\"]\n")
	s.conf("nodes/"+cycleNode+"/controller/drives.conf", "[[drive]]\nname = \"it\"\nmatch = { serial = \"IT\" }\nwipe = true\nfilesystem = \""+fs+"\"\n")
	s.conf("controller/health.d/own.conf", "[[check]]\nname = \"own\"\nscript = \"test ! -e /opt/ill\"\n")
	s.update("bailout", "weekly")
	s.serve()
	n := s.Node(lab.NodeSpec{Name: "it", Firmware: fw, Boot: []string{"disk", "net"}, Memory: 1536, Disks: []lab.Disk{{Size: 6 << 30, Serial: "IT", Record: true}}, FailOn: []*regexp.Regexp{},
		NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x03, 0x01}}}})
	return &installedMachine{s, n}
}

// bothGood brings the machine to where both its systems are good and the power is off, or
// takes it from where an earlier run kept it.
func (m *installedMachine) bothGood(keep string) {
	m.t.Helper()
	if !m.restore(keep) {
		m.firstCycle()
		m.second()
		m.save(keep)
	}
}

// update writes what config.d says about damage and verifying.
func (s *site) update(damaged, verify string) {
	s.conf("controller/update.chk.conf", fmt.Sprintf("damaged = %q\nhealth-limit = 110\ntries = 2\n[verify]\nat = %q\n", damaged, verify))
}

func (m *installedMachine) part(t *testing.T) *installedMachine {
	return &installedMachine{m.site.part(t), m.n}
}

// firstCycle installs the machine and lets it become healthy, and shuts it down.
func (m *installedMachine) firstCycle() {
	m.t.Helper()
	m.loginAfter(`slate:   demo/[0-9]+ is installed on vda, in`, m.n)
	m.endHealthy()
}

// endHealthy waits until the start-up is healthy, and shuts the machine down in order.
func (m *installedMachine) endHealthy() {
	m.t.Helper()
	m.wantEvents(m.n, "health done")
	m.halt()
}

// halt shuts the machine down in order.
func (m *installedMachine) halt() {
	m.t.Helper()
	if err := m.n.Console().Send("poweroff\r"); err != nil {
		m.t.Fatal(err)
	}
	if err := m.n.Wait(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *installedMachine) start() {
	m.t.Helper()
	if err := m.n.Start(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// second lets system A have its flag, and makes system B a copy of it that is healthy.
func (m *installedMachine) second() {
	m.t.Helper()
	m.on("a", `test ! -e .slate/flag`)
	m.update("clone", "weekly")
	m.damageB()
	m.start()
	m.Expect(m.n, bootLimit, `the last start, 1, was of system A with demo/[0-9]+: ended`, `system A has earned its boot flag: start 1 was healthy`,
		`system B on vda is demo/[0-9]+: damaged \(its boot flag is missing\)`, `copying demo/[0-9]+ from system A over system B`,
		`system B is demo/[0-9]+ again`, `starting demo/[0-9]+ from system B`)
	if err := m.n.Console().Login(m.t.Context(), bootLimit, "root", "slate"); err != nil {
		m.t.Fatal(err)
	}
	m.endHealthy()
	m.on("a", `test -s .slate/flag`)
	m.on("b", `test ! -e .slate/flag; test -e usr/bin/true`)
	m.start()
	m.Expect(m.n, bootLimit, `system A on vda is demo/[0-9]+: good`, `system B has earned its boot flag`, `system B on vda is demo/[0-9]+: good`, startsB)
	m.n.PowerCut()
	m.on("b", `test -s .slate/flag`)
	m.on("boot", `test -s slate/b/vmlinuz; ls logs/00001.log.zst logs/00002.log.zst; zstd -dc logs/00002.log.zst | grep -q 'copying demo'`)
}

// damageB makes of system B, which is empty, one that lost its flag, and the active one.
func (m *installedMachine) damageB() {
	m.t.Helper()
	tar := filepath.Join(m.t.TempDir(), "slate.tar")
	m.on("a", "tar cf "+tar+" .slate")
	m.on("b", "tar xf "+tar)
	m.env("slot=b")
}

// env sets the loader's variables.
func (m *installedMachine) env(words ...string) {
	m.t.Helper()
	labtest.Need(m.t, "grub-editenv")
	m.on("boot", "grub-editenv slate/grubenv set "+strings.Join(words, " "))
}

// on runs a script in a partition of the machine's drive, while that is off. Of the boot
// partition it gets a copy, which goes back: not every host's kernel knows FAT.
func (m *installedMachine) on(label, script string) string {
	m.t.Helper()
	labtest.NeedRoot(m.t)
	labtest.Need(m.t, "sfdisk")
	dir := m.t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "mnt"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	in := `mount -o loop,offset=$((start*512)),sizelimit=$((size*512))$subvol "$disk" mnt
		trap 'cd ..; umount mnt' EXIT
		cd mnt
		` + script
	if label == "boot" {
		labtest.Need(m.t, "mcopy")
		in = `export MTOOLS_SKIP_CHECK=1
		boot="$disk@@$((start*512))"
		cd mnt
		mcopy -s -n -i "$boot" ::slate ::logs .
		` + script + `
		mcopy -s -o -i "$boot" slate ::`
	}
	return shell(m.t, dir, fmt.Sprintf(`disk=%[1]q
		part=%[2]s subvol=
		if ! sfdisk --dump "$disk" | grep -q "name=\"slate-$part\""; then
			case $part in user) subvol=,subvol=@user-data ;; *) subvol=,subvol=@$part ;; esac
			part=data
		fi
		line=$(sfdisk --dump "$disk" | grep "name=\"slate-$part\"")
		start=$(echo "$line" | sed 's/.*start= *\([0-9]*\).*/\1/') size=$(echo "$line" | sed 's/.*size= *\([0-9]*\).*/\1/')
		%[3]s`, m.n.DiskFile(0), label, in))
}

// fault is something that happens to a machine whose two systems are good, B being the
// active one, and what it must do by itself.
type fault struct {
	name    string
	all     bool   // is done to every kind of machine
	fs      string // is done to machines with this file system only
	damaged string // what config.d says about damage; empty: bailout
	offline bool   // the appliance is gone
	spoil   func(m *installedMachine)
	want    []string // on the console, in order
	login   bool     // it ends with a login
	healthy bool     // and with a system that is healthy
	after   func(m *installedMachine)
}

// onTrial takes its flag from system B, and puts it on trial with one try.
func onTrial(m *installedMachine) {
	m.on("b", `test -s .slate/flag; rm .slate/flag`)
	m.on("boot", `tree=$(sed 's/.*slate.tree=\([0-9a-f]\{16\}\).*/\1/' slate/b/cmdline)
		grub-editenv slate/grubenv set slot=b tries_b=1 tries_a=2 trial_b=$tree-00000001`)
}

// word puts a word on the command line of system B.
func word(m *installedMachine, text string) {
	m.on("boot", fmt.Sprintf(`sed -i "s|'slate.slot=b'|& %s|" slate/grub.cfg; grep -q "slate.slot=b' %[1]s" slate/grub.cfg`, text))
}

const (
	startsA = `starting demo/[0-9]+ from system A`
	startsB = `starting demo/[0-9]+ from system B`
	failedB = `system B on vda is demo/[0-9]+: failed`
	backToA = `start system A: system B \(demo/[0-9]+\) did not come up`
)

var faults = []fault{
	{name: "flag deleted", all: true,
		spoil: func(m *installedMachine) { m.on("b", `rm .slate/flag`) },
		want:  []string{`system B on vda is demo/[0-9]+: damaged \(its boot flag is missing\)`, `start system A: system B: its boot flag`, startsA}},
	{name: "new slot's kernel panics", all: true,
		spoil: func(m *installedMachine) { onTrial(m); word(m, "rdinit=/none") },
		want:  []string{`Kernel panic`, failedB, backToA, startsA}},
	{name: "a file in the root altered", all: true,
		spoil: func(m *installedMachine) {
			m.update("bailout", "boot")
			m.on("b", `touch -r usr/bin/od ../stamp; printf X | dd of=usr/bin/od bs=1 seek=5000 conv=notrunc status=none; touch -r ../stamp usr/bin/od; rm -r usr/share/doc/bash; echo > etc/strange`)
		},
		want: []string{`system B: /etc/strange: is not of the image`, `system B: /usr/bin/od: its content is another`, `files, [0-9]+ KB, come from system A`,
			`mending /usr/bin/od`, `system B was compared`, startsB},
		after: func(m *installedMachine) {
			m.n.PowerCut()
			m.on("b", `test ! -e etc/strange; test -e usr/share/doc/bash/copyright; test -s .slate/flag; test ! -e .slate/mending`)
			digest := m.on("a", `sha256sum usr/bin/od`)
			m.on("b", `echo "`+digest+`" | sha256sum -c`)
		}},
	{name: "flag of the other slot",
		spoil: func(m *installedMachine) {
			file := filepath.Join(m.t.TempDir(), "flag")
			m.on("a", "cp .slate/flag "+file)
			m.on("b", "cp "+file+" .slate/flag")
		},
		want: []string{`damaged \(its boot flag is that of the other slot\)`, startsA}},
	{name: "backup slot empty, flag deleted", offline: true,
		spoil: func(m *installedMachine) {
			m.on("a", `find . -mindepth 1 -maxdepth 1 -exec rm -r {} +`)
			m.on("b", `rm .slate/flag`)
		},
		want: []string{`system B on vda is demo/[0-9]+: damaged`, `make system B whole`, `all of system B is as it should be`, startsB}},
	{name: "flag of another machine", damaged: "sync",
		spoil: func(m *installedMachine) { m.on("boot", `head -c 32 /dev/urandom > slate/flag.key`) },
		want: []string{`system B on vda is demo/[0-9]+: damaged \(its boot flag: it is altered, or another machine's\)`, `make system B whole`,
			`comparing system B`, `all of system B is as it should be`, startsB}, healthy: true},
	{name: "flag altered", all: true, damaged: "clone",
		spoil: func(m *installedMachine) { m.on("b", `sed -i s/b/c/ .slate/flag`) },
		want:  []string{`damaged \(its boot flag: it is altered`, `copying demo/[0-9]+ from system A over system B`, startsB}, healthy: true},
	{name: "clock wrong by ten years", offline: true,
		spoil: func(m *installedMachine) { onTrial(m); m.n.Spec.Clock = time.Now().AddDate(-10, 0, 0) },
		want:  []string{`system A on vda is demo/[0-9]+: good`, `system B on vda is demo/[0-9]+: trial`, startsB}, login: true,
		after: func(m *installedMachine) {
			m.Run(m.n, bootLimit, `until grep -q 'health: done' /run/slate/boot.log; do sleep 1; done; date +%Y`)
			m.halt()
			m.n.Spec.Clock = time.Now().AddDate(10, 0, 0)
			m.start()
			m.Expect(m.n, bootLimit, `system B has earned its boot flag`, `system B on vda is demo/[0-9]+: good`, startsB)
		}},
	{name: "its init hangs",
		spoil: func(m *installedMachine) { onTrial(m); word(m, "init=/usr/bin/sleep infinity") },
		want:  []string{startsB, `the last start, [0-9]+, was of system B with demo/[0-9]+: failed`, failedB, backToA, startsA}},
	{name: "health check fails", all: true,
		spoil: func(m *installedMachine) { onTrial(m); m.on("b", `touch opt/ill`) },
		want:  []string{startsB, `was of system B with demo/[0-9]+: failed`, failedB, backToA, startsA}, healthy: true},
	{name: "boot partition full",
		spoil: func(m *installedMachine) {
			m.on("boot", `free=$(mdir -i "$boot" :: | sed -n 's/^ *\([0-9 ]*\) bytes free.*/\1/p' | tr -d ' ')
			truncate -s $free full; mcopy -i "$boot" full ::; mdir -i "$boot" ::`)
		},
		want: []string{startsB}, healthy: true,
		after: func(m *installedMachine) {
			m.halt()
			m.on("boot", `mdel -i "$boot" ::full; test -s slate/grubenv; test -s slate/flag.key`)
			m.start()
			m.Expect(m.n, bootLimit, `system B on vda is demo/[0-9]+: good`, startsB)
		}},
	{name: "user-data full",
		spoil: func(m *installedMachine) {
			onTrial(m)
			m.on("user", `for size in 64k 4k; do dd if=/dev/zero of=full.$size bs=$size status=none || true; sync; done`)
		},
		want: []string{`system B on vda is demo/[0-9]+: trial`, startsB, `this start is not recorded, and earns no boot flag`}, healthy: true,
		after: func(m *installedMachine) {
			m.halt()
			m.on("user", `rm full.*`)
			m.start()
			m.Expect(m.n, bootLimit, `system B on vda is demo/[0-9]+: trial, 1 tries left`, startsB)
		}},
	{name: "health check fails in both", // a bound: it does not go round
		spoil: func(m *installedMachine) {
			onTrial(m)
			m.on("b", `touch opt/ill`)
			m.on("a", `touch opt/ill`)
			m.env("tries_a=1")
		},
		want: []string{startsB, backToA, startsA}, login: true,
		after: func(m *installedMachine) {
			m.wantEvents(m.n, "health failed")
			m.Run(m.n, bootLimit, `until grep -q 'no try is left' /run/slate/boot.log; do sleep 1; done`)
		}},
	{name: "backup slot empty, a file gone", damaged: "sync",
		spoil: func(m *installedMachine) {
			m.on("a", `find . -mindepth 1 -maxdepth 1 -exec rm -r {} +`)
			m.on("b", `rm .slate/flag usr/bin/od`)
		},
		want: []string{`make system B whole`, `/usr/bin/od: no such file`, `fetching what is missing`, `mending /usr/bin/od`, startsB}, healthy: true},
	{name: "backup slot empty, a file gone, no appliance", offline: true, damaged: "sync",
		spoil: func(m *installedMachine) {
			m.on("a", `find . -mindepth 1 -maxdepth 1 -exec rm -r {} +`)
			m.on("b", `rm .slate/flag usr/bin/od`)
		},
		want: []string{`make system B whole`, `/usr/bin/od: no such file`, `there is no appliance to ask`, `cannot make system B whole`, `The system of this machine cannot be started\.`, `Restarting in [0-9]+ s`}},
	{name: "half of a superblock", fs: config.Btrfs,
		spoil: func(m *installedMachine) {
			m.on("boot", `start=$(sfdisk --dump "$disk" | sed -n '/slate-data/s/.*start= *\([0-9]*\).*/\1/p')
				dd if=/dev/zero of="$disk" bs=512 seek=$((start+128+3)) count=5 conv=notrunc status=none`)
		},
		want: []string{`slate-data: its superblock was damaged`, `system B on vda is demo/[0-9]+: good`, startsB}, login: true},
	{name: "a required service dies",
		spoil: func(m *installedMachine) {
			m.conf("controller/services/default-runlevel", "healthy = [\"systemd-user-sessions\"]\n")
			onTrial(m)
			m.on("b", `chmod 644 usr/lib/systemd/systemd-user-sessions`)
		},
		want: []string{startsB, `was of system B with demo/[0-9]+: failed`, failedB, backToA, startsA}, healthy: true},
}

// suffer has the fault done to the machine, whose drive is as it was when both systems
// were good, and looks what it does.
func (m *installedMachine) suffer(f fault, good string) {
	m.t.Helper()
	m.n.PowerCut()
	shell(m.t, filepath.Dir(good), fmt.Sprintf("cp --sparse=always %q %q", good, m.n.DiskFile(0)))
	m.update(cmp.Or(f.damaged, "bailout"), "weekly")
	m.conf("controller/services/default-runlevel", "")
	m.n.Spec.Clock = time.Time{}
	f.spoil(m)
	m.start()
	m.Expect(m.n, bootLimit, f.want...)
	if f.login || f.healthy {
		if err := m.n.Console().Login(m.t.Context(), bootLimit, "root", "slate"); err != nil {
			m.t.Fatal(err)
		}
	}
	if f.healthy {
		m.wantEvents(m.n, "health done")
	}
	if f.after != nil {
		f.after(m)
	}
	m.n.PowerCut()
}

// save keeps the drive of the machine and the site that it belongs to.
func (m *installedMachine) save(dir string) {
	m.t.Helper()
	shell(m.t, "/", fmt.Sprintf("mkdir -p %[1]q; cd %[2]q; tar cf %[1]q/site.tar $(ls | grep -vx data) data/images; cp --sparse=always %[3]q %[1]q/disk.new; mv %[1]q/disk.new %[1]q/disk",
		dir, m.dir, m.n.DiskFile(0)))
}

// restore brings back what save kept, if it did.
func (m *installedMachine) restore(dir string) bool {
	m.t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "disk")); err != nil {
		return false
	}
	m.n.PowerCut()
	m.stop()
	shell(m.t, "/", fmt.Sprintf("tar xf %[1]q/site.tar -C %[2]q; cp --sparse=always %[1]q/disk %[3]q", dir, m.dir, m.n.DiskFile(0)))
	m.serve()
	return true
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

// The ways to install that TestInstallAtTheConsole does not go: each ends in a machine
// that starts from its own drive with its cable pulled.
func TestInstallWays(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("part of make soak: it takes a quarter of an hour")
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.conf("system/cboot.conf", "timeout = 0\n")
	for n, fs := range map[int]string{1: "btrfs", 2: "ext4", 3: "ext4", 5: "btrfs"} {
		node := fmt.Sprintf("nodes/node-1e%02x01/", n)
		s.conf(node+"system/cboot.conf", "mode = \"installed\"\ntimeout = 0\n")
		s.conf(node+"controller/drives.conf", "[[drive]]\nname = \"it\"\nmatch = { serial = \"IT\" }\nfilesystem = \""+fs+"\"\n")
	}
	s.conf("nodes/node-1e0301/system/boot.conf", secureBoot.conf) // its firmware starts what is signed
	// The fifth machine has two servers.
	s.conf("nodes/node-1e0501/controller/server/server.info.conf", "[[server]]\nurl = \"http://10.77.0.2:8070\"\n[[server]]\nurl = \"http://10.77.0.3:8070\"\n")
	dying, other := s.peer("dying", "10.77.0.2", "8070"), s.peer("other", "10.77.0.3", "8070")
	s.serve()
	ways := []struct {
		name string
		fw   qemu.Firmware
		run  func(*testing.T, *site, *lab.Node)
	}{
		{"bios-btrfs", qemu.BIOS, installedUnasked},
		{"uefi-ext4", qemu.UEFI, installedUnasked},
		{"secure-ext4", qemu.UEFISecure, installedUnasked},
		{"from-a-stick", qemu.UEFI, nil},
		{"server-dies", qemu.BIOS, nil},
	}
	for _, w := range ways {
		spec := lab.NodeSpec{Name: w.name, Firmware: w.fw, Boot: []string{"net"}, Disks: []lab.Disk{{Size: 4 << 30, Serial: "IT"}}}
		switch w.name {
		case "from-a-stick":
			spec.Boot, spec.Disks = []string{"disk1"}, append(spec.Disks, lab.Disk{Base: s.medium(mediaCase{kind: "usb"}), Bus: "usb", Serial: "STICK"})
			w.run = installedFromStick
		case "server-dies":
			w.run = func(t *testing.T, s *site, n *lab.Node) { installedThroughDeath(t, s, n, dying, other) }
		}
		n, err := s.AddNode(spec) // all are made, so that each has its number
		if err != nil {
			t.Fatal(err)
		}
		t.Run(w.name, func(t *testing.T) {
			if code, vars := w.fw.FirmwareFiles(); code != "" {
				labtest.NeedFile(t, code, vars)
			}
			if err := n.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer n.PowerCut()
			w.run(t, s.part(t), n)
		})
	}
}

// installedUnasked waits for what config.d says, and cuts the cable and the power.
func installedUnasked(t *testing.T, s *site, n *lab.Node) {
	s.loginAfter(`slate:   demo/[0-9]+ is installed on vda, in`, n)
	checkAlone(t, s, n, n.Spec.Firmware != qemu.BIOS)
}

// checkAlone starts a machine that is installed with no cable: from the drive, or by
// the entry that was made for it in the firmware, without being told what to start.
func checkAlone(t *testing.T, s *site, n *lab.Node, byEntry bool) {
	t.Helper()
	const entry = "cd /sys/firmware/efi/efivars && for f in Boot0*-8be4df61-*; do tr -d '\\000' < $f | grep -q Slate && echo ${f%%-*}; done; true"
	var number string
	n.Spec.Boot = []string{"disk0"}
	if byEntry {
		if number = strings.TrimSpace(s.Run(n, commandLimit, entry)); !strings.HasPrefix(number, "Boot") || strings.Contains(number, "\n") {
			t.Errorf("the firmware's entries named Slate: %q, want one", number)
		}
		n.Spec.Boot = []string{}
	}
	s.Run(n, commandLimit, keep)
	n.PowerCut()
	n.Spec.NICs[0].Unplugged = true
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.loginAfter(`slate:   starting demo/[0-9]+ from system A`, n)
	if got := strings.TrimSpace(s.Run(n, commandLimit, ". /run/slate/facts; echo $SLATE_MODE $(cat /home/kept) $(cmp /home/machine-id /etc/machine-id && echo same)")); got != "installed kept same" {
		t.Errorf("after the power cut: %q, want it installed, with what was kept", got)
	}
	if !byEntry {
		return
	}
	current := strings.TrimSpace(s.Run(n, commandLimit, "od -An -tx2 -j4 /sys/firmware/efi/efivars/BootCurrent-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
	if "Boot"+strings.ToUpper(current) != number {
		t.Errorf("the firmware started its entry %s, want ours, %s", current, number)
	}
	secure := strings.TrimSpace(s.Run(n, commandLimit, "od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
	if want := map[bool]string{true: "1", false: "0"}[n.Spec.Firmware == qemu.UEFISecure]; secure != want {
		t.Errorf("Secure Boot is %s, want %s", secure, want)
	}
}

// installedFromStick starts from a medium; a person installs.
func installedFromStick(t *testing.T, s *site, n *lab.Node) {
	send := sender(t, n)
	s.Expect(n, bootLimit, `started from sd[a-z0-9]+, which has`, `No system image was found on this machine\.`, `Waiting for your choice`)
	send("2")
	s.Expect(n, commandLimit, `on which drive\?`, `Not sd[a-z], .*serial STICK: in use: it is`, `1  vda, .*serial IT: empty`, `Waiting for your choice`)
	send("1")
	s.Expect(n, commandLimit, `Type yes to install`)
	send("yes\r")
	s.loginAfter(`slate:   demo/[0-9]+ is installed on vda, in`, n)
	checkAlone(t, s, n, false) // the firmware would start the stick, which it knows longer
}

// installedThroughDeath kills the server from which a machine is being installed: it
// goes on from the other.
func installedThroughDeath(t *testing.T, s *site, n *lab.Node, dying, other *peer) {
	m, err := n.Console().Expect(t.Context(), bootLimit, `going on with http://10\.77\.0\.([23]):8070`, `[0-9]+ % of [0-9]+ MB`)
	if err != nil {
		t.Fatal(err)
	}
	if m[0].Groups[1] == "3" {
		dying, other = other, dying
	}
	dying.proc.Kill()
	s.loginAfter(`slate:   demo/[0-9]+ is installed on vda, in`, n)
	if got := other.status(); !strings.Contains(got, "is installed on vda") {
		t.Error("the other server was not told that the machine is installed")
	}
	checkAlone(t, s, n, false)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"net"
	"os"
	"testing"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

// A UEFI machine with OpenRC on btrfs comes through a healthy cycle: its runlevel is
// reached, its services run, the agent outlives OpenRC's end, and the next start finds
// that the one before ended in order.
func TestCycleOpenRC(t *testing.T) {
	if os.Getenv("SLATE_SOAK") == "" {
		t.Skip("part of make soak: it takes minutes")
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.slate("image", "sign", "openrc@stable") // it is from the demo's store
	const node = "nodes/node-1e0302/"
	s.conf("system/boot.conf", "image = \"openrc@stable\"\ntimeout = 3\n"+slowMachine)
	s.conf(node+"system/cboot.conf", "mode = \"installed\"\ntimeout = 3\n")
	s.conf(node+"controller/drives.conf", "[[drive]]\nname = \"it\"\nmatch = { serial = \"IT\" }\nfilesystem = \"btrfs\"\n")
	s.conf("controller/services/default-runlevel", "healthy = [\"udev\"]\n")
	s.serve()
	m := &installedMachine{s, s.Node(lab.NodeSpec{Name: "it", Firmware: qemu.UEFI, Boot: []string{"disk", "net"}, Disks: []lab.Disk{{Size: 5 << 30, Serial: "IT"}},
		NICs: []lab.NIC{{MAC: net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, 0x03, 0x02}}}})}
	s.loginAfter(`slate:   openrc/[0-9]+ is installed on vda, in`, m.n)
	m.endHealthy()
	m.start()
	s.Expect(m.n, bootLimit, `the last start, 1, was of system A with openrc/[0-9]+: ended`, `system A has earned its boot flag: start 1 was healthy`,
		`system A on vda is openrc/[0-9]+: good`)
	s.loginAfter(`starting openrc/[0-9]+ from system A`, m.n)
	m.endHealthy()
}

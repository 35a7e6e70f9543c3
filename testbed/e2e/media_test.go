// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

// mediaCase is one way to start from a medium.
type mediaCase struct {
	kind     string // usb, iso, or isostick: an ISO image written to a stick
	firmware qemu.Firmware
	network  bool
	image    bool // --with-image
}

// made is what slate media is asked for.
func (c mediaCase) made() string { return strings.TrimSuffix(c.kind, "stick") }

func (c mediaCase) name() string {
	return fmt.Sprintf("%s-%s-network=%v-image=%v", c.kind, c.firmware, c.network, c.image)
}

// allMedia are all kinds of medium, firmware and network.
func allMedia() (all []mediaCase) {
	for _, kind := range []string{"usb", "iso"} {
		for _, fw := range []qemu.Firmware{qemu.BIOS, qemu.UEFI} {
			for _, network := range []bool{true, false} {
				for _, image := range []bool{true, false} {
					all = append(all, mediaCase{kind, fw, network, image})
				}
			}
		}
	}
	return append(all, mediaCase{"usb", qemu.UEFISecure, true, false}, mediaCase{"iso", qemu.UEFISecure, false, true},
		mediaCase{"isostick", qemu.BIOS, false, true}, mediaCase{"isostick", qemu.UEFI, true, false})
}

// A machine that has a stick or a disc and no network boot comes up all the same:
// from its server if there is a network, from the medium if that has the image;
// with neither the chooser says why. make soak tries them all.
func TestMedia(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"grub-mkimage", "mkfs.vfat", "mcopy", "sfdisk", "xorriso", "mksquashfs"} {
		labtest.Need(t, tool)
	}
	cases := allMedia()
	if os.Getenv("SLATE_SOAK") == "" {
		cases = []mediaCase{{"usb", qemu.BIOS, true, false}, {"iso", qemu.UEFI, false, true}}
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.serve()
	made := map[string]string{}
	for i, c := range cases {
		t.Run(c.name(), func(t *testing.T) {
			key := fmt.Sprint(c.made(), c.image)
			if made[key] == "" {
				made[key] = s.medium(c)
			}
			n := s.mediaMachine(fmt.Sprintf("m%d", i+1), c, made[key])
			defer n.PowerCut()
			checkMedium(t, s, n, c)
		})
	}
}

// medium writes a medium.
func (s *site) medium(c mediaCase) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "medium."+c.made())
	args := []string{"media", c.made(), file}
	if c.image {
		args = append(args, "--with-image")
	}
	if out := s.slate(args...); !strings.Contains(out, "It asks: http://10.77.0.1:8070") {
		s.t.Errorf("slate media says %q", out)
	}
	return file
}

// mediaMachine is a machine with the medium plugged in, an empty disk of its own,
// and a cable or none.
func (s *site) mediaMachine(name string, c mediaCase, file string) *lab.Node {
	s.t.Helper()
	medium := lab.Disk{Base: file, Bus: "usb"}
	if c.kind == "iso" {
		medium = lab.Disk{File: file, Bus: "sata", CDROM: true}
	}
	return s.Node(lab.NodeSpec{Name: name, Firmware: c.firmware, Boot: []string{"disk0"}, NICs: []lab.NIC{{Unplugged: !c.network}},
		Disks: []lab.Disk{medium, {Size: 64 << 20}}})
}

func checkMedium(t *testing.T, s *site, n *lab.Node, c mediaCase) {
	s.Expect(n, bootLimit, `Slate: loading the kernel`, `started from (sd|sr)[a-z0-9]+, which has`)
	switch {
	case c.network:
		s.Expect(n, bootLimit, `this machine is node-`, `No system image was found on this machine\.`, `Run demo/1 diskless`)
		s.loginAfter(`slate: step handover done`, n)
		if got := s.Run(n, commandLimit, "grep ' nfs ' /proc/mounts"); !strings.Contains(got, "10.77.0.1:/demo/") {
			t.Errorf("the root is %s", got)
		}
		if got := s.events(n); !slices.Contains(got, "handover done") {
			t.Errorf("the server has the events %q", got)
		}
	case c.image:
		s.Expect(n, bootLimit, `no network: `, `It cannot run from a server`, `Run demo/1 from this medium`)
		s.loginAfter(`running demo/1 from the medium`, n)
		if got := s.Run(n, commandLimit, "grep squashfs /proc/mounts; touch /usr/x 2>&1 || true; systemctl is-system-running --wait || true"); !strings.Contains(got, "Read-only file system") || !strings.Contains(got, "running") {
			t.Errorf("on the machine: %s", got)
		}
	default:
		s.Expect(n, bootLimit, `no network: `, `No system image was found on this machine\.`, `It cannot run from a server: .*no link`)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"slices"
	"testing"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

// A machine that enforces Secure Boot with Microsoft's keys comes by shim and GRUB
// to the controller, on the image's signed kernel.
func TestSecureBoot(t *testing.T) {
	labtest.NeedFile(t, "/usr/lib/shim/shimx64.efi.signed", "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed")
	s := newSite(t, labtest.New(t, lab.Options{}))
	// The kernel's messages are on the console from the start, "Secure boot enabled" with them.
	s.conf("system/boot.conf", "loader = \"grub\"\ncmdline = [\"loglevel=7\", \"panic=30\"]\n")
	s.serve()
	n := s.Node(lab.NodeSpec{Name: "secure", Firmware: qemu.UEFISecure, Boot: []string{"net"}})
	s.Expect(n, bootLimit, `Slate: \S+ starts demo/`, `[Ss]ecure boot enabled`, `No system image was found on this machine\.`)
	got := s.events(n)
	for _, w := range []string{"dhcp done", "loader done", "script done", "kernel done"} {
		if !slices.Contains(got, w) {
			t.Errorf("the timeline lacks %q: %q", w, got)
		}
	}
}

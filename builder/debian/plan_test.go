// SPDX-License-Identifier: GPL-2.0-or-later

package debian

import (
	"strings"
	"testing"
)

func TestPackagesOfAnArchitecture(t *testing.T) {
	list := []string{"less", "linux-image-{arch}", "grub-pc-bin [amd64 i386]", "grub-efi-{arch}-signed [amd64 arm64]"}
	for arch, want := range map[string]string{
		"amd64":   "less linux-image-amd64 grub-pc-bin grub-efi-amd64-signed",
		"arm64":   "less linux-image-arm64 grub-efi-arm64-signed",
		"riscv64": "less linux-image-riscv64",
	} {
		if got := strings.Join(packages(list, arch), " "); got != want {
			t.Errorf("packages for %s = %q, want %q", arch, got, want)
		}
	}
}

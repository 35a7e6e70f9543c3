// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import "fmt"

// Arch is a processor architecture and firmware as option 93 numbers them
// (IANA, Processor Architecture Types; RFC 4578 2.1).
type Arch uint16

// The architectures that machines in a room have. Others print as their number.
const (
	ArchBIOS      Arch = 0
	ArchEFI386    Arch = 6
	ArchEFIAMD64  Arch = 7
	ArchEFIBC     Arch = 9 // "EFI byte code"; x86-64 firmware sends it
	ArchEFIARM    Arch = 10
	ArchEFIARM64  Arch = 11
	ArchHTTP386   Arch = 15
	ArchHTTPAMD64 Arch = 16
	ArchHTTPBC    Arch = 17
	ArchHTTPARM   Arch = 18
	ArchHTTPARM64 Arch = 19
	ArchHTTPBIOS  Arch = 20
	ArchUBootARM  Arch = 21
	ArchUBoot64   Arch = 22
	ArchEFIRV64   Arch = 27
	ArchHTTPRV64  Arch = 28
)

var archs = map[Arch]struct{ name, machine string }{
	ArchBIOS:      {"bios", "386"},
	ArchEFI386:    {"efi-386", "386"},
	ArchEFIAMD64:  {"efi-amd64", "amd64"},
	ArchEFIBC:     {"efi-amd64", "amd64"},
	ArchEFIARM:    {"efi-arm", "arm"},
	ArchEFIARM64:  {"efi-arm64", "arm64"},
	ArchHTTP386:   {"efi-386", "386"},
	ArchHTTPAMD64: {"efi-amd64", "amd64"},
	ArchHTTPBC:    {"efi-amd64", "amd64"},
	ArchHTTPARM:   {"efi-arm", "arm"},
	ArchHTTPARM64: {"efi-arm64", "arm64"},
	ArchHTTPBIOS:  {"bios", "386"},
	ArchUBootARM:  {"uboot-arm", "arm"},
	ArchUBoot64:   {"uboot-arm64", "arm64"},
	ArchEFIRV64:   {"efi-riscv64", "riscv64"},
	ArchHTTPRV64:  {"efi-riscv64", "riscv64"},
}

// String is the firmware and machine in one word: bios, efi-amd64, efi-arm64 …
// An HTTP boot client has the name of its PXE sibling: the same loader fits both.
func (a Arch) String() string {
	if n := archs[a].name; n != "" {
		return n
	}
	return fmt.Sprintf("arch-%d", uint16(a))
}

// Machine is the processor in Go's words (386, amd64, arm64 …), "" if unknown. A
// BIOS machine says 386 and may well be able to run amd64.
func (a Arch) Machine() string { return archs[a].machine }

// UEFI reports whether the firmware is UEFI.
func (a Arch) UEFI() bool {
	switch a {
	case ArchBIOS, ArchHTTPBIOS, ArchUBootARM, ArchUBoot64:
		return false
	}
	return archs[a].name != ""
}

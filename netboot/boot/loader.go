// SPDX-License-Identifier: GPL-2.0-or-later

// Package boot decides what a machine boots: facts about a client in; loader or
// script, and the reason, out. Its functions are pure; the appliance carries out
// what they decide.
package boot

import (
	"fmt"
	"net/netip"

	"slate/netboot/api"
)

// Arch is the client system architecture of DHCP option 93 (RFC 4578, section
// 2.1, and the IANA registry "Processor Architecture Types").
type Arch uint16

// The architectures the appliance has a loader for, and those it knows by name.
const (
	ArchBIOS      Arch = 0
	ArchIA32      Arch = 6
	ArchX64       Arch = 7
	ArchEBC       Arch = 9 // what many x64 firmwares call themselves
	ArchARM64     Arch = 11
	ArchX64HTTP   Arch = 16
	ArchARM64HTTP Arch = 19
)

func (a Arch) String() string {
	switch a {
	case ArchBIOS:
		return "BIOS"
	case ArchIA32:
		return "UEFI 32-bit x86"
	case ArchX64, ArchEBC:
		return "UEFI x64"
	case ArchARM64:
		return "UEFI arm64"
	case ArchX64HTTP:
		return "UEFI x64 HTTP"
	case ArchARM64HTTP:
		return "UEFI arm64 HTTP"
	}
	return fmt.Sprintf("architecture %d", uint16(a))
}

// Client is what a machine's DHCP request says about the machine.
type Client struct {
	Arch       Arch
	PXE        bool // vendor class PXEClient
	HTTPClient bool // vendor class HTTPClient: UEFI HTTP boot
	IPXE       bool // user class iPXE: the loader itself asks
}

// Server is where the appliance answers.
type Server struct {
	Addr     netip.Addr
	HTTPPort int
}

// URL returns the URL of a path on the appliance.
func (s Server) URL(path string) string {
	return fmt.Sprintf("http://%s%s", netip.AddrPortFrom(s.Addr, uint16(s.HTTPPort)), path)
}

// Loader is what a machine is to load first. One of File (a TFTP name) and URL is set.
type Loader struct {
	File   string
	URL    string
	Reason string
}

// Names of the loaders the appliance serves, by TFTP and below api.PathLoader.
const (
	LoaderBIOS = "undionly.kpxe"
	LoaderX64  = "snponly.efi"
)

// Loaders are all of them.
func Loaders() []string { return []string{LoaderBIOS, LoaderX64} }

// ChooseLoader decides what answers a machine's DHCP request. If there is
// nothing to load for it, ok is false and Reason says why.
func ChooseLoader(c Client, s Server) (l Loader, ok bool) {
	switch {
	case c.IPXE:
		return Loader{URL: s.URL(api.PathScript), Reason: "iPXE runs already: boot script"}, true
	case c.HTTPClient && c.Arch == ArchX64HTTP:
		return Loader{URL: s.URL(api.PathLoader + LoaderX64), Reason: c.Arch.String() + " boot: iPXE by URL"}, true
	case c.HTTPClient:
		return Loader{Reason: "no loader for HTTP boot of " + c.Arch.String()}, false
	case !c.PXE:
		return Loader{Reason: "not a network boot: an address, no loader"}, false
	case c.Arch == ArchBIOS:
		return Loader{File: LoaderBIOS, Reason: "BIOS PXE: iPXE on the firmware's own driver"}, true
	case c.Arch == ArchX64 || c.Arch == ArchEBC:
		return Loader{File: LoaderX64, Reason: c.Arch.String() + " PXE: iPXE on the firmware's own driver"}, true
	}
	return Loader{Reason: "no loader for " + c.Arch.String()}, false
}

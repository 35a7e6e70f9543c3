// SPDX-License-Identifier: GPL-2.0-or-later

// Package boot decides what a machine boots: facts about a client in; loader or
// script, and the reason, out. Its functions are pure; the appliance carries out
// what they decide.
package boot

import (
	"fmt"
	"net/netip"

	"slate/netboot/api"
	"slate/netboot/config"
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
	PXE        bool          // vendor class PXEClient
	HTTPClient bool          // vendor class HTTPClient: UEFI HTTP boot
	IPXE       bool          // user class iPXE: the loader itself asks
	Loader     config.Loader // what config.d says; "": as the firmware needs
}

// Server is where the appliance answers.
type Server struct {
	Addr     netip.Addr
	HTTPPort int
	Has      func(loader string) bool // whether a loader file is there; nil: all are
}

func (s Server) has(loader string) bool { return s.Has == nil || s.Has(loader) }

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
	LoaderBIOS    = "undionly.kpxe"
	LoaderX64     = "snponly.efi" // on the firmware's own driver
	LoaderX64Full = "ipxe.efi"    // with drivers of its own
	LoaderARM64   = "snponly-arm64.efi"
	LoaderShim    = "shimx64.efi" // what Secure Boot trusts; it asks for LoaderGRUB by itself
	LoaderGRUB    = "grubx64.efi"
)

// ChooseLoader decides what answers a machine's DHCP request. If there is
// nothing to load for it, ok is false and Reason says why.
func ChooseLoader(c Client, s Server) (l Loader, ok bool) {
	none := func(format string, args ...any) (Loader, bool) {
		return Loader{Reason: fmt.Sprintf(format, args...)}, false
	}
	switch {
	case c.IPXE:
		return Loader{URL: s.URL(api.PathScript), Reason: "iPXE runs already: boot script"}, true
	case !c.PXE && !c.HTTPClient:
		return none("not a network boot: an address, no loader")
	}
	file, why := loaderFor(c)
	switch {
	case file == "" && c.HTTPClient:
		return none("no loader for HTTP boot of %s", c.Arch)
	case file == "":
		return none("no loader for %s", c.Arch)
	case file == LoaderShim && c.HTTPClient:
		return none("GRUB, which config.d asks for, cannot boot by HTTP: waiting for PXE")
	case file == LoaderShim && !s.has(LoaderGRUB):
		return none("the file of the loader %s is missing", LoaderGRUB)
	case !s.has(file):
		return none("the file of the loader %s is missing", file)
	case c.HTTPClient:
		return Loader{URL: s.URL(api.PathLoader + file), Reason: c.Arch.String() + " boot: " + why + " by URL"}, true
	}
	return Loader{File: file, Reason: c.Arch.String() + " PXE: " + why}, true
}

// loaderFor finds the file for the kind of machine, and says what it is. A loader
// that config.d names counts for the machines that can run it; "" if there is none.
func loaderFor(c Client) (file, why string) {
	const snp = "iPXE on the firmware's own driver"
	switch c.Arch {
	case ArchBIOS:
		if !c.HTTPClient {
			return LoaderBIOS, snp
		}
	case ArchX64, ArchEBC, ArchX64HTTP:
		switch c.Loader {
		case config.LoaderIPXE:
			return LoaderX64Full, "iPXE with drivers of its own, as config.d says"
		case config.LoaderGRUB:
			return LoaderShim, "shim and GRUB, as config.d says"
		}
		return LoaderX64, snp
	case ArchARM64, ArchARM64HTTP:
		return LoaderARM64, snp
	}
	return "", ""
}

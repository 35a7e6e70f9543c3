// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Client is what a request says about the machine that sent it. Every field but
// MAC can be empty: nothing in it can be relied on, it is what the machine says.
type Client struct {
	MAC       net.HardwareAddr
	IP        netip.Addr // the address it has or is given; invalid if none
	Interface string     // ours, on which the request came in
	Relay     netip.Addr // the relay that passed it on (giaddr); invalid if none

	UUID        string // option 97, as dmidecode prints it, lower case
	ClientID    string // option 61 in hex
	HostName    string // option 12
	VendorClass string // option 60
	UserClass   string // option 77; several are joined with commas

	Arch      Arch // option 93, else the one named in the vendor class
	ArchKnown bool // false: the client named none and Arch means nothing

	PXE          bool     // a PXE boot client: vendor class PXEClient
	HTTPClient   bool     // a UEFI HTTP boot client: vendor class HTTPClient
	IPXE         bool     // iPXE is asking: user class iPXE
	IPXEVersion  string   // option 175: 1.21.1
	IPXEFeatures []string // option 175: http, https, efi, menu …, sorted

	circuit, remote string // option 82, for the log
}

// WantsBoot reports whether the machine asks what to boot, not just for an address.
func (c Client) WantsBoot() bool { return c.PXE || c.HTTPClient || c.IPXE }

// String names the client the way log lines do: the MAC.
func (c Client) String() string { return c.MAC.String() }

// Kind says in a word or two what is asking: iPXE, PXE bios, HTTP efi-amd64, system.
func (c Client) Kind() string {
	switch {
	case c.IPXE:
		return "iPXE"
	case c.HTTPClient:
		return "HTTP " + c.Arch.String()
	case c.PXE && c.ArchKnown:
		return "PXE " + c.Arch.String()
	case c.PXE:
		return "PXE"
	}
	return "system"
}

// parseClient collects the facts of a request. It never fails: what cannot be
// read is left empty.
func parseClient(p *dhcpv4.DHCPv4) Client {
	c := Client{
		MAC:         slices.Clone(p.ClientHWAddr),
		IP:          addrOf(p.ClientIPAddr),
		Relay:       addrOf(p.GatewayIPAddr),
		UUID:        parseUUID(p.Options.Get(dhcpv4.OptionClientMachineIdentifier)),
		ClientID:    hex.EncodeToString(p.Options.Get(dhcpv4.OptionClientIdentifier)),
		HostName:    printable(p.Options.Get(dhcpv4.OptionHostName)),
		VendorClass: printable(p.Options.Get(dhcpv4.OptionClassIdentifier)),
	}
	c.PXE = strings.HasPrefix(c.VendorClass, classPXE)
	c.HTTPClient = strings.HasPrefix(c.VendorClass, classHTTP)
	c.Arch, c.ArchKnown = parseArch(p.Options.Get(dhcpv4.OptionClientSystemArchitectureType), c.VendorClass)

	classes := parseUserClass(p.Options.Get(dhcpv4.OptionUserClassInformation))
	c.UserClass = strings.Join(classes, ",")
	c.IPXE = slices.Contains(classes, "iPXE")
	if c.IPXE {
		c.IPXEVersion, c.IPXEFeatures = parseIPXE(p.Options.Get(dhcpv4.OptionEtherboot))
	}
	if agent := p.Options.Get(dhcpv4.OptionRelayAgentInformation); agent != nil {
		sub := parseSub(agent)
		c.circuit, c.remote = printable(sub[1]), printable(sub[2])
	}
	return c
}

// The vendor classes of network boot: RFC 4578 section 3 of PXE, UEFI 2.5 of HTTP.
const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
)

// parseUUID reads option 97 (RFC 4578, 2.3): a type 0 and 16 bytes in SMBIOS
// order, the first three fields little endian. All zeros and all ones are what
// boards without a number send: no UUID.
func parseUUID(b []byte) string {
	if len(b) != 17 || b[0] != 0 {
		return ""
	}
	u := b[1:]
	if same(u, 0) || same(u, 0xff) {
		return ""
	}
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x",
		u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8:10], u[10:16])
}

func same(b []byte, v byte) bool {
	return !slices.ContainsFunc(b, func(x byte) bool { return x != v })
}

// parseArch reads option 93; a client may list several, the first counts. Some
// firmware leaves the option out and names the number only in its vendor class,
// PXEClient:Arch:00007:UNDI:003016.
func parseArch(b []byte, class string) (Arch, bool) {
	if len(b) >= 2 {
		return Arch(b[0])<<8 | Arch(b[1]), true
	}
	_, rest, ok := strings.Cut(class, ":Arch:")
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(digits, 10, 16)
	return Arch(n), err == nil
}

// parseUserClass reads option 77 in the form of RFC 3004, a list of strings each
// after its length. iPXE and others send the bare string instead, which is
// recognized by its lengths not adding up.
func parseUserClass(b []byte) []string {
	var list []string
	for rest := b; len(rest) > 0; {
		n := int(rest[0])
		if n == 0 || n >= len(rest) {
			return []string{printable(b)}
		}
		list = append(list, printable(rest[1:1+n]))
		rest = rest[1+n:]
	}
	return list
}

// ipxeFeatures names the sub-options of option 175 by which iPXE tells what it
// was built with (its dhcp.h and features.h).
var ipxeFeatures = map[uint8]string{
	16: "pxeext", 17: "iscsi", 18: "aoe", 19: "http", 20: "https", 21: "tftp", 22: "ftp", 23: "dns",
	24: "bzimage", 25: "multiboot", 26: "slam", 27: "srp", 32: "nbi", 33: "pxe", 34: "elf", 35: "comboot",
	36: "efi", 37: "fcoe", 38: "vlan", 39: "menu", 40: "sdi", 41: "nfs",
}

const (
	ipxeVersion   = 235 // sub-option of 175: major, minor, patch
	ipxeNoProxy   = 176 // sub-option of 175: do not wait for a proxyDHCP answer
	ipxeMaxOption = 64  // no build has more features; a bound for what a packet can make us keep
)

func parseIPXE(b []byte) (version string, features []string) {
	sub := parseSub(b)
	if v := sub[ipxeVersion]; len(v) >= 3 {
		version = fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
	}
	for code, v := range sub {
		if name := ipxeFeatures[code]; name != "" && !same(v, 0) && len(features) < ipxeMaxOption {
			features = append(features, name)
		}
	}
	slices.Sort(features)
	return version, features
}

// parseSub reads encapsulated options (43, 82, 175). What follows the first one
// that does not fit is dropped: firmware pads with anything.
func parseSub(b []byte) map[uint8][]byte {
	sub := map[uint8][]byte{}
	for len(b) >= 2 {
		code, n := b[0], int(b[1])
		if code == 0 {
			b = b[1:]
			continue
		}
		if code == 255 || n > len(b)-2 {
			break
		}
		sub[code] = b[2 : 2+n]
		b = b[2+n:]
	}
	return sub
}

// printable makes text from the network safe to print: trailing NULs cut, all
// that is not a graphic character shown as '?'.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimRight(string(b), "\x00"))
}

// addrOf is ip as a netip.Addr, invalid for 0.0.0.0 and nonsense.
func addrOf(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

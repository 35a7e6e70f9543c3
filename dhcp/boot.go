// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"bytes"
	"context"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Booter decides what a client boots.
type Booter interface {
	// Boot answers for a client that asks what to boot. False: nothing; Server
	// then gives only an address, Proxy stays silent, and Boot.Reason says why in
	// the timeline. It is called for the offer and again for the acknowledgement,
	// from several goroutines, and must be quick.
	Boot(ctx context.Context, c Client) (Boot, bool)
}

// Boot is what a client is told to boot.
type Boot struct {
	NextServer netip.Addr // where File is; invalid: the address the answer comes from
	File       string     // TFTP name of the loader, for PXE
	URL        string     // for iPXE: the script; for HTTP boot: the loader
	Reason     string     // why this, for people
}

// What option 43 carries in PXE (PXE specification 2.1, table 2-1).
const (
	pxeDiscoveryControl = 6
	pxeBootItem         = 71

	// pxeBootDirectly in the discovery control: skip boot server discovery and
	// menu, fetch the file named in this very packet.
	pxeBootDirectly = 8
)

// headerFile is the longest name the header's file field takes, with its NUL.
const headerFile = 127

// answerAs is in which part we give a boot answer: the firmware's rules differ.
type answerAs int

const (
	fromServer    answerAs = iota // in an answer with an address
	fromProxy                     // without an address, on port 67
	fromProxy4011                 // to a client that asked on port 4011
)

// setBoot puts what the client boots into the reply, where its kind of firmware
// looks for it. self is our address towards the client.
func setBoot(reply, req *dhcpv4.DHCPv4, c Client, boot Boot, self netip.Addr, from answerAs) {
	next := boot.NextServer
	if !next.IsValid() {
		next = self
	}
	reply.ServerIPAddr = next.AsSlice()
	if v := req.Options.Get(dhcpv4.OptionClientMachineIdentifier); v != nil {
		reply.Options[dhcpv4.OptionClientMachineIdentifier.Code()] = v // RFC 4578, 2.3: given back as it came
	}
	switch {
	case c.IPXE:
		setClass(reply, c)
		name := boot.URL
		if name == "" {
			name = boot.File
		}
		setFile(reply, name)
		if from == fromServer {
			// iPXE otherwise waits seconds for a proxyDHCP answer.
			reply.Options[dhcpv4.OptionEtherboot.Code()] = []byte{ipxeNoProxy, 1, 1}
		}
	case c.HTTPClient:
		setClass(reply, c) // without the echo UEFI ignores the offer
		setFile(reply, boot.URL)
	default:
		setPXE(reply, req, c, boot, next, from)
	}
}

func setPXE(reply, req *dhcpv4.DHCPv4, c Client, boot Boot, next netip.Addr, from answerAs) {
	setClass(reply, c)
	reply.ServerHostName = next.String()
	reply.BootFileName = boot.File
	// Some ROMs read these options as C strings and take what follows for part of
	// the name; the NUL ends it. They go only to clients that ask for them.
	if asked(req, dhcpv4.OptionTFTPServerName) {
		reply.Options[dhcpv4.OptionTFTPServerName.Code()] = append([]byte(next.String()), 0)
	}
	if asked(req, dhcpv4.OptionBootfileName) || len(boot.File) > headerFile {
		reply.Options[dhcpv4.OptionBootfileName.Code()] = append([]byte(boot.File), 0)
	}

	// Who names option 150 (RFC 5859) takes the servers there and nowhere else.
	if v := req.Options.Get(dhcpv4.OptionParameterRequestList); bytes.IndexByte(v, dhcpv4.OptionTFTPServerAddress.Code()) >= 0 {
		if _, set := reply.Options[dhcpv4.OptionTFTPServerAddress.Code()]; !set {
			reply.Options[dhcpv4.OptionTFTPServerAddress.Code()] = next.AsSlice()
		}
	}

	// UEFI (EDK2) drops a proxy offer that carries a discovery control, and takes
	// one without it as a sign to ask again on port 4011. In an offer with an
	// address it is the other way round: there the control makes it use the file
	// at once, and without it it would go to 4011. BIOS ROMs want the control in
	// all cases, or they discover boot servers for a minute.
	var sub []byte
	if from == fromServer || !c.Arch.UEFI() {
		sub = append(sub, pxeDiscoveryControl, 1, pxeBootDirectly)
	}
	if from == fromProxy4011 {
		if item := parseSub(req.Options.Get(dhcpv4.OptionVendorSpecificInformation))[pxeBootItem]; len(item) == 4 {
			sub = append(append(sub, pxeBootItem, 4), item...)
		}
	}
	if sub != nil {
		reply.Options[dhcpv4.OptionVendorSpecificInformation.Code()] = append(sub, 255)
	}
}

// setClass echoes the kind of boot client: without it the answer is not taken
// for a boot answer.
func setClass(reply *dhcpv4.DHCPv4, c Client) {
	switch {
	case strings.HasPrefix(c.VendorClass, classHTTP):
		reply.Options[dhcpv4.OptionClassIdentifier.Code()] = []byte(classHTTP)
	case strings.HasPrefix(c.VendorClass, classPXE):
		reply.Options[dhcpv4.OptionClassIdentifier.Code()] = []byte(classPXE)
	}
}

// setFile names a file or URL in option 67, and in the header too where it fits:
// cut off there it would be worse than absent.
func setFile(reply *dhcpv4.DHCPv4, name string) {
	reply.Options[dhcpv4.OptionBootfileName.Code()] = []byte(name)
	if len(name) <= headerFile {
		reply.BootFileName = name
	}
}

// asked reports whether the client lists the option in its parameter request
// list. Without a list it gets all there is.
func asked(req *dhcpv4.DHCPv4, code dhcpv4.OptionCode) bool {
	list := req.Options.Get(dhcpv4.OptionParameterRequestList)
	if list == nil {
		return true
	}
	for _, c := range list {
		if c == code.Code() {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"slate/dhcp"
)

var testMAC = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}

// uuidOption is option 97 of a machine whose dmidecode says
// 4c4c4544-0051-3510-8052-b4c04f4a3332.
var uuidOption = []byte{0, 0x44, 0x45, 0x4c, 0x4c, 0x51, 0x00, 0x10, 0x35, 0x80, 0x52, 0xb4, 0xc0, 0x4f, 0x4a, 0x33, 0x32}

// message makes a request of testMAC.
func message(t dhcpv4.MessageType, opts map[uint8]string) *dhcpv4.DHCPv4 {
	p := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: testMAC,
		TransactionID: dhcpv4.TransactionID{1, 2, 3, 4},
		Options:       dhcpv4.Options{53: {byte(t)}},
	}
	for code, v := range opts {
		p.Options[code] = []byte(v)
	}
	return p
}

func TestClientFacts(t *testing.T) {
	for _, c := range []struct {
		name string
		opts map[uint8]string
		want dhcp.Client
		kind string
	}{
		{
			name: "a running system",
			opts: map[uint8]string{61: "\x01\x52\x54\x00\x12\x34\x56", 12: "pc-7\x00", 60: "systemd-networkd"},
			want: dhcp.Client{ClientID: "01525400123456", HostName: "pc-7", VendorClass: "systemd-networkd"},
			kind: "system",
		}, {
			name: "a BIOS PXE ROM",
			opts: map[uint8]string{60: "PXEClient:Arch:00000:UNDI:002001", 93: "\x00\x00", 97: string(uuidOption)},
			want: dhcp.Client{VendorClass: "PXEClient:Arch:00000:UNDI:002001", PXE: true, ArchKnown: true, UUID: "4c4c4544-0051-3510-8052-b4c04f4a3332"},
			kind: "PXE bios",
		}, {
			name: "a ROM that names its architecture in the class only, and has no UUID",
			opts: map[uint8]string{60: "PXEClient:Arch:00007:UNDI:003016", 97: string(make([]byte, 17))},
			want: dhcp.Client{VendorClass: "PXEClient:Arch:00007:UNDI:003016", PXE: true, Arch: dhcp.ArchEFIAMD64, ArchKnown: true},
			kind: "PXE efi-amd64",
		}, {
			name: "UEFI HTTP boot",
			opts: map[uint8]string{60: "HTTPClient:Arch:00016:UNDI:003001", 93: "\x00\x10"},
			want: dhcp.Client{VendorClass: "HTTPClient:Arch:00016:UNDI:003001", HTTPClient: true, Arch: dhcp.ArchHTTPAMD64, ArchKnown: true},
			kind: "HTTP efi-amd64",
		}, {
			name: "iPXE, with the bare user class it sends",
			opts: map[uint8]string{60: "PXEClient:Arch:00007:UNDI:003010", 93: "\x00\x07\x00\x09", 77: "iPXE",
				175: "\xb1\x05\x01\x1a\xf4\x10\x00\xeb\x03\x01\x15\x01\x13\x01\x01\x24\x01\x01\x27\x01\x01\x14\x01\x00"},
			want: dhcp.Client{VendorClass: "PXEClient:Arch:00007:UNDI:003010", PXE: true, Arch: dhcp.ArchEFIAMD64, ArchKnown: true,
				UserClass: "iPXE", IPXE: true, IPXEVersion: "1.21.1", IPXEFeatures: []string{"efi", "http", "menu"}},
			kind: "iPXE",
		}, {
			name: "user classes as in RFC 3004",
			opts: map[uint8]string{77: "\x04iPXE\x05room1"},
			want: dhcp.Client{UserClass: "iPXE,room1", IPXE: true},
			kind: "iPXE",
		}, {
			name: "a user class with lengths that do not add up is a bare string",
			opts: map[uint8]string{77: "\x04iPXE\x09x"},
			want: dhcp.Client{UserClass: "?iPXE?x"},
			kind: "system",
		}, {
			name: "nothing readable",
			opts: map[uint8]string{60: "PXEClient:Arch:x\x1b[2J", 93: "\x01", 97: "\x01short", 77: "\x00", 175: "\xeb\x09\x01", 12: "\xff\xfe", 82: "\x01"},
			want: dhcp.Client{VendorClass: "PXEClient:Arch:x?[2J", PXE: true, HostName: "??"},
			kind: "PXE",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Through the wire, as it comes.
			p, err := dhcp.ParsePacket(message(dhcpv4.MessageTypeDiscover, c.opts).ToBytes())
			if err != nil {
				t.Fatal(err)
			}
			c.want.MAC = testMAC
			got := dhcp.ParseClient(p)
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(dhcp.Client{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("client (-want +got):\n%s", diff)
			}
			if got.Kind() != c.kind {
				t.Errorf("Kind() = %q, want %q", got.Kind(), c.kind)
			}
		})
	}
}

// Options may continue in the file and sname fields (option 52).
func TestOverloadedOptions(t *testing.T) {
	p := message(dhcpv4.MessageTypeDiscover, map[uint8]string{52: "\x03", 12: "pc"})
	p.BootFileName = "\x0c\x02-7\x3c\x09PXEClient\xff"
	p.ServerHostName = "\x4d\x04iPXE\xff"
	got, err := dhcp.ParsePacket(p.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	c := dhcp.ParseClient(got)
	if c.HostName != "pc-7" || !c.PXE || !c.IPXE || got.BootFileName != "" || got.ServerHostName != "" {
		t.Errorf("client %+v, file %q, sname %q: want the options of all three fields", c, got.BootFileName, got.ServerHostName)
	}
}

func TestArch(t *testing.T) {
	for _, c := range []struct {
		arch          dhcp.Arch
		name, machine string
		uefi          bool
	}{
		{dhcp.ArchBIOS, "bios", "386", false},
		{dhcp.ArchEFIAMD64, "efi-amd64", "amd64", true},
		{dhcp.ArchEFIBC, "efi-amd64", "amd64", true},
		{dhcp.ArchHTTPARM64, "efi-arm64", "arm64", true},
		{dhcp.ArchUBoot64, "uboot-arm64", "arm64", false},
		{4711, "arch-4711", "", false},
	} {
		if c.arch.String() != c.name || c.arch.Machine() != c.machine || c.arch.UEFI() != c.uefi {
			t.Errorf("arch %d: %s %q %v, want %s %q %v", c.arch, c.arch, c.arch.Machine(), c.arch.UEFI(), c.name, c.machine, c.uefi)
		}
	}
}

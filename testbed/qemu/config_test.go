// SPDX-License-Identifier: GPL-2.0-or-later

package qemu_test

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"slate/testbed/golden"
	"slate/testbed/qemu"
)

var mac = net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}

func TestArgs(t *testing.T) {
	sector := int64(2048)
	for _, c := range []struct {
		file string
		conf qemu.Config
	}{
		{"bios", qemu.Config{Name: "b", NICs: []qemu.NIC{{MAC: mac}, {Model: "rtl8139", MAC: mac, ROM: "none", Datagrams: true}}, UUID: "11111111-2222-3333-4444-555555555555", Serial: "S,1"}},
		{"uefi", qemu.Config{Name: "u", Firmware: qemu.UEFI, VarsFile: "/lab/u,vars.fd", Memory: 512, CPUs: 2, Accel: qemu.KVM, UEFINet: map[string]bool{"ipv6": false},
			NICs: []qemu.NIC{{MAC: mac}, {Model: "e1000e", MAC: mac}, {MAC: mac, ROM: "/roms/x.rom"}}}},
		{"uefi-secure", qemu.Config{Name: "s", Firmware: qemu.UEFISecure, VarsFile: "/lab/s.fd", Clock: time.Date(2016, 2, 29, 23, 59, 0, 0, time.UTC)}},
		{"uefi-arm64", qemu.Config{Name: "a", Firmware: qemu.UEFIARM64, VarsFile: "/lab/a.fd", NICs: []qemu.NIC{{MAC: mac}}}},
		{"disks", qemu.Config{Name: "d", Boot: []string{"disk2", "net"}, NICs: []qemu.NIC{{MAC: mac}}, Disks: []qemu.Disk{
			{File: "/lab/a,b.qcow2", Format: "qcow2", Serial: "WD-1", Record: "/lab/a.log"},
			{File: "/lab/c.raw", Bus: "sata", ReadOnly: true},
			{File: "/lab/d.raw", Bus: "nvme", Faults: []qemu.Fault{{Event: "write_aio", Errno: 5, Sector: &sector, Once: true}}},
			{File: "/lab/e.raw", Bus: "usb"}, {File: "/lab/f.raw", Bus: "usb"},
			{File: "/lab/g.iso", Bus: "scsi", CDROM: true}, {Dir: "/lab/esp"}}}},
		{"kernel", qemu.Config{Name: "k", Kernel: "/boot/k", Initrd: "/boot/i", Append: "console=ttyS0 a=b,c", Extra: []string{"-no-reboot"}}},
	} {
		t.Run(c.file, func(t *testing.T) {
			args, err := qemu.Args(c.conf)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			for _, a := range args {
				if strings.HasPrefix(a, "-") && b.Len() > 0 {
					b.WriteByte('\n')
				} else if b.Len() > 0 {
					b.WriteByte(' ')
				}
				b.WriteString(a)
			}
			b.WriteByte('\n')
			golden.Check(t, "testdata/"+c.file+".golden", b.Bytes())
		})
	}
}

func TestArgsRefuses(t *testing.T) {
	for _, c := range []struct {
		conf qemu.Config
		want string
	}{
		{qemu.Config{Firmware: "coreboot"}, `machine m: firmware "coreboot": not one of bios, uefi, uefi-secure, uefi-arm64`},
		{qemu.Config{Firmware: qemu.UEFI}, "machine m: UEFI without a file for its variables"},
		{qemu.Config{NICs: []qemu.NIC{{}}}, `machine m: network card 0: MAC address ""`},
		{qemu.Config{Disks: []qemu.Disk{{File: "/x", Bus: "floppy"}}}, `machine m: disk 0 (/x): no such disk on bus "floppy"`},
		{qemu.Config{Boot: []string{"usb"}}, `machine m: boot device "usb": not net or disk`},
		{qemu.Config{Boot: []string{"net1"}}, `machine m: boot device "net1": the machine has 0 of that kind`},
	} {
		c.conf.Name = "m"
		if _, err := qemu.Args(c.conf); err == nil || err.Error() != c.want {
			t.Errorf("Args() = %v, want %q", err, c.want)
		}
	}
}

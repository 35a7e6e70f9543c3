// SPDX-License-Identifier: GPL-2.0-or-later

package machine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/installer/machine"
	"slate/netboot/api"
)

func TestReadFacts(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/cpuinfo":                  "processor\t: 0\nmodel name\t: A Processor 3000\nprocessor\t: 1\nmodel name\t: A Processor 3000\n",
		"proc/meminfo":                  "MemTotal:  2097152 kB\nMemAvailable: 1 kB\n",
		"sys/class/dmi/id/sys_vendor":   "Maker\n",
		"sys/class/dmi/id/product_name": "Box " + strings.Repeat("x", 300) + "\n",
		"sys/class/dmi/id/bios_version": "1.2\x1b[2J\n",
		"sys/class/dmi/id/product_uuid": "AABBCCDD-0000-1111-2222-333344445555\n",
		"sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\x06\x00\x00\x00\x01",
		"sys/devices/pci0/ata1/host0/block/sda/size":                               "1000\n",
		"sys/devices/pci0/ata1/host0/block/sda/device/model":                       "SPINNING      \n",
		"sys/devices/pci0/ata1/host0/block/sda/device/vpd_pg80":                    "\x00\x80\x00\x08  S3R1AL",
		"sys/devices/pci0/virtio0/block/vda/size":                                  "2000\n",
		"sys/devices/pci0/virtio0/block/vda/serial":                                "virt1\n",
		"sys/devices/pci0/virtio0/block/vda/device/vendor":                         "0x1af4\n",
		"sys/devices/pci0/nvme/nvme0/nvme0n1/size":                                 "4000\n",
		"sys/devices/pci0/nvme/nvme0/nvme0n1/device/model":                         "FLASH\n",
		"sys/devices/pci0/nvme/nvme0/nvme0n1/device/serial":                        "N1\n",
		"sys/devices/pci0/usb1/host3/block/sdb/size":                               "0\n",
		"sys/devices/pci0/usb1/host3/block/sdb/device/model":                       "CARD READER\n",
		"sys/devices/pci0/usb1/1-2/busnum":                                         "1\n",
		"sys/devices/pci0/usb1/1-2/serial":                                         "ST1CK\n",
		"sys/devices/pci0/usb1/1-2/1-2:1.0/host4/block/sdc/size":                   "16\n",
		"sys/devices/pci0/usb1/1-2/1-2:1.0/host4/block/sdc/device/model":           "STICK\n",
		"sys/devices/pci0/virtio1/host5/block/sdd/device/model":                    "DISK\n",
		"sys/devices/pci0/virtio1/host5/block/sdd/size":                            "32\n",
		"sys/devices/virtual/block/loop0/size":                                     "8\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(root+"/sys/block", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"pci0/ata1/host0/block/sda", "pci0/virtio0/block/vda", "pci0/nvme/nvme0/nvme0n1", "pci0/usb1/host3/block/sdb",
		"pci0/usb1/1-2/1-2:1.0/host4/block/sdc", "pci0/virtio1/host5/block/sdd", "virtual/block/loop0"} {
		if err := os.Symlink("../devices/"+dir, filepath.Join(root, "sys/block", filepath.Base(dir))); err != nil {
			t.Fatal(err)
		}
	}
	got := machine.ReadFacts(root)
	want := api.Facts{
		Vendor: "Maker", Product: "Box " + strings.Repeat("x", 116), UUID: "aabbccdd-0000-1111-2222-333344445555", BIOSVersion: "1.2[2J", Firmware: "UEFI", SecureBoot: true,
		CPU: "A Processor 3000", Cores: 2, MemoryMiB: 2048,
		Disks: []api.Disk{
			{Name: "nvme0n1", Model: "FLASH", Serial: "N1", Size: 4000 * 512, Transport: "nvme", ID: "nvme-FLASH_N1"},
			{Name: "sda", Model: "SPINNING", Serial: "S3R1AL", Size: 1000 * 512, Transport: "sata", ID: "ata-SPINNING_S3R1AL"},
			{Name: "sdc", Model: "STICK", Serial: "ST1CK", Size: 16 * 512, Transport: "usb", ID: "usb-STICK_ST1CK-0:0"},
			{Name: "sdd", Model: "DISK", Size: 32 * 512, Transport: "scsi"},
			{Name: "vda", Serial: "virt1", Size: 2000 * 512, Transport: "virtio", ID: "virtio-virt1"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadFacts (-want +got):\n%s", diff)
	}
	if err := got.Check(); err != nil {
		t.Errorf("the appliance would refuse them: %v", err)
	}
	if empty := machine.ReadFacts(t.TempDir()); empty.Firmware != "BIOS" || len(empty.Disks) != 0 {
		t.Errorf("ReadFacts of nothing = %+v", empty)
	}
}

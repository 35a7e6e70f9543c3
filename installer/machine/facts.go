// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"slate/netboot/api"
)

// secureBootVar is the firmware's variable that says whether it enforces Secure
// Boot: four bytes of attributes, then 1 or 0 (UEFI specification 2.10, section 3.3).
const secureBootVar = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// ReadFacts finds out what the machine is made of, from /proc and /sys below root.
// What cannot be read is left empty. The network interfaces are not among it.
func ReadFacts(root string) api.Facts {
	id := ReadIdentity(root)
	f := api.Facts{Vendor: clip(id.Vendor), Product: clip(id.Product), Serial: clip(id.Serial), UUID: clip(id.UUID), Firmware: "BIOS",
		BIOSVersion: text(root, "/sys/class/dmi/id/bios_version")}
	if _, err := os.Stat(filepath.Join(root, "/sys/firmware/efi")); err == nil {
		f.Firmware = "UEFI"
		b, err := os.ReadFile(filepath.Join(root, secureBootVar))
		f.SecureBoot = err == nil && len(b) == 5 && b[4] == 1
	}
	f.CPU, f.Cores = readCPU(root)
	if m, err := ReadMemory(root); err == nil {
		f.MemoryMiB = int(m.Total >> 20)
	}
	f.Disks = readDisks(root)
	return f
}

func readCPU(root string) (model string, processors int) {
	b, _ := os.ReadFile(filepath.Join(root, "/proc/cpuinfo"))
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "processor":
			processors++
		case "model name":
			model = clip(value)
		}
	}
	return model, processors
}

// maxDisks is how many drives the appliance is told of.
const maxDisks = 32

// readDisks lists the drives that are real: those with a device behind them.
func readDisks(root string) []api.Disk {
	entries, _ := os.ReadDir(filepath.Join(root, "/sys/block"))
	var disks []api.Disk
	for _, e := range entries {
		dir := filepath.Join("/sys/block", e.Name())
		if _, err := os.Stat(filepath.Join(root, dir, "device")); err != nil || strings.HasPrefix(e.Name(), "sr") || strings.HasPrefix(e.Name(), "fd") {
			continue
		}
		sectors, err := strconv.ParseInt(text(root, dir+"/size"), 10, 64)
		if err != nil || sectors <= 0 || sectors > 1<<53 || len(disks) >= maxDisks {
			continue // a card reader without a card has no sectors
		}
		d := api.Disk{Name: e.Name(), Size: sectors * 512, Model: text(root, dir+"/device/model"), Serial: text(root, dir+"/device/serial")}
		if d.Serial == "" {
			d.Serial = text(root, dir+"/serial") // virtio's
		}
		if page, err := os.ReadFile(filepath.Join(root, dir, "device/vpd_pg80")); d.Serial == "" && err == nil && len(page) > 4 {
			d.Serial = clip(string(page[4:])) // SCSI's unit serial number page, as SATA drives have it too
		}
		if link, err := os.Readlink(filepath.Join(root, dir)); err == nil {
			d.Transport = transport(link)
		}
		disks = append(disks, d)
	}
	return disks
}

// transport tells by the path of a drive in /sys what it is connected by. A USB
// drive's path names SCSI too, so the order counts.
func transport(path string) string {
	for _, t := range []struct{ part, name string }{{"/usb", "usb"}, {"/nvme", "nvme"}, {"/virtio", "virtio"}, {"/mmc", "mmc"}, {"/ata", "sata"}, {"/host", "scsi"}} {
		if strings.Contains(path, t.part) {
			return t.name
		}
	}
	return ""
}

// text reads one short word or line.
func text(root, file string) string {
	b, _ := os.ReadFile(filepath.Join(root, file))
	return clip(string(b))
}

// clip makes what firmware says fit to be sent: printable, and not long.
func clip(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, strings.TrimSpace(s)))
	return s[:min(len(s), 120)]
}

// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	f.Disks = ReadDisks(root)
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

// ReadDisks lists the drives that are real: those with a device behind them.
func ReadDisks(root string) []api.Disk {
	entries, _ := os.ReadDir(filepath.Join(root, "/sys/block"))
	var disks []api.Disk
	for _, e := range entries {
		dir := filepath.Join("/sys/block", e.Name())
		if _, err := os.Stat(filepath.Join(root, dir, "device")); err != nil || strings.HasPrefix(e.Name(), "sr") || strings.HasPrefix(e.Name(), "fd") ||
			strings.HasPrefix(e.Name(), "mmcblk") && strings.TrimRight(e.Name(), "0123456789") != "mmcblk" { // eMMC's boot areas
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
			d.Transport, d.Path = transport(link), busPath(root, link)
			if d.Serial == "" && d.Transport == "usb" {
				d.Serial = usbSerial(filepath.Join(root, "/sys/block", link))
			}
		}
		d.ID = diskID(d, text(root, dir+"/device/vendor"))
		disks = append(disks, d)
	}
	return disks
}

// usbSerial is the serial number of the USB device that a drive is, by the drive's
// directory in /sys: most sticks do not answer SCSI's question for it.
func usbSerial(dir string) string {
	for ; len(dir) > 1; dir = filepath.Dir(dir) {
		if text(dir, "busnum") != "" {
			return text(dir, "serial")
		}
	}
	return ""
}

// transport tells by the path of a drive in /sys what it is connected by. The path of
// a USB, SATA or virtio drive can name SCSI too, so the order counts.
func transport(path string) string {
	for _, t := range []struct{ part, name string }{{"/usb", "usb"}, {"/nvme", "nvme"}, {"/mmc", "mmc"}, {"/ata", "sata"}, {"/host", "scsi"}, {"/virtio", "virtio"}} {
		if strings.Contains(path, t.part) {
			return t.name
		}
	}
	return ""
}

// diskID is what udev's links in /dev/disk/by-id are called, as far as it can be made
// from what the kernel says.
func diskID(d api.Disk, vendor string) string {
	if d.Serial == "" {
		return ""
	}
	words := []string{d.Model, d.Serial}
	prefix := d.Transport
	switch d.Transport {
	case "sata":
		prefix = "ata"
	case "virtio":
		words = words[1:]
	case "usb", "scsi":
		words = append([]string{vendor}, words...)
	}
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	id := prefix + "-" + strings.ReplaceAll(strings.Join(words, "_"), " ", "_")
	if d.Transport == "usb" {
		id += "-0:0"
	}
	return id
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// busPath is what udev's links in /dev/disk/by-path are called: where the drive is
// plugged in. link is the drive's path in /sys.
func busPath(root, link string) string {
	out := ""
	dir := filepath.Join(root, "/sys/block")
	for _, p := range strings.Split(link, "/") {
		dir = filepath.Join(dir, p)
		switch {
		case pciAddress.MatchString(p):
			out = "pci-" + p
		case out == "":
		case strings.HasPrefix(p, "ata"):
			if port := text("", filepath.Join(dir, "ata_port", p, "port_no")); port != "" {
				out += "-ata-" + port
			}
		case strings.HasPrefix(p, "nvme") && strings.Contains(p[4:], "n"):
			out += "-nvme-" + p[strings.LastIndex(p, "n")+1:]
		case strings.Contains(p, "-") && strings.Contains(p, ":") && p[0] >= '0' && p[0] <= '9': // a USB interface: 1-2.1:1.0
			_, port, _ := strings.Cut(p, "-")
			out += "-usb-0:" + port
		case strings.Count(p, ":") == 3 && !strings.Contains(out, "-ata-"):
			out += "-scsi-" + p
		}
	}
	return out
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

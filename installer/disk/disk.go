// SPDX-License-Identifier: GPL-2.0-or-later

// Package disk knows a machine's drives: which there are, what is on them, which
// may be used for an installation and why the others may not, and how one is
// divided. What may be done is decided by pure functions over facts; a Plan says
// what will be done before anything is, and only Do does it, through the image's own
// tools. It knows nothing of what is written into the file systems.
package disk

import (
	"fmt"
	"strings"
)

// Labels of the partitions that slate makes.
const (
	LabelBIOS = "slate-bios" // GRUB's core for BIOS
	LabelBoot = "slate-boot" // FAT: loader, kernels
	LabelA    = "slate-a"
	LabelB    = "slate-b"
	LabelUser = "slate-user"
	LabelData = "slate-data" // btrfs in place of the three before
)

// Drive is a drive and what is on it.
type Drive struct {
	Name      string // the kernel's, for messages only: it can change with each start
	Device    string // the same below /dev
	ID        string // as udev's by-id has it: transport, model and serial
	Serial    string
	Model     string
	Path      string // where it is plugged in, as udev's by-path has it
	Transport string // sata, nvme, usb, scsi, virtio, mmc
	Size      int64
	Sector    int64 // bytes in a logical sector
	ReadOnly  bool
	Busy      string // what uses it now; empty: nothing

	Table   string // gpt, dos, …; empty: none
	GUID    string // of the table
	Content Sign   // of the drive as a whole
	Parts   []Part
	Err     string // why it could not be looked at
}

// Part is a partition.
type Part struct {
	Number  int
	Device  string
	Start   int64 // bytes
	Size    int64
	Type    string // GUID, or number on an MBR
	Label   string // of the partition, not of the file system
	GUID    string
	Content Sign
}

// Sign is what a drive or partition is recognised by.
type Sign struct {
	Type   string // ext4, ntfs, crypto_LUKS, LVM2_member, linux_raid_member, …
	Usage  string // filesystem, crypto, raid, other
	Label  string
	UUID   string
	System string // the operating system that it holds, if that can be told
}

var signNames = map[string]string{
	"crypto_LUKS": "an encrypted volume (LUKS)", "LVM2_member": "a part of a volume group (LVM)", "linux_raid_member": "a part of a RAID",
	"isw_raid_member": "a part of a RAID", "ddf_raid_member": "a part of a RAID", "ntfs": "Windows's file system (NTFS)", "BitLocker": "an encrypted volume (BitLocker)",
	"zfs_member": "a part of a ZFS pool", "bcache": "a cache (bcache)", "ReFS": "Windows's file system (ReFS)", "swap": "swap space",
	"drbd": "a DRBD replica", "VMFS": "a VMware file system", "apfs": "an Apple file system (APFS)", "hfsplus": "an Apple file system (HFS+)",
}

// String says in words what it is; empty: nothing.
func (s Sign) String() string {
	if s.Type == "" {
		return ""
	}
	text, ok := signNames[s.Type]
	if !ok {
		text = s.Type
	}
	if s.Label != "" {
		text += fmt.Sprintf(" %q", s.Label)
	}
	if s.System != "" {
		text += " with " + s.System
	}
	return text
}

// Empty reports whether nothing at all was found on the drive.
func (d Drive) Empty() bool {
	return d.Err == "" && d.Table == "" && d.Content.Type == "" && len(d.Parts) == 0
}

// Ours reports whether slate divided the drive: all of its partitions are ours.
func (d Drive) Ours() bool {
	if d.Err != "" || d.Table != "gpt" || len(d.Parts) == 0 {
		return false
	}
	for _, p := range d.Parts {
		if !strings.HasPrefix(p.Label, "slate-") {
			return false
		}
	}
	return d.Part(LabelBoot) != nil
}

// Part finds a partition by its label.
func (d Drive) Part(label string) *Part {
	for i := range d.Parts {
		if d.Parts[i].Label == label {
			return &d.Parts[i]
		}
	}
	return nil
}

// Holds lists in words what is on the drive.
func (d Drive) Holds() []string {
	switch {
	case d.Err != "":
		return []string{"it cannot be read: " + d.Err}
	case d.Empty():
		return []string{"empty"}
	}
	var out []string
	if d.Content.Type != "" {
		out = append(out, d.Content.String())
	}
	if d.Table != "" && len(d.Parts) == 0 {
		out = append(out, "a partition table ("+d.Table+") without partitions")
	}
	for _, p := range d.Parts {
		what := p.Content.String()
		if what == "" {
			what = "nothing that is known"
		}
		if p.Label != "" {
			what = p.Label + ": " + what
		}
		out = append(out, fmt.Sprintf("partition %d, %s: %s", p.Number, FormatSize(p.Size), what))
	}
	return out
}

// String names the drive for people.
func (d Drive) String() string {
	parts := []string{d.Name, FormatSize(d.Size)}
	for _, s := range []string{d.Transport, d.Model} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if d.Serial != "" {
		parts = append(parts, "serial "+d.Serial)
	}
	return strings.Join(parts, ", ")
}

// FormatSize writes a size as drives are sold, in units of 1000.
func FormatSize(n int64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.1f TB", float64(n)/1e12)
	case n >= 1e10:
		return fmt.Sprintf("%.0f GB", float64(n)/1e9)
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
	return fmt.Sprintf("%.0f MB", float64(n)/1e6)
}

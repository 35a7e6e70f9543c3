// SPDX-License-Identifier: GPL-2.0-or-later

package disk_test

import (
	"fmt"
	"strings"
	"testing"

	"slate/installer/disk"
	"slate/netboot/config"
	"slate/testbed/golden"
)

const gib = 1 << 30

func drive(name string, edit ...func(*disk.Drive)) disk.Drive {
	d := disk.Drive{Name: name, Device: "/dev/" + name, Serial: "S-" + name, ID: "ata-DISK_S-" + name, Transport: "sata", Path: "pci-0000:00:1f.2-ata-1",
		Model: "DISK", Size: 100 * gib, Sector: 512}
	for _, e := range edit {
		e(&d)
	}
	return d
}

func whole(typ string) func(*disk.Drive) {
	return func(d *disk.Drive) { d.Content = disk.Sign{Type: typ, Usage: "other"} }
}

func parts(labels ...string) func(*disk.Drive) {
	return func(d *disk.Drive) {
		d.Table = "gpt"
		for i, l := range labels {
			d.Parts = append(d.Parts, disk.Part{Number: i + 1, Label: l, Size: gib, Device: fmt.Sprintf("%s%d", d.Device, i+1), Content: disk.Sign{Type: "ext4"}})
		}
	}
}

var ours = parts(disk.LabelBIOS, disk.LabelBoot, disk.LabelA, disk.LabelB, disk.LabelUser)

func TestJudge(t *testing.T) {
	named := config.Drive{Name: "r", Match: config.Match{Serial: "S-sda"}}
	wipe := config.Drive{Name: "r", Match: config.Match{Serial: "S-sda"}, Wipe: true}
	large := config.Drive{Name: "r", Match: config.Match{MinSize: "50G"}}
	largeWipe := config.Drive{Name: "r", Match: config.Match{MinSize: "50G"}, Wipe: true} // config.d refuses it; so must this
	for _, c := range []struct {
		name   string
		drive  disk.Drive
		rule   *config.Drive
		use    disk.Use
		reason string
	}{
		{"empty without a rule", drive("sda"), nil, disk.Confirm, "no rule"},
		{"foreign without a rule", drive("sda", whole("ntfs")), nil, disk.Confirm, "it holds: Windows's file system (NTFS)"},
		{"empty with a rule", drive("sda"), &named, disk.Free, "it is empty"},
		{"ours with a rule", drive("sda", ours), &named, disk.Free, "was installed by slate"},
		{"rule for another", drive("sdb"), &wipe, disk.Confirm, "no rule"},
		{"foreign, rule without wipe", drive("sda", whole("crypto_LUKS")), &named, disk.Confirm, "does not say wipe = true, and it holds: an encrypted volume (LUKS)"},
		{"foreign, rule with wipe", drive("sda", whole("LVM2_member")), &wipe, disk.Free, "says that it is wiped: a part of a volume group"},
		{"a table with foreign partitions", drive("sda", parts("EFI", "root")), &named, disk.Confirm, "partition 1"},
		{"foreign beside ours", drive("sda", parts(disk.LabelBoot, "data")), &named, disk.Confirm, "data: ext4"},
		{"an empty table is something", drive("sda", func(d *disk.Drive) { d.Table = "dos" }), &named, disk.Confirm, "a partition table (dos) without partitions"},
		{"wipe by size only", drive("sda", whole("ext4")), &largeWipe, disk.Confirm, "names no drive"},
		{"empty by size", drive("sda"), &large, disk.Free, "it is empty"},
		{"mounted", drive("sda", func(d *disk.Drive) { d.Busy = "mounted at /mnt" }), &wipe, disk.Never, "in use: mounted at /mnt"},
		{"the start medium", drive("sda", func(d *disk.Drive) { d.Busy = "it is slate's start medium" }), &wipe, disk.Never, "start medium"},
		{"a part of a RAID that runs", drive("sda", func(d *disk.Drive) { d.Busy = "a part of md127" }), &wipe, disk.Never, "md127"},
		{"read-only", drive("sda", func(d *disk.Drive) { d.ReadOnly = true }), &wipe, disk.Never, "read-only"},
		{"unreadable", drive("sda", func(d *disk.Drive) { d.Err = "I/O error" }), &wipe, disk.Never, "I/O error"},
		{"too small", drive("sda", func(d *disk.Drive) { d.Size = gib }), &wipe, disk.Never, "too small: it has 1.1 GB, and"},
		{"no serial fits no rule by serial", drive("sda", func(d *disk.Drive) { d.Serial = "" }), &config.Drive{Name: "r", Match: config.Match{Serial: "*S*"}}, disk.Confirm, "no rule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := config.Defaults().Drives
			if c.rule != nil {
				conf.Drive = []config.Drive{*c.rule}
			}
			v := disk.Judge([]disk.Drive{c.drive}, conf, gib)[0]
			if v.Use != c.use || !strings.Contains(v.Reason, c.reason) {
				t.Errorf("Judge = %v, %q; want %v, %q", v.Use, v.Reason, c.use, c.reason)
			}
		})
	}
}

// A rule goes by what the drive is, not by the name it happens to have, and one that
// fits two drives chooses neither.
func TestPick(t *testing.T) {
	rule := func(m config.Match) config.Drives {
		d := config.Defaults().Drives
		d.Drive = []config.Drive{{Name: "r", Match: m}}
		return d
	}
	swapped := func(d *disk.Drive) { d.Serial = "S-sda" }
	other := func(d *disk.Drive) { d.Serial = "S-sdb" }
	for _, c := range []struct {
		name   string
		drives []disk.Drive
		match  config.Match
		want   string // name, or part of the error
	}{
		{"the first", []disk.Drive{drive("sda"), drive("sdb")}, config.Match{Serial: "S-sda"}, "sda"},
		{"swapped", []disk.Drive{drive("sda", other), drive("sdb", swapped)}, config.Match{Serial: "S-sda"}, "sdb"},
		{"two fit", []disk.Drive{drive("sda"), drive("sdb")}, config.Match{MinSize: "50G"}, "fits 2 drives"},
		{"foreign", []disk.Drive{drive("sda", whole("ntfs"))}, config.Match{Serial: "S-sda"}, "does not say wipe"},
		{"none fits", []disk.Drive{drive("sda")}, config.Match{Serial: "x"}, "no rule"},
		{"no drive", nil, config.Match{Serial: "x"}, "this machine has no drive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := disk.Pick(disk.Judge(c.drives, rule(c.match), gib))
			if got := v.Drive.Name + fmt.Sprint(err); !strings.Contains(got, c.want) {
				t.Errorf("Pick = %s, want %s", got, c.want)
			}
		})
	}
}

func TestPlans(t *testing.T) {
	const guid = "0f9e1d4c-0000-4000-8000-000000000001"
	plan := func(d disk.Drive, fs string, keep bool) disk.Plan {
		t.Helper()
		conf := config.Defaults()
		conf.Drives.Layout.Filesystem = fs
		v := disk.Judge([]disk.Drive{d}, conf.Drives, gib)[0]
		p, err := disk.MakePlan(v, conf.Btrfs, gib, guid, keep)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	empty, nvme := drive("sda"), drive("nvme0n1", whole("ntfs"), func(d *disk.Drive) { d.Sector = 4096 })
	golden.Check(t, "testdata/ext4.golden", []byte(plan(empty, config.Ext4, true).String()))
	golden.Check(t, "testdata/btrfs.golden", []byte(plan(nvme, config.Btrfs, true).String()))

	// One that is divided just so keeps its partitions, and what is on them.
	again := empty
	again.Table, again.GUID, again.Parts = "gpt", "11111111-0000-4000-8000-000000000002", plan(empty, config.Ext4, true).Parts
	for i, typ := range []string{"", "vfat", "ext4", "", "ext4"} {
		again.Parts[i].Content.Type = typ
	}
	golden.Check(t, "testdata/keep.golden", []byte(plan(again, config.Ext4, true).String()))
	if p := plan(again, config.Ext4, false); p.Keep || p.GUID != guid {
		t.Errorf("without keep the plan keeps the partitions: %v", p)
	}
	again.Parts[4].Size -= 1 << 20
	if p := plan(again, config.Ext4, true); p.Keep {
		t.Errorf("a drive that is divided otherwise is kept as it is: %v", p)
	}
}

func TestDivideFitsTheDrive(t *testing.T) {
	for size := int64(2 * gib); size < 4<<40; size = size*3/2 + 12345*512 {
		for _, fs := range []string{config.Ext4, config.Btrfs} {
			l := config.Defaults().Drives.Layout
			l.Filesystem = fs
			d := drive("sda")
			d.Size = size
			parts, err := disk.Divide(d, l, 300<<20)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			at := int64(1 << 20)
			for _, p := range parts {
				if p.Start != at || p.Size <= 0 || p.Start%(1<<20) != 0 || p.Size%(1<<20) != 0 {
					t.Errorf("%d bytes, %s: partition %+v, want it at %d", size, fs, p, at)
				}
				at += p.Size
			}
			if at > size-(1<<20) {
				t.Errorf("%d bytes, %s: partitions end at %d, where the copy of the table is", size, fs, at)
			}
		}
	}
}

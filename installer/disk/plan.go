// SPDX-License-Identifier: GPL-2.0-or-later

package disk

import (
	"fmt"
	"strings"

	"slate/netboot/config"
)

// Types of partitions.
const (
	typeBIOS  = "21686148-6449-6E6F-744E-656564454649"
	typeESP   = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeLinux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

const (
	align    = 1 << 20
	biosSize = 1 << 20
	endSpace = 1 << 20 // the copy of the table
	// autoSlotMost is the most that a slot takes by itself.
	autoSlotMost = 32 << 30
	// leastUser is what must be left for user-data.
	leastUser = 64 << 20
)

// TooSmallError says that a drive does not hold what should be on it.
type TooSmallError struct{ Have, Need int64 }

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("too small: it has %s, and %s are needed", FormatSize(e.Have), FormatSize(e.Need))
}

// slotNeed is the room that an image takes in a slot: its files, the file system's
// own, and a fifth to spare.
func slotNeed(content int64) int64 { return content + content/5 + content/10 + 64<<20 }

// Divide decides where the partitions of a drive begin and how large they are, for
// an image with need bytes of content.
func Divide(d Drive, l config.Layout, need int64) ([]Part, error) {
	boot, err := config.ParseDriveSize(l.Boot)
	if err != nil {
		return nil, err
	}
	least := slotNeed(need)
	room := d.Size - align - biosSize - boot - endSpace
	slot := max(min(room/4, autoSlotMost), least)
	if l.Slot != "auto" {
		if slot, err = config.ParseDriveSize(l.Slot); err != nil {
			return nil, err
		}
		if slot < least {
			return nil, fmt.Errorf("slots of %s (drives.conf) are too small for the image, which needs %s", l.Slot, FormatSize(least))
		}
	}
	slot = slot / align * align
	user := int64(leastUser)
	if l.UserData != "rest" {
		if user, err = config.ParseDriveSize(l.UserData); err != nil {
			return nil, err
		}
	}
	if total := 2*slot + user; room < total {
		return nil, &TooSmallError{d.Size, d.Size - room + total}
	}
	if l.UserData == "rest" {
		user = (room - 2*slot) / align * align
	}
	var parts []Part
	at := int64(align)
	add := func(label, typ string, size int64) {
		parts = append(parts, Part{Number: len(parts) + 1, Start: at, Size: size, Type: typ, Label: label})
		at += size
	}
	add(LabelBIOS, typeBIOS, biosSize)
	add(LabelBoot, typeESP, boot)
	if l.Filesystem == config.Btrfs {
		add(LabelData, typeLinux, 2*slot+user)
	} else {
		add(LabelA, typeLinux, slot)
		add(LabelB, typeLinux, slot)
		add(LabelUser, typeLinux, user)
	}
	return parts, nil
}

// Plan is all that will be done to a drive, in order.
type Plan struct {
	Drive  Drive
	Layout config.Layout
	Btrfs  config.BtrfsConf
	GUID   string // of the new table
	Parts  []Part // with their devices
	Steps  []Step
	// Keep is set if the drive has these very partitions already and they stay.
	Keep bool
}

// Step is one program to run, or what is written to the beginning of the drive.
type Step struct {
	What  string // for people
	Args  []string
	Stdin string
	Write []byte
	// Settle has the kernel read the table again after the step.
	Settle bool
}

// Tell gives the plan in words.
func (p Plan) Tell() []string {
	out := []string{"On " + p.Drive.String() + ":"}
	if p.Keep {
		out = append(out, "the partitions stay as they are; user-data is kept")
	} else if !p.Drive.Empty() {
		out = append(out, "all that is on it is lost: "+strings.Join(p.Drive.Holds(), "; "))
	}
	for _, part := range p.Parts {
		out = append(out, fmt.Sprintf("partition %d  %-10s  %8s  %s", part.Number, part.Label, FormatSize(part.Size), contents[part.Label]))
	}
	return out
}

var contents = map[string]string{
	LabelBIOS: "loader for BIOS", LabelBoot: "FAT: loader, kernels, logs", LabelA: "ext4: system A", LabelB: "ext4: system B",
	LabelUser: "ext4: what is kept over updates", LabelData: "btrfs: systems A and B, what is kept over updates",
}

// String is the plan with the programs it runs, as --dry-run shows it.
func (p Plan) String() string {
	var b strings.Builder
	for _, l := range p.Tell() {
		b.WriteString(l + "\n")
	}
	for _, s := range p.Steps {
		how := strings.Join(s.Args, " ")
		if s.Write != nil {
			how = fmt.Sprintf("write % x to the beginning of %s", s.Write, p.Drive.Device)
		}
		fmt.Fprintf(&b, "\n%s:\n  %s\n", s.What, how)
		for line := range strings.Lines(s.Stdin) {
			b.WriteString("  | " + strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	return b.String()
}

// MakePlan decides what is done to the drive of a verdict. guid is that of the new
// table. keep asks that a drive which is divided just so already keeps its
// partitions, with what is on user-data.
func MakePlan(v Verdict, btrfs config.BtrfsConf, need int64, guid string, keep bool) (Plan, error) {
	parts, err := Divide(v.Drive, v.Layout, need)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Drive: v.Drive, Layout: v.Layout, Btrfs: btrfs, GUID: guid, Parts: parts}
	for i := range p.Parts {
		p.Parts[i].Device = partDevice(v.Drive.Device, p.Parts[i].Number)
	}
	if keep && p.fits(v.Drive) {
		p.Keep, p.GUID = true, v.Drive.GUID
		for i := range p.Parts {
			p.Parts[i].Content = v.Drive.Parts[i].Content
		}
	} else {
		p.divide()
	}
	p.format()
	return p, nil
}

// fits tells whether the drive is divided as the plan wants it.
func (p Plan) fits(d Drive) bool {
	if !d.Ours() || len(d.Parts) != len(p.Parts) {
		return false
	}
	for i, want := range p.Parts {
		if have := d.Parts[i]; have.Label != want.Label || have.Start != want.Start || have.Size != want.Size {
			return false
		}
	}
	return true
}

// partDevice is the kernel's name of a partition.
func partDevice(drive string, n int) string {
	if c := drive[len(drive)-1]; c >= '0' && c <= '9' {
		return fmt.Sprintf("%sp%d", drive, n)
	}
	return fmt.Sprintf("%s%d", drive, n)
}

// nextDevice is code for the first sector of a drive: int 18h, with which a BIOS tries
// the next device; should it not, hlt for ever. A table makes a BIOS start what is
// there, and with no code at all the machine would hang.
var nextDevice = []byte{0xcd, 0x18, 0xf4, 0xeb, 0xfd}

func (p *Plan) divide() {
	wipe := []string{"wipefs", "--all", "--force", "--quiet"}
	for _, old := range p.Drive.Parts {
		wipe = append(wipe, old.Device)
	}
	p.Steps = append(p.Steps, Step{What: "take away what marks the old contents", Args: append(wipe, p.Drive.Device), Settle: true})
	var table strings.Builder
	fmt.Fprintf(&table, "label: gpt\nlabel-id: %s\n", p.GUID)
	for _, part := range p.Parts {
		fmt.Fprintf(&table, "start=%d, size=%d, type=%s, name=\"%s\"\n", part.Start/p.Drive.Sector, part.Size/p.Drive.Sector, part.Type, part.Label)
	}
	// Without --wipe, sfdisk leaves the code where it is. The step before has wiped.
	p.Steps = append(p.Steps, Step{What: "have a BIOS go on to the next device until there is a loader", Write: nextDevice})
	p.Steps = append(p.Steps, Step{What: "write the partition table",
		Args: []string{"sfdisk", "--quiet", "--wipe", "never", "--wipe-partitions", "always", "--no-reread", "--no-tell-kernel", p.Drive.Device}, Stdin: table.String(), Settle: true})
}

// format makes the file systems. What is kept is user-data, and what an installation
// that was interrupted has fetched already: so with Keep nothing is made anew that
// can be mounted as it should be.
func (p *Plan) format() {
	for _, part := range p.Parts {
		if p.Keep && part.Content.Type == fileSystem[part.Label] {
			continue
		}
		s := Step{What: "make the file system of " + part.Label}
		switch part.Label {
		case LabelBIOS:
			continue
		case LabelBoot:
			s.Args = []string{"mkfs.fat", "-F", "32", "-n", "SLATE-BOOT", part.Device}
		case LabelData:
			s.Args = []string{"mkfs.btrfs", "--quiet", "--force", "--label", part.Label, part.Device}
		default:
			s.Args = []string{"mkfs.ext4", "-q", "-F", "-m", "1", "-L", part.Label, "-E", "lazy_itable_init=1,lazy_journal_init=1", part.Device}
		}
		p.Steps = append(p.Steps, s)
	}
}

var fileSystem = map[string]string{LabelBoot: "vfat", LabelA: config.Ext4, LabelB: config.Ext4, LabelUser: config.Ext4, LabelData: config.Btrfs}

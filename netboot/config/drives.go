// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What a drive is filled with (Layout.Filesystem).
const (
	Ext4  = "ext4"  // one partition for each slot and one for user-data
	Btrfs = "btrfs" // one partition, with subvolumes as controller/btrfs.conf says
)

// Drives is controller/drives.conf: which drive a node may be installed on.
type Drives struct {
	Layout Layout  `toml:"layout"`
	Drive  []Drive `toml:"drive"`
}

// Layout is how a drive is divided.
type Layout struct {
	Filesystem string `toml:"filesystem"` // Ext4 or Btrfs
	Boot       string `toml:"boot"`       // size of the boot partition
	Slot       string `toml:"slot"`       // size of each slot; auto: by drive and image
	UserData   string `toml:"user-data"`  // size; rest: all that is left
}

// Drive is a rule: drives that it fits may be used.
type Drive struct {
	Name  string `toml:"name"` // of the rule
	Match Match  `toml:"match"`
	// Wipe allows what is foreign on the drive to be overwritten.
	Wipe       bool   `toml:"wipe"`
	Filesystem string `toml:"filesystem"` // empty: the layout's
	Slot       string `toml:"slot"`       // empty: the layout's
	UserData   string `toml:"user-data"`  // empty: the layout's
	Remove     bool   `toml:"remove"`
}

// Match says which drives a rule fits: all of it that is there must hold. Texts may
// have the wildcards * ? and [ ].
type Match struct {
	ByID      string `toml:"by-id"`     // e.g. ata-Samsung_SSD_860_S4X6NF0M
	Serial    string `toml:"serial"`    // as the drive says it
	Model     string `toml:"model"`     // as the drive says it
	Path      string `toml:"path"`      // where it is plugged in, e.g. pci-0000:00:1f.2-ata-1
	Transport string `toml:"transport"` // sata, nvme, usb, scsi, virtio, mmc
	MinSize   string `toml:"min-size"`
	MaxSize   string `toml:"max-size"`
}

// Named tells whether the rule names a drive, or the place of one, and not only a
// kind of drives.
func (m Match) Named() bool { return m.ByID != "" || m.Serial != "" || m.Path != "" }

func (d Drive) id() string    { return d.Name }
func (d Drive) removed() bool { return d.Remove }

func (d *Drives) lists() []keyedList { return []keyedList{entries[Drive]{"drive", &d.Drive}} }

const drivesFile = "controller/drives.conf"

func defaultDrives() Drives {
	return Drives{Layout: Layout{Filesystem: Ext4, Boot: "512M", Slot: "auto", UserData: "rest"}}
}

// LayoutOf gives the layout of a drive that a rule fits; nil: one that a person chose.
func (d Drives) LayoutOf(rule *Drive) Layout {
	l := d.Layout
	if rule == nil {
		return l
	}
	for _, f := range []struct {
		own string
		to  *string
	}{{rule.Filesystem, &l.Filesystem}, {rule.Slot, &l.Slot}, {rule.UserData, &l.UserData}} {
		if f.own != "" {
			*f.to = f.own
		}
	}
	return l
}

var driveSize = regexp.MustCompile(`^[1-9][0-9]{0,8}[MGT]$`)

// ParseDriveSize reads a size in units of 1024, such as 512M, 12G or 2T.
func ParseDriveSize(text string) (int64, error) {
	if !driveSize.MatchString(text) {
		return 0, fmt.Errorf("%q is not a size: write a number with M, G or T", text)
	}
	n, err := strconv.ParseInt(text[:len(text)-1], 10, 64)
	shift := map[byte]int{'M': 20, 'G': 30, 'T': 40}[text[len(text)-1]]
	if err != nil || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q is too large", text)
	}
	return n << shift, nil
}

func (d *Drives) check(doc *Doc) (errs []error) {
	fs := func(key, value string) {
		if value != Ext4 && value != Btrfs {
			errs = append(errs, doc.Errorf(key, "%q is not one of %s, %s", value, Ext4, Btrfs))
		}
	}
	size := func(key, value string, least int64, words ...string) {
		if slices.Contains(words, value) {
			return
		}
		n, err := ParseDriveSize(value)
		switch {
		case err != nil && len(words) > 0:
			errs = append(errs, doc.Errorf(key, "%v, or %q", err, words[0]))
		case err != nil:
			errs = append(errs, doc.Errorf(key, "%v", err))
		case n < least:
			errs = append(errs, doc.Errorf(key, "%s is less than %dM", value, least>>20))
		}
	}
	fs("layout.filesystem", d.Layout.Filesystem)
	size("layout.boot", d.Layout.Boot, 128<<20)
	size("layout.slot", d.Layout.Slot, 256<<20, "auto")
	size("layout.user-data", d.Layout.UserData, 64<<20, "rest")
	for i, r := range d.Drive {
		key := func(k string) string { return fmt.Sprintf("drive[%d].%s", i, k) }
		if r.Name == "" {
			errs = append(errs, doc.Errorf(key("name"), "a rule needs a name, such as name = \"disk\""))
		}
		if r.Remove {
			continue
		}
		if r.Filesystem != "" {
			fs(key("filesystem"), r.Filesystem)
		}
		if r.Slot != "" {
			size(key("slot"), r.Slot, 256<<20, "auto")
		}
		if r.UserData != "" {
			size(key("user-data"), r.UserData, 64<<20, "rest")
		}
		errs = append(errs, r.Match.check(doc, key)...)
		if r.Wipe && !r.Match.Named() {
			err := doc.Errorf(key("wipe"), "the rule names no drive, so it cannot say that one is wiped")
			err.Help = "add by-id, serial or path to match"
			errs = append(errs, err)
		}
	}
	return errs
}

func (m Match) check(doc *Doc, key func(string) string) (errs []error) {
	if m == (Match{}) {
		errs = append(errs, doc.Errorf(key("match"), "the rule fits every drive: say which it means"))
	}
	for k, pattern := range map[string]string{"by-id": m.ByID, "serial": m.Serial, "model": m.Model, "path": m.Path, "transport": m.Transport} {
		if _, err := path.Match(pattern, ""); err != nil {
			errs = append(errs, doc.Errorf(key("match."+k), "%q is not a pattern: %v", pattern, err))
		}
		if pattern != "" && strings.Trim(pattern, "*?") == "" {
			errs = append(errs, doc.Errorf(key("match."+k), "%q fits everything", pattern))
		}
	}
	if strings.HasPrefix(m.Path, "/dev/") || strings.HasPrefix(m.ByID, "/dev/") {
		err := doc.Errorf(key("match.path"), "names below /dev change from one start to the next")
		err.Help = "use by-id, serial or the place where the drive is plugged in; slate node show lists them"
		errs = append(errs, err)
	}
	for k, v := range map[string]string{"min-size": m.MinSize, "max-size": m.MaxSize} {
		if v == "" {
			continue
		}
		if _, err := ParseDriveSize(v); err != nil {
			errs = append(errs, doc.Errorf(key("match."+k), "%v", err))
		}
	}
	return errs
}

// BtrfsConf is controller/btrfs.conf: how a drive with btrfs is filled.
type BtrfsConf struct {
	Subvolumes Subvolumes `toml:"subvolumes"`
	Compress   string     `toml:"compress"` // as btrfs(5) takes it: zstd:3, lzo, no
	Options    []string   `toml:"options"`  // further mount options
}

// Subvolumes are the names of the subvolumes.
type Subvolumes struct {
	A    string `toml:"a"`
	B    string `toml:"b"`
	User string `toml:"user"`
}

const btrfsFile = "controller/btrfs.conf"

func defaultBtrfs() BtrfsConf {
	return BtrfsConf{Subvolumes: Subvolumes{A: "@a", B: "@b", User: "@user-data"}, Compress: "zstd:3"}
}

var (
	subvolumeName = regexp.MustCompile(`^@?[a-zA-Z0-9][a-zA-Z0-9._-]{0,60}$`)
	compressWord  = regexp.MustCompile(`^(no|lzo|zlib(:[1-9])?|zstd(:(1[0-5]|[1-9]))?)$`)
	mountOption   = regexp.MustCompile(`^[a-z0-9_]+(=[a-zA-Z0-9_.:-]+)?$`)
)

// MountOptions are those of every mount of the file system but for the subvolume.
func (b BtrfsConf) MountOptions() string {
	opts := b.Options
	if b.Compress != "no" {
		opts = append([]string{"compress=" + b.Compress}, opts...)
	}
	return strings.Join(opts, ",")
}

func (b *BtrfsConf) check(d *Doc) (errs []error) {
	s := b.Subvolumes
	for k, name := range map[string]string{"a": s.A, "b": s.B, "user": s.User} {
		if !subvolumeName.MatchString(name) {
			errs = append(errs, d.Errorf("subvolumes."+k, "%q is not a subvolume's name", name))
		}
	}
	if s.A == s.B || s.A == s.User || s.B == s.User {
		errs = append(errs, d.Errorf("subvolumes.a", "%q, %q and %q must differ", s.A, s.B, s.User))
	}
	if !compressWord.MatchString(b.Compress) {
		errs = append(errs, d.Errorf("compress", "%q is not one of no, lzo, zlib, zstd or zstd:1 to zstd:15", b.Compress))
	}
	for _, o := range b.Options {
		if !mountOption.MatchString(o) || strings.HasPrefix(o, "subvol") || strings.HasPrefix(o, "compress") {
			errs = append(errs, d.Errorf("options", "%q cannot stand here", o))
		}
	}
	return errs
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

// foreign is a drive that must stay as it is.
type foreign struct {
	serial string // of the drive
	make   string // the script that makes the file $D; empty: see makeForeign
	disk   lab.Disk
	holds  string // what the machine says that is on it
	why    string // what the machine says why it is not used
}

// foreigners are the drives of the safety table. The rules of drives.conf below do
// what rules do wrong.
func foreigners(stick string) []foreign {
	const fits = `the rule "pair" fits 2 drives: it must fit one`
	return []foreign{
		{serial: "WINDOWS", make: `truncate -s 3G $D; printf 'label: dos\nstart=1M, type=7, bootable\n' | sfdisk -q $D
			truncate -s 3071M $D.part; mkfs.ntfs -q -F -Q -L data $D.part >/dev/null 2>&1; dd if=$D.part of=$D bs=1M seek=1 conv=sparse,notrunc status=none; rm $D.part`,
			holds: `partition 1, 3\.2 GB: Windows's file system \(NTFS\) "data"`, why: `confirm: the rule "windows" fits it but does not say wipe = true, and it holds: partition 1`},
		{serial: "CRYPT", make: `truncate -s 2500M $D; printf secret | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $D -`,
			holds: `an encrypted volume \(LUKS\)`, why: "confirm: " + fits},
		{serial: "VOLUMES", make: `truncate -s 2500M $D; L=$(losetup --find --show $D); trap 'losetup -d $L' EXIT
			pvcreate -q --config 'devices/scan="/dev" devices/use_devicesfile=0 activation/udev_sync=0' $L`,
			holds: `a part of a volume group \(LVM\)`, why: "confirm: " + fits},
		{serial: "MIRROR", holds: `a part of a RAID "lab:0"`, why: `confirm: no rule of drives\.conf fits it, and it holds: a part of a RAID`},
		{serial: "LINUX", make: `truncate -s 3G $D; printf 'label: gpt\nsize=100M, type=uefi, name=EFI\ntype=linux, name=root\n' | sfdisk -q $D
			mkfs.ext4 -q -F -L root -E offset=$((101 << 20)) $D 2900M`,
			holds: `partition 2, 3\.1 GB: root: ext4 "root"`, why: `confirm: no rule of drives\.conf fits it, and it holds: partition 1`},
		{serial: "STICK", disk: lab.Disk{File: stick, Bus: "usb"}, holds: `slate-media: vfat "SLATE-MEDIA"`, why: `never: in use: it is slate's start medium`},
		{serial: "TINY", make: `truncate -s 64M $D`, holds: `empty`, why: `never: too small: it has 67 MB, and [0-9.]+ GB are needed`},
		{serial: "LOCKED", make: `truncate -s 3G $D`, disk: lab.Disk{ReadOnly: true}, holds: `empty`, why: `never: it is read-only`},
	}
}

// badRules fit the drives above, each in a way that does not allow its use unasked.
const badRules = `
[[drive]]
name = "windows"
match = { serial = "WINDOWS" }
[[drive]]
name = "pair"
match = { min-size = "2400M", max-size = "2600M" }
[[drive]]
name = "stick"
match = { serial = "STICK" }
wipe = true
[[drive]]
name = "tiny"
match = { serial = "TINY" }
wipe = true
[[drive]]
name = "locked"
match = { serial = "LOCKED" }
wipe = true
`

// A machine full of drives that belong to somebody else: unasked it uses none and
// says of each why, and what a person types by mistake does nothing. The same drives
// in another order in another machine, with one that a rule names: that is installed.
// Not a byte of the others has changed. Beside it drives that cannot be written to.
func TestDriveSafety(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"mkfs.ntfs", "cryptsetup", "pvcreate", "mkfs.ext4", "sfdisk", "mcopy"} {
		labtest.Need(t, tool)
	}
	labtest.NeedRoot(t)
	s := newSite(t, labtest.New(t, lab.Options{}))
	const installed = "mode = \"installed\"\ntimeout = 0\n"
	s.conf("nodes/node-1e0101/system/cboot.conf", installed)
	s.conf("nodes/node-1e0101/controller/drives.conf", badRules)
	s.conf("nodes/node-1e0201/system/cboot.conf", installed)
	s.conf("nodes/node-1e0201/controller/drives.conf", badRules+"[[drive]]\nname = \"it\"\nmatch = { serial = \"GOOD\" }\nwipe = true\n")
	s.conf("nodes/node-1e0301/system/cboot.conf", installed)
	s.conf("nodes/node-1e0301/controller/drives.conf", "[[drive]]\nname = \"it\"\nmatch = { serial = \"DEAD\" }\n")
	s.serve()
	all := foreigners(s.medium(mediaCase{kind: "usb"}))
	good := foreign{serial: "GOOD", make: `truncate -s 4G $D; mkfs.ext4 -q -F -L old $D`}
	var disks []lab.Disk
	before := map[string]string{}
	for i := range all {
		disks = append(disks, makeForeign(t, all[i]))
		before[all[i].serial] = hashDrive(t, disks[i].File)
	}

	refused := s.Node(lab.NodeSpec{Name: "refused", Boot: []string{"net"}, Disks: disks})
	checkRefusals(t, s, refused, all)
	refused.PowerCut()
	checkUnchanged(t, all, disks, before)

	// One drive that takes no write at all, and one of which a part takes none.
	dead := []qemu.Fault{{Event: "write_aio", Errno: 5}}
	worn := []qemu.Fault{}
	for mib := int64(700); mib < 760; mib++ { // in the first system's partition
		sector := mib << 11
		worn = append(worn, qemu.Fault{Event: "write_aio", Errno: 5, Sector: &sector})
	}
	swapped := s.Node(lab.NodeSpec{Name: "swapped", Boot: []string{"net"}, Disks: append([]lab.Disk{disks[4], disks[3], disks[1], makeForeign(t, good)}, disks[0], disks[7], disks[2], disks[6], disks[5])})
	failing := lab.NodeSpec{Name: "failing", Boot: []string{"net"}, Disks: []lab.Disk{{Size: 4 << 30, Serial: "DEAD", Faults: dead}, {Size: 4 << 30, Serial: "WORN", Faults: worn}}}
	var g errgroup.Group
	g.Go(func() error {
		_, err := swapped.Console().Expect(t.Context(), bootLimit, `slate:   demo/[0-9]+ is installed on [a-z]+`)
		return err
	})
	checkFailingWrites(t, s, s.Node(failing))
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	swapped.PowerCut()
	checkUnchanged(t, all, disks, before)
}

// makeForeign makes the file of a drive.
func makeForeign(t *testing.T, f foreign) lab.Disk {
	t.Helper()
	d := f.disk
	d.Serial = f.serial
	if d.Bus == "" {
		d.Bus = "scsi"
	}
	if d.File != "" {
		return d
	}
	d.File = filepath.Join(t.TempDir(), f.serial)
	if f.make == "" {
		if err := os.WriteFile(d.File, raidMember(), 0o600); err != nil {
			t.Fatal(err)
		}
		f.make = "truncate -s 2G $D"
	}
	shell(t, filepath.Dir(d.File), "D="+d.File+"\n"+f.make)
	return d
}

// raidMember is the head of a drive that is part of a Linux RAID, a mirror: mdadm makes
// one only on a machine that can run it. The fields are those of struct
// mdp_superblock_1 in the kernel's md_p.h, which lies 4 KiB from the start in version 1.2.
func raidMember() []byte {
	b := make([]byte, 8192)
	sb := b[4096:]
	le := binary.LittleEndian
	le.PutUint32(sb[0:], 0xa92b4efc) // magic
	le.PutUint32(sb[4:], 1)          // major version
	copy(sb[16:], "0123456789abcdef")
	copy(sb[32:], "lab:0")
	le.PutUint32(sb[72:], 1)       // level
	le.PutUint64(sb[80:], 4000000) // size, sectors
	le.PutUint32(sb[92:], 2)       // drives
	le.PutUint64(sb[128:], 2048)   // data offset
	le.PutUint64(sb[136:], 4000000)
	le.PutUint64(sb[144:], 8) // where this is
	copy(sb[168:], "fedcba9876543210")
	le.PutUint32(sb[220:], 2) // roles
	le.PutUint16(sb[258:], 1)
	sum := uint64(0)
	for i := 0; i < 256+2*2; i += 4 {
		sum += uint64(le.Uint32(sb[i:]))
	}
	le.PutUint32(sb[216:], uint32(sum)+uint32(sum>>32))
	return b
}

// hashDrive is a digest of a drive's contents. Blocks of zeros count as what they are,
// whether they take room in the file or not, without being read.
func hashDrive(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const block = 64 << 10
	h, buf, zero := sha256.New(), make([]byte, block), make([]byte, block)
	for at := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole is left
			return fmt.Sprintf("%x", h.Sum(nil))
		}
		if err != nil {
			t.Fatal(err)
		}
		at = data / block * block
		n, err := f.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(buf[:n], zero[:n]) {
			fmt.Fprintf(h, "%d %d\n", at, n)
			h.Write(buf[:n])
		}
		at += block
	}
}

func checkUnchanged(t *testing.T, all []foreign, disks []lab.Disk, before map[string]string) {
	t.Helper()
	for i, f := range all {
		if after := hashDrive(t, disks[i].File); after != before[f.serial] {
			t.Errorf("the drive %s was changed", f.serial)
		}
	}
}

// checkRefusals reads what the machine says of each drive, and then tries what must
// not work.
func checkRefusals(t *testing.T, s *site, n *lab.Node, all []foreign) {
	t.Helper()
	send := sender(t, n)
	s.Expect(n, bootLimit, `not installed: no drive may be used without asking`, `This machine could not be installed\.`, `Rules are in config\.d`, `Waiting for your choice`)
	send("3")
	s.Expect(n, commandLimit, `slate# `)
	send("drives\r")
	for more := true; more; {
		_, which, err := n.Console().ExpectAny(t.Context(), commandLimit, `more lines; any key`, `slate# `)
		if err != nil {
			t.Fatal(err)
		}
		if more = which == 0; more {
			send(" ")
		}
	}
	text := regexp.MustCompile(`-- [0-9]+ more lines[^\n]*--`).ReplaceAllString(n.Console().Text(), "")
	for _, f := range all {
		for _, want := range []string{`serial ` + f.serial + `\n +holds: [^\n]*` + f.holds, `serial ` + f.serial + `\n[^\n]*\n +` + f.why} {
			if !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("the machine does not say of its drive %s: %s", f.serial, want)
			}
		}
	}
	send("exit\r")
	s.Expect(n, commandLimit, `This machine could not be installed\.`, `Waiting for your choice`)
	send("2")
	// The kernel gives the names as it finds the drives: in any order.
	m, err := n.Console().Expect(t.Context(), commandLimit, `on which drive\?`, `Not sd[a-z], 67 MB`, `([0-9])  (sd[a-z]), [^\n]*serial WINDOWS`, `Waiting for your choice`)
	if err != nil {
		t.Fatal(err)
	}
	for _, answer := range []string{"yes", ""} { // it asks for the drive's name
		send(m[2].Groups[1])
		s.Expect(n, commandLimit, `all that is on it is lost: partition 1`, `Type the drive's name, `+m[2].Groups[2])
		send(answer + "\r")
		s.Expect(n, commandLimit, `nothing was changed`, `on which drive\?`, `Waiting for your choice`)
	}
}

// checkFailingWrites has a machine try a drive that takes no write, and then, by hand,
// one on which a part of the system cannot be written.
func checkFailingWrites(t *testing.T, s *site, n *lab.Node) {
	t.Helper()
	send := sender(t, n)
	s.Expect(n, bootLimit, `not installed: .* on /dev/vda: the drive takes no data \(.*: input/output error\)`, `This machine could not be installed\.`, `Waiting for your choice`)
	send("2")
	s.Expect(n, commandLimit, `on which drive\?`, `Not vda, .*serial DEAD: it cannot be read`, `1  vdb, 4\.3 GB, virtio, serial WORN: empty`, `Waiting for your choice`)
	send("1")
	s.Expect(n, commandLimit, `Type yes to install`)
	send("yes\r")
	s.Expect(n, bootLimit, `not installed: .*`, `The installation did not come to its end\.`, `(?i)(input/output error|read-only file system)`)
	var seen []string
	for _, l := range n.Console().Lines() {
		if strings.Contains(l.Text, "not installed:") {
			seen = append(seen, l.Text)
		}
	}
	t.Log(strings.Join(seen, "\n"))
	n.PowerCut()
}

// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"slate/testbed/qemu"
)

// Disk is a drive of a machine: a new empty one of Size, a new one that starts
// with the contents of Base and leaves it alone, an existing File that is used as
// it is, or one that shows the files of Dir and cannot be written to.
type Disk struct {
	Size   int64  // bytes, of a new disk
	Base   string // raw file that a new disk starts from; Size may be larger
	File   string // existing file
	Format string // raw or qcow2, of File; new disks are raw, or qcow2 over a Base
	Dir    string // see qemu.Disk

	Bus      string // see qemu.Disk
	Serial   string // see qemu.Disk
	ReadOnly bool
	CDROM    bool
	Faults   []qemu.Fault
	Record   bool // of what is written since the machine was switched on; see DiskRecord
}

// makeDisks makes the disks of a machine that do not exist yet.
func (l *Lab) makeDisks(s NodeSpec) ([]qemu.Disk, error) {
	var disks []qemu.Disk
	for i, d := range s.Disks {
		file, format := filepath.Join(l.dir, fmt.Sprintf("%s.disk%d", s.Name, i)), "raw"
		var err error
		switch {
		case d.File != "":
			if d.Format != "" {
				format = d.Format
			}
			file = d.File
			_, err = os.Stat(file)
		case d.Base != "":
			format = "qcow2"
			err = makeOverlay(file, d)
		case d.Size > 0:
			err = makeEmpty(file, d.Size)
		case d.Dir != "":
			_, err = os.Stat(d.Dir)
		default:
			err = errors.New("neither size nor file nor directory")
		}
		if err != nil {
			return nil, fmt.Errorf("disk %d: %w", i, err)
		}
		q := qemu.Disk{File: file, Format: format, Dir: d.Dir, Bus: d.Bus, Serial: d.Serial, ReadOnly: d.ReadOnly, CDROM: d.CDROM, Faults: d.Faults}
		if d.Record {
			q.Record = filepath.Join(l.dir, fmt.Sprintf("%s.disk%d.record", s.Name, i))
		}
		disks = append(disks, q)
	}
	return disks, nil
}

// makeEmpty makes a file that takes no space before it is written to.
func makeEmpty(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func makeOverlay(file string, d Disk) error {
	base, err := filepath.Abs(d.Base)
	if err != nil {
		return err
	}
	args := []string{"create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, file}
	if d.Size > 0 {
		args = append(args, fmt.Sprint(d.Size))
	}
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// DiskFile is the file of disk i, whose format may be qcow2 if it has a base. It
// may be read while the machine is off.
func (n *Node) DiskFile(i int) string { return n.disks[i].File }

// DiskRecord is the file with the record of what was written to disk i since the
// machine was switched on, for package writelog.
func (n *Node) DiskRecord(i int) string { return n.disks[i].Record }

// newRecords begins the records of the disks anew.
func (n *Node) newRecords() error {
	for _, d := range n.disks {
		if d.Record == "" {
			continue
		}
		if err := os.WriteFile(d.Record, nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

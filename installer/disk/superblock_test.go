// SPDX-License-Identifier: GPL-2.0-or-later

package disk_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"slate/installer/disk"
	"slate/testbed/labtest"
)

// A superblock of which a power cut has left some sectors is what it was, byte for byte.
func TestMendSuperblock(t *testing.T) {
	labtest.Need(t, "mkfs.btrfs")
	file := filepath.Join(t.TempDir(), "btrfs")
	for _, cmd := range [][]string{{"truncate", "-s", "256M", file}, {"mkfs.btrfs", "-q", file}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", cmd, err, out)
		}
	}
	const first, second, size = 64 << 10, 64 << 20, 4096
	read := func(at int64) []byte {
		t.Helper()
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, size)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(at int64, b []byte) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	good, copied := read(first), read(second)
	if mended, err := disk.MendSuperblock(file); mended || err != nil {
		t.Fatalf("a good one: %v, %v", mended, err)
	}
	for _, sectors := range []int64{1, 3, 7} {
		write(first+sectors*512, bytes.Repeat([]byte{0xee}, int(size-sectors*512)))
		if mended, err := disk.MendSuperblock(file); !mended || err != nil {
			t.Errorf("%d sectors: %v, %v", sectors, mended, err)
		}
		if !bytes.Equal(read(first), good) {
			t.Errorf("%d sectors: not what it was", sectors)
		}
	}
	if out, err := exec.Command("btrfs", "check", file).CombinedOutput(); err != nil {
		t.Errorf("btrfs check: %v\n%s", err, out)
	}
	write(first+512, make([]byte, 512))
	write(second+1024, bytes.Repeat([]byte{1}, 512))
	damaged := read(first)
	if mended, err := disk.MendSuperblock(file); mended || err == nil {
		t.Errorf("without a copy: %v, %v", mended, err)
	}
	if !bytes.Equal(read(first), damaged) {
		t.Error("without a copy it was written")
	}
	write(second, copied)
	write(first, bytes.Repeat([]byte{0xee}, size))
	if mended, err := disk.MendSuperblock(file); mended || err != nil {
		t.Errorf("no btrfs any more: %v, %v", mended, err)
	}
}

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
	labtest.Need(t, "btrfs")
	file := filepath.Join(t.TempDir(), "btrfs")
	for _, cmd := range [][]string{{"truncate", "-s", "256M", file}, {"mkfs.btrfs", "-q", file}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", cmd, err, out)
		}
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const first, second, size = 64 << 10, 64 << 20, 4096 // btrfs(5), the superblock and its copies
	read := func(at int64) []byte {
		t.Helper()
		b := make([]byte, size)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		return b
	}
	spoil := func(at int64) {
		t.Helper()
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xee}, int(size-at%size)), at); err != nil {
			t.Fatal(err)
		}
	}
	good, mend := read(first), func() (bool, error) { return disk.Tools{}.MendSuperblock(t.Context(), file) }
	if mended, err := mend(); mended || err != nil || !bytes.Equal(read(first), good) {
		t.Fatalf("a good one: mended %v, %v, or it was changed", mended, err)
	}
	for _, sectors := range []int64{1, 3, 7} {
		spoil(first + sectors*512)
		if mended, err := mend(); !mended || err != nil || !bytes.Equal(read(first), good) {
			t.Errorf("%d sectors: mended %v, %v, or it is not what it was", sectors, mended, err)
		}
	}
	spoil(first + 512)
	spoil(second + 512)
	damaged := read(first)
	if mended, err := mend(); mended || err == nil || !bytes.Equal(read(first), damaged) {
		t.Errorf("without a copy: mended %v, %v, or it was changed", mended, err)
	}
}

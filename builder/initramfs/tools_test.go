// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"slate/builder/initramfs"
	"slate/builder/rootfs"
	"slate/testbed/labtest"
)

// The programs of this machine, packed and unpacked elsewhere, run there with nothing
// but what came with them.
func TestToolsRunAlone(t *testing.T) {
	labtest.NeedRoot(t)
	for _, p := range []string{"cpio", "zstd", "sfdisk", "mkfs.ext4", "mkfs.fat", "mkfs.btrfs", "grub-mkimage"} {
		labtest.Need(t, p)
	}
	fsys, err := rootfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	cpio, rep, err := initramfs.ToolsCPIO(t.Context(), fsys, "", initramfs.Zstd)
	if err != nil {
		t.Fatal(err)
	}
	if !rep.Usable() || !rep.BIOS || !rep.UEFI || len(rep.Optional) > 0 {
		t.Errorf("report = %+v, want all of it", rep)
	}
	again, _, err := initramfs.ToolsCPIO(t.Context(), fsys, "", initramfs.Zstd)
	if err != nil || !bytes.Equal(cpio, again) {
		t.Errorf("a second archive of the same tree differs (%v)", err)
	}
	dir := t.TempDir()
	unpack := exec.Command("sh", "-ec", "zstd -dc | cpio -idm --quiet")
	unpack.Dir, unpack.Stdin = dir, bytes.NewReader(cpio)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v\n%s", err, out)
	}
	for _, p := range []string{"sfdisk", "blkid", "wipefs", "mkfs.ext4", "e2fsck", "mkfs.fat", "fsck.fat", "mkfs.btrfs", "btrfs", "grub-mkimage"} {
		flag := "--version"
		if p == "mkfs.ext4" || p == "e2fsck" {
			flag = "-V"
		} else if strings.HasSuffix(p, ".fat") {
			flag = "--help"
		}
		cmd := exec.Command("chroot", dir, "/"+initramfs.ToolPrograms+"/"+p, flag)
		cmd.Env = []string{"LD_LIBRARY_PATH=/" + initramfs.ToolLibs}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("%s %s: %v\n%s", p, flag, err, out)
		}
	}
	check := exec.Command("sh", "-ec", "sed 's#  /#  #' "+initramfs.ToolDigestsPath+" | sha256sum -c --quiet")
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("digests: %v\n%s", err, out)
	}
	for _, f := range []string{"i386-pc/kernel.img", "i386-pc/biosdisk.mod", "i386-pc/normal.mod", "shimx64.efi", "grubx64.efi"} {
		if _, err := os.Stat(filepath.Join(dir, initramfs.ToolGRUB, f)); err != nil {
			t.Error(err)
		}
	}
}

func TestToolsOfATreeWithoutAny(t *testing.T) {
	tree := fstest.MapFS{"usr/bin/true": {Data: []byte("x")}}
	cpio, rep, err := initramfs.ToolsCPIO(t.Context(), tree, "", initramfs.Plain)
	if err != nil || cpio != nil || rep.Usable() {
		t.Errorf("ToolsCPIO = %d bytes, usable %v, %v; want nothing", len(cpio), rep.Usable(), err)
	}
	if lacks := strings.Join(initramfs.LackingTools(tree), "\n"); !strings.Contains(lacks, "sfdisk, partitions (fdisk)") || !strings.Contains(lacks, "a loader (grub-pc-bin") {
		t.Errorf("LackingTools = %s", lacks)
	}
}

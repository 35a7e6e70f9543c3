// SPDX-License-Identifier: GPL-2.0-or-later

package medium_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"slate/installer/medium"
	"slate/testbed/labtest"
)

// A version in a file is mounted like one on a partition, and the loop device goes
// with its mount.
func TestLoop(t *testing.T) {
	labtest.NeedRoot(t)
	labtest.Need(t, "mksquashfs")
	labtest.NeedFile(t, "/dev/loop-control")
	dir, at := t.TempDir(), t.TempDir()
	if err := os.WriteFile(dir+"/hello", []byte("from the image\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.squashfs")
	if out, err := exec.CommandContext(t.Context(), "mksquashfs", dir, file, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	device, err := medium.Loop(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(device, at, "squashfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatalf("mount %s: %v", device, err)
	}
	got, err := os.ReadFile(at + "/hello")
	if uerr := unix.Unmount(at, 0); uerr != nil {
		t.Error(uerr)
	}
	if err != nil || string(got) != "from the image\n" {
		t.Errorf("hello = %q, %v", got, err)
	}
	if _, err := medium.Loop("/nonexistent"); err == nil {
		t.Error("a loop device of nothing")
	}
}

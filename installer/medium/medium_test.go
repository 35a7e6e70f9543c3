// SPDX-License-Identifier: GPL-2.0-or-later

package medium_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"slate/installer/medium"

	"github.com/google/go-cmp/cmp"
)

func fat(label string) []byte {
	b := make([]byte, 4096)
	copy(b[0x47:], label)
	copy(b[0x52:], "FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	return b
}

func iso(label string) []byte {
	b := make([]byte, 20*2048)
	copy(b[16*2048:], "\x01CD001\x01")
	copy(b[16*2048+40:], label+"                                ")
	return b
}

func TestIdentify(t *testing.T) {
	for _, c := range []struct {
		name, kind, label string
		data              []byte
	}{
		{"FAT", "vfat", "SLATE-MEDIA", fat("SLATE-MEDIA")},
		{"ISO", "iso9660", "SLATE-MEDIA", iso("SLATE-MEDIA")},
		{"other label", "vfat", "ESP", fat("ESP        ")},
		{"zeros", "", "", make([]byte, 1<<16)},
		{"short", "", "", []byte("x")},
		{"an ISO cut off", "", "", iso("SLATE-MEDIA")[:16*2048+100]},
	} {
		if kind, label := medium.Identify(bytes.NewReader(c.data)); kind != c.kind || label != c.label {
			t.Errorf("%s: Identify = %q %q, want %q %q", c.name, kind, label, c.kind, c.label)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add(fat("SLATE-MEDIA"))
	f.Add(iso("SLATE-MEDIA"))
	f.Fuzz(func(t *testing.T, data []byte) { medium.Identify(bytes.NewReader(data)) })
}

// A machine with a stick, a disc drive, a disk of its own and one of another's stick.
func TestFind(t *testing.T) {
	root := t.TempDir()
	device := func(name, drive string, data []byte, uevent string) {
		t.Helper()
		dir := filepath.Join(root, "sys/devices/x", drive, name)
		if drive == "" {
			dir = filepath.Join(root, "sys/devices/x", name)
		}
		for _, d := range []string{dir, filepath.Join(root, "dev"), filepath.Join(root, "sys/class/block")} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write := func(p string, b []byte) {
			if err := os.WriteFile(p, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if drive != "" {
			write(filepath.Join(dir, "partition"), []byte("1\n"))
		}
		write(filepath.Join(dir, "uevent"), []byte("MAJOR=8\n"+uevent))
		write(filepath.Join(root, "dev", name), data)
		if err := os.Symlink(dir, filepath.Join(root, "sys/class/block", name)); err != nil {
			t.Fatal(err)
		}
	}
	device("sda", "", make([]byte, 4096), "")
	device("sda1", "sda", fat("ESP"), "")
	device("sdb", "", make([]byte, 4096), "")
	device("sdb1", "sdb", make([]byte, 4096), "PARTNAME=slate-bios\n")
	device("sdb2", "sdb", fat("SLATE-MEDIA"), "PARTNAME=slate-medium\n")
	device("sdb3", "sdb", []byte("hsqs"), "PARTNAME=slate-image\n")
	device("sr0", "", iso("SLATE-MEDIA"), "")
	device("loop0", "", iso("SLATE-MEDIA"), "")

	want := []medium.FS{{Device: "sdb2", Type: "vfat"}, {Device: "sr0", Type: "iso9660"}}
	if d := cmp.Diff(want, medium.Find(root)); d != "" {
		t.Errorf("Find (-want +got):\n%s", d)
	}
	for drive, is := range map[string]bool{"sda": false, "sdb": true, "sr0": true, "sd": false, "nvme0n1": false} {
		if got := medium.Is(root, drive); got != is {
			t.Errorf("Is(%s) = %v", drive, got)
		}
	}

	mounted := t.TempDir()
	if medium.Has(mounted, "") || medium.Has(mounted, "abcd") {
		t.Error("an empty directory is taken for the medium")
	}
	if part, file := medium.Image(root, mounted, want[0]); part != "sdb3" || file != "" {
		t.Errorf("Image of the stick = %q %q", part, file)
	}
	if part, file := medium.Image(root, mounted, want[1]); part != "" || file != "" {
		t.Errorf("Image of a disc without one = %q %q", part, file)
	}
	for _, name := range []string{"slate/medium-abcd", "slate/image.squashfs", "slate/config/controller/x.conf"} {
		p := filepath.Join(mounted, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !medium.Has(mounted, "abcd") || medium.Has(mounted, "abc") {
		t.Error("the id is not recognized")
	}
	if part, file := medium.Image(root, mounted, want[1]); part != "" || file != filepath.Join(mounted, "slate/image.squashfs") {
		t.Errorf("Image of the disc = %q %q", part, file)
	}
	if text, err := medium.Config(mounted, "controller/x.conf"); err != nil || string(text) != "x" {
		t.Errorf("Config = %q, %v", text, err)
	}
	if text, err := medium.Config(mounted, "controller/y.conf"); err != nil || text != nil {
		t.Errorf("Config of a file that is not there = %q, %v", text, err)
	}
}

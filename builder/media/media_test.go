// SPDX-License-Identifier: GPL-2.0-or-later

package media_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slate/builder/media"
	"slate/installer/medium"
	"slate/testbed/labtest"
)

// options are those of a small medium of made-up files.
func options(t *testing.T, kind media.Kind) media.Options {
	t.Helper()
	for _, tool := range []string{"grub-mkimage", "mcopy", "mtype", "xorriso", "grub-script-check"} {
		labtest.Need(t, tool)
	}
	labtest.NeedFile(t, "/usr/lib/grub/i386-pc/boot.img")
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	return media.Options{
		Kind: kind, To: filepath.Join(dir, "out"), ID: "0123456789abcdef", Title: "Slate: lab/3", Work: dir,
		Cmdline: []string{"console=ttyS0,115200", "quiet", `odd="a b"`, "slate.server=http://10.77.0.1:8070"},
		Kernel:  file("kernel", "a kernel"), Initrds: []media.Initrd{{Name: "controller.cpio", File: file("c", "a controller")}, {Name: "modules.cpio", File: file("m", "modules")}},
		Config: map[string][]byte{"controller/server/server.info.conf": []byte("# servers\n")},
		Image:  file("image", "hsqs of an image"),
	}
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

// checkGrub looks at the menu with GRUB's own eyes.
func checkGrub(t *testing.T, text string) {
	t.Helper()
	cfg := filepath.Join(t.TempDir(), "grub.cfg")
	if err := os.WriteFile(cfg, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "grub-script-check", cfg)
	for _, want := range []string{"menuentry 'Slate: lab/3' {", `linux /slate/vmlinuz console=ttyS0,115200 quiet 'odd="a b"' slate.server=http://10.77.0.1:8070`,
		"initrd /slate/controller.cpio /slate/modules.cpio\n", "menuentry 'Power off'"} {
		if !strings.Contains(text, want) {
			t.Errorf("grub.cfg lacks %q:\n%s", want, text)
		}
	}
}

func TestUSB(t *testing.T) {
	o := options(t, media.USB)
	var steps []string
	o.Step = func(s string) { steps = append(steps, s) }
	if err := media.Write(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if len(steps) < 4 {
		t.Errorf("steps shown: %q", steps)
	}
	table := run(t, "sfdisk", "--dump", o.To)
	for _, want := range []string{"label: gpt", `name="slate-bios"`, `name="slate-media"`, `name="slate-image"`} {
		if !strings.Contains(table, want) {
			t.Errorf("the table of partitions lacks %s:\n%s", want, table)
		}
	}
	if out := run(t, "sfdisk", "--verify", o.To); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk --verify: %s", out)
	}
	disk, err := os.ReadFile(o.To)
	if err != nil {
		t.Fatal(err)
	}
	// What grub-bios-setup would have written: see its manual, and boot.S.
	if at := binary.LittleEndian.Uint64(disk[0x5c:]); at != 2048 || disk[446] != 0x80 || disk[510] != 0x55 {
		t.Errorf("MBR: core.img at sector %d, status %#x", at, disk[446])
	}
	if next := binary.LittleEndian.Uint64(disk[2048*512+500:]); next != 2049 {
		t.Errorf("core.img goes on at sector %d, want 2049", next)
	}
	// The controller knows the stick by what it reads there.
	if kind, label := medium.Identify(bytes.NewReader(disk[2<<20:])); kind != "vfat" || label != media.Label {
		t.Errorf("the controller takes the FAT for %q %q", kind, label)
	}
	fat := o.To + "@@2M"
	checkGrub(t, run(t, "mtype", "-i", fat, "::/slate/grub.cfg"))
	if got := run(t, "mtype", "-i", fat, "::/slate/config/controller/server/server.info.conf"); got != "# servers\n" {
		t.Errorf("the copy of config.d is %q", got)
	}
	if got := run(t, "mdir", "-b", "-i", fat, "::/slate"); !strings.Contains(got, "medium-0123456789abcdef") {
		t.Errorf("no id among %s", got)
	}
	if !bytes.Contains(disk, []byte("SLATE-MEDIA")) || !bytes.Contains(disk, []byte("hsqs of an image")) {
		t.Error("label or image are not on the disk")
	}
	left, err := filepath.Glob(filepath.Join(o.Work, "media-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestISO(t *testing.T) {
	o := options(t, media.ISO)
	if err := media.Write(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	report := run(t, "xorriso", "-indev", o.To, "-report_el_torito", "plain", "-report_system_area", "plain")
	for _, want := range []string{"SLATE-MEDIA", "BIOS", "UEFI", "grub2-mbr", "GPT"} {
		if !strings.Contains(report, want) {
			t.Errorf("xorriso's report lacks %s:\n%s", want, report)
		}
	}
	f, err := os.Open(o.To)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if kind, label := medium.Identify(f); kind != "iso9660" || label != media.Label {
		t.Errorf("the controller takes it for %q %q", kind, label)
	}
	dir := t.TempDir()
	run(t, "xorriso", "-osirrox", "on", "-indev", o.To, "-extract", "/slate", dir+"/slate")
	text, err := os.ReadFile(dir + "/slate/grub.cfg")
	if err != nil {
		t.Fatal(err)
	}
	checkGrub(t, string(text))
	if media.Signed() { // which looks on the disc itself
		run(t, "xorriso", "-osirrox", "on", "-indev", o.To, "-extract", "/EFI/debian/grub.cfg", dir+"/find.cfg")
		if text, err := os.ReadFile(dir + "/find.cfg"); err != nil || !strings.Contains(string(text), "configfile /slate/grub.cfg") {
			t.Errorf("the signed loader's configuration is %q, %v", text, err)
		}
	}
	for _, name := range []string{"medium-0123456789abcdef", "image.squashfs", "vmlinuz", "controller.cpio", "config/controller/server/server.info.conf"} {
		if _, err := os.Stat(filepath.Join(dir, "slate", name)); err != nil {
			t.Error(err)
		}
	}
}

// What goes wrong leaves the old file as it was.
func TestFailuresLeaveWhatWasThere(t *testing.T) {
	for name, spoil := range map[string]func(*media.Options) context.Context{
		"no kernel": func(o *media.Options) context.Context { o.Kernel = "/nonexistent"; return context.Background() },
		"a word that GRUB would misread": func(o *media.Options) context.Context {
			o.Cmdline = append(o.Cmdline, "a'b")
			return context.Background()
		},
		"bad id": func(o *media.Options) context.Context { o.ID = "../x"; return context.Background() },
		"interrupted": func(*media.Options) context.Context {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			return ctx
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, media.USB)
			if err := os.WriteFile(o.To, []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := media.Write(spoil(&o), o); err == nil {
				t.Error("no error")
			}
			if got, err := os.ReadFile(o.To); err != nil || string(got) != "old" {
				t.Errorf("the old file is %q, %v", got, err)
			}
			if left, _ := filepath.Glob(filepath.Join(o.Work, "media-*")); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestMissingToolsAreNamed(t *testing.T) {
	labtest.NeedFile(t, "/usr/lib/grub/i386-pc/boot.img")
	t.Setenv("PATH", t.TempDir())
	err := media.Check(media.ISO)
	var te *media.ToolError
	if !errors.As(err, &te) || te.Hint() == "" {
		t.Fatalf("Check = %v", err)
	}
	for _, want := range []string{"grub-mkimage", "xorriso"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Check does not name %s: %v", want, err)
		}
	}
}

func TestLook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	for _, p := range []string{file, "/dev/null", "/nonexistent/x", t.TempDir()} {
		if _, ok, err := media.Look(p); ok || err != nil {
			t.Errorf("Look(%s) = %v, %v: it is no drive", p, ok, err)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package bootpart

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/testbed/golden"
	"slate/testbed/labtest"

	"golang.org/x/sys/unix"
)

func entry(slot string) Entry {
	return Entry{Slot: slot, Title: "demo/3", Kernel: strings.NewReader("kernel"), Initrd: []io.Reader{strings.NewReader("one"), strings.NewReader("two")},
		Cmdline: []string{"console=ttyS0,115200", "quiet", `odd="it's;$so"`, "slate.slot=" + slot}}
}

func TestConfig(t *testing.T) {
	golden.Check(t, "testdata/none.cfg.golden", []byte(Config(nil, DefaultTimeout)))
	dir := t.TempDir()
	if err := WriteEntry(dir, entry("a")); err != nil {
		t.Fatal(err)
	}
	one := read(t, dir, configFile)
	golden.Check(t, "testdata/one.cfg.golden", one)
	if err := WriteEntry(dir, entry("b")); err != nil {
		t.Fatal(err)
	}
	both := read(t, dir, configFile)
	golden.Check(t, "testdata/both.cfg.golden", both)
	if got := string(read(t, dir, "slate/b/initrd.img")); got != "onetwo" {
		t.Errorf("initrd = %q, want its parts after one another", got)
	}
	labtest.Need(t, "grub-script-check")
	for _, text := range [][]byte{one, both} {
		cmd := exec.Command("grub-script-check")
		cmd.Stdin = bytes.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("grub-script-check: %v\n%s", err, out)
		}
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A slot whose files were not all written is not offered.
func TestHalfAnEntryIsNone(t *testing.T) {
	dir := t.TempDir()
	e := entry("a")
	e.Initrd = []io.Reader{io.MultiReader(strings.NewReader("one"), broken{})}
	if err := WriteEntry(dir, e); err == nil {
		t.Fatal("no error")
	}
	if err := WriteEntry(dir, entry("b")); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, dir, configFile)); strings.Contains(got, "--id a") || !strings.Contains(got, "--id b") || !strings.Contains(got, "set default=b") {
		t.Errorf("the loader's configuration:\n%s", got)
	}
}

// What config.d says of the loader's time-out is in its configuration, and stays there.
func TestTimeout(t *testing.T) {
	dir := t.TempDir()
	if err := WriteEntry(dir, entry("a")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{DefaultTimeout, 0, 30} {
		if err := SetTimeout(dir, want); err != nil {
			t.Fatal(err)
		}
		if err := WriteEntry(dir, entry("b")); err != nil {
			t.Fatal(err)
		}
		if got := string(read(t, dir, configFile)); !strings.Contains(got, fmt.Sprintf("\nset timeout=%d\n", want)) {
			t.Errorf("with %d s the configuration is\n%s", want, got)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// GRUB's own tool reads and changes what we write, and we read what it wrote.
func TestEnv(t *testing.T) {
	labtest.Need(t, "grub-editenv")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, Dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteEnv(dir, Env{Slot: "b", Tries: map[string]int{"a": 2, "b": 3}, Trial: map[string]string{"b": "0123456789abcdef"}}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, envFile)
	if out, err := exec.Command("grub-editenv", file, "list").CombinedOutput(); err != nil || string(out) != "slot=b\ntries_a=2\ntries_b=3\ntrial_b=0123456789abcdef\n" {
		t.Errorf("grub-editenv list: %v\n%s", err, out)
	}
	if out, err := exec.Command("grub-editenv", file, "set", "tries_b=1").CombinedOutput(); err != nil {
		t.Fatalf("grub-editenv set: %v\n%s", err, out)
	}
	got, err := ReadEnv(dir)
	if diff := cmp.Diff(Env{Slot: "b", Tries: map[string]int{"a": 2, "b": 1}, Trial: map[string]string{"b": "0123456789abcdef"}}, got); err != nil || diff != "" {
		t.Errorf("ReadEnv (%v; -want +got):\n%s", err, diff)
	}
	if err := os.WriteFile(file, []byte("slot=b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadEnv(dir); err == nil || got.Slot != "" {
		t.Errorf("ReadEnv of a damaged block = %+v, %v", got, err)
	}
}

// On a full boot partition the counters still count.
func TestEnvOnAFullPartition(t *testing.T) {
	labtest.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := os.Mkdir(filepath.Join(dir, Dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteEnv(dir, Env{Slot: "a", Tries: map[string]int{"a": 3}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the partition: %v", err)
	}
	want := Env{Slot: "b", Tries: map[string]int{"a": 2, "b": 1}, Trial: map[string]string{}}
	if err := WriteEnv(dir, want); err != nil {
		t.Error(err)
	}
	if got, err := ReadEnv(dir); err != nil || !cmp.Equal(got, want) {
		t.Errorf("ReadEnv = %+v, %v, want %+v", got, err, want)
	}
}

// The archive of the running controller unpacks to the same files.
func TestControllerCPIO(t *testing.T) {
	labtest.NeedRoot(t)
	labtest.Need(t, "cpio")
	from := t.TempDir()
	for name, text := range map[string]string{"init": "program", "etc/slate/site.pub": "key", "etc/slate/files.sha256": "aa  /etc/slate/site.pub\nbb  /init\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := ControllerCPIO(from, "/etc/slate/files.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if len(out)%512 != 0 {
		t.Errorf("%d bytes: another archive cannot follow", len(out))
	}
	to := t.TempDir()
	cmd := exec.Command("cpio", "-idm", "--quiet")
	cmd.Dir, cmd.Stdin = to, bytes.NewReader(out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, text)
	}
	for _, name := range []string{"init", "etc/slate/site.pub", "etc/slate/files.sha256"} {
		if got, want := string(read(t, to, name)), string(read(t, from, name)); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if fi, err := os.Stat(filepath.Join(to, "init")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("init: %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Join(to, "dev/console")); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("dev/console: %v", err)
	}
}

func TestFirstSector(t *testing.T) {
	boot := make([]byte, 512)
	boot[0], boot[510], boot[511] = 0xeb, 0x55, 0xaa
	old := bytes.Repeat([]byte{7}, 512)
	got, err := firstSector(boot, old, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint64(got[bootKernelSector:]); n != 2048 {
		t.Errorf("it leads to sector %d, want 2048", n)
	}
	if !bytes.Equal(got[bootPartTable:bootSignature], old[bootPartTable:bootSignature]) || got[0] != 0xeb || got[511] != 0xaa {
		t.Error("the protective partition table was not kept, or the code was not taken")
	}
	if _, err := firstSector(boot[:100], old, 0); err == nil {
		t.Error("half a sector was taken")
	}
	core := make([]byte, 3000)
	if err := placeCore(core, 1<<20, 1<<20); err != nil || binary.LittleEndian.Uint64(core[listOffset:]) != 2049 || binary.LittleEndian.Uint16(core[listOffset+8:]) != 5 {
		t.Errorf("placeCore: %v, list % x", err, core[listOffset:512])
	}
	if err := placeCore(make([]byte, 2<<20), 0, 1<<20); err == nil {
		t.Error("a core larger than its partition was taken")
	}
}

func TestAddNVRAM(t *testing.T) {
	dir := t.TempDir()
	put := func(name, value string) {
		b, err := hex.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+"-"+efiGlobal), append([]byte{7, 0, 0, 0}, b...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("BootOrder", "00000200")
	put("BootCurrent", "0000")
	put("Boot0000", "0100000004007800000000")
	put("Boot0002", "0100000004007900000000")
	target := Target{Part: 2, Start: 2 << 20, Size: 512 << 20, Sector: 512, GUID: "00112233-4455-6677-8899-aabbccddeeff", File: `\EFI\slate\shimx64.efi`}
	for range 2 { // a second time changes nothing
		if err := AddNVRAM(dir, target); err != nil {
			t.Fatal(err)
		}
		order, err := readVar(dir, "BootOrder")
		if want := "000001000200"; err != nil || hex.EncodeToString(order) != want { // after the one it was started by
			t.Errorf("BootOrder = %x, %v; want %s", order, err, want)
		}
	}
	names, _ := filepath.Glob(filepath.Join(dir, "Boot0*"))
	if len(names) != 3 {
		t.Errorf("entries: %v, want one new one", names)
	}
	got, err := readVar(dir, "Boot0001")
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		"name":        "53006c006100740065000000",
		"hard drive":  "04012a00020000000010000000000000000010000000000033221100554477668899aabbccddeeff0202",
		"file's path": "04043200" + hex.EncodeToString(utf16Bytes(target.File)),
		"end":         "7fff0400",
	} {
		if !strings.Contains(hex.EncodeToString(got), want) {
			t.Errorf("the entry lacks its %s, %s:\n%x", what, want, got)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package machine_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"slate/installer/machine"

	"github.com/google/go-cmp/cmp"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadIdentityDropsFillers(t *testing.T) {
	dmi := func(vendor, product, serial, uuid string) map[string]string {
		const d = "/sys/class/dmi/id/"
		return map[string]string{d + "sys_vendor": vendor + "\n", d + "product_name": product + "\n", d + "product_serial": serial + "\n", d + "product_uuid": uuid + "\n"}
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  machine.Identity
	}{
		{"no firmware tables", nil, machine.Identity{}},
		{"a proper board", dmi("ACME", "Box 1", "SN1", "4C4C4544-0042-3010-8058-B4C04F4D4332"),
			machine.Identity{Vendor: "ACME", Product: "Box 1", Serial: "SN1", UUID: "4c4c4544-0042-3010-8058-b4c04f4d4332"}},
		{"fillers", dmi("To Be Filled By O.E.M.", "Default string", "System Serial Number", "03000200-0400-0500-0006-000700080009"), machine.Identity{}},
		{"control characters", dmi("A\x1b[2JB", "é", "", ""), machine.Identity{Vendor: "A[2JB"}},
	} {
		if d := cmp.Diff(tt.want, machine.ReadIdentity(tree(t, tt.files))); d != "" {
			t.Errorf("%s (- want, + got):\n%s", tt.name, d)
		}
	}
}

func TestMachineID(t *testing.T) {
	a := machine.Identity{UUID: "1", Serial: "2"}
	id := machine.MachineID(a, "52:54:00:12:34:56")
	if !regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`).MatchString(id) {
		t.Errorf("MachineID() = %q, not a version 4 UUID without dashes", id)
	}
	if again := machine.MachineID(a, "52:54:00:12:34:56"); again != id {
		t.Errorf("MachineID() = %q, then %q", id, again)
	}
	others := []string{id, machine.MachineID(a, "52:54:00:12:34:57"), machine.MachineID(machine.Identity{UUID: "1"}, "52:54:00:12:34:56"),
		machine.MachineID(machine.Identity{UUID: "1\n2"}, "52:54:00:12:34:56")}
	slices.Sort(others)
	if len(slices.Compact(others)) != 4 {
		t.Errorf("different machines share an identity: %q", others)
	}
}

func TestDigests(t *testing.T) {
	root := tree(t, map[string]string{"/init": "program", "/lib/modules/r/a.ko": "bits", "/etc/x": "y"})
	line := func(text, name string) string { return fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(text)), name) }
	for _, tt := range []struct {
		name, list string
		good       int
		err        string // a part of it
	}{
		{"all good", line("program", "/init") + line("y", "etc/x"), 2, ""},
		{"binary mark", strings.Replace(line("program", "/init"), "  ", " *", 1), 1, ""},
		{"comments", "# made by us\n\n" + line("program", "/init"), 1, ""},
		{"damaged", line("program", "/init") + line("z", "/etc/x"), 1, "/etc/x is damaged"},
		{"missing", line("program", "/gone"), 0, "gone: no such file"},
		{"outside", line("program", "../../../init"), 1, ""},
		{"modules are for later", line("other bits", "/lib/modules/r/a.ko"), 0, ""},
		{"not a list", "hello\n", 0, "line 1: not a line of sha256sum"},
		{"short digest", "abcd  /init\n", 0, "line 1: not a line of sha256sum"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := machine.Digests{}
			err := d.Read(strings.NewReader(tt.list))
			good := 0
			if err == nil {
				good, err = d.Check(root, func(n string) bool { return strings.HasSuffix(n, ".ko") })
			}
			if good != tt.good || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %d good, %v; want %d, %q", good, err, tt.good, tt.err)
			}
		})
	}
}

func TestReadMemory(t *testing.T) {
	m, err := machine.ReadMemory(tree(t, map[string]string{"/proc/meminfo": "MemTotal:        1000 kB\nMemFree: 5 kB\nMemAvailable:     800 kB\nHugePages_Total:       0\n"}))
	if want := (machine.Memory{Total: 1000 << 10, Available: 800 << 10}); err != nil || m != want {
		t.Errorf("ReadMemory() = %v, %v, want %v", m, err, want)
	}
	for _, text := range []string{"", "MemTotal: x kB\n", "MemTotal:\n", "MemTotal: -1 kB\n", "MemTotal: 99999999999999999999 kB\n"} {
		if m, err := machine.ReadMemory(tree(t, map[string]string{"/proc/meminfo": text})); err == nil {
			t.Errorf("ReadMemory() of %q = %v, want an error", text, m)
		}
	}
}

func TestQuietRestores(t *testing.T) {
	root := tree(t, map[string]string{"/proc/sys/kernel/printk": "7\t4\t1\t7\n"})
	file := filepath.Join(root, "/proc/sys/kernel/printk")
	machine.Quiet(root) // by a controller that crashed
	restore := machine.Quiet(root)
	if b, _ := os.ReadFile(file); string(b) != "1" {
		t.Errorf("printk is %q while quiet, want 1", b)
	}
	restore()
	if b, _ := os.ReadFile(file); string(b) != "7\t4\t1\t7" {
		t.Errorf("printk is %q after all, want what it was", b)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "/run/slate")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestConsoles(t *testing.T) {
	got := machine.Consoles(tree(t, map[string]string{"/sys/class/tty/console/active": "tty0 ttyS0\n"}))
	if d := cmp.Diff([]string{"tty0", "ttyS0"}, got); d != "" {
		t.Error(d)
	}
}

func TestMounted(t *testing.T) {
	const mounts = "proc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
	for where, want := range map[string]bool{"/proc": true, "/run": true, "/r": false, "/run/x": false, "": false} {
		if got := machine.Mounted(mounts, where); got != want {
			t.Errorf("Mounted(%q) = %v, want %v", where, got, want)
		}
	}
}

func TestParseUevent(t *testing.T) {
	for _, tt := range []struct {
		text string
		want machine.Uevent
		ok   bool
	}{
		{"add@/devices/x\x00ACTION=add\x00SUBSYSTEM=usb\x00MODALIAS=usb:v1\x00", machine.Uevent{Action: "add", Path: "/devices/x", Subsystem: "usb", Modalias: "usb:v1"}, true},
		{"remove@/devices/x", machine.Uevent{Action: "remove", Path: "/devices/x"}, true},
		{"libudev\x00\xfe\xed\xca\xfe", machine.Uevent{}, false},
		{"a@b", machine.Uevent{}, false},
		{"", machine.Uevent{}, false},
	} {
		got, ok := machine.ParseUevent([]byte(tt.text))
		if got != tt.want || ok != tt.ok {
			t.Errorf("ParseUevent(%q) = %v, %v, want %v, %v", tt.text, got, ok, tt.want, tt.ok)
		}
	}
}

func TestEarlyMountsPlan(t *testing.T) {
	var got []string
	for _, m := range machine.EarlyMounts() {
		got = append(got, m.Where)
	}
	if d := cmp.Diff([]string{"/proc", "/sys", "/dev", "/run", "/dev/pts", "/sys/firmware/efi/efivars"}, got); d != "" {
		t.Error(d)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Release is the running kernel's release.
func Release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Memory is what /proc/meminfo says, in bytes.
type Memory struct{ Total, Available int64 }

// ReadMemory reads /proc/meminfo below root.
func ReadMemory(root string) (Memory, error) {
	b, err := os.ReadFile(filepath.Join(root, "/proc/meminfo"))
	if err != nil {
		return Memory{}, err
	}
	m := parseMeminfo(b)
	if m.Total == 0 {
		return m, errors.New("/proc/meminfo has no MemTotal")
	}
	return m, nil
}

func parseMeminfo(b []byte) (m Memory) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || kb < 0 || kb > 1<<43 {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			m.Total = kb << 10
		case "MemAvailable:":
			m.Available = kb << 10
		}
	}
	return m
}

// Identity is what the firmware says about the machine.
type Identity struct{ Vendor, Product, Serial, UUID string }

// ReadIdentity reads /sys/class/dmi/id below root. Boards that were never given
// an identity carry well-known fillers; those are dropped.
func ReadIdentity(root string) Identity {
	get := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(root, "/sys/class/dmi/id", name))
		s := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, strings.TrimSpace(string(b)))
		switch strings.ToLower(s) {
		case "to be filled by o.e.m.", "default string", "system serial number", "not specified", "none", "0", "0123456789",
			"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "03000200-0400-0500-0006-000700080009":
			return ""
		}
		return s
	}
	return Identity{Vendor: get("sys_vendor"), Product: get("product_name"), Serial: get("product_serial"), UUID: strings.ToLower(get("product_uuid"))}
}

// MachineID derives systemd's machine identity from what does not change between
// boots, so that journal, DHCP and dbus identities are stable on a machine that
// forgets everything else. Both parts go in: board identities repeat, and network
// adapters move between machines.
func MachineID(id Identity, mac string) string {
	sum := sha256.Sum256([]byte("slate machine-id 1\n" + id.UUID + "\n" + id.Serial + "\n" + strings.ToLower(mac) + "\n"))
	b := sum[:16]
	b[6] = b[6]&0x0f | 0x40 // a version 4 UUID, as machine-id(5) wants
	b[8] = b[8]&0x3f | 0x80
	return hex.EncodeToString(b)
}

// DigestLists is where the builder lists the initramfs' own files, one list for
// each archive it consists of, in the format of sha256sum, paths from the root.
const DigestLists = "/etc/slate/*.sha256"

// Digests are SHA-256 sums by absolute path.
type Digests map[string][sha256.Size]byte

// Read adds a list in the format of sha256sum.
func (d Digests) Read(list io.Reader) error {
	var errs []error
	sc := bufio.NewScanner(list)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		want, name, ok := strings.Cut(line, " ")
		name = strings.TrimLeft(name, " *")
		sum, err := hex.DecodeString(want)
		if !ok || err != nil || len(sum) != sha256.Size || name == "" {
			errs = append(errs, fmt.Errorf("digest list, line %d: not a line of sha256sum", n))
			continue
		}
		// A name with ".." stays below the root: Join cleans it from "/".
		d[filepath.Join("/", name)] = [sha256.Size]byte(sum)
	}
	return errors.Join(append(errs, sc.Err())...)
}

// Check compares the files that are not left for later, and gives the number of
// good ones. Every bad one is named in the error. A file that no list names is good:
// the builder may add files of its own.
func (d Digests) Check(root string, later func(name string) bool) (good int, err error) {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d)) {
		if later != nil && later(name) {
			continue
		}
		if err := d.File(root, name); err != nil {
			errs = append(errs, err)
		} else {
			good++
		}
	}
	return good, errors.Join(errs...)
}

// File compares one file.
func (d Digests) File(root, name string) error {
	want, ok := d[filepath.Join("/", name)]
	if !ok {
		return nil
	}
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if [sha256.Size]byte(h.Sum(nil)) != want {
		return fmt.Errorf("%s is damaged", name)
	}
	return nil
}

// Consoles gives the devices of all consoles the kernel writes to, in its order.
// tty0 stands for the screen that is shown.
func Consoles(root string) []string {
	b, _ := os.ReadFile(filepath.Join(root, "/sys/class/tty/console/active"))
	return strings.Fields(string(b))
}

// keepDir is where the values of kernel settings that we replace are kept, so that
// a controller that follows one that crashed still knows what they were.
const keepDir = "/run/slate/kernel"

// Override sets a kernel setting below /proc/sys for as long as the controller
// runs, and gives a function that restores what was there before any of us.
func Override(root, setting, value string) (restore func()) {
	file, keep := filepath.Join(root, "/proc/sys", setting), filepath.Join(root, keepDir, strings.ReplaceAll(setting, "/", "."))
	old, err := os.ReadFile(keep)
	if err != nil {
		if old, err = os.ReadFile(file); err != nil {
			return func() {}
		}
		if os.MkdirAll(filepath.Dir(keep), 0o755) == nil {
			_ = os.WriteFile(keep, old, 0o644)
		}
	}
	_ = os.WriteFile(file, []byte(value), 0o644)
	return func() {
		_ = os.WriteFile(file, bytes.TrimSpace(old), 0o644)
		_ = os.Remove(keep)
		_ = os.Remove(filepath.Dir(keep))
	}
}

// Quiet keeps the kernel's messages off the consoles, all but the emergencies,
// and gives a function that restores what the command line asked for.
func Quiet(root string) (restore func()) { return Override(root, "kernel/printk", "1") }

// Stir adds what this machine knows to the kernel's random pool. It is not
// credited as entropy: anybody on the network may know it too. It makes machines
// that start side by side differ; the pool itself is filled by the processor and
// by timing, and the kernel makes readers wait until it is.
func Stir(words ...string) {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(strings.Join(words, "\n"))
}

// Uptime is the time since the kernel started, in seconds.
func Uptime() float64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return float64(ts.Nano()) / 1e9
}

// Power is a way to end.
type Power int

// The ways to end.
const (
	Restart Power = unix.LINUX_REBOOT_CMD_RESTART
	Off     Power = unix.LINUX_REBOOT_CMD_POWER_OFF
)

// End writes out what is in memory and ends the machine's run. It returns only
// when the kernel refuses.
func End(p Power) error {
	unix.Sync()
	return unix.Reboot(int(p))
}

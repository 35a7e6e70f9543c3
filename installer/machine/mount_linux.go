// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is one mount to make, as data: printed, tested, then done.
type Mount struct {
	What, Where, Type string
	Flags             uintptr
	Data              string
	// Optional mounts may fail: the boot goes on with a line that says so.
	Optional bool
}

var flagNames = []struct {
	flag uintptr
	name string
}{
	{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"},
	{unix.MS_NOATIME, "noatime"}, {unix.MS_BIND, "bind"}, {unix.MS_MOVE, "move"}, {unix.MS_REMOUNT, "remount"}, {unix.MS_REC, "rec"},
}

// String writes the mount as a line of fstab would.
func (m Mount) String() string {
	var opts []string
	for _, f := range flagNames {
		if m.Flags&f.flag != 0 {
			opts = append(opts, f.name)
		}
	}
	if m.Data != "" {
		opts = append(opts, m.Data)
	}
	if len(opts) == 0 {
		opts = []string{"defaults"}
	}
	typ := m.Type
	if typ == "" {
		typ = "none"
	}
	return fmt.Sprintf("%-24s %-20s %-8s %s", m.What, m.Where, typ, strings.Join(opts, ","))
}

// Do makes the mount point if it is missing and mounts.
func (m Mount) Do() error {
	if err := os.MkdirAll(m.Where, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("mount %s: %w", m.Where, err)
	}
	if err := unix.Mount(m.What, m.Where, m.Type, m.Flags, m.Data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.What, m.Where, err)
	}
	return nil
}

// EarlyMounts is what the controller needs before it can do anything at all.
func EarlyMounts() []Mount {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return []Mount{
		{What: "proc", Where: "/proc", Type: "proc", Flags: safe},
		{What: "sysfs", Where: "/sys", Type: "sysfs", Flags: safe},
		{What: "devtmpfs", Where: "/dev", Type: "devtmpfs", Flags: unix.MS_NOSUID, Data: "mode=0755"},
		// The agent's copy runs from here while the system runs: no noexec.
		{What: "tmpfs", Where: "/run", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=0755,size=20%"},
		{What: "devpts", Where: "/dev/pts", Type: "devpts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "mode=0620,gid=5,ptmxmode=0666", Optional: true},
		{What: "efivarfs", Where: "/sys/firmware/efi/efivars", Type: "efivarfs", Flags: safe, Optional: true},
	}
}

// Mounted reports whether something is mounted at a directory, from the text of /proc/self/mounts.
func Mounted(mounts, where string) bool {
	for line := range strings.Lines(mounts) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == where {
			return true
		}
	}
	return false
}

// MountEarly makes the early mounts that are not there yet. The first error of
// one that must be is returned after the others were tried.
func MountEarly() error {
	var errs []error
	for _, m := range EarlyMounts() {
		mounts, _ := os.ReadFile("/proc/self/mounts")
		if Mounted(string(mounts), m.Where) {
			continue
		}
		if m.Optional {
			if _, err := os.Stat(filepath.Dir(m.Where)); err != nil {
				continue
			}
			if m.Type == "efivarfs" {
				if _, err := os.Stat(m.Where); err != nil {
					continue
				}
			}
		}
		if err := m.Do(); err != nil && !m.Optional {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

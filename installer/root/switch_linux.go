// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// FindInit gives the program to start in a root, as a path inside it: the one
// asked for, or the first of the usual ones. Links are taken at their word, since
// they lead through the new root.
func FindInit(dir, wanted string) (string, error) {
	if wanted != "" {
		if _, err := os.Lstat(filepath.Join(dir, wanted)); err != nil {
			return "", fmt.Errorf("the image has no %s, which the command line names as init", wanted)
		}
		return wanted, nil
	}
	for _, p := range []string{"/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"} {
		if st, err := os.Lstat(filepath.Join(dir, p)); err == nil && (st.Mode()&os.ModeSymlink != 0 || st.Mode()&0o111 != 0 && !st.IsDir()) {
			return p, nil
		}
	}
	return "", errors.New("the image has no /sbin/init")
}

// Switch makes Sysroot the root of this process and of all that follow: it moves
// the kernel's file systems along, frees the memory that the initramfs takes, and
// puts the new root over the old one. After an error before "moved" the caller is
// still in the initramfs.
func Switch() error {
	for _, m := range Moves() {
		if err := unix.Mount(m.What, m.Where, "", m.Flags, ""); err != nil {
			return fmt.Errorf("move %s into the new root: %w", m.What, err)
		}
	}
	old, err := os.Open("/")
	if err != nil {
		return err
	}
	defer old.Close()
	if err := unix.Chdir(Sysroot); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("put the new root over the old one: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	empty(old)
	return nil
}

// empty deletes the initramfs. It refuses anything but a file system in memory,
// and never leaves the one it started on: a mistake here would delete a disk.
func empty(dir *os.File) {
	var fs unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &fs) != nil || (uint32(fs.Type) != unix.RAMFS_MAGIC && uint32(fs.Type) != unix.TMPFS_MAGIC) {
		return
	}
	var st unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &st) == nil {
		emptyDir(dir, st.Dev)
	}
}

func emptyDir(dir *os.File, dev uint64) {
	names, _ := dir.Readdirnames(-1)
	for _, n := range names {
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != dev {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			_ = unix.Unlinkat(int(dir.Fd()), n, 0)
			continue
		}
		fd, err := unix.Openat(int(dir.Fd()), n, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		sub := os.NewFile(uintptr(fd), n)
		emptyDir(sub, dev)
		sub.Close()
		_ = unix.Unlinkat(int(dir.Fd()), n, unix.AT_REMOVEDIR)
	}
}

// Exec replaces this process by the system's own init, on the new root's console,
// with the words the kernel left over for it. It returns only with an error.
func Exec(init string, args, env []string) error {
	if fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0); err == nil {
		for i := range 3 {
			if fd != i {
				_ = unix.Dup3(fd, i, 0)
			}
		}
		if fd > 2 {
			unix.Close(fd)
		}
	}
	keep := []string{"TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, e := range env {
		if k, _, _ := strings.Cut(e, "="); k != "PATH" && k != "TERM" && k != "PWD" && k != "HOME" && k != "BOOTIF" && !strings.HasPrefix(k, "SLATE_") && !strings.HasPrefix(k, "GO") {
			keep = append(keep, e)
		}
	}
	return fmt.Errorf("start %s: %w", init, unix.Exec(init, append([]string{init}, args...), keep))
}

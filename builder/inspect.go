// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"strings"

	"slate/builder/initramfs"
	"slate/builder/rootfs"
)

// Facts are what a tree tells about the system in it.
type Facts struct {
	Arch    string // of its programs, "amd64"; "" if unknown
	Init    string // systemd, openrc, sysvinit, other; "" without /sbin/init
	OS      string // ID of os-release, "debian"
	Version string // VERSION_ID of os-release
	Pretty  string // PRETTY_NAME of os-release
}

// Inspect finds out what system a tree holds. What it cannot find out stays
// empty; no tree is wrong to it.
func Inspect(fsys fs.FS) Facts {
	var f Facts
	f.Init, f.Arch = initSystem(fsys)
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			v = strings.Trim(v, `"'`)
			switch k {
			case "ID":
				f.OS = v
			case "VERSION_ID":
				f.Version = v
			case "PRETTY_NAME":
				f.Pretty = v
			}
		}
		break
	}
	return f
}

// initSystem tells the init system by what /sbin/init is, and the architecture
// by its ELF header.
func initSystem(fsys fs.FS) (name, arch string) {
	p, err := rootfs.Resolve(fsys, "stat", "sbin/init")
	if err != nil {
		return "", ""
	}
	head, err := readHead(fsys, p)
	if err != nil {
		return "", ""
	}
	arch = initramfs.ELFArch(head)
	switch path.Base(p) {
	case "systemd":
		return "systemd", arch
	case "openrc-init":
		return "openrc", arch
	}
	if hasOpenRC(fsys) {
		return "openrc", arch
	}
	if rootfs.Exists(fsys, "etc/inittab") && path.Base(p) == "init" {
		return "sysvinit", arch
	}
	return "other", arch
}

// hasOpenRC tells a sysvinit that runs OpenRC: Gentoo's inittab calls it,
// Debian's calls /etc/init.d/rc, which the openrc package replaces.
func hasOpenRC(fsys fs.FS) bool {
	for _, name := range []string{"etc/inittab", "etc/init.d/rc", "etc/init.d/rcS"} {
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			continue
		}
		for line := range bytes.SplitSeq(b, []byte{'\n'}) {
			if l := bytes.TrimSpace(line); len(l) > 0 && l[0] != '#' && bytes.Contains(l, []byte("openrc")) {
				return true
			}
		}
	}
	return false
}

// readHead returns the first bytes of a file.
func readHead(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 64)
	n, err := io.ReadFull(f, b)
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		err = nil
	}
	return b[:n], err
}

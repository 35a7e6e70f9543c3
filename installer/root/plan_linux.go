// SPDX-License-Identifier: GPL-2.0-or-later

// Package root assembles the root that a machine runs on and hands it over: the
// immutable tree read-only below, memory on top where a system must write, the few
// files in /etc that are this machine's own. What will be done is a Plan, data that
// can be printed and tested; Assemble does it; Switch leaves the initramfs.
package root

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"strings"

	"slate/installer/machine"

	"golang.org/x/sys/unix"
)

// Where the parts lie. All of them move along into the running system.
const (
	Sysroot  = "/sysroot"             // the new root, until it is /
	Bare     = "/run/slate/root"      // the bare tree, for whoever wants to verify it
	Upper    = "/run/slate/rw"        // the memory that takes what is written
	UserData = "/run/slate/user-data" // what is kept over a restart, where there is a disk for it
)

// Overlays are the directories that a stateless system may write to; all else
// answers EROFS. What is written is gone after the next start.
func Overlays() []string {
	return []string{"/etc", "/var", "/root", "/home", "/srv", "/mnt", "/media"}
}

// Input is what the plan depends on.
type Input struct {
	Lower    Lower
	UserData machine.Mount // of a disk, as mount(2) takes it; the zero value: memory
	Overlay  machine.Size  // cap of all that is written to memory, together
	Tmp      machine.Size  // cap of /tmp
}

// NFSOptions gives the kernel's mount options for an immutable export.
//
// The server's data never change under a path, so nothing is ever revalidated: a
// day of attribute cache, no close-to-open consistency, all look-ups cached, also
// of names that do not exist. No lock protocol, no ACL protocol, MOUNT on the same
// port and no portmapper. hard: a server that is away is a pause, never an error.
// timeo (tenths of a second) and retrans also bound the kernel's pauses between
// two connection attempts, at timeo * (retrans + 1) = 20 s; the default of 600
// would let a client wait minutes for a server that is back.
func NFSOptions(server netip.AddrPort) string {
	proto := "tcp"
	if server.Addr().Is6() {
		proto = "tcp6"
	}
	addr, port := server.Addr(), server.Port()
	return strings.Join([]string{
		"vers=3", "proto=" + proto, fmt.Sprintf("addr=%s", addr), fmt.Sprintf("port=%d", port),
		fmt.Sprintf("mountaddr=%s", addr), fmt.Sprintf("mountport=%d", port), "mountproto=" + proto, "mountvers=3",
		"nolock", "nocto", "actimeo=86400", "lookupcache=all",
		"rsize=1048576", "hard", "timeo=50", "retrans=3", "sec=sys",
	}, ",")
}

// source is host:path as the kernel wants it, an IPv6 address in brackets.
func source(e machine.Export) string {
	if e.Server.Addr().Is6() {
		return "[" + e.Server.Addr().String() + "]:" + e.Path
	}
	return e.Server.Addr().String() + ":" + e.Path
}

// Base gives the mounts that must stand before the tree can be looked at.
func Base(in Input) []machine.Mount {
	return []machine.Mount{
		in.Lower.mount(),
		{What: Sysroot, Where: Bare, Flags: unix.MS_BIND},
		{What: "slate-rw", Where: Upper, Type: "tmpfs", Flags: unix.MS_NOATIME, Data: "mode=0755,size=" + in.Overlay.String()},
		in.userData(),
	}
}

// Writable gives the mounts on top of the tree. A directory that the tree lacks,
// or has as a link, is left out: a link leads to a directory that has its own.
func Writable(in Input, tree fs.FS) []machine.Mount {
	var out []machine.Mount
	isDir := func(dir string) bool {
		fi, err := fs.Stat(tree, strings.TrimPrefix(dir, "/"))
		return err == nil && fi.IsDir() && !isLink(tree, dir)
	}
	for _, dir := range Overlays() {
		if !isDir(dir) {
			continue
		}
		out = append(out, machine.Mount{
			What: "slate" + strings.ReplaceAll(dir, "/", "-"), Where: Sysroot + dir, Type: "overlay", Flags: unix.MS_NOATIME,
			Data: fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", Bare+dir, UpperDir(dir), workDir(dir)),
		})
	}
	if isDir("/tmp") {
		out = append(out, machine.Mount{What: "tmpfs", Where: Sysroot + "/tmp", Type: "tmpfs",
			Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=1777,size=" + in.Tmp.String()})
	}
	return out
}

// isLink asks the parent, because fs.Stat follows links.
func isLink(tree fs.FS, dir string) bool {
	entries, err := fs.ReadDir(tree, strings.TrimPrefix(path.Dir(dir), "/")+".")
	if path.Dir(dir) != "/" {
		entries, err = fs.ReadDir(tree, strings.TrimPrefix(path.Dir(dir), "/"))
	}
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Name() == path.Base(dir) {
			return e.Type()&fs.ModeSymlink != 0
		}
	}
	return false
}

// UpperDir is where the writes below dir go.
func UpperDir(dir string) string { return Upper + dir + "/upper" }
func workDir(dir string) string  { return Upper + dir + "/work" }

// Moves gives the mounts that go along from the initramfs, in order.
func Moves() []machine.Mount {
	var out []machine.Mount
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		out = append(out, machine.Mount{What: dir, Where: Sysroot + dir, Flags: unix.MS_MOVE})
	}
	return out
}

// Format prints mounts one a line, as the shell and the plan show them.
func Format(mounts []machine.Mount) string {
	var b strings.Builder
	for _, m := range mounts {
		b.WriteString(strings.TrimRight(m.String(), " ") + "\n")
	}
	return b.String()
}

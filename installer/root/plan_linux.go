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
	"net/url"
	"path"
	"slices"
	"strings"

	"slate/installer/machine"
	"slate/netboot/config"

	"golang.org/x/sys/unix"
)

// Where the parts lie. All of them move along into the running system.
const (
	Sysroot  = "/sysroot"             // the new root, until it is /
	Bare     = "/run/slate/root"      // the bare tree, for whoever wants to verify it
	Upper    = "/run/slate/rw"        // the memory that takes what is written
	UserData = "/run/slate/user-data" // what is kept over a restart, where there is a disk for it
	Commands = "/run/slate/bin"       // names of our programs for the running system
	Program  = Upper + "/slate-init"  // what they are
)

// commandDir is in root's PATH on every distribution, and shows what lies in Commands
// beside what the image has there.
const commandDir = "/usr/local/sbin"

// Input is what the plan depends on.
type Input struct {
	Lower    Lower
	UserData machine.Mount // of a disk, as mount(2) takes it; the zero value: memory
	Config   *config.Node  // which directories can be written to, and how much
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
		{What: "slate-rw", Where: Upper, Type: "tmpfs", Flags: unix.MS_NOATIME, Data: "mode=0755,size=" + in.Config.Tmpfs.Limit.Total},
		in.userData(),
		{What: Upper + "/tmpfs", Where: UserData + "/tmpfs", Flags: unix.MS_BIND},
	}
}

// Writable is what makes parts of the tree writable.
type Writable struct {
	Mounts   []machine.Mount
	Copies   []Copy   // into directories that are memory
	Absent   []string // names that the tree does not have, and that it is never asked for
	Problems []string // what config.d asks for and the image has no place for
}

// Copy is a part of the image that is copied into memory.
type Copy struct{ From, To string }

// initrdRelease is what systemd asks for while all processes are stopped, to end them
// (src/shutdown/killall.c, in_initrd). A root that comes from a server by way of the
// agent, which is stopped then as well, could not answer, and would never again.
const initrdRelease = "/etc/initrd-release"

// Dirs are the directories of the system that something is mounted on, and those of
// the controller that hold it.
func (w Writable) Dirs() []string {
	out := []string{Bare, Upper, UserData}
	for _, m := range w.Mounts {
		if dir := strings.TrimPrefix(m.Where, Sysroot); !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

// PlanWritable gives what goes on top of the tree, parents before what is below
// them. A directory that the tree lacks, or has as a link, is left out: a link leads
// to a directory that has its own.
func PlanWritable(in Input, tree fs.FS) Writable {
	var w Writable
	c := in.Config
	isDir := func(dir string) bool {
		fi, err := fs.Stat(tree, strings.TrimPrefix(dir, "/"))
		return err == nil && fi.IsDir() && !isLink(tree, dir)
	}
	missing := func(file, key, dir string) {
		if c.Origin(file, key) != "default" {
			w.Problems = append(w.Problems, fmt.Sprintf("%s: the image has no directory %s (%s)", file, dir, c.Origin(file, key)))
		}
	}
	if isDir("/user-data") {
		w.Mounts = append(w.Mounts, machine.Mount{What: UserData, Where: Sysroot + "/user-data", Flags: unix.MS_BIND | unix.MS_REC})
	}
	memory := map[string]bool{}
	for _, t := range c.Tmpfs.Tmpfs {
		memory[t.Path] = true
		if !isDir(t.Path) {
			missing("controller/tmpfs.conf", "tmpfs["+t.Path+"]", t.Path)
			continue
		}
		w.Mounts = append(w.Mounts, tmpfs(t, tree))
		for _, part := range t.Copy {
			w.Copies = append(w.Copies, Copy{path.Join(Bare+t.Path, part), path.Join(Sysroot+t.Path, part)})
		}
	}
	for _, o := range c.Overlays.Overlay {
		if memory[o.Path] {
			continue
		}
		if !isDir(o.Path) {
			missing("system/overlays.conf", "overlay["+o.Path+"]", o.Path)
			continue
		}
		w.Mounts = append(w.Mounts, in.overlay(o)...)
		if _, err := fs.Stat(tree, strings.TrimPrefix(initrdRelease, "/")); o.Path == path.Dir(initrdRelease) && err != nil && !in.Lower.Local() {
			w.Absent = append(w.Absent, initrdRelease)
		}
	}
	if isDir(commandDir) && !slices.ContainsFunc(w.Mounts, func(m machine.Mount) bool { return m.Where == Sysroot+commandDir }) {
		w.Mounts = append(w.Mounts, machine.Mount{What: "slate-bin", Where: Sysroot + commandDir, Type: "overlay", Flags: unix.MS_RDONLY | unix.MS_NOATIME,
			Data: "lowerdir=" + Commands + ":" + Bare + commandDir})
	}
	slices.SortStableFunc(w.Mounts, func(a, b machine.Mount) int { return strings.Compare(a.Where, b.Where) })
	return w
}

func tmpfs(t config.TmpfsDir, tree fs.FS) machine.Mount {
	mode := t.Mode
	if mode == "" {
		mode = "0755"
		if fi, err := fs.Stat(tree, strings.TrimPrefix(t.Path, "/")); err == nil {
			mode = fmt.Sprintf("%04o", unixMode(fi.Mode()))
		}
	}
	return machine.Mount{What: "tmpfs", Where: Sysroot + t.Path, Type: "tmpfs",
		Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=" + mode + ",size=" + t.Size}
}

func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, unixBit := range map[fs.FileMode]uint32{fs.ModeSetuid: unix.S_ISUID, fs.ModeSetgid: unix.S_ISGID, fs.ModeSticky: unix.S_ISVTX} {
		if m&bit != 0 {
			mode |= unixBit
		}
	}
	return mode
}

// overlay gives the mounts of one overlay: one with a cap of its own has a file
// system in memory of its own below it.
func (in Input) overlay(o config.Overlay) (out []machine.Mount) {
	name := url.PathEscape(strings.TrimPrefix(o.Path, "/"))
	upper, work, more := UpperOf(o.Path)+"/upper", UpperOf(o.Path)+"/work", ""
	switch {
	case o.Upper == config.UpperUserData:
		place := "local/" + name
		if o.Path == "/var" {
			place = "var"
		}
		upper, work = UserData+"/persistent/"+place, UserData+"/persistent/.slate/work/"+name
		if in.UserData.What != "" {
			// The image below changes between two starts. The kernel allows that only
			// without these (Documentation/filesystems/overlayfs.rst, offline changes).
			more = ",index=off,xino=off,redirect_dir=off,metacopy=off"
		}
	case o.Size != "":
		out = append(out, machine.Mount{What: "slate-rw", Where: UpperOf(o.Path), Type: "tmpfs", Flags: unix.MS_NOATIME, Data: "mode=0755,size=" + o.Size})
	}
	return append(out, machine.Mount{
		What: "slate-" + name, Where: Sysroot + o.Path, Type: "overlay", Flags: unix.MS_NOATIME,
		Data: fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s%s", Bare+o.Path, upper, work, more),
	})
}

// UpperOf is where what is written to an overlay lies, if it is kept in memory.
func UpperOf(dir string) string {
	return Upper + "/" + url.PathEscape(strings.TrimPrefix(dir, "/"))
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

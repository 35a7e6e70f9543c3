// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"slate/netboot/config"
)

// Init is the program family that a tree starts with.
type Init string

// The init systems told apart.
const (
	Systemd  Init = "systemd"
	OpenRC   Init = "openrc"
	SysV     Init = "sysvinit"
	OtherOne Init = "other"
)

// Facts is what the files in /etc are made from.
type Facts struct {
	Node      string
	MachineID string
	Interface string // the interface the root hangs on
	MAC       string
	DNS       []netip.Addr
	Search    []string
	Mounted   []string // directories that the plan mounts on
	Consoles  []Console
	Config    *config.Node
	Others    []Interface // wired interfaces beside the one that the root hangs on
}

// Console is a terminal that the kernel writes to, e.g. ttyS0 at 115200.
type Console struct {
	Name  string
	Speed int // 0: as it is
}

// Change is one file to write, or one link to make (Link), or to remove.
type Change struct {
	Path   string
	Text   string
	Link   string
	Remove bool
	Dir    bool        // a directory, unless it is there already
	Mode   fs.FileMode // 0: 0644, or 0755 for a directory
	UID    int
	GID    int
	IfNew  bool // not if there is one already
	// Keep puts the text behind what the file holds already.
	Append bool
}

// String describes the change in a line.
func (c Change) String() string {
	switch {
	case c.Remove:
		return "remove " + c.Path
	case c.Dir:
		return fmt.Sprintf("mkdir  %s (%04o %d:%d)", c.Path, c.Mode, c.UID, c.GID)
	case c.Link != "":
		return c.Path + " -> " + c.Link
	case c.Append:
		return fmt.Sprintf("append %s (%d bytes)", c.Path, len(c.Text))
	}
	return fmt.Sprintf("write  %s (%d bytes)", c.Path, len(c.Text))
}

// DetectInit looks at what /sbin/init is.
func DetectInit(tree fs.FS) Init {
	switch {
	case linkBase(tree, "sbin/init") == "systemd" || linkBase(tree, "usr/sbin/init") == "systemd":
		return Systemd
	case strings.HasPrefix(linkBase(tree, "sbin/init"), "openrc") || exists(tree, "sbin/openrc") || exists(tree, "usr/sbin/openrc"):
		return OpenRC
	case exists(tree, "etc/inittab"):
		return SysV
	case exists(tree, "usr/lib/systemd/systemd") || exists(tree, "lib/systemd/systemd"):
		return Systemd
	}
	return OtherOne
}

func linkBase(tree fs.FS, name string) string {
	if l, err := fs.ReadLink(tree, name); err == nil {
		return path.Base(l)
	}
	return ""
}

// exists does not follow a link: those of an image lead to absolute paths, which
// mean something else here.
func exists(tree fs.FS, name string) bool {
	_, err := fs.Lstat(tree, name)
	return err == nil
}

func read(tree fs.FS, name string) (string, bool) {
	b, err := fs.ReadFile(tree, name)
	return string(b), err == nil
}

// Changes decides what this machine's /etc differs in from the image's, and names
// what config.d asks for and the image cannot do. It looks at the tree and writes
// nothing.
func Changes(tree fs.FS, f Facts) (out []Change, problems []string) {
	c := f.Config
	tree = withFiles(tree, c.Etc.File)
	out = configFiles(c.Etc.File)
	out = append(out, []Change{
		{Path: "/etc/machine-id", Text: f.MachineID + "\n", Mode: 0o444},
		{Path: "/etc/hostname", Text: f.Node + "\n"},
	}...)
	add := func(changes []Change, wrong []string) {
		out, problems = append(out, changes...), append(problems, wrong...)
	}
	hosts, _ := read(tree, "etc/hosts")
	out = append(out, Change{Path: "/etc/hosts", Text: Hosts(hosts, f.Node, c.Network.Host)})
	fstab, _ := read(tree, "etc/fstab")
	initSystem := DetectInit(tree)
	text, kept := Fstab(fstab, initSystem, c, exists(tree, "user-data"))
	out = append(out, Change{Path: "/etc/fstab", Text: text})
	add(mountPoints(tree, kept, f.Mounted))
	add(place(tree, c.Etc))
	add(Users(tree, c.Etc.User))
	if !exists(tree, "etc/mtab") {
		out = append(out, Change{Path: "/etc/mtab", Link: "../proc/self/mounts"})
	}
	out = append(out, Resolver(tree, f)...)
	out = append(out, hostKeyChanges(tree, c.Etc.File)...)
	out = append(out, bootInterface(tree, f)...)
	add(interfaces(tree, f))
	add(services(tree, initSystem, c.Services))
	switch initSystem {
	case Systemd:
		out = append(out, systemd(f, kept)...)
	case OpenRC:
		out = append(out, openRC(tree, f)...)
		out = append(out, inittab(tree, f)...)
	case SysV:
		out = append(out, inittab(tree, f)...)
	}
	return out, problems
}

// Hosts makes the own name resolve, as 127.0.1.1, the way Debian does it. Lines
// for the image's own name go away: it names the machine that built it.
func Hosts(old, node string, more []config.Host) string {
	var b strings.Builder
	local := false
	for line := range strings.Lines(old) {
		f := strings.Fields(line)
		if len(f) > 0 && f[0] == "127.0.1.1" {
			continue
		}
		if len(f) > 0 && f[0] == "127.0.0.1" {
			local = true
		}
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	if !local {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	fmt.Fprintf(&b, "127.0.1.1\t%s\n", node)
	for _, h := range more {
		fmt.Fprintf(&b, "%s\t%s\n", h.Address, strings.Join(append([]string{h.Name}, h.Aliases...), " "))
	}
	return b.String()
}

// Resolver writes the DNS servers where the image looks for them. An image whose
// resolv.conf is systemd-resolved's gets them as that service's setting.
func Resolver(tree fs.FS, f Facts) []Change {
	from := "DHCP"
	if n := f.Config.Network; len(n.DNS) > 0 {
		f.DNS, from = nil, "config.d"
		for _, a := range n.DNS {
			if ip, err := netip.ParseAddr(a); err == nil {
				f.DNS = append(f.DNS, ip)
			}
		}
	}
	if s := f.Config.Network.Search; len(s) > 0 {
		f.Search = s
	}
	if len(f.DNS) == 0 && len(f.Config.Network.Search) == 0 {
		return nil
	}
	if l, err := fs.ReadLink(tree, "etc/resolv.conf"); err == nil && strings.Contains(l, "systemd/resolve") {
		var dns []string
		for _, d := range f.DNS {
			dns = append(dns, d.String())
		}
		text := "[Resolve]\n"
		if len(dns) > 0 {
			text += "DNS=" + strings.Join(dns, " ") + "\n"
		}
		if len(f.Search) > 0 {
			text += "Domains=" + strings.Join(f.Search, " ") + "\n"
		}
		return []Change{{Path: "/etc/systemd/resolved.conf.d/50-slate.conf", Text: text}}
	}
	var b strings.Builder
	b.WriteString("# From " + from + ", written by slate at start.\n")
	if len(f.Search) > 0 {
		b.WriteString("search " + strings.Join(f.Search, " ") + "\n")
	}
	for i, d := range f.DNS {
		if i < 3 { // resolv.conf(5): MAXNS
			b.WriteString("nameserver " + d.String() + "\n")
		}
	}
	return []Change{{Path: "/etc/resolv.conf", Text: b.String()}}
}

// hostKeyChanges removes the image's ssh host keys: everybody who can mount the
// export can read them. Assemble makes a key of this start in their place.
func hostKeyChanges(tree fs.FS, own []config.File) (out []Change) {
	keys, _ := fs.Glob(tree, "etc/ssh/ssh_host_*_key*")
	for _, k := range keys {
		if slices.ContainsFunc(own, func(f config.File) bool { return f.Path == "/"+k }) {
			continue
		}
		out = append(out, Change{Path: "/" + k, Remove: true})
	}
	return out
}

// WantsHostKey reports whether the tree has an ssh server, and config.d no key for it.
func WantsHostKey(tree fs.FS, c *config.Node) bool {
	given := slices.ContainsFunc(c.Etc.File, func(f config.File) bool { return strings.HasPrefix(f.Path, "/etc/ssh/ssh_host_") })
	return !given && exists(tree, "usr/sbin/sshd") && exists(tree, "etc/ssh")
}

// bootInterface tells every program that manages networks to leave the interface
// alone that the root hangs on. Renaming it, or taking it down for a moment, would
// take the root away.
func bootInterface(tree fs.FS, f Facts) []Change {
	if f.MAC == "" {
		return nil
	}
	out := []Change{
		{Path: "/etc/systemd/network/00-slate-boot.link", Text: "[Match]\nMACAddress=" + f.MAC + "\nType=ether\n\n[Link]\nNamePolicy=keep kernel\n"},
		{Path: "/etc/systemd/network/00-slate-boot.network", Text: "[Match]\nMACAddress=" + f.MAC + "\nType=ether\n\n[Link]\nUnmanaged=yes\n"},
	}
	if exists(tree, "etc/NetworkManager") {
		out = append(out, Change{Path: "/etc/NetworkManager/conf.d/00-slate-boot.conf",
			Text: "[keyfile]\nunmanaged-devices+=mac:" + f.MAC + "\n"})
	}
	if exists(tree, "etc/network") {
		out = append(out, Change{Path: "/etc/default/networking", Append: true,
			Text: "\n# slate: the root hangs on this interface.\nEXCLUDE_INTERFACES=\"$EXCLUDE_INTERFACES " + f.Interface + "\"\n"})
		if text, ok := read(tree, "etc/network/interfaces"); ok {
			out = append(out, Change{Path: "/etc/network/interfaces", Text: WithoutInterface(text, f.Interface)})
		}
	}
	if exists(tree, "etc/dhcpcd.conf") {
		out = append(out, Change{Path: "/etc/dhcpcd.conf", Append: true,
			Text: "\n# slate: the root hangs on this interface.\ndenyinterfaces " + f.Interface + "\n"})
	}
	return out
}

// WithoutInterface comments an interface's stanzas out of an interfaces(5) file.
func WithoutInterface(text, name string) string {
	var b strings.Builder
	off := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		f := strings.Fields(line)
		if len(f) > 0 {
			switch {
			case f[0] == "iface" || f[0] == "mapping":
				off = len(f) > 1 && f[1] == name
			case f[0] == "auto" || strings.HasPrefix(f[0], "allow-"):
				off = false
				var rest []string
				for _, n := range f[1:] {
					if n != name {
						rest = append(rest, n)
					}
				}
				if len(rest) < len(f)-1 {
					b.WriteString("#slate: " + line + "\n")
					if len(rest) > 0 {
						b.WriteString(f[0] + " " + strings.Join(rest, " ") + "\n")
					}
					continue
				}
			case strings.HasPrefix(f[0], "source") || strings.HasPrefix(f[0], "no-"):
				off = false
			}
		}
		if off {
			b.WriteString("#slate: ")
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// masked are the units that want to write to a root that is read-only, finish an
// installation that is finished, or care for a disk that is not there.
var masked = []string{
	"systemd-remount-fs.service", "systemd-firstboot.service", "systemd-machine-id-commit.service",
	"systemd-random-seed.service", "systemd-update-done.service", "systemd-growfs-root.service",
	// It would wait two minutes for a network that is up: our interface is the one it does not count.
	"systemd-networkd-wait-online.service",
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "man-db.timer",
	"e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
}

func systemd(f Facts, fstab []string) (out []Change) {
	for _, u := range masked {
		out = append(out, Change{Path: "/etc/systemd/system/" + u, Link: "/dev/null"})
	}
	// It would mount what it takes for the machine's own partitions by their types.
	out = append(out, Change{Path: "/etc/systemd/system-generators/systemd-gpt-auto-generator", Link: "/dev/null"})
	// The parts of the root are unmounted last, by systemd-shutdown. As ordinary
	// mounts they would be tried earlier, while the journal still writes to /var.
	for _, dir := range f.Mounted {
		if slices.Contains(fstab, dir) {
			continue // something of the image's own goes on top, with its own order
		}
		unit := unitName(dir) + ".mount"
		out = append(out, Change{Path: "/etc/systemd/system/" + unit + ".d/slate.conf", Text: "[Unit]\nDefaultDependencies=no\n"})
	}
	return out
}

// unitName escapes a path as systemd-escape --path does.
func unitName(dir string) string {
	var b strings.Builder
	for i, c := range []byte(strings.Trim(dir, "/")) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i > 0, c == '_', c == ':', c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// openRC sets what an OpenRC system needs on such a root: no questions at start,
// nothing unmounted at stop that the root consists of.
func openRC(tree fs.FS, f Facts) []Change {
	out := []Change{{Path: "/etc/rc.conf", Append: true, Text: "\n# slate\nrc_interactive=\"NO\"\nrc_sys=\"\"\n"}}
	if exists(tree, "etc/conf.d") {
		out = append(out,
			Change{Path: "/etc/conf.d/localmount", Append: true, Text: "\n# slate: parts of the root\nno_umounts=\"" + strings.Join(f.Mounted, ":") + "\"\n"},
			Change{Path: "/etc/conf.d/hwclock", Append: true, Text: "\n# slate: /etc/adjtime is not kept\nclock_systohc=\"NO\"\n"},
			Change{Path: "/etc/conf.d/hostname", Text: "hostname=\"" + f.Node + "\"\n"})
	}
	if exists(tree, "etc/init.d/checkroot.sh") {
		out = append(out, Change{Path: "/etc/init.d/checkroot.sh", Mode: 0o755, Text: noCheckroot})
	}
	for _, level := range []string{"boot", "default", "shutdown", "sysinit", "off"} {
		for _, s := range []string{"net." + f.Interface, "mount-ro", "fsck", "swap", "seedrng", "urandom", "savecache"} {
			if p := "etc/runlevels/" + level + "/" + s; exists(tree, p) {
				out = append(out, Change{Path: "/" + p, Remove: true})
			}
		}
	}
	return out
}

// noCheckroot takes the place of System V's script, on which others depend. That mounts
// the root again as the fstab says, read-only, and with btrfs all else of the drive with it.
const noCheckroot = `#!/bin/sh
### BEGIN INIT INFO
# Provides:          checkroot mtab
# Required-Start:    mountdevsubfs hostname
# Required-Stop:
# Default-Start:     S
# Default-Stop:
# Short-Description: Nothing: the root is as it must be (slate)
### END INIT INFO
exit 0
`

// inittab adds a login to every serial console that has none. systemd does this
// by itself; sysvinit's table is made for one machine, and an image is for many.
func inittab(tree fs.FS, f Facts) []Change {
	old, ok := read(tree, "etc/inittab")
	if !ok {
		return nil
	}
	getty := "/sbin/agetty"
	if !exists(tree, "sbin/agetty") && !exists(tree, "usr/sbin/agetty") {
		getty = "/sbin/getty"
	}
	var b strings.Builder
	for i, c := range f.Consoles {
		if !strings.HasPrefix(c.Name, "tty") || c.Name == "tty0" || inittabHas(old, c.Name) {
			continue
		}
		speed := ""
		if c.Speed > 0 {
			speed = " " + strconv.Itoa(c.Speed)
		}
		fmt.Fprintf(&b, "s%d:12345:respawn:%s -L%s %s vt100\n", i, getty, speed, c.Name)
	}
	if b.Len() == 0 {
		return nil
	}
	return []Change{{Path: "/etc/inittab", Text: "\n# slate: this machine's serial consoles\n" + b.String(), Append: true}}
}

func inittabHas(table, tty string) bool {
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "#") && slices.Contains(strings.Fields(line), tty) {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: GPL-2.0-or-later

package root_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"slate/installer/machine"
	"slate/installer/root"
	"slate/netboot/config"
	"slate/testbed/golden"
)

func input() root.Input {
	return root.Input{
		Lower:  root.Lower{NFS: machine.Export{Server: netip.MustParseAddrPort("10.77.0.1:2049"), Path: "/demo/" + strings.Repeat("ab", 32)}},
		Config: config.Defaults(),
	}
}

func dir() *fstest.MapFile { return &fstest.MapFile{Mode: fs.ModeDir | 0o755} }

func link(to string) *fstest.MapFile {
	return &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(to)}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }

func TestPlan(t *testing.T) {
	in := input()
	tree := usual
	golden.Check(t, "testdata/plan.golden", []byte(root.Format(root.Base(in))+root.Format(root.PlanWritable(in, tree).Mounts)+root.Format(root.Moves())))
}

// A slot of the machine's own disk takes the place of the export; all else stays.
func TestPlanOfASlot(t *testing.T) {
	in := input()
	in.Lower.Slot = machine.Mount{What: "/dev/vda2", Type: "btrfs", Data: "subvol=@a,compress=zstd:3"}
	in.UserData = machine.Mount{What: "/dev/vda2", Type: "btrfs", Data: "subvol=@user-data"}
	golden.Check(t, "testdata/plan-slot.golden", []byte(root.Format(root.Base(in))+root.Format(root.PlanWritable(in, usual).Mounts)))
	if got := in.Lower.String(); got != "/dev/vda2 (subvol=@a,compress=zstd:3)" {
		t.Errorf("the slot is called %q", got)
	}
}

func TestWritableFollowsTheTree(t *testing.T) {
	where := func(tree fs.FS) string {
		var out []string
		for _, m := range root.PlanWritable(input(), tree).Mounts {
			out = append(out, strings.TrimPrefix(m.Where, root.Sysroot))
		}
		return strings.Join(out, " ")
	}
	for _, tt := range []struct {
		name string
		tree fstest.MapFS
		want string
	}{
		{"nothing there", fstest.MapFS{}, ""},
		{"only what is there", fstest.MapFS{"etc": dir(), "var": dir()}, "/etc /var"},
		{"a link is left alone", fstest.MapFS{"etc": dir(), "var": dir(), "var/home": dir(), "home": link("var/home")}, "/etc /var"},
		{"a file is no place for a mount", fstest.MapFS{"etc": dir(), "srv": file("x")}, "/etc"},
	} {
		if got := where(tt.tree); got != tt.want {
			t.Errorf("%s: mounts at %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A tree that comes from a server is not asked for what systemd wants to know while
// the agent is stopped; one that has it, or lies on a disk, is.
func TestAbsent(t *testing.T) {
	local := input()
	local.Lower.Slot = machine.Mount{What: "/dev/vda2", Type: "ext4"}
	for _, tt := range []struct {
		name string
		in   root.Input
		tree fstest.MapFS
		want []string
	}{
		{"none", input(), fstest.MapFS{"etc": dir(), "var": dir()}, []string{"/etc/initrd-release"}},
		{"it has one", input(), fstest.MapFS{"etc": dir(), "etc/initrd-release": file("x")}, nil},
		{"on a disk", local, fstest.MapFS{"etc": dir()}, nil},
	} {
		if got := root.PlanWritable(tt.in, tt.tree).Absent; !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestNFSOptionsIPv6(t *testing.T) {
	got := root.NFSOptions(netip.MustParseAddrPort("[fd00::1]:2049"))
	for _, want := range []string{"proto=tcp6", "addr=fd00::1", "mountproto=tcp6", "port=2049"} {
		if !strings.Contains(","+got+",", ","+want+",") {
			t.Errorf("options %q lack %q", got, want)
		}
	}
	in := input()
	in.Lower.NFS.Server = netip.MustParseAddrPort("[fd00::1]:2049")
	if got := root.Base(in)[0].What; !strings.HasPrefix(got, "[fd00::1]:/demo/") {
		t.Errorf("source %q", got)
	}
}

func facts() root.Facts {
	return root.Facts{
		Node: "lab-0a1b2c", MachineID: "ef97024ae86640e285a7f290ee2ac0ab", Interface: "eth0", MAC: "52:54:00:12:34:56",
		DNS: []netip.Addr{netip.MustParseAddr("10.77.0.1")}, Search: []string{"lab.test"}, Mounted: root.PlanWritable(input(), usual).Dirs(), Config: config.Defaults(),
		Consoles: []root.Console{{Name: "tty0"}, {Name: "ttyS0", Speed: 115200}, {Name: "ttyS1"}},
	}
}

// usual are the directories that every system has.
var usual = fstest.MapFS{"etc": dir(), "var": dir(), "root": dir(), "home": dir(), "srv": dir(), "mnt": dir(), "media": dir(), "tmp": dir(), "usr": dir(), "user-data": dir()}

func show(changes []root.Change) []byte {
	var b strings.Builder
	for _, c := range changes {
		b.WriteString("== " + c.String() + "\n" + c.Text)
	}
	return []byte(b.String())
}

// changes of a machine for which nothing is wrong.
func changes(tree fs.FS, f root.Facts) []root.Change {
	out, problems := root.Changes(tree, f)
	if len(problems) > 0 {
		panic(fmt.Sprint(problems))
	}
	return out
}

func TestChanges(t *testing.T) {
	debian := fstest.MapFS{
		"sbin": link("usr/sbin"), "usr/sbin/init": link("/lib/systemd/systemd"), "sbin/init": link("/lib/systemd/systemd"),
		"etc/hostname": file("builder\n"), "etc/hosts": file("127.0.0.1\tlocalhost\n127.0.1.1\tbuilder\n10.0.0.1 nas\n"),
		"etc/fstab": file("# disk\nUUID=1234 / ext4 rw 0 1\nnas:/home /home nfs rw 0 0\nnas:/pool /pool nfs rw 0 0\ntmpfs /scratch tmpfs size=1g 0 0\n/swapfile none swap sw 0 0\n"),
		"home":      dir(), "pool": dir(), "scratch": dir(),
		"etc/ssh": dir(), "etc/ssh/ssh_host_rsa_key": file("secret"), "etc/ssh/ssh_host_rsa_key.pub": file("public"),
		"etc/resolv.conf": file("nameserver 192.0.2.1\n"),
	}
	resolved := fstest.MapFS{
		"sbin/init": link("../lib/systemd/systemd"), "etc/resolv.conf": link("../run/systemd/resolve/stub-resolv.conf"),
		"etc/NetworkManager": dir(), "etc/dhcpcd.conf": file("x\n"), "etc/network": dir(),
		"etc/network/interfaces": file("source /etc/network/interfaces.d/*\nauto lo eth0\niface lo inet loopback\niface eth0 inet dhcp\n\tmtu 1400\niface eth1 inet dhcp\n"),
	}
	gentoo := fstest.MapFS{
		"sbin/init": file(""), "sbin/openrc": file(""), "etc/inittab": file("#s0:x ttyS0\nx1:12345:respawn:/sbin/agetty 38400 ttyS1 linux\n"), "etc/conf.d": dir(), "etc/fstab": file("LABEL=boot /boot ext4 noauto 0 0\n"),
		"etc/mtab": file(""), "etc/runlevels/boot/swap": link("/etc/init.d/swap"), "etc/runlevels/off/savecache": link("/etc/init.d/savecache"), "etc/runlevels/boot/hostname": link("/etc/init.d/hostname"),
		"etc/runlevels/default/net.eth0": link("/etc/init.d/net.lo"), "etc/runlevels/shutdown/mount-ro": link("/etc/init.d/mount-ro"),
	}
	debianOpenRC := fstest.MapFS{
		"sbin/init": file(""), "sbin/openrc": file(""), "etc/init.d/checkroot.sh": file("remounts\n"), "etc/runlevels/sysinit/checkroot.sh": link("/etc/init.d/checkroot.sh"),
	}
	for name, tree := range map[string]fstest.MapFS{"debian": debian, "resolved": resolved, "gentoo": gentoo, "debian-openrc": debianOpenRC} {
		golden.Check(t, "testdata/changes-"+name+".golden", show(changes(tree, facts())))
	}
	alone := facts()
	alone.MAC, alone.DNS = "", nil
	for _, c := range changes(debian, alone) {
		if strings.HasPrefix(c.Path, "/etc/systemd/network/") || strings.Contains(c.Path, "resolv") {
			t.Errorf("without a lease: %v", c)
		}
	}
}

func TestDetectInit(t *testing.T) {
	for _, tt := range []struct {
		name string
		tree fstest.MapFS
		want root.Init
	}{
		{"Debian", fstest.MapFS{"sbin/init": link("/lib/systemd/systemd")}, root.Systemd},
		{"merged /usr", fstest.MapFS{"sbin": link("usr/sbin"), "usr/sbin/init": link("../lib/systemd/systemd")}, root.Systemd},
		{"Gentoo with OpenRC", fstest.MapFS{"sbin/init": file(""), "sbin/openrc": file(""), "etc/inittab": file("")}, root.OpenRC},
		{"openrc-init", fstest.MapFS{"sbin/init": link("openrc-init")}, root.OpenRC},
		{"sysvinit", fstest.MapFS{"sbin/init": file(""), "etc/inittab": file("")}, root.SysV},
		{"something else", fstest.MapFS{"sbin/init": file("")}, root.OtherOne},
		{"nothing", fstest.MapFS{}, root.OtherOne},
	} {
		if got := root.DetectInit(tt.tree); got != tt.want {
			t.Errorf("%s: DetectInit() = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestReachGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	told := false
	err := root.Reach(ctx, "127.0.0.1:1", func(string, ...any) { told = true })
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1 cannot be reached") || !told {
		t.Errorf("Reach() of a closed port = %v, told: %v", err, told)
	}
}

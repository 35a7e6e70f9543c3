// SPDX-License-Identifier: GPL-2.0-or-later

package root_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slate/installer/machine"
	"slate/installer/root"
	"slate/testbed/labtest"

	"golang.org/x/sys/unix"
)

func TestApply(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for name, text := range map[string]string{"etc/old": "old\n", "etc/gone": "x", outside: "theirs"} {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"etc/dangling": "../run/nowhere/x", "etc/escape": outside, "etc/unit": "/lib/unit"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	err := root.Apply(dir, []root.Change{
		{Path: "/etc/new/deep/file", Text: "new\n"},
		{Path: "/etc/key", Text: "secret", Mode: 0o600},
		{Path: "/etc/old", Text: "more\n", Append: true},
		{Path: "/etc/fresh", Text: "more\n", Append: true},
		{Path: "/etc/gone", Remove: true}, {Path: "/etc/never-there", Remove: true},
		{Path: "/etc/dangling", Text: "a file now\n"},
		{Path: "/etc/escape", Text: "a file now\n"},
		{Path: "/etc/unit", Link: "/dev/null"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"etc/new/deep/file": "new\n", "etc/key": "secret", "etc/old": "old\nmore\n", "etc/fresh": "more\n",
		"etc/dangling": "a file now\n", "etc/escape": "a file now\n"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v, want %q", name, b, err, want)
		}
	}
	if b, _ := os.ReadFile(outside); string(b) != "theirs" {
		t.Errorf("a link led the writer out of the root: %q", b)
	}
	if fi, err := os.Stat(filepath.Join(dir, "etc/key")); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode of a key: %v, %v", fi.Mode(), err)
	}
	if l, _ := os.Readlink(filepath.Join(dir, "etc/unit")); l != "/dev/null" {
		t.Errorf("mask leads to %q", l)
	}
	if _, err := os.Lstat(filepath.Join(dir, "etc/gone")); !os.IsNotExist(err) {
		t.Errorf("removed file: %v", err)
	}
}

func TestApplyStaysInside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "etc")); err != nil {
		t.Fatal(err)
	}
	err := root.Apply(dir, []root.Change{{Path: "/etc/x", Text: "x"}, {Path: "../../x", Text: "x"}})
	if entries, _ := os.ReadDir(outside); err == nil || len(entries) > 0 {
		t.Errorf("Apply() through a link out of the root = %v, wrote %v", err, entries)
	}
}

func TestStamp(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"usr", "etc", "var"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	when := time.Unix(1_700_000_000, 5)
	if err := os.Chtimes(filepath.Join(dir, "usr"), when, when); err != nil {
		t.Fatal(err)
	}
	if err := root.Stamp(dir); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"etc", "var"} {
		b, err := os.ReadFile(filepath.Join(dir, d, ".updated"))
		if err != nil || !strings.Contains(string(b), "\nTIMESTAMP_NSEC=1700000000000000005\n") {
			t.Errorf("/%s/.updated holds %q, %v", d, b, err)
		}
	}
}

func TestHostKeyIsOneThatOpenSSHReads(t *testing.T) {
	labtest.Need(t, "ssh-keygen")
	private, public, err := root.HostKey("root@n1")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, private, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-y", "-f", name).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != strings.TrimSpace(string(public)) {
		t.Errorf("ssh-keygen -y = %q, %v, want %q", out, err, public)
	}
	again, _, err := root.HostKey("root@n1")
	if err != nil || string(again) == string(private) {
		t.Errorf("the same key twice, %v", err)
	}
}

// The overlay of the plan, on this kernel: what the tree has shows, what is
// written stays in memory, modes and owners of the top directory are the tree's.
func TestMountWritable(t *testing.T) {
	if !inOwnMounts(t) {
		return
	}
	in := input()
	in.Config = configured(t, map[string]string{
		"controller/tmpfs.conf": "[[tmpfs]]\npath = \"/opt\"\nsize = \"1M\"\nmode = \"0751\"\ncopy = [\"a\", \"gone\"]\n",
		"system/overlays.conf":  "[[overlay]]\npath = \"/srv\"\nsize = \"1M\"\n",
	})
	for _, d := range []string{root.Sysroot + "/etc", root.Sysroot + "/usr", root.Sysroot + "/home", root.Sysroot + "/srv", root.Sysroot + "/opt/a/deep", root.Sysroot + "/opt/b", "/run"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	tree := root.Sysroot
	if err := os.WriteFile(tree+"/etc/passwd", []byte("root\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tree+"/opt/a/deep/file", []byte("copied\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("deep", tree+"/opt/a/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tree+"/etc", 0o2750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(tree+"/etc", 0o2750); err != nil {
		t.Fatal(err)
	}
	for _, m := range root.Base(in)[1:] { // all but NFS
		if strings.HasPrefix(m.What, root.Upper+"/") {
			if err := os.MkdirAll(m.What, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Do(); err != nil {
			t.Fatal(err)
		}
	}
	if err := root.MountWritable(root.PlanWritable(in, os.DirFS(root.Bare))); err != nil {
		t.Fatal(err)
	}
	// Below an overlay's back, as a server would have it.
	if err := os.WriteFile(root.Bare+"/etc/initrd-release", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tree + "/etc/initrd-release"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the tree is asked for /etc/initrd-release, which it did not have: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(tree+"/etc", &st); err != nil || st.Mode&0o7777 != 0o2750 {
		t.Errorf("mode of /etc is %o, %v, want 2750", st.Mode&0o7777, err)
	}
	if err := os.WriteFile(tree+"/etc/passwd", []byte("changed\n"), 0o644); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(root.Bare + "/etc/passwd"); string(b) != "root\n" {
		t.Errorf("the tree changed below the overlay: %q", b)
	}
	if b, err := os.ReadFile(tree + "/opt/a/link/file"); string(b) != "copied\n" || err != nil {
		t.Errorf("the copy in memory: %q, %v", b, err)
	}
	if fi, err := os.Stat(tree + "/opt"); err != nil || fi.Mode().Perm() != 0o751 {
		t.Errorf("mode of the directory in memory: %v, %v", fi.Mode(), err)
	}
	if _, err := os.Stat(tree + "/opt/b"); err == nil {
		t.Error("what was not asked for is copied too")
	}
	if err := os.WriteFile(tree+"/home/mine", []byte("mine"), 0o644); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(root.UserData + "/persistent/local/home/mine"); string(b) != "mine" {
		t.Errorf("what is written to /home is not on user-data: %q", b)
	}
	if err := os.WriteFile(root.UserData+"/tmpfs/tmp/scratch", []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(root.Upper + "/tmpfs/tmp/scratch"); string(b) != "x" {
		t.Errorf("what is written to user-data/tmpfs is not in memory: %q", b)
	}
	// Each writer to a place with a cap of its own gets ENOSPC; the others go on.
	for _, dir := range []string{"/srv", "/opt"} {
		if err := os.WriteFile(tree+dir+"/big", make([]byte, 2<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("more than the cap in %s: %v, want ENOSPC", dir, err)
		}
	}
	if err := os.WriteFile(tree+"/etc/small", []byte("x"), 0o644); err != nil {
		t.Errorf("writing elsewhere: %v", err)
	}
	root.Unmount()
	if b, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(b), "slate-") || machine.Mounted(string(b), root.Bare) {
		t.Errorf("Unmount() left:\n%s", b)
	}
	if b, _ := os.ReadFile(tree + "/etc/passwd"); string(b) != "root\n" {
		t.Errorf("after Unmount() passwd is %q", b)
	}
}

const envChild = "SLATE_TEST_OWN_MOUNTS"

// inOwnMounts runs the calling test again in mount and user namespaces of its own,
// with an empty directory as its root, and reports whether this is that run.
func inOwnMounts(t *testing.T) bool {
	t.Helper()
	if dir := os.Getenv(envChild); dir != "" {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir+"/proc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("/proc", dir+"/proc", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chroot(dir); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chdir("/"); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), envChild+"="+t.TempDir())
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in own mounts: %v\n%s", err, out)
	}
	return false
}

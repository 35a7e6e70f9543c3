// SPDX-License-Identifier: GPL-2.0-or-later

package rootfs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/fstest"

	"slate/builder/rootfs"
)

// hostile makes a root full of links, beside a file that must never be read.
func hostile(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "root")
	for _, d := range []string{"usr/lib/modules/1.0", "usr/src/linux", "etc"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(top, "secret"), []byte("outside"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "usr/src/linux/bzImage"), []byte("kernel"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("inside"), 0o644))
	for name, target := range map[string]string{
		"lib":                         "usr/lib",
		"usr/lib/modules/1.0/vmlinuz": "/usr/src/linux/bzImage",
		"abs":                         "/etc/passwd",
		"dots":                        "../../../../../../etc/passwd",
		"dotdot":                      "..",
		"updown":                      "../secret",
		"real":                        filepath.Join(top, "secret"),
		"loop":                        "loop2",
		"loop2":                       "/loop",
		"deep":                        "usr/lib/../lib/./modules//1.0/vmlinuz",
		"dangling":                    "nowhere",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinksStayInside(t *testing.T) {
	r, err := rootfs.Open(hostile(t))
	must(t, err)
	defer r.Close()
	for _, tc := range []struct {
		name, want string
		ok         bool
	}{
		{"abs", "inside", true},
		{"dots", "inside", true},
		{"deep", "kernel", true},
		{"lib/modules/1.0/vmlinuz", "kernel", true},
		{"dotdot/etc/passwd", "inside", true},
		{"updown", "", false},
		{"real", "", false},
		{"loop", "", false},
		{"pipe", "", false},
		{"dangling", "", false},
		{"../secret", "", false},
		{"/etc/passwd", "", false},
		{"etc/passwd/x", "", false},
	} {
		got, err := fs.ReadFile(r, tc.name)
		if (err == nil) != tc.ok || string(got) != tc.want {
			t.Errorf("ReadFile(%q) = %q, %v; want %q, ok %v", tc.name, got, err, tc.want, tc.ok)
		}
		f, err := r.Open(tc.name)
		if (err == nil) != tc.ok {
			t.Errorf("Open(%q) = %v, want ok %v", tc.name, err, tc.ok)
		}
		if err == nil {
			f.Close()
		}
	}
}

func TestStatAndLstat(t *testing.T) {
	r, err := rootfs.Open(hostile(t))
	must(t, err)
	defer r.Close()
	if fi, err := fs.Lstat(r, "lib/modules/1.0/vmlinuz"); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("Lstat of a link behind a link = %v, %v; want a link", fi, err)
	}
	if got, err := fs.ReadLink(r, "lib/modules/1.0/vmlinuz"); err != nil || got != "/usr/src/linux/bzImage" {
		t.Errorf("ReadLink = %q, %v", got, err)
	}
	if fi, err := fs.Stat(r, "lib/modules/1.0/vmlinuz"); err != nil || fi.Size() != 6 {
		t.Errorf("Stat = %v, %v; want 6 bytes", fi, err)
	}
	if list, err := fs.ReadDir(r, "lib/modules"); err != nil || len(list) != 1 || list[0].Name() != "1.0" {
		t.Errorf("ReadDir = %v, %v", list, err)
	}
	if !rootfs.Exists(r, "abs") || rootfs.Exists(r, "dangling") {
		t.Error("Exists: want abs, not dangling")
	}
}

func TestResolveWorksOnOtherTrees(t *testing.T) {
	m := fstest.MapFS{
		"usr/lib/x": {Data: []byte("x")},
		"lib":       {Data: []byte("/usr/lib"), Mode: fs.ModeSymlink | 0o777},
	}
	if got, err := rootfs.Resolve(m, "test", "lib/x"); err != nil || got != "usr/lib/x" {
		t.Errorf("Resolve(lib/x) = %q, %v; want usr/lib/x", got, err)
	}
	if got, err := rootfs.Resolve(m, "test", "lib/../../.."); err == nil {
		t.Errorf("Resolve of an invalid path = %q, want an error", got)
	}
}

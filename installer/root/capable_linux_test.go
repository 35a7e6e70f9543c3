// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/tree"
	"slate/testbed/labtest"
)

// capNetRaw is what setcap cap_net_raw+ep writes.
var capNetRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func writeList(t *testing.T) string {
	t.Helper()
	var b tree.Builder
	e := tree.Entry{Type: tree.File, Mode: 0o4751, UID: 3, GID: 4, Size: 4, MtimeNs: 1_700_000_000_000_000_005, Digest: images.Digest{1},
		Xattrs: []tree.Xattr{{Name: "security.capability", Value: capNetRaw}}}
	if err := b.Add("usr/bin/ping", e); err != nil {
		t.Fatal(err)
	}
	list, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := list.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "capable.mtree")
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCapablePlan(t *testing.T) {
	files, err := ReadCapable(writeList(t))
	if err != nil {
		t.Fatal(err)
	}
	mounts := Capable(files)
	if len(mounts) != 1 || mounts[0].What != Upper+"/capable/usr/bin/ping" || mounts[0].Where != Sysroot+"/usr/bin/ping" {
		t.Errorf("Capable = %v", mounts)
	}
	if files, err := ReadCapable(filepath.Join(t.TempDir(), "none")); err != nil || files != nil {
		t.Errorf("without a list: %v, %v", files, err)
	}
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("no tree list\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCapable(bad); err == nil {
		t.Error("a damaged list is read without an error")
	}
}

func TestCapableCopy(t *testing.T) {
	labtest.NeedRoot(t)
	files, err := ReadCapable(writeList(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "deep/er/dst")
	if err := os.WriteFile(src, []byte("ping"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := files[0].copy(src, dst); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dst, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o7777 != 0o4751 || st.Uid != 3 || st.Gid != 4 || st.Mtim.Nano() != files[0].Entry.MtimeNs {
		t.Errorf("the copy has mode %o, owner %d:%d, time %d", st.Mode, st.Uid, st.Gid, st.Mtim.Nano())
	}
	got := make([]byte, 64)
	n, err := unix.Getxattr(dst, "security.capability", got)
	if err != nil || !bytes.Equal(got[:n], capNetRaw) {
		t.Errorf("capability of the copy = % x, %v", got[:max(n, 0)], err)
	}
	if content, err := os.ReadFile(dst); err != nil || string(content) != "ping" {
		t.Errorf("content of the copy = %q, %v", content, err)
	}

	link := filepath.Join(dir, "link")
	if err := os.Symlink(src, link); err != nil {
		t.Fatal(err)
	}
	if err := files[0].copy(link, dst); err == nil {
		t.Error("a link in the file's place is followed")
	}
}

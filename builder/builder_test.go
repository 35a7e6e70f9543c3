// SPDX-License-Identifier: GPL-2.0-or-later

package builder_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"slate/builder"
	"slate/builder/initramfs"
	"slate/builder/recipes"
	"slate/images/store"
	"slate/testbed/smallroot"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "data"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// elfHead is the beginning of an ELF program for a machine.
func elfHead(machine uint16) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[18:], machine)
	return b
}

// kernel is the beginning of an x86 kernel that calls itself release.
func kernel(release string) []byte {
	b := make([]byte, 0x1000)
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x400)
	binary.LittleEndian.PutUint16(b[0x236:], 1)
	copy(b[0x600:], release+" x\x00")
	return b
}

// system is a root tree with all that a version needs.
func system() map[string]string {
	return map[string]string{
		"usr/lib/systemd/systemd":               string(elfHead(62)),
		"usr/sbin/init":                         "->../lib/systemd/systemd",
		"sbin":                                  "->usr/sbin",
		"lib":                                   "->/usr/lib",
		"usr/lib/os-release":                    "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian 13\"\n",
		"etc/os-release":                        "->../usr/lib/os-release",
		"etc/machine-id":                        "",
		"boot/vmlinuz-6.1.0":                    string(kernel("6.1.0")),
		"usr/lib/modules/6.1.0/modules.dep":     "",
		"usr/lib/modules/6.1.0/modules.builtin": "kernel/fs/overlayfs/overlay.ko\nkernel/fs/nfs/nfsv3.ko\n",
	}
}

// writeTree makes a directory; "->" begins the target of a link.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(data, "->"); ok {
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(data), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCommit(t *testing.T) {
	st := openStore(t)
	dir := writeTree(t, system())
	var warnings []string
	meta := builder.Meta{Name: "lab", Recipe: "test", Note: "first", Warn: func(s string) { warnings = append(warnings, s) }}
	rec, isNew, err := builder.Commit(t.Context(), st, builder.Source{Dir: dir}, meta)
	if err != nil {
		t.Fatal(err)
	}
	if !isNew || rec.Ref() != "lab/1" || rec.Arch != "amd64" || rec.Init != "systemd" || rec.Recipe != "test" || rec.Note != "first" {
		t.Errorf("record = %+v, new %v", rec, isNew)
	}
	if rec.Kernel == nil || rec.Kernel.Release != "6.1.0" || rec.Kernel.Path != "/boot/vmlinuz-6.1.0" || rec.Modules == nil {
		t.Fatalf("kernel = %+v, modules = %+v", rec.Kernel, rec.Modules)
	}
	if b, err := os.ReadFile(st.BlobPath(rec.Kernel.Digest)); err != nil || !bytes.Equal(b, kernel("6.1.0")) {
		t.Errorf("the kernel's blob: %d bytes, %v", len(b), err)
	}
	if fi, err := os.Stat(st.BlobPath(rec.Modules.Digest)); err != nil || fi.Size() != rec.Modules.Size {
		t.Errorf("the modules' blob: %v, %v; want %d bytes", fi, err, rec.Modules.Size)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings = %q", warnings)
	}
	again, isNew, err := builder.Commit(t.Context(), st, builder.Source{Dir: dir}, meta)
	if err != nil || isNew || again.Number != 1 {
		t.Errorf("the same tree again = %s, new %v, %v; want lab/1", again.Ref(), isNew, err)
	}
}

func TestCommitWarns(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		change     func(map[string]string)
	}{
		{"no kernel", "no kernel", func(m map[string]string) { delete(m, "boot/vmlinuz-6.1.0") }},
		{"no modules", "no modules", func(m map[string]string) {
			delete(m, "usr/lib/modules/6.1.0/modules.dep")
			delete(m, "usr/lib/modules/6.1.0/modules.builtin")
		}},
		{"no overlay", "overlay", func(m map[string]string) { m["usr/lib/modules/6.1.0/modules.builtin"] = "kernel/fs/nfs/nfsv3.ko\n" }},
		{"no init", "no-init", func(m map[string]string) { delete(m, "usr/sbin/init") }},
		{"init outside", "no-init", func(m map[string]string) { m["usr/sbin/init"] = "->/proc/1/exe" }},
		{"other machine", "for amd64, the system for arm64", func(m map[string]string) { m["usr/lib/systemd/systemd"] = string(elfHead(183)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := system()
			tc.change(files)
			var warnings []string
			_, _, err := builder.Commit(t.Context(), openStore(t), builder.Source{Dir: writeTree(t, files)},
				builder.Meta{Name: "lab", Warn: func(s string) { warnings = append(warnings, s) }})
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(warnings, "\n"); !strings.Contains(all, tc.want) {
				t.Errorf("warnings = %q, want one with %q", all, tc.want)
			}
		})
	}
}

func TestInspect(t *testing.T) {
	for _, tc := range []struct {
		name, init, arch string
		files            map[string]string
	}{
		{"systemd", "systemd", "amd64", system()},
		{"openrc-init", "openrc", "amd64", map[string]string{"sbin/openrc-init": string(elfHead(62)), "sbin/init": "->openrc-init"}},
		{"gentoo sysvinit", "openrc", "amd64", map[string]string{"sbin/init": string(elfHead(62)), "etc/inittab": "si::sysinit:/sbin/openrc sysinit\n"}},
		{"debian openrc", "openrc", "arm64", map[string]string{"sbin/init": string(elfHead(183)), "etc/inittab": "l2:2:wait:/etc/init.d/rc 2\n", "etc/init.d/rc": "#!/bin/sh\nexec openrc \"$l\"\n"}},
		{"sysvinit", "sysvinit", "amd64", map[string]string{"sbin/init": string(elfHead(62)), "etc/inittab": "# openrc is not here\n"}},
		{"busybox", "other", "amd64", map[string]string{"bin/busybox": string(elfHead(62)), "sbin/init": "->/bin/busybox"}},
		{"a script", "other", "", map[string]string{"sbin/init": "#!/bin/sh\n"}},
		{"nothing", "", "", map[string]string{"etc/passwd": ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := openStore(t)
			tr, _, err := st.AddDir(t.Context(), writeTree(t, tc.files))
			if err != nil {
				t.Fatal(err)
			}
			if f := builder.Inspect(st.FS(tr)); f.Init != tc.init || f.Arch != tc.arch {
				t.Errorf("Inspect = %+v, want init %q, arch %q", f, tc.init, tc.arch)
			}
		})
	}
}

// mirror is a Debian mirror that counts its states, and a mmdebstrap that
// counts its runs.
type mirror struct {
	url   string
	state atomic.Int64
	dir   string
}

func newMirror(t *testing.T, script string) *mirror {
	t.Helper()
	a := &mirror{dir: t.TempDir()}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "State: %d\nDate: Sat, 12 Sep 2026 07:55:41 UTC\n", a.state.Load())
	}))
	t.Cleanup(srv.Close)
	a.url = srv.URL
	if err := os.WriteFile(filepath.Join(a.dir, "tree.tar"), rootTar(t, runnable(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	text := "#!/bin/sh\nd=" + a.dir + "\n[ \"$1\" = --version ] && { echo 'mmdebstrap 1.3.5'; exit; }\necho run >> $d/runs\n" + script
	if err := os.WriteFile(filepath.Join(a.dir, "mmdebstrap"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", a.dir+":"+os.Getenv("PATH"))
	return a
}

// runnable is a system in which programs can be run.
func runnable(t *testing.T) map[string]string {
	t.Helper()
	files := system()
	for name, data := range smallroot.Files(t) {
		if rest, ok := strings.CutPrefix(name, "lib/"); ok { // a link here
			name = "usr/lib/" + rest
		}
		files[name] = data
	}
	return files
}

// rootTar is a tar archive of a tree, as root archives are: with ./ in front.
func rootTar(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dirs := map[string]bool{}
	for name := range files {
		for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
			dirs[d] = true
		}
	}
	put := func(h *tar.Header, data string) {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	put(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	for _, d := range slices.Sorted(maps.Keys(dirs)) {
		put(&tar.Header{Name: "./" + d + "/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if files[name] == "/" { // an empty directory
			put(&tar.Header{Name: "./" + name + "/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
		} else if target, ok := strings.CutPrefix(files[name], "->"); ok {
			put(&tar.Header{Name: "./" + name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, "")
		} else {
			put(&tar.Header{Name: "./" + name, Mode: 0o755, Size: int64(len(files[name]))}, files[name])
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (a *mirror) runs(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, "runs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(b), "run")
}

func (a *mirror) recipe() *recipes.Recipe {
	return &recipes.Recipe{Name: "lab", Base: "debian", Debian: recipes.Debian{Suite: "trixie", Mirror: a.url, SecurityMirror: a.url}}
}

const goodBuild = `echo "I: success" >&2; cat $d/tree.tar`

func TestBuildOnlyWhatChanged(t *testing.T) {
	a := newMirror(t, goodBuild)
	st := openStore(t)
	build := func(o builder.BuildOptions, version string, unchanged bool, runs int) builder.Built {
		t.Helper()
		if o.Recipe == nil {
			o.Recipe = a.recipe()
		}
		b, err := builder.Build(t.Context(), st, o)
		if err != nil {
			t.Fatal(err)
		}
		if b.Record.Ref() != version || b.Unchanged != unchanged || a.runs(t) != runs {
			t.Errorf("built %s, unchanged %v, %d runs; want %s, %v, %d", b.Record.Ref(), b.Unchanged, a.runs(t), version, unchanged, runs)
		}
		return b
	}
	b := build(builder.BuildOptions{}, "lab/1", false, 1)
	if text, err := os.ReadFile(b.Log); err != nil || !strings.HasPrefix(string(text), "I: success\n") {
		t.Errorf("log %s = %q, %v", b.Log, text, err)
	}
	build(builder.BuildOptions{}, "lab/1", true, 1)
	build(builder.BuildOptions{Name: "other"}, "other/1", true, 1)
	build(builder.BuildOptions{Force: true}, "lab/1", false, 2)
	a.state.Add(1)
	build(builder.BuildOptions{}, "lab/1", false, 3)
	r := a.recipe()
	r.Packages.Install = []string{"vim"}
	build(builder.BuildOptions{Recipe: r}, "lab/1", false, 4)

	// A cache that names what is gone, or is damaged, is no cache.
	if err := os.Remove(st.BlobPath(b.Record.Kernel.Digest)); err != nil {
		t.Fatal(err)
	}
	build(builder.BuildOptions{}, "lab/1", false, 5)
	entries, err := filepath.Glob(filepath.Join(st.Dir(), "builds/[cs]*e*/*.toml"))
	if err != nil || len(entries) == 0 {
		t.Fatalf("cache entries: %v, %v", entries, err)
	}
	for _, p := range entries {
		if err := os.WriteFile(p, []byte("tree = 7"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build(builder.BuildOptions{}, "lab/1", false, 6)
}

func TestBuildFails(t *testing.T) {
	a := newMirror(t, `head -c 700 $d/tree.tar; echo "E: it broke" >&2; exit 1`)
	st := openStore(t)
	_, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: a.recipe()})
	var be *builder.BuildError
	if !errors.As(err, &be) || !strings.Contains(err.Error(), "E: it broke") || !strings.Contains(err.Error(), be.Log) {
		t.Fatalf("Build = %v, want the last lines and the log", err)
	}
	if text, err := os.ReadFile(be.Log); err != nil || !strings.Contains(string(text), "E: it broke") {
		t.Errorf("log = %q, %v", text, err)
	}
	if names, err := st.Images(); err != nil || len(names) != 0 {
		t.Errorf("images = %v, %v; want none", names, err)
	}
	if left, err := os.ReadDir(filepath.Join(st.Dir(), "builds/work")); err == nil && len(left) != 0 {
		t.Errorf("the build left %v behind", left)
	}
}

func TestCancelBuild(t *testing.T) {
	a := newMirror(t, `mkdir -p "$TMPDIR/mmdebstrap.x"; echo "slate-step: working" >&2; exec sleep 1000`)
	st := openStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := builder.Build(ctx, st, builder.BuildOptions{Recipe: a.recipe(), Step: func(step, _ string) {
		if step == "working" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Build = %v, want context.Canceled", err)
	}
	if left, err := os.ReadDir(filepath.Join(st.Dir(), "builds/work")); err == nil && len(left) != 0 {
		t.Errorf("the build left %v behind", left)
	}
}

// What a killed build left goes with the next; what a living one has stays.
func TestSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root builds in the data directory")
	}
	a := newMirror(t, goodBuild)
	st := openStore(t)
	work := filepath.Join(st.Dir(), "builds/work")
	for _, name := range []string{"build-dead/mmdebstrap.x/etc", "build-alive", "other"} {
		if err := os.MkdirAll(filepath.Join(work, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(work, "build-alive"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: a.recipe()}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"build-dead": false, "build-alive": true, "other": true} {
		if _, err := os.Stat(filepath.Join(work, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
}

func TestEditAndKeep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can have the tree as a directory")
	}
	a := newMirror(t, goodBuild)
	st := openStore(t)
	first, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: a.recipe()})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: a.recipe(), Keep: true})
	if err != nil || kept.Record.Tree != first.Record.Tree || kept.New {
		t.Errorf("a kept tree = %s, %v; want the same version %s", kept.Record.Ref(), err, first.Record.Ref())
	}
	if b, err := os.ReadFile(filepath.Join(kept.Kept, "usr/lib/os-release")); err != nil || len(b) == 0 {
		t.Errorf("kept tree %s: %v", kept.Kept, err)
	}
	change := func(_ context.Context, root string) error {
		return os.WriteFile(filepath.Join(root, "etc/by-hand"), []byte("x"), 0o644)
	}
	edited, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: a.recipe(), Edit: change, Keep: true})
	if err != nil || !edited.New || edited.Record.Number != 2 {
		t.Errorf("edited = %s, new %v, %v; want a second version", edited.Record.Ref(), edited.New, err)
	}
	// What was done by hand is not what the recipe makes.
	if b, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: a.recipe()}); err != nil || b.Record.Tree != first.Record.Tree {
		t.Errorf("the recipe again = %v, %v; want the first tree", b.Record.Tree.Short(), err)
	}
	no := errors.New("no")
	if _, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: a.recipe(), Edit: func(context.Context, string) error { return no }}); !errors.Is(err, no) {
		t.Errorf("Build = %v, want the editor's error", err)
	}
	if left, err := os.ReadDir(filepath.Join(st.Dir(), "builds/work")); err != nil || len(left) != 0 {
		t.Errorf("the builds left %v, %v", left, err)
	}
}

func TestArchiveOutOfReach(t *testing.T) {
	a := newMirror(t, goodBuild)
	r := a.recipe()
	r.Debian.Mirror = "http://127.0.0.1:1/debian"
	var warned string
	for range 2 {
		b, err := builder.Build(t.Context(), openStore(t), builder.BuildOptions{Recipe: r, Warn: func(s string) { warned = s }})
		if err != nil || b.Unchanged {
			t.Fatalf("Build = %+v, %v: mmdebstrap may still know a way", b, err)
		}
	}
	if !strings.Contains(warned, "127.0.0.1:1") || a.runs(t) != 2 {
		t.Errorf("warning %q, %d runs; want the address and 2", warned, a.runs(t))
	}
}

func TestBadNames(t *testing.T) {
	st := openStore(t)
	for _, name := range []string{"", "../x", "Lab", "a/b"} {
		if _, _, err := builder.Commit(t.Context(), st, builder.Source{Dir: t.TempDir()}, builder.Meta{Name: name}); err == nil {
			t.Errorf("Commit with name %q: want an error", name)
		}
	}
	if _, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: &recipes.Recipe{Name: "x", Base: "hurd"}}); err == nil || !strings.Contains(err.Error(), "hurd") {
		t.Errorf("unknown base: %v", err)
	}
}

// NFS has no capabilities: the archive that comes with the kernel says which
// files have some.
func TestCommitListsFilesWithCapabilities(t *testing.T) {
	st := openStore(t)
	dir := writeTree(t, system())
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	meta := builder.Meta{Name: "lab", Modules: initramfs.ModulesOptions{Compression: initramfs.Plain}}
	list := func() []byte {
		rec, _, err := builder.Commit(t.Context(), st, builder.Source{Dir: dir}, meta)
		if err != nil {
			t.Fatal(err)
		}
		archive, err := os.ReadFile(st.BlobPath(rec.Modules.Digest))
		if err != nil {
			t.Fatal(err)
		}
		return archive
	}
	if bytes.Contains(list(), []byte(initramfs.CapablePath)) {
		t.Error("a tree without capabilities has a list of them")
	}
	if err := syscall.Setxattr(filepath.Join(dir, "usr/lib/systemd/systemd"), "security.capability", capability, 0); err != nil {
		t.Skipf("this user cannot set capabilities: %v", err)
	}
	archive := list()
	if !bytes.Contains(archive, []byte(initramfs.CapablePath)) || !bytes.Contains(archive, []byte("xattr.security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA=")) {
		t.Error("the archive does not list the file and its capability")
	}
}

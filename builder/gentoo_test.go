// SPDX-License-Identifier: GPL-2.0-or-later

package builder_test

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/builder"
	"slate/builder/fetch"
	"slate/builder/gentoo"
	"slate/builder/recipes"
	"slate/images"
	"slate/images/store"
	"slate/netboot/config"
	"slate/testbed/gentoomirror"
	"slate/testbed/labtest"
)

//go:embed testdata/emerge
var emergeScript string

const variant = "stage3-amd64-openrc"

// stageFiles is a tree of the shape of a stage3, with a shell, and a script in
// Portage's place.
func stageFiles(t *testing.T) map[string]string {
	files := runnable(t)
	for _, p := range []string{"usr/lib/systemd/systemd", "usr/sbin/init", "boot/vmlinuz-6.1.0", "usr/lib/modules/6.1.0/modules.dep",
		"usr/lib/modules/6.1.0/modules.builtin", "usr/lib/os-release"} {
		delete(files, p)
	}
	for p, data := range map[string]string{
		"usr/sbin/openrc-init":  string(elfHead(62)),
		"usr/sbin/openrc":       string(elfHead(62)),
		"usr/sbin/init":         "->openrc-init",
		"usr/sbin/sshd":         "x",
		"usr/lib/os-release":    "ID=gentoo\n",
		"usr/bin/emerge":        emergeScript,
		"usr/bin/rc-update":     "#!/bin/sh\nln -s /etc/init.d/$2 /etc/runlevels/$3/$2\n",
		"etc/init.d/sshd":       "#!/sbin/openrc-run\n",
		"etc/init.d/hwclock":    "#!/sbin/openrc-run\n",
		"etc/runlevels/default": "/", "etc/runlevels/boot/hwclock": "->/etc/init.d/hwclock",
		"etc/conf.d/fixture":       "as it was\n",
		"etc/fstab":                "# nothing\n",
		"etc/passwd":               "root:x:0:0::/root:/bin/sh\n",
		"etc/shadow":               "root:*:1::::::\n",
		"etc/portage/make.conf":    "COMMON_FLAGS=\"-O2 -pipe\"\nLC_MESSAGES=C.utf8\n",
		"etc/portage/make.profile": "->../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0",
		"etc/portage/binrepos.conf/gentoobinhost.conf": "[binhost]\npriority = 9999\nsync-uri = https://distfiles.gentoo.org/releases/amd64/binpackages/23.0/x86-64\n",
		"usr/share/fixture-kernel":                     string(kernel("6.12.1-gentoo-dist")),
		"usr/share/doc/portage/README":                 strings.Repeat("words ", 4000),
		"usr/share/locale/de/LC_MESSAGES/x.mo":         strings.Repeat("Worte ", 4000),
	} {
		files[p] = data
	}
	return files
}

func treeTar(t *testing.T) []byte {
	return rootTar(t, map[string]string{
		"gentoo-snapshot/profiles/repo_name":                         "gentoo\n",
		"gentoo-snapshot/profiles/default/linux/amd64/23.0/parent":   "..\n",
		"gentoo-snapshot/profiles/default/linux/amd64/23.0/own/eapi": "8\n",
	})
}

func newGentoo(t *testing.T) *gentoomirror.Mirror {
	t.Helper()
	labtest.NeedRoot(t)
	return gentoomirror.New(t, variant, rootTar(t, stageFiles(t)), treeTar(t))
}

func gentooSources(m *gentoomirror.Mirror) config.Sources {
	s := config.Defaults().Sources
	s.Gentoo.Mirrors = []string{m.URL}
	s.Gentoo.Keys = m.URL + "/keys.gpg"
	s.Gentoo.StageKeys = []string{gentoomirror.Fingerprint(m.StageKey)}
	s.Gentoo.TreeKeys = []string{gentoomirror.Fingerprint(m.TreeKey)}
	s.Target.Level, s.Target.Jobs = "x86-64", 3
	return s
}

func gentooOptions(m *gentoomirror.Mirror) builder.BuildOptions {
	return gentooOptionsFrom(gentooSources(m))
}

func gentooOptionsFrom(s config.Sources) builder.BuildOptions {
	r := &recipes.Recipe{Name: "lab", Base: "gentoo",
		Gentoo:   recipes.Gentoo{Update: true, Depclean: true, Use: []string{"net-misc/openssh -X"}},
		Packages: recipes.Packages{Install: []string{"sys-kernel/gentoo-kernel-bin", "net-misc/openssh"}},
		System:   recipes.System{Enable: []string{"sshd"}, Disable: []string{"hwclock", "fsck"}},
		Files:    []recipes.File{{Path: "/etc/motd", Data: []byte("hello\n")}},
		Clean:    recipes.Clean{Docs: true, Man: true, Locales: true},
	}
	return builder.BuildOptions{Recipe: r, Sources: s,
		Portage: map[string][]byte{"package.use/ours": []byte("app-misc/foo bar # why\n"), "package.license": []byte("*/* @FREE\n")},
		Fetch:   fetch.Options{Tries: 2, Pause: time.Millisecond, Stall: 300 * time.Millisecond}}
}

// content reads a file of a version.
func content(t *testing.T, st *store.Store, rec images.Record, name string) string {
	t.Helper()
	tr, err := st.Tree(t.Context(), rec.Tree)
	if err != nil {
		t.Fatal(err)
	}
	f, err := st.FS(tr).Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func checkNothingLeft(t *testing.T, st *store.Store) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), st.Dir()) {
		t.Errorf("mounts are left: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(st.Dir(), "builds/work")); err == nil && len(left) != 0 {
		t.Errorf("the build left %v behind", left)
	}
}

func TestGentoo(t *testing.T) {
	m := newGentoo(t)
	st := openStore(t)
	t.Setenv("SECRET_OF_THE_ADMIN", "x")
	o := gentooOptions(m)
	var steps, warnings []string
	o.Step = func(step, detail string) { steps = append(steps, step+"|"+detail) }
	o.Warn = func(s string) { warnings = append(warnings, s) }
	b, err := builder.Build(t.Context(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	checkNothingLeft(t, st)
	rec := b.Record
	if rec.Ref() != "lab/1" || rec.Init != "openrc" || rec.Arch != "amd64" || rec.Kernel == nil || rec.Kernel.Release != "6.12.1-gentoo-dist" {
		t.Errorf("record = %+v", rec)
	}
	const options = "--color=n --nospinner --quiet-build=y --ask=n --verbose-conflicts --jobs=3 --load-average=3 --usepkg=y --buildpkg=y --binpkg-respect-use=y --getbinpkg=y"
	want := strings.Join([]string{
		"emerge --color=n --version",
		"emerge --color=n --info",
		"emerge " + options + " --update --deep --newuse --with-bdeps=n @world sys-kernel/gentoo-kernel-bin net-misc/openssh",
		"compiled sys-kernel/gentoo-kernel-bin",
		"compiled net-misc/openssh",
		"emerge " + options + " @preserved-rebuild",
		"emerge --color=n --ask=n --depclean --with-bdeps=n",
		"emerge " + options + " @preserved-rebuild", ""}, "\n")
	if diff := cmp.Diff(want, content(t, st, rec, "emerge.log")); diff != "" {
		t.Errorf("what Portage was told (-want +got):\n%s", diff)
	}
	if !slices.Contains(steps, "installing packages|2 of 2: net-misc/openssh-1") {
		t.Errorf("steps = %q", steps)
	}
	if all := strings.Join(warnings, "\n"); !strings.Contains(all, "/etc/conf.d/fixture was changed") {
		t.Errorf("warnings = %q", warnings)
	}
	for name, want := range map[string]string{
		"etc/conf.d/fixture":                      "from the update\n",
		"etc/motd":                                "hello\n",
		"etc/portage/package.use/ours":            "app-misc/foo bar # why\n",
		"etc/portage/package.license/50-config.d": "*/* @FREE\n",
		"etc/portage/make.conf/10-stage":          "COMMON_FLAGS=\"-O2 -pipe\"\nLC_MESSAGES=C.utf8\n",
		"etc/fstab":                               "rootfs\t/\tauto\tro\t0 0\n",
	} {
		if got := content(t, st, rec, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for _, gone := range []string{"etc/conf.d/._cfg0000_fixture", "usr/src/linux-6.12.1-gentoo-dist", "usr/lib/modules/6.12.1-gentoo-dist/build", "var/cache/binpkgs/here",
		"var/db/repos/gentoo/profiles", "etc/runlevels/boot/hwclock", "usr/share/doc/portage/README"} {
		if got := content(t, st, rec, gone); !strings.Contains(got, "no such file") {
			t.Errorf("%s is in the image: %.40q", gone, got)
		}
	}
	if got := content(t, st, rec, "usr/lib/modules/6.12.1-gentoo-dist/vmlinuz"); got != string(kernel("6.12.1-gentoo-dist")) {
		t.Errorf("the kernel in the modules' directory has %d bytes", len(got))
	}
	if b.Saved["documents"] < 20000 || b.Saved["translations"] < 20000 {
		t.Errorf("saved = %v", b.Saved)
	}
	br, err := builder.ReadBuildRecord(st, rec)
	if err != nil || br == nil || len(br.Package) != 2 || br.Package[0].Name != "net-misc/openssh" || br.Level != "x86-64" || len(br.Inputs) != 2 || br.Inputs[0].Kind != "stage3" {
		t.Errorf("build record = %+v, %v", br, err)
	}

	t.Run("unchanged", func(t *testing.T) {
		start := time.Now()
		again, err := builder.Build(t.Context(), st, gentooOptions(m))
		if err != nil || !again.Unchanged || again.Record.Number != 1 || again.Log != "" {
			t.Errorf("Build again = %+v, %v; want lab/1 unchanged", again, err)
		}
		if m.Hits(m.StagePath()) != 1 || m.Hits(m.TreePath()) != 1 {
			t.Errorf("stage and tree were fetched %d and %d times", m.Hits(m.StagePath()), m.Hits(m.TreePath()))
		}
		t.Logf("%.2f s", time.Since(start).Seconds())
	})
	t.Run("another file", func(t *testing.T) {
		o := gentooOptions(m)
		o.Recipe.Files[0].Data = []byte("bye\n")
		var steps []string
		o.Step = func(step, _ string) { steps = append(steps, step) }
		b, err := builder.Build(t.Context(), st, o)
		if err != nil || b.Record.Number != 2 || slices.Contains(steps, "installing packages") {
			t.Errorf("Build = %s, %v, steps %q; want lab/2 without Portage", b.Record.Ref(), err, steps)
		}
	})
	t.Run("another USE flag", func(t *testing.T) {
		o := gentooOptions(m)
		o.Portage["package.use/ours"] = []byte("app-misc/foo -bar\n")
		b, err := builder.Build(t.Context(), st, o)
		if err != nil || b.Unchanged {
			t.Fatal(b.Unchanged, err)
		}
		if log := content(t, st, b.Record, "emerge.log"); !strings.Contains(log, "binary net-misc/openssh") || strings.Contains(log, "compiled") {
			t.Errorf("binary packages of the build before were not used:\n%s", log)
		}
	})
	t.Run("offline", func(t *testing.T) {
		hits := m.Hits(m.LatestPath())
		o := gentooOptions(m)
		o.Offline = true
		var warnings []string
		o.Warn = func(s string) { warnings = append(warnings, s) }
		b, err := builder.Build(t.Context(), st, o)
		if err != nil || m.Hits(m.LatestPath()) != hits || !strings.Contains(strings.Join(warnings, "\n"), "offline: "+variant) {
			t.Errorf("Build offline = %s, %v, warnings %q", b.Record.Ref(), err, warnings)
		}
	})
	t.Run("from source", func(t *testing.T) {
		o := gentooOptions(m)
		o.Sources.Target.Optimize = config.FromSource
		b, err := builder.Build(t.Context(), st, o)
		if log := content(t, st, b.Record, "emerge.log"); err != nil || strings.Contains(log, "getbinpkg=y") {
			t.Errorf("Build = %v:\n%s", err, log)
		}
	})
}

// Nothing that the mirror does makes a version, or leaves a half one.
func TestGentooRefused(t *testing.T) {
	other := gentoomirror.NewKey(t, "Somebody")
	for _, tc := range []struct {
		name   string
		change func(*testing.T, *gentoomirror.Mirror)
		want   string
	}{
		{"bare listing", func(t *testing.T, m *gentoomirror.Mirror) {
			m.Put(m.LatestPath(), []byte(m.Stamp+"/"+variant+"-"+m.Stamp+".tar.xz 10\n"))
		}, "latest-" + variant + ".txt is not signed"},
		{"wrong key", func(t *testing.T, m *gentoomirror.Mirror) {
			m.Put(m.StagePath()+".DIGESTS", gentoomirror.ClearSign(t, other, m.Digests(m.Get(m.StagePath()))))
		}, "signed by a key that is not trusted"},
		{"wrong digest", func(t *testing.T, m *gentoomirror.Mirror) {
			m.Put(m.StagePath()+".DIGESTS", gentoomirror.ClearSign(t, m.StageKey, m.Digests([]byte("another"))))
		}, "digest that was signed"},
		{"truncated stage", func(t *testing.T, m *gentoomirror.Mirror) {
			m.Put(m.StagePath(), m.Get(m.StagePath())[:1000])
		}, "there are no more than 1000 bytes of it there"},
		{"no stage", func(t *testing.T, m *gentoomirror.Mirror) { m.Put(m.StagePath(), nil) }, "404 Not Found"},
		{"server stalls", func(t *testing.T, m *gentoomirror.Mirror) {
			gone := make(chan struct{})
			t.Cleanup(func() { close(gone) })
			m.Hook(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != m.StagePath() {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(m.Get(r.URL.Path))))
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
				select {
				case <-gone:
				case <-r.Context().Done():
				}
				return true
			})
		}, "the server stopped sending"},
		{"server breaks off", func(t *testing.T, m *gentoomirror.Mirror) {
			m.Hook(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == m.StagePath() {
					w.Header().Set("Content-Length", fmt.Sprint(len(m.Get(r.URL.Path))))
					_, _ = w.Write(m.Get(r.URL.Path)[:100])
					panic(http.ErrAbortHandler)
				}
				return false
			})
		}, "EOF"},
		{"no tree", func(t *testing.T, m *gentoomirror.Mirror) { m.Put(m.TreePath()+".gpgsig", nil) }, "no snapshot of the ebuild repository in the last 40 days"},
		{"tree of another key", func(t *testing.T, m *gentoomirror.Mirror) {
			m.Put(m.TreePath()+".gpgsig", gentoomirror.Detached(t, m.StageKey, m.Get(m.TreePath())))
		}, "signed by a key that is not trusted"},
		{"changed tree", func(t *testing.T, m *gentoomirror.Mirror) {
			m.Put(m.TreePath(), append(m.Get(m.TreePath()), 'x'))
		}, "does not match its signature"},
		{"no keys", func(t *testing.T, m *gentoomirror.Mirror) { m.Put("/keys.gpg", nil) }, "keys.gpg: 404"},
		{"stage in shreds", func(t *testing.T, m *gentoomirror.Mirror) {
			tar := rootTar(t, stageFiles(t))
			m.SetStage(t, tar[:len(tar)/2])
		}, "the archive is cut off"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newGentoo(t)
			tc.change(t, m)
			st := openStore(t)
			_, err := builder.Build(t.Context(), st, gentooOptions(m))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build = %v, want an error with %q", err, tc.want)
			}
			if names, err := st.Images(); err != nil || len(names) != 0 {
				t.Errorf("images = %v, %v; want none", names, err)
			}
			for _, kind := range []string{"stages", "snapshots"} {
				got, _ := filepath.Glob(filepath.Join(st.Dir(), "builds/sources/gentoo", kind, "*.tar.xz"))
				if kind == "stages" && len(got) > 0 && !strings.Contains(tc.name, "tree") && !strings.Contains(tc.name, "shreds") {
					t.Errorf("what was refused is in the cache: %q", got)
				}
			}
			checkNothingLeft(t, st)
		})
	}
}

// A package that fails ends the build in its words; the tree stays to look at.
func TestGentooPackageFails(t *testing.T) {
	m := newGentoo(t)
	st := openStore(t)
	o := gentooOptions(m)
	o.Recipe.Packages.Install = append(o.Recipe.Packages.Install, "app-misc/broken")
	_, err := builder.Build(t.Context(), st, o)
	var be *builder.BuildError
	if !errors.As(err, &be) || !strings.Contains(err.Error(), "emake failed") || !strings.Contains(err.Error(), "installing packages") || !strings.Contains(be.Hint(), "slate build --enter lab") {
		t.Fatalf("Build = %v, hint %q", err, be.Hint())
	}
	if _, err := os.Stat(filepath.Join(be.Tree, "emerge.log")); err != nil || be.Tree != builder.KeptTree(st, "lab") {
		t.Errorf("the tree %q was not kept: %v", be.Tree, err)
	}
	checkNothingLeft(t, st)
	if b, err := builder.Build(t.Context(), st, gentooOptions(m)); err != nil || b.Record.Number != 1 {
		t.Errorf("the next build = %s, %v", b.Record.Ref(), err)
	}
}

// A tree without Portage is no Gentoo, and nobody pretends it is.
func TestGentooWithoutPortage(t *testing.T) {
	files := stageFiles(t)
	delete(files, "usr/bin/emerge")
	m := gentoomirror.New(t, variant, rootTar(t, files), treeTar(t))
	_, err := builder.Build(t.Context(), openStore(t), gentooOptions(m))
	if err == nil || !strings.Contains(err.Error(), "there is no emerge in this tree") {
		t.Errorf("Build = %v", err)
	}
	m.SetStage(t, rootTar(t, stageFiles(t)))
	o := gentooOptions(m)
	o.Sources.Gentoo.Profile = "default/linux/amd64/17.1"
	if _, err := builder.Build(t.Context(), openStore(t), o); err == nil || !strings.Contains(err.Error(), "profiles/default/linux/amd64/17.1 is not in the ebuild repository") {
		t.Errorf("Build = %v, want the profile named", err)
	}
}

// What would break a build an hour later is refused at once.
func TestGentooBadConfiguration(t *testing.T) {
	m := newGentoo(t)
	for _, tc := range []struct{ file, text, want string }{
		{"make.conf", "USE=\"x\"\nPKGDIR=/srv\n", "sources/portage/make.conf:2: PKGDIR is the builder's to set"},
		{"make.conf", "FEATURES=\"candy -network-sandbox\"\n", "sources/portage/make.conf:1: FEATURES: -network-sandbox would let packages reach out"},
		{"package.use/x", "\nfoo bar\n", "sources/portage/package.use/x:2: \"foo\": want the category"},
		{"package.license", "sys-kernel/linux-firmware\n", "sources/portage/package.license:1: sys-kernel/linux-firmware: nothing is said"},
		{"repos.conf/x.conf", "location = /x\n", "sources/portage/repos.conf/x.conf:1: a setting before the first [section]"},
	} {
		o := gentooOptions(m)
		o.Portage = map[string][]byte{tc.file: []byte(tc.text)}
		if _, err := builder.Build(t.Context(), openStore(t), o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Build = %v, want %q", err, tc.want)
		}
	}
	if m.Hits(m.LatestPath()) > 0 {
		t.Error("the mirror was asked before the configuration was looked at")
	}
	o := gentooOptions(m)
	o.Sources.Target.Level, o.Group = "native", "room1"
	if _, err := builder.Build(t.Context(), openStore(t), o); err == nil || !strings.Contains(err.Error(), "name the processors of its nodes") {
		t.Errorf("native for a group = %v", err)
	}
	if err := gentoo.CanRun("x86-64-v3", "flags\t: popcnt pni sse4_1 sse4_2 ssse3 cx16 lahf_lm avx\n"); err == nil || !strings.Contains(err.Error(), "lacks avx2, bmi1") {
		t.Errorf("CanRun = %v", err)
	}
}

// A stage that wants to be written through is not.
func TestGentooHostileStage(t *testing.T) {
	for name, change := range map[string]func(files map[string]string, outside string){
		"etc":                func(f map[string]string, o string) { dropBelow(f, "etc/"); f["etc"] = "->" + o },
		"etc up":             func(f map[string]string, o string) { dropBelow(f, "etc/"); f["etc"] = "->../../../../../../../.." + o },
		"portage":            func(f map[string]string, o string) { dropBelow(f, "etc/portage/"); f["etc/portage"] = "->" + o },
		"make.conf":          func(f map[string]string, o string) { f["etc/portage/make.conf"] = "->" + o + "/file" },
		"package.use":        func(f map[string]string, o string) { f["etc/portage/package.use"] = "->" + o },
		"repositories":       func(f map[string]string, o string) { f["var/db/repos"] = "->" + o },
		"caches":             func(f map[string]string, o string) { f["var/cache"] = "->" + o },
		"dev":                func(f map[string]string, o string) { f["dev"] = "->" + o },
		"motd":               func(f map[string]string, o string) { f["etc/motd"] = "->" + o + "/file" },
		"savedconfig":        func(f map[string]string, o string) { f["etc/portage/savedconfig"] = "->" + o },
		"kernel, of modules": func(f map[string]string, o string) { f["usr/lib/modules/6.1.0/vmlinuz"] = "->" + o + "/file" },
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			if err := os.WriteFile(filepath.Join(outside, "file"), []byte("theirs"), 0o644); err != nil {
				t.Fatal(err)
			}
			files := stageFiles(t)
			change(files, outside)
			m := gentoomirror.New(t, variant, rootTar(t, files), treeTar(t))
			st := openStore(t)
			o := gentooOptions(m)
			o.Recipe.Kernel.ConfigData = []byte("CONFIG_X=y\n")
			b, err := builder.Build(t.Context(), st, o)
			t.Logf("Build = %s, %v", b.Record.Ref(), err)
			list, rerr := os.ReadDir(outside)
			data, ferr := os.ReadFile(filepath.Join(outside, "file"))
			if rerr != nil || len(list) != 1 || ferr != nil || string(data) != "theirs" {
				t.Errorf("outside holds %v, %q", list, data)
			}
			if err == nil {
				tr, terr := st.Tree(t.Context(), b.Record.Tree)
				if terr != nil {
					t.Fatal(terr)
				}
				for blob := range tr.Blobs() {
					if text, _ := os.ReadFile(st.BlobPath(blob.Digest)); string(text) == "theirs" {
						t.Error("what lies outside was read into the image")
					}
				}
			}
			checkNothingLeft(t, st)
		})
	}
}

func dropBelow(files map[string]string, dir string) {
	for p := range files {
		if strings.HasPrefix(p, dir) {
			delete(files, p)
		}
	}
}

// A systemd stage goes the same way by the shipped recipe: another variant of
// the stage, and units in place of runlevels.
func TestGentooSystemd(t *testing.T) {
	labtest.NeedRoot(t)
	r, err := recipes.Load("gentoo-systemd")
	if err != nil {
		t.Fatal(err)
	}
	files := stageFiles(t)
	for _, p := range []string{"usr/sbin/openrc-init", "usr/sbin/openrc", "usr/bin/rc-update"} {
		delete(files, p)
	}
	dropBelow(files, "etc/init.d/")
	dropBelow(files, "etc/runlevels/")
	files["usr/lib/systemd/systemd"] = string(elfHead(62))
	files["usr/sbin/init"] = "->../lib/systemd/systemd"
	files["usr/bin/systemctl"] = "#!/bin/sh\necho \"$*\" >> /systemctl.log\n"
	files["etc/portage/make.profile"] = "->../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0/systemd"
	const variant = "stage3-amd64-systemd"
	m := gentoomirror.New(t, variant, rootTar(t, files), rootTar(t, map[string]string{
		"gentoo-snapshot/profiles/repo_name":                               "gentoo\n",
		"gentoo-snapshot/profiles/default/linux/amd64/23.0/systemd/parent": "..\n",
	}))
	st := openStore(t)
	o := gentooOptions(m)
	o.Recipe = r
	b, err := builder.Build(t.Context(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	checkNothingLeft(t, st)
	if rec := b.Record; rec.Ref() != "gentoo-systemd/1" || rec.Init != "systemd" || rec.Kernel == nil {
		t.Errorf("record = %+v", rec)
	}
	var want strings.Builder
	for _, list := range []struct {
		verb  string
		units []string
	}{{"mask", r.System.Mask}, {"enable", r.System.Enable}, {"disable", r.System.Disable}} {
		for _, u := range list.units {
			fmt.Fprintf(&want, "%s %s\n", list.verb, u)
		}
	}
	got := strings.SplitAfter(content(t, st, b.Record, "systemctl.log"), "\n")
	slices.Sort(got)
	sorted := strings.SplitAfter(want.String(), "\n")
	slices.Sort(sorted)
	if diff := cmp.Diff(sorted, got); diff != "" {
		t.Errorf("what systemctl was told (-want +got):\n%s", diff)
	}
	br, err := builder.ReadBuildRecord(st, b.Record)
	if err != nil || len(br.Inputs) != 2 || !strings.Contains(br.Inputs[0].Name, variant) {
		t.Errorf("build record = %+v, %v", br, err)
	}
	if again, err := builder.Build(t.Context(), st, o); err != nil || !again.Unchanged {
		t.Errorf("built again: unchanged %t, %v", again.Unchanged, err)
	}
}

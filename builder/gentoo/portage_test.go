// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"slate/builder/gentoo"
	"slate/testbed/labtest"
)

func portageConfig() *gentoo.Config {
	return &gentoo.Config{
		Files: map[string][]byte{
			"make.conf":          []byte("COMMON_FLAGS=\"-O3 -march=znver2\"\nUSE=\"X -gtk\"\n"),
			"package.use/ours":   []byte("app-misc/foo bar\n"),
			"package.license":    []byte("*/* @FREE\n"),
			"repos.conf":         []byte("[ours]\nlocation = /var/db/repos/ours\nsync-type = git\nsync-uri = https://example.org/x.git\n"),
			"env/debug.conf":     []byte("CFLAGS=\"-g\"\n"),
			"patches/a/b/x.diff": []byte("--- a\n"),
		},
		Use: []string{"net-misc/openssh -X"}, Keywords: []string{"app-misc/foo ~amd64"}, Licenses: []string{"sys-kernel/linux-firmware linux-fw-redistributable"},
		March: "x86-64-v3", CPUFlags: gentoo.CPUFlags("x86-64-v3"), Mirror: "https://mirror.example.org/gentoo", Arch: "amd64", Binhost: "auto", Jobs: 4,
		Overlays: map[string]string{"local": "var/db/repos/local"}, KernelConfig: []byte("CONFIG_X=y\n"),
	}
}

var stageFiles = map[string][]byte{
	"make.conf":                        []byte("COMMON_FLAGS=\"-O2 -pipe\"\n"),
	"package.accept_keywords":          []byte("dev-lang/x ~amd64\n"),
	"binrepos.conf/gentoobinhost.conf": []byte("[binhost]\npriority = 1\nsync-uri = https://distfiles.gentoo.org/releases/amd64/binpackages/23.0/x86-64\n"),
	"package.use/stage":                []byte("a/b c\n"),
}

func TestPlan(t *testing.T) {
	c := portageConfig()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	plan := c.Plan(stageFiles, "../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0")
	for name, want := range map[string]string{
		"make.conf/50-config.d":                "znver2",
		"make.conf/30-target":                  "COMMON_FLAGS=\"-march=x86-64-v3 -O2 -pipe\"",
		"make.conf/90-slate":                   "PKGDIR=\"/var/cache/binpkgs\"",
		"package.use/ours":                     "app-misc/foo bar",
		"package.use/70-recipe":                "net-misc/openssh -X",
		"package.use/90-slate":                 "sys-kernel/gentoo-kernel savedconfig",
		"package.accept_keywords/10-stage":     "dev-lang/x",
		"package.accept_keywords/70-recipe":    "app-misc/foo ~amd64",
		"package.license/50-config.d":          "*/* @FREE",
		"repos.conf/50-config.d":               "[ours]",
		"repos.conf/90-slate.conf":             "[local]\nlocation = /var/db/repos/local",
		"binrepos.conf/90-slate.conf":          "sync-uri = https://mirror.example.org/gentoo/releases/amd64/binpackages/23.0/x86-64-v3\nverify-signature = true",
		"savedconfig/sys-kernel/gentoo-kernel": "CONFIG_X",
		"env/debug.conf":                       "-g",
		"patches/a/b/x.diff":                   "---",
	} {
		if got, ok := plan[name]; !ok || !strings.Contains(string(got), want) {
			t.Errorf("%s = %q, want it to hold %q", name, got, want)
		}
	}
	// What config.d has replaces what the stage brings.
	for _, gone := range []string{"make.conf/10-stage", "package.use/stage", "binrepos.conf/gentoobinhost.conf", "make.conf"} {
		if got, ok := plan[gone]; ok {
			t.Errorf("%s is there: %q", gone, got)
		}
	}
	c.Binhost = "off"
	for name, data := range c.Plan(stageFiles, "") {
		if strings.HasPrefix(name, "binrepos.conf") || strings.Contains(string(data), " getbinpkg") {
			t.Errorf("without a binhost there is %s: %s", name, data)
		}
	}
	if got := c.Synced(); !slices.Equal(got, []string{"ours"}) {
		t.Errorf("Synced = %q", got)
	}
}

// Portage reads make.conf as a shell would, repos.conf and binrepos.conf with
// Python's configparser, and package.* as atoms with words. The programs that it
// relies on, and expressions written from portage(5) alone, read what we write.
func TestWhatWeWriteIsPortages(t *testing.T) {
	labtest.Need(t, "sh", "python3")
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, data := range stageFiles {
		p := filepath.Join("etc/portage", name)
		if err := root.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := portageConfig()
	c.Profile = "default/linux/amd64/23.0"
	for range 2 { // a second time over what is there
		if err := c.Apply(root); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(root.Name(), "etc/portage")
	if link, err := os.Readlink(filepath.Join(dir, "make.profile")); err != nil || link != "../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0" {
		t.Errorf("profile = %q, %v", link, err)
	}
	// Portage sources the files in the order of their names: the last word is
	// config.d's for flags, and ours for directories.
	out, err := exec.Command("sh", "-euc", `FEATURES= USE=
for f in "$1"/make.conf/*; do . "$f"; done
echo "$COMMON_FLAGS|$CFLAGS|$USE|$DISTDIR|$PKGDIR|$MAKEOPTS|$CPU_FLAGS_X86|$FEATURES"`, "sh", dir).CombinedOutput()
	if want := "-O3 -march=znver2|-march=x86-64-v3 -O2 -pipe|X -gtk|/var/cache/distfiles|/var/cache/binpkgs|--jobs=4|avx avx2 bmi1 bmi2 f16c fma3 mmx mmxext"; err != nil || !strings.HasPrefix(string(out), want) || !strings.Contains(string(out), "getbinpkg") {
		t.Errorf("make.conf = %s, %v; want %s…", out, err, want)
	}
	variable := regexp.MustCompile(`^([A-Z][A-Z0-9_]*="[^"$]*(\$\{[A-Z0-9_]+\}[^"$]*)*"|#.*|)$`)
	for _, name := range []string{"make.conf/30-target", "make.conf/90-slate"} {
		for line := range strings.SplitSeq(read(t, dir, name), "\n") {
			if !variable.MatchString(line) {
				t.Errorf("%s: %q is no assignment that Portage takes", name, line)
			}
		}
	}
	script := `import configparser, sys
for kind, wanted in (("repos.conf", {"gentoo": "location", "local": "location", "ours": "sync-uri"}), ("binrepos.conf", {"slate-binhost": "sync-uri"})):
    import glob, os
    p = configparser.ConfigParser(strict=True, interpolation=None)
    files = sorted(glob.glob(os.path.join(sys.argv[1], kind, "*")))
    assert p.read(files) == files, files
    for section, key in wanted.items():
        assert p.get(section, key), (section, key)
    if kind == "repos.conf":
        assert p.defaults()["main-repo"] == "gentoo"
        for s in p.sections():
            assert p.get(s, "location").startswith("/var/db/repos/")
    else:
        assert p.getboolean("slate-binhost", "verify-signature") and p.getint("slate-binhost", "priority")
`
	if out, err := exec.Command("python3", "-c", script, dir).CombinedOutput(); err != nil {
		t.Errorf("repos.conf and binrepos.conf: %v\n%s", err, out)
	}
	lines := map[string]*regexp.Regexp{
		"package.use":             regexp.MustCompile(`^(#.*|[a-z*][\w+.*-]*/[\w+*-]+( -?[A-Za-z0-9][\w+@-]*)+|)$`),
		"package.accept_keywords": regexp.MustCompile(`^(#.*|[a-z][\w+.-]*/[\w+-]+( [~]?[a-z0-9-]+)*|)$`),
		"package.license":         regexp.MustCompile(`^(#.*|[a-z*][\w+.*-]*/[\w+*-]+( [@-]?[\w+.-]+)+|)$`),
	}
	for kind, ok := range lines {
		list, err := os.ReadDir(filepath.Join(dir, kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			for line := range strings.SplitSeq(read(t, dir, kind+"/"+e.Name()), "\n") {
				if !ok.MatchString(line) {
					t.Errorf("%s/%s: %q", kind, e.Name(), line)
				}
			}
		}
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(b, "\n"))
}

func TestProgress(t *testing.T) {
	for line, want := range map[string]string{
		">>> Emerging (3 of 57) sys-libs/zlib-1.3.1::gentoo":           "3 of 57: sys-libs/zlib-1.3.1",
		">>> Emerging binary (1 of 5) app-arch/xz-utils-5.6.4::gentoo": "1 of 5: app-arch/xz-utils-5.6.4",
		">>> Installing (2 of 5) app-editors/nano-8.3::gentoo":         "2 of 5: app-editors/nano-8.3",
		">>> Completed (2 of 5) app-editors/nano-8.3::gentoo":          "2 of 5: app-editors/nano-8.3",
		"Calculating dependencies  ... done!":                          "calculating dependencies  ... done!",
		"gcc -O2 -c x.c":                                               "",
	} {
		if got := gentoo.Progress(line); got != want {
			t.Errorf("Progress(%q) = %q, want %q", line, got, want)
		}
	}
}

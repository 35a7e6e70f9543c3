// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"slate/builder/initramfs"
	"slate/builder/rootfs"
)

const release = "6.1.0-1-test"

// fakeModules is a kernel's module directory with one of each kind of thing.
func fakeModules(t *testing.T) fstest.MapFS {
	t.Helper()
	const dir = "usr/lib/modules/" + release + "/"
	m := fstest.MapFS{"lib": {Data: []byte("usr/lib"), Mode: fs.ModeSymlink | 0o777}}
	add := func(p string, info ...string) {
		m[dir+p] = &fstest.MapFile{Data: packed(t, filepath.Ext(p), module(append(info, "name="+p)...)), Mode: 0o644}
	}
	text := func(p string, lines ...string) {
		m[dir+p] = &fstest.MapFile{Data: []byte(strings.Join(lines, "\n") + "\n"), Mode: 0o644}
	}
	add("kernel/drivers/net/ethernet/acme/acme-net.ko.xz", "firmware=acme/one.bin", "firmware=acme/absent.bin", "firmware=acme/rev*.fw")
	add("kernel/drivers/net/phy/libphy.ko.gz")
	add("kernel/drivers/net/wireless/wifi.ko")
	add("kernel/fs/ext4/ext4.ko.zst")
	add("kernel/fs/jbd2/jbd2.ko")
	add("kernel/fs/nfs/nfsv3.ko")
	add("kernel/crypto/crc32c_acme.ko")
	add("kernel/crypto/md5soft.ko")
	add("kernel/sound/soundcard.ko")
	add("updates/drivers/net/ethernet/better/better.ko")
	text("modules.dep",
		"kernel/drivers/net/ethernet/acme/acme-net.ko.xz: kernel/drivers/net/phy/libphy.ko.gz",
		"kernel/drivers/net/phy/libphy.ko.gz:",
		"kernel/drivers/net/wireless/wifi.ko:",
		"kernel/fs/ext4/ext4.ko.zst: kernel/fs/jbd2/jbd2.ko",
		"kernel/fs/jbd2/jbd2.ko:",
		"kernel/fs/nfs/nfsv3.ko: kernel/net/gone.ko",
		"kernel/crypto/crc32c_acme.ko:",
		"kernel/crypto/md5soft.ko:",
		"kernel/sound/soundcard.ko: kernel/crypto/md5soft.ko",
		"updates/drivers/net/ethernet/better/better.ko:",
	)
	text("modules.alias",
		"# Aliases extracted from modules themselves.",
		"alias pci:v00001234d*sv*sd*bc*sc*i* acme_net",
		"alias crypto-crc32c crc32c_acme",
		"alias fs-ext4 ext4",
		"alias snd-* soundcard",
	)
	text("modules.softdep", "# comment", "softdep ext4 pre: crypto-crc32c", "softdep soundcard pre: acme_net")
	text("modules.builtin", "kernel/fs/overlayfs/overlay.ko")
	text("modules.devname", "soundcard snd/x c10:1", "ext4 e4 c10:2")
	text("modules.order", "kernel/sound/soundcard.ko", "kernel/fs/ext4/ext4.ko.zst")
	return m
}

func TestModulesCPIO(t *testing.T) {
	tree := fakeModules(t)
	fw := func(p, data string) { tree["usr/lib/firmware/"+p] = &fstest.MapFile{Data: []byte(data), Mode: 0o644} }
	fw("acme/one.bin.xz", "not unpacked")
	fw("acme/rev1.fw", "same")
	fw("acme/rev2.fw", "same")
	fw("acme/other.bin", "nobody asks")
	b, rep, err := initramfs.ModulesCPIO(t.Context(), tree, release, initramfs.ModulesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := unpackArchive(t, b)

	const dir = "lib/modules/" + release + "/"
	var mods []string
	for name, e := range got {
		if strings.HasSuffix(name, ".ko") {
			mods = append(mods, strings.TrimPrefix(name, dir))
			if !strings.HasPrefix(e.data, "\x7fELF") {
				t.Errorf("%s is not unpacked", name)
			}
		}
	}
	slices.Sort(mods)
	want := []string{
		"kernel/crypto/crc32c_acme.ko",
		"kernel/drivers/net/ethernet/acme/acme-net.ko",
		"kernel/drivers/net/phy/libphy.ko",
		"kernel/fs/ext4/ext4.ko",
		"kernel/fs/jbd2/jbd2.ko",
		"kernel/fs/nfs/nfsv3.ko",
		"updates/drivers/net/ethernet/better/better.ko",
	}
	if diff := cmp.Diff(want, mods); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"modules.dep": "kernel/drivers/net/ethernet/acme/acme-net.ko: kernel/drivers/net/phy/libphy.ko\n" +
			"kernel/drivers/net/phy/libphy.ko:\n" +
			"kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\n" +
			"kernel/fs/jbd2/jbd2.ko:\n" +
			"kernel/fs/nfs/nfsv3.ko:\n" +
			"kernel/crypto/crc32c_acme.ko:\n" +
			"updates/drivers/net/ethernet/better/better.ko:\n",
		"modules.alias":   "alias pci:v00001234d*sv*sd*bc*sc*i* acme_net\nalias crypto-crc32c crc32c_acme\nalias fs-ext4 ext4\n",
		"modules.softdep": "softdep ext4 pre: crypto-crc32c\n",
		"modules.builtin": "kernel/fs/overlayfs/overlay.ko\n",
		"modules.devname": "ext4 e4 c10:2\n",
		"modules.order":   "kernel/fs/ext4/ext4.ko\n",
	} {
		if diff := cmp.Diff(want, got[dir+name].data); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, want := range map[string]string{
		"lib/firmware/acme/one.bin.xz": "not unpacked",
		"lib/firmware/acme/rev1.fw":    "same",
		"lib/firmware/acme/rev2.fw":    "rev1.fw", // a link
	} {
		if got[name].data != want {
			t.Errorf("%s = %q, want %q", name, got[name].data, want)
		}
	}
	if _, ok := got["lib/firmware/acme/other.bin"]; ok {
		t.Error("firmware that no module names is in the archive")
	}
	if rep.Modules != 7 || rep.FirmwareFiles != 3 || rep.FirmwareMissing != 1 || rep.Size != int64(len(b)) {
		t.Errorf("report = %+v", rep)
	}
	if diff := cmp.Diff([]string{"kernel/net/gone.ko"}, rep.Missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	if rep.Lacks != nil {
		t.Errorf("Lacks = %v: nfsv3 is a module and overlay is built in", rep.Lacks)
	}
	checkDigests(t, got, initramfs.ModuleDigestsPath)
}

// checkDigests verifies the digest list of an archive against its files.
func checkDigests(t *testing.T, got map[string]entry, list string) {
	t.Helper()
	listed := map[string]bool{}
	for line := range strings.Lines(got[list].data) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  /")
		if want := fmt.Sprintf("%x", sha256.Sum256([]byte(got[name].data))); !ok || sum != want {
			t.Errorf("%s: %q, want %s", list, line, want)
		}
		listed[name] = true
	}
	for name, e := range got {
		if e.mode&0o170000 == 0o100000 && name != list && !listed[name] {
			t.Errorf("%s lacks %s", list, name)
		}
	}
}

func TestModulesOptions(t *testing.T) {
	names := func(o initramfs.ModulesOptions) (string, initramfs.ModulesReport) {
		t.Helper()
		b, rep, err := initramfs.ModulesCPIO(t.Context(), fakeModules(t), release, o)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for name := range unpackArchive(t, b) {
			if base, ok := strings.CutSuffix(filepath.Base(name), ".ko"); ok {
				out = append(out, base)
			}
		}
		slices.Sort(out)
		return strings.Join(out, " "), rep
	}
	if got, _ := names(initramfs.ModulesOptions{Classes: []string{"filesystems"}}); got != "crc32c_acme ext4 jbd2" {
		t.Errorf("filesystems = %s, want crc32c_acme ext4 jbd2", got)
	}
	// soundcard's soft dependency brings a network driver with its own needs.
	got, rep := names(initramfs.ModulesOptions{Classes: []string{"nfs"}, Extra: []string{"soundcard", "overlay", "nothing"}})
	if got != "acme-net libphy md5soft nfsv3 soundcard" {
		t.Errorf("nfs and soundcard = %s", got)
	}
	if !slices.Contains(rep.Missing, "nothing") || slices.Contains(rep.Missing, "overlay") {
		t.Errorf("Missing = %v, want nothing and not overlay, which is built in", rep.Missing)
	}
	if got, _ := names(initramfs.ModulesOptions{Classes: []string{"filesystems", "network"}, Exclude: []string{"libphy", "crc32c-acme"}}); got != "better ext4 jbd2" {
		t.Errorf("without libphy = %s, want better ext4 jbd2: what needs it goes too", got)
	}
	for _, c := range []initramfs.Compression{initramfs.Zstd, initramfs.Gzip, initramfs.Plain} {
		if got, _ := names(initramfs.ModulesOptions{Classes: []string{"nfs"}, Compression: c}); got != "nfsv3" {
			t.Errorf("%v: %s, want nfsv3", c, got)
		}
	}
	if _, _, err := initramfs.ModulesCPIO(t.Context(), fakeModules(t), release, initramfs.ModulesOptions{Classes: []string{"sound"}}); err == nil || !strings.Contains(err.Error(), "filesystems") {
		t.Errorf("unknown class: %v, want an error that lists the classes", err)
	}
}

func TestFirmwareBudget(t *testing.T) {
	tree := fakeModules(t)
	tree["usr/lib/firmware/acme/one.bin"] = &fstest.MapFile{Data: make([]byte, 1000), Mode: 0o644}
	_, rep, err := initramfs.ModulesCPIO(t.Context(), tree, release, initramfs.ModulesOptions{FirmwareBudget: 999})
	if err != nil {
		t.Fatal(err)
	}
	if rep.FirmwareFiles != 0 || !slices.Equal(rep.FirmwareDropped, []string{"acme_net"}) {
		t.Errorf("report = %+v, want acme_net's firmware dropped", rep)
	}
}

// The kernel's own configuration decides how the archive is packed.
func TestCompressionOfOldKernel(t *testing.T) {
	for conf, want := range map[string]initramfs.Compression{
		"CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n":            initramfs.Zstd,
		"CONFIG_RD_GZIP=y\n# CONFIG_RD_ZSTD is not set\n": initramfs.Gzip,
		"CONFIG_X=y\n": initramfs.Plain,
		"":             initramfs.Zstd,
	} {
		tree := fakeModules(t)
		tree["boot/config-"+release] = &fstest.MapFile{Data: []byte(conf)}
		_, rep, err := initramfs.ModulesCPIO(t.Context(), tree, release, initramfs.ModulesOptions{})
		if err != nil || rep.Compression != want {
			t.Errorf("with %q: %v, %v; want %v", conf, rep.Compression, err, want)
		}
	}
}

func TestWithoutModulesDep(t *testing.T) {
	tree := fakeModules(t)
	const dir = "usr/lib/modules/" + release + "/"
	for p := range maps.Clone(tree) {
		if strings.HasPrefix(p, dir+"modules.") {
			delete(tree, p)
		}
	}
	tree[dir+"kernel/fs/ext4/ext4.ko.zst"].Data = packed(t, ".zst", module("depends=jbd2", "alias=fs-ext4", "softdep=pre: crypto-crc32c"))
	tree[dir+"kernel/fs/jbd2/jbd2.ko"].Data = module("depends=base")
	tree[dir+"kernel/lib/base.ko"] = &fstest.MapFile{Data: module("depends=")}
	tree[dir+"kernel/crypto/crc32c_acme.ko"].Data = module("alias=crypto-crc32c")
	b, rep, err := initramfs.ModulesCPIO(t.Context(), tree, release, initramfs.ModulesOptions{Classes: []string{"filesystems"}})
	if err != nil {
		t.Fatal(err)
	}
	got := unpackArchive(t, b)
	const out = "lib/modules/" + release + "/"
	want := "kernel/crypto/crc32c_acme.ko:\nkernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/base.ko\nkernel/fs/jbd2/jbd2.ko: kernel/lib/base.ko\nkernel/lib/base.ko:\n"
	if diff := cmp.Diff(want, got[out+"modules.dep"].data); diff != "" {
		t.Errorf("modules.dep (-want +got):\n%s", diff)
	}
	if want := "alias crypto-crc32c crc32c_acme\nalias fs-ext4 ext4\n"; got[out+"modules.alias"].data != want {
		t.Errorf("modules.alias = %q, want %q", got[out+"modules.alias"].data, want)
	}
	if !rep.IndexMade || len(rep.Lacks) != 1 {
		t.Errorf("report = %+v, want IndexMade and overlay lacking", rep)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	tree := fakeModules(t)
	dir := t.TempDir()
	for p, f := range tree {
		full := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if f.Mode&fs.ModeSymlink == 0 {
			if err := os.WriteFile(full, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink("/usr/lib", filepath.Join(dir, "lib")); err != nil {
		t.Fatal(err)
	}
	onDisk, err := rootfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer onDisk.Close()
	build := func(fsys fs.FS) []byte {
		b, _, err := initramfs.ModulesCPIO(t.Context(), fsys, release, initramfs.ModulesOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := build(tree)
	if !bytes.Equal(first, build(onDisk)) {
		t.Error("the archive differs between a tree in memory and the same on disk")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if !bytes.Equal(first, build(tree)) {
		t.Error("the archive depends on the number of processors")
	}
}

func TestDamagedModules(t *testing.T) {
	const p = "usr/lib/modules/" + release + "/kernel/fs/ext4/ext4.ko.zst"
	for name, data := range map[string][]byte{
		"not compressed": []byte("plain"),
		"truncated":      packed(t, ".zst", module("x=y"))[:20],
		"no ELF":         packed(t, ".zst", []byte("text")),
		"too large":      packed(t, ".zst", make([]byte, 129<<20)),
	} {
		tree := fakeModules(t)
		tree[p].Data = data
		_, _, err := initramfs.ModulesCPIO(t.Context(), tree, release, initramfs.ModulesOptions{})
		if err == nil || !strings.Contains(err.Error(), "ext4.ko.zst") {
			t.Errorf("%s: %v, want an error that names the module", name, err)
		}
	}
	for _, r := range []string{"", ".", "..", "../../etc", "a/b"} {
		if _, _, err := initramfs.ModulesCPIO(t.Context(), fakeModules(t), r, initramfs.ModulesOptions{}); err == nil {
			t.Errorf("release %q: want an error", r)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := initramfs.ModulesCPIO(ctx, fakeModules(t), release, initramfs.ModulesOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want context.Canceled", err)
	}
}

// A module directory that is a link out of the root must not be read.
func TestHostileModuleDirectory(t *testing.T) {
	outside := t.TempDir()
	if err := os.MkdirAll(filepath.Join(outside, "kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "modules.dep"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "lib/modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "lib/modules", release)); err != nil {
		t.Fatal(err)
	}
	r, err := rootfs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, _, err := initramfs.ModulesCPIO(t.Context(), r, release, initramfs.ModulesOptions{}); err == nil {
		t.Errorf("an archive of %d bytes was made from outside the root", len(b))
	}
}

// With a real kernel on the machine, its modules go through the whole way.
func TestRealKernel(t *testing.T) {
	r, err := rootfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	k, err := initramfs.FindKernel(r)
	var none *initramfs.NoKernelError
	if errors.As(err, &none) || err == nil && k.Modules == "" {
		t.Skip("this machine has no kernel with modules")
	}
	if err != nil {
		t.Fatal(err)
	}
	b, rep, err := initramfs.ModulesCPIO(t.Context(), r, k.Release, initramfs.ModulesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checkDigests(t, unpackArchive(t, b), initramfs.ModuleDigestsPath)
	t.Logf("%+v", rep)
}

// A recipe that chooses no classes has an empty list of them.
func TestNoClassesAreAll(t *testing.T) {
	all, rep, err := initramfs.ModulesCPIO(t.Context(), fakeModules(t), release, initramfs.ModulesOptions{})
	if err != nil || rep.Modules == 0 {
		t.Fatal(rep, err)
	}
	got, _, err := initramfs.ModulesCPIO(t.Context(), fakeModules(t), release, initramfs.ModulesOptions{Classes: []string{}})
	if err != nil || string(got) != string(all) {
		t.Errorf("an empty list of classes makes %d bytes, %v; want the %d of all", len(got), err, len(all))
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package boot_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"slate/images"
	"slate/netboot/boot"
	"slate/netboot/config"
)

var server = boot.Server{Addr: netip.MustParseAddr("10.77.0.1"), HTTPPort: 8070}

func TestChooseLoader(t *testing.T) {
	const script = "http://10.77.0.1:8070/boot.ipxe"
	for _, c := range []struct {
		name      string
		client    boot.Client
		file, url string
		reason    string
	}{
		{"BIOS", boot.Client{PXE: true}, "undionly.kpxe", "", "BIOS PXE"},
		{"UEFI x64", boot.Client{PXE: true, Arch: 7}, "snponly.efi", "", "UEFI x64 PXE"},
		{"UEFI x64 as EBC", boot.Client{PXE: true, Arch: 9}, "snponly.efi", "", "UEFI x64 PXE"},
		{"iPXE from ROM", boot.Client{PXE: true, IPXE: true}, "", script, "boot script"},
		{"iPXE on UEFI", boot.Client{PXE: true, IPXE: true, Arch: 7}, "", script, "boot script"},
		{"iPXE without class", boot.Client{IPXE: true}, "", script, "boot script"},
		{"HTTP boot", boot.Client{HTTPClient: true, Arch: 16}, "", "http://10.77.0.1:8070/loader/snponly.efi", "by URL"},
		{"HTTP boot arm64", boot.Client{HTTPClient: true, Arch: 19}, "", "http://10.77.0.1:8070/loader/snponly-arm64.efi", "by URL"},
		{"HTTP boot of a BIOS", boot.Client{HTTPClient: true}, "", "", "no loader for HTTP boot of BIOS"},
		{"UEFI arm64", boot.Client{PXE: true, Arch: 11}, "snponly-arm64.efi", "", "UEFI arm64 PXE"},
		{"UEFI with iPXE's drivers", boot.Client{PXE: true, Arch: 7, Loader: "ipxe"}, "ipxe.efi", "", "as config.d says"},
		{"UEFI with Secure Boot", boot.Client{PXE: true, Arch: 7, Loader: "grub"}, "shimx64.efi", "", "shim and GRUB"},
		{"HTTP boot with Secure Boot", boot.Client{HTTPClient: true, Arch: 16, Loader: "grub"}, "", "", "cannot boot by HTTP"},
		{"BIOS where config.d says grub", boot.Client{PXE: true, Loader: "grub"}, "undionly.kpxe", "", "BIOS PXE"},
		{"UEFI where config.d says undionly", boot.Client{PXE: true, Arch: 7, Loader: "undionly"}, "snponly.efi", "", "UEFI x64 PXE"},
		{"iPXE where config.d says grub", boot.Client{PXE: true, IPXE: true, Arch: 7, Loader: "grub"}, "", script, "boot script"},
		{"UEFI 32 bit", boot.Client{PXE: true, Arch: 6}, "", "", "no loader for UEFI 32-bit"},
		{"unheard of", boot.Client{PXE: true, Arch: 77}, "", "", "no loader for architecture 77"},
		{"a running system", boot.Client{}, "", "", "not a network boot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, ok := boot.ChooseLoader(c.client, server)
			if l.File != c.file || l.URL != c.url || ok != (c.file+c.url != "") || !strings.Contains(l.Reason, c.reason) {
				t.Errorf("ChooseLoader = %+v, %v, want file %q, URL %q, reason with %q", l, ok, c.file, c.url, c.reason)
			}
		})
	}
}

// A loader whose file is missing is not named: the machine goes on to its next
// boot device at once.
func TestChooseLoaderLeavesOutWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		client boot.Client
		lacks  string
	}{
		{boot.Client{PXE: true, Arch: 11}, "snponly-arm64.efi"},
		{boot.Client{PXE: true, Arch: 7, Loader: "grub"}, "shimx64.efi"},
		{boot.Client{PXE: true, Arch: 7, Loader: "grub"}, "grubx64.efi"},
		{boot.Client{HTTPClient: true, Arch: 16}, "snponly.efi"},
	} {
		s := server
		s.Has = func(name string) bool { return name != c.lacks }
		if l, ok := boot.ChooseLoader(c.client, s); ok || !strings.Contains(l.Reason, c.lacks) {
			t.Errorf("without %s: ChooseLoader(%+v) = %+v, %v, want a reason that names it", c.lacks, c.client, l, ok)
		}
	}
}

func TestChooseImage(t *testing.T) {
	for _, c := range []struct {
		name, configured string
		published        map[string][]string
		want, err, hint  string
	}{
		{"named", "demo@testing", nil, "demo@testing", "", ""},
		{"named by number", "demo/3", nil, "demo/3", "", ""},
		{"the only one", "", map[string][]string{"demo": {"stable", "testing"}, "other": {"testing"}}, "demo@stable", "", ""},
		{"empty store", "", nil, "", "the store is empty", "slate build"},
		{"nothing stable", "", map[string][]string{"demo": nil}, "", "none of demo has a version in channel", "slate image publish demo --channel stable"},
		{"two", "", map[string][]string{"b": {"stable"}, "a": {"stable"}}, "", "several images have a stable channel (a, b)", `image = "a@stable"`},
		{"nonsense", "De mo", nil, "", "system/boot.conf image", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ref, _, err := boot.ChooseImage(c.configured, c.published)
			if c.err == "" {
				if err != nil || ref.String() != c.want {
					t.Fatalf("ChooseImage = %v, %v, want %s", ref, err, c.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("ChooseImage error = %v, want %q", err, c.err)
			}
			var h interface{ Hint() string }
			if c.hint != "" && (!errors.As(err, &h) || !strings.Contains(h.Hint(), c.hint)) {
				t.Errorf("hint of %v lacks %q", err, c.hint)
			}
		})
	}
}

func start(t *testing.T) boot.Start {
	t.Helper()
	site, err := config.Load(fstest.MapFS{"system/boot.conf": {Data: []byte("cmdline = [\"quiet\"]\nconsole = [\"tty0\", \"ttyS1\"]\nchoice = \"shell\"\n")}})
	if err != nil {
		t.Fatal(err)
	}
	return boot.Start{
		Node: "pc1", BootID: "b1", Server: server, NFSPort: 2049, Config: site.Node("pc1"), BootIF: "01-52-54-00-00-00-01",
		Version: images.Record{Name: "demo", Number: 3, Tree: images.Digest{0xab},
			Kernel:  &images.Kernel{Release: "6.1", Blob: images.Blob{Digest: images.Digest{1}, Size: 1}},
			Modules: &images.Blob{Digest: images.Digest{2}, Size: 1}},
	}
}

func TestCmdline(t *testing.T) {
	tree := images.Digest{0xab}.String()
	want := "console=tty0 console=ttyS1 quiet slate.server=http://10.77.0.1:8070 slate.node=pc1 slate.boot=b1 slate.image=demo/3 slate.tree=" + tree +
		" slate.nfs=10.77.0.1:2049:/demo/" + tree + " slate.mode=ask slate.choice=shell slate.timeout=10 BOOTIF=01-52-54-00-00-00-01"
	if got := strings.Join(start(t).Cmdline(), " "); got != want {
		t.Errorf("Cmdline =\n%s\nwant\n%s", got, want)
	}
}

func TestFiles(t *testing.T) {
	s := start(t)
	kernel, initrds, err := s.Files(images.Digest{3})
	if err != nil {
		t.Fatal(err)
	}
	if want := "http://10.77.0.1:8070/blobs/sha256/" + (images.Digest{1}).String() + "?boot=b1&part=kernel"; kernel.URL != want {
		t.Errorf("kernel = %s, want %s", kernel.URL, want)
	}
	if len(initrds) != 2 || initrds[0].Name != "modules.cpio" || !strings.HasSuffix(initrds[1].URL, "part=controller.cpio&last=1") {
		t.Errorf("initrds = %v: want the modules, then the controller marked as last", initrds)
	}
	s.Version.Modules = nil
	if _, initrds, _ = s.Files(images.Digest{3}); len(initrds) != 1 || !strings.HasSuffix(initrds[0].URL, "&last=1") {
		t.Errorf("without modules initrds = %v: want the controller alone, marked as last", initrds)
	}
	s.Version.Tools = &images.Blob{Digest: images.Digest{4}, Size: 1}
	if _, initrds, _ = s.Files(images.Digest{3}); len(initrds) != 2 || initrds[0].Name != "tools.cpio" {
		t.Errorf("initrds = %v: want the tools for a node that may be installed", initrds)
	}
	s.Config.Boot.Mode = config.ModeDiskless
	if _, initrds, _ = s.Files(images.Digest{3}); len(initrds) != 1 {
		t.Errorf("initrds = %v: want no tools for a node that is diskless", initrds)
	}
	s.Install = true
	if _, initrds, _ = s.Files(images.Digest{3}); len(initrds) != 2 || !strings.Contains(strings.Join(s.Cmdline(), " "), " slate.install=now ") {
		t.Errorf("initrds = %v, command line %q: want the tools, and that it is installed", initrds, s.Cmdline())
	}
	s.Version.Kernel = nil
	if _, _, err = s.Files(images.Digest{3}); err == nil || !strings.Contains(err.Error(), "demo/3 has no kernel") {
		t.Errorf("without kernel: error = %v", err)
	}
}

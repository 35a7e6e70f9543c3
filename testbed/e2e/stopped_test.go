// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

// diskStarts is what the system on the disk of diskNode says.
const diskStarts = `WRITE OK|The system on the disk starts`

// noKernel is a machine whose download broke off, or did not begin.
const noKernel = `booting at script|failed at kernel .* the connection broke`

// stoppedRows are machines whose appliance stops answering at some point. They go
// on to their disk.
var stoppedRows = []struct {
	name     string
	always   bool // a part of make test
	firmware qemu.Firmware
	conf     string
	stop     func(*testing.T, *site, *lab.Node) // nil: there is no appliance from the start
	shows    []string
	has      []string // of the timeline, afterwards
	lacks    string
	status   string // how slate status puts it
}{
	{name: "never there, BIOS", always: true, firmware: qemu.BIOS, shows: []string{`No more network devices`}},
	{name: "never there, UEFI", firmware: qemu.UEFI, shows: []string{isPXE}},
	{name: "no HTTP, BIOS", firmware: qemu.BIOS, stop: filterHTTP, shows: []string{`boot\.ipxe`},
		has: []string{"dhcp done"}, lacks: "script done", status: `booting at dhcp`},
	{name: "no HTTP, UEFI", firmware: qemu.UEFI, stop: filterHTTP, shows: []string{isPXE, isIPXE, `boot\.ipxe`},
		has: []string{"dhcp done", "loader done"}, lacks: "script done", status: `booting at (dhcp|loader)`},
	{name: "stopped before the kernel, BIOS", always: true, firmware: qemu.BIOS, stop: stopAtKernel, shows: []string{`gave up after 5 tries: \S+ did not load`, `next boot device follows`},
		has: []string{"dhcp done", "script done"}, lacks: "kernel done", status: noKernel},
	{name: "stopped before the kernel, UEFI", firmware: qemu.UEFI, stop: stopAtKernel, shows: []string{`gave up after 5 tries: \S+ did not load`, `next boot device follows`},
		has: []string{"dhcp done", "loader done", "script done"}, lacks: "kernel done", status: noKernel},
	{name: "stopped before the kernel, Secure Boot", firmware: qemu.UEFISecure, stop: stopAtKernel, conf: "loader = \"grub\"\n",
		shows: []string{`Slate: gave up\. .*next boot device follows`}, has: []string{"dhcp done", "loader done", "script done"}, lacks: "kernel done", status: noKernel},
}

// A machine whose appliance is not there, or goes away while it boots, goes on to
// its disk instead of ending in its firmware's set-up; the timeline says how far
// it came.
func TestServerStopped(t *testing.T) {
	t.Parallel()
	for _, r := range stoppedRows {
		if !chosen("stopped/"+r.name, r.always) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			spec := diskNode(t, r.firmware)
			if r.stop == nil {
				l := labtest.New(t, lab.Options{})
				start := time.Now()
				l.Expect(l.Node(spec), bootLimit, append(slices.Clone(r.shows), diskStarts)...)
				t.Logf("%.0f s from power on", time.Since(start).Seconds())
				return
			}
			s := newSite(t, labtest.New(t, lab.Options{}))
			s.conf("system/boot.conf", "image = \"demo@stable\"\n"+r.conf)
			s.serve()
			start := time.Now()
			n := s.Node(spec)
			r.stop(t, s, n)
			s.Expect(n, bootLimit, append(slices.Clone(r.shows), diskStarts)...)
			t.Logf("%.0f s from power on", time.Since(start).Seconds())
			if !s.running() {
				s.serve()
			}
			s.wantEvents(n, r.has...)
			if got := s.events(n); slices.Contains(got, r.lacks) {
				t.Errorf("the timeline has %q: %q", r.lacks, got)
			}
			for _, command := range [][]string{{"status"}, {"node", "show", nodeName(n.MAC())}} {
				if out := s.slate(command...); !regexp.MustCompile(r.status).MatchString(out) {
					t.Errorf("slate %s does not say %q:\n%s", strings.Join(command, " "), r.status, out)
				}
			}
		})
	}
}

// filterHTTP lets nothing of the machine through to the appliance's HTTP port.
func filterHTTP(t *testing.T, s *site, n *lab.Node) {
	labtest.Need(t, "nft")
	p, err := s.Start(t.Context(), "nft", "nft", "add table inet lab; add chain inet lab in { type filter hook input priority 0; }; add rule inet lab in ether saddr "+n.MAC().String()+" tcp dport 8070 drop")
	if err == nil {
		err = p.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stopAtKernel stops the appliance once the machine has its boot script.
func stopAtKernel(t *testing.T, s *site, n *lab.Node) {
	s.Expect(n, bootLimit, starts)
	s.stop()
}

// diskNode is a machine that boots from the network first, and else from a disk
// with a small system: a boot sector, or what Debian puts on its EFI partition.
func diskNode(t *testing.T, firmware qemu.Firmware) lab.NodeSpec {
	t.Helper()
	spec := lab.NodeSpec{Name: "n", Firmware: firmware, Memory: 512, Boot: []string{"net", "disk"}}
	if firmware == qemu.BIOS {
		spec.Disks = []lab.Disk{{Base: checkout(t, "testbed/lab/testdata/disk.bin"), Size: 1 << 20}}
		return spec
	}
	spec.UEFINet = map[string]bool{"ipv6": false}
	dir := t.TempDir()
	const shim, grub = "/usr/lib/shim/shimx64.efi.signed", "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
	labtest.NeedFile(t, shim, grub)
	for name, from := range map[string]string{"EFI/BOOT/BOOTX64.EFI": shim, "EFI/BOOT/grubx64.efi": grub, "EFI/debian/grub.cfg": ""} {
		content := []byte("echo The system on the disk starts\nsleep 3600\n")
		if from != "" {
			var err error
			if content, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spec.Disks = []lab.Disk{{Dir: dir}}
	return spec
}

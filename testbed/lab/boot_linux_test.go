// SPDX-License-Identifier: GPL-2.0-or-later

package lab_test

import (
	"bytes"
	"fmt"
	"image/png"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/pcap"
	"slate/testbed/process"
	"slate/testbed/qemu"
)

// bootLimit is for one step of a machine's start; emulated, on a busy computer.
const bootLimit = 3 * time.Minute

// promptLimit is for an answer at a prompt.
const promptLimit = 30 * time.Second

// showAndWait is a boot script that says who it runs for, then takes commands.
const showAndWait = "echo SCRIPT ${platform} ${net0/mac} ${net0/chip}\nshell\n"

// typeLine types a line at a firmware's prompt.
func typeLine(t *testing.T, n *lab.Node, s string) {
	t.Helper()
	if err := n.Console().Type(t.Context(), promptLimit, s); err != nil {
		t.Fatal(err)
	}
	if err := n.Console().SendLine(""); err != nil {
		t.Fatal(err)
	}
}

// packets returns the record of the main bridge, a line for each packet.
func packets(t *testing.T, l *labtest.Lab) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.LogDir(), lab.MainBridge+".pcap"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pcap.Summaries(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// A BIOS and a UEFI machine boot from the network at once; their consoles take
// input, their power does what it should.
func TestMachinesBootFromTheNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	l := labtest.New(t, lab.Options{})
	serveBoot(t, l, showAndWait)
	bios := l.Node(lab.NodeSpec{Name: "b", Memory: 256, NICs: []lab.NIC{{Model: "e1000"}}})
	uefi := l.Node(lab.NodeSpec{Name: "u", Memory: 256, Firmware: qemu.UEFI})
	l.Expect(bios, bootLimit, "iPXE", "SCRIPT pcbios "+bios.MAC().String())
	l.Expect(uefi, bootLimit, "PXE over IPv4", "iPXE", "SCRIPT efi "+uefi.MAC().String())

	for _, n := range []*lab.Node{bios, uefi} {
		typeLine(t, n, "echo typed ${net0.dhcp/dhcp-server}")
		l.Expect(n, promptLimit, "typed "+l.Addr().Addr().String())
		b, err := n.Screenshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(bytes.NewReader(b)); err != nil {
			t.Errorf("%s: picture: %v", n.Name(), err)
		}
	}

	record := packets(t, l)
	for _, want := range []string{
		"DHCP DISCOVER " + bios.MAC().String(), "DHCP DISCOVER " + uefi.MAC().String(), "arch=7",
		"TFTP RRQ snponly.efi", "TFTP RRQ boot.ipxe",
	} {
		if !strings.Contains(record, want) {
			t.Errorf("the packets' record lacks %q", want)
		}
	}

	if err := bios.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Expect(bios, bootLimit, "SeaBIOS", "SCRIPT pcbios")
	uefi.PowerCut()
	if uefi.Running() {
		t.Error("on after the plug was pulled")
	}
	if err := uefi.Reset(t.Context()); err == nil {
		t.Error("a machine that is off was reset")
	}
	if err := uefi.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Expect(uefi, bootLimit, "PXE over IPv4")
}

// A machine without a cable waits for one.
func TestUnpluggedCable(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	l := labtest.New(t, lab.Options{})
	serveBoot(t, l, showAndWait)
	n := l.Node(lab.NodeSpec{Name: "n", Memory: 64, NICs: []lab.NIC{{Model: "e1000", Unplugged: true}}})
	l.Expect(n, bootLimit, "iPXE 1", `\[Link:down`, "Waiting for link-up")
	if err := n.SetPlugged(t.Context(), 0, true); err != nil {
		t.Fatal(err)
	}
	l.Expect(n, bootLimit, "SCRIPT pcbios")
}

// QEMU's BIOS ROMs are iPXE, so the loader that other ROMs would fetch is chained
// by a script: it drives the card through the ROM's PXE stack as it would there.
func TestUndionlyChainedFromROM(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	l := labtest.New(t, lab.Options{})
	serveBoot(t, l, "iseq ${net0/chip} undionly || goto rom\n"+showAndWait+":rom\necho CHAIN from ${net0/chip}\nchain undionly.kpxe\n")
	n := l.Node(lab.NodeSpec{Name: "n", Memory: 256, NICs: []lab.NIC{{Model: "rtl8139"}}})
	l.Expect(n, bootLimit, "CHAIN from rtl8139", "undionly.kpxe", "SCRIPT pcbios "+n.MAC().String()+" undionly")
}

// A machine behind a relay boots from a server on another network; its switch
// port forwards late and its cable loses every tenth frame.
func TestRelayAndBadCable(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	const hold = 12 * time.Second
	l := labtest.New(t, lab.Options{})
	if err := l.AddBridge("far", netip.Prefix{}); err != nil {
		t.Fatal(err)
	}
	relay, err := l.AddHost("relay", lab.Port{Addr: netip.MustParsePrefix("10.77.0.2/24")}, lab.Port{Bridge: "far", Addr: netip.MustParsePrefix("10.78.0.1/24")})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{relay.NS().Forward(), l.NS().Route(netip.MustParsePrefix("10.78.0.0/24"), netip.MustParseAddr("10.77.0.2"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	serveBoot(t, l, showAndWait, "--dhcp-range=10.78.0.100,10.78.0.200,255.255.255.0,1h", "--dhcp-option=tag:far,option:router,10.78.0.1")
	_, err = relay.StartSpec(t.Context(), process.Spec{Name: "relay", Ready: &process.Ready{Line: dnsmasqReady},
		Argv: []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=root", "--log-facility=-",
			"--dhcp-relay=10.78.0.1,10.77.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	n := l.Node(lab.NodeSpec{Name: "n", Memory: 256, NICs: []lab.NIC{{Bridge: "far", Link: lab.Link{Loss: 0.1, Hold: hold}}}})
	// Firmware may give up when every tenth frame is lost: then it is asked again.
	for try := 1; ; try++ {
		_, which, err := n.Console().ExpectAny(t.Context(), bootLimit, "net0: 10.78.0", "No bootable device")
		if err != nil || try == 5 {
			t.Fatalf("no address in %d tries: %v", try, err)
		}
		if which == 0 {
			break
		}
		if err := n.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.Expect(n, bootLimit, "SCRIPT pcbios "+n.MAC().String())
	record := packets(t, l)
	if !strings.Contains(record, "giaddr=10.78.0.1") {
		t.Error("no packet went through the relay")
	}
	for _, line := range n.Console().Lines() {
		if strings.Contains(line.Text, "net0: 10.78.0") && line.At < hold {
			t.Errorf("an address after %v, though nothing was forwarded before %v", line.At, hold)
		}
	}
	if err := n.SetLink(0, lab.Link{Loss: 1}); err != nil {
		t.Error(err)
	}
}

// Disks: a USB stick boots on a machine that has no network, writes reach its file
// and not its base, and fail where faults were asked for.
func TestDisks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	labtest.Need(t, qemu.Program, "qemu-img")
	l := labtest.New(t, lab.Options{NoCapture: true, NoRouter: true})
	base, err := filepath.Abs("testdata/disk.bin")
	if err != nil {
		t.Fatal(err)
	}
	sector := int64(1)
	fault := []qemu.Fault{{Event: "write_aio", Errno: 5, Sector: &sector}}
	for i, c := range []struct {
		disk lab.Disk
		want string
	}{
		{lab.Disk{Bus: "usb"}, "WRITE OK"},
		{lab.Disk{Bus: "virtio"}, "WRITE OK"},
		{lab.Disk{Bus: "sata", Faults: fault}, "WRITE FAILED"},
		{lab.Disk{Bus: "nvme"}, "WRITE OK"},
	} {
		t.Run(fmt.Sprint(c.disk.Bus, len(c.disk.Faults)), func(t *testing.T) {
			c.disk.Base, c.disk.Size = base, 1<<20
			if c.disk.Faults != nil {
				// blkdebug counts sectors of the image as the format above
				// sees the file, so take a raw one.
				c.disk.Base, c.disk.File = "", filepath.Join(t.TempDir(), "disk")
				b, err := os.ReadFile(base)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(c.disk.File, append(b, make([]byte, 1<<20-512)...), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			n := l.Node(lab.NodeSpec{Name: fmt.Sprint("n", i), Memory: 64, NICs: []lab.NIC{}, Disks: []lab.Disk{c.disk}})
			if _, err := n.Console().Expect(t.Context(), bootLimit, "Booting from Hard Disk|Booting from", c.want); err != nil {
				t.Error(err)
			}
			n.PowerCut()
			if err := n.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			n.PowerCut()
		})
	}
	if b, err := os.ReadFile(base); err != nil || len(b) != 512 {
		t.Errorf("the base has %d bytes, %v: a machine wrote to it", len(b), err)
	}
}

// Firmware that enforces signatures starts Debian's shim and GRUB and refuses an
// unsigned loader.
func TestSecureBootIsEnforced(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	const shim, grub = "/usr/lib/shim/shimx64.efi.signed", "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"
	labtest.NeedFile(t, shim, grub)
	l := labtest.New(t, lab.Options{})
	serveBoot(t, l, "", "--dhcp-mac=set:signed,52:54:5a:1e:01:*", "--dhcp-boot=tag:signed,shimx64.efi")
	for name, file := range map[string]string{"shimx64.efi": shim, "grubx64.efi": grub} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l.Dir(), "tftp", name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	signed := l.Node(lab.NodeSpec{Name: "signed", Firmware: qemu.UEFISecure, Memory: 512})
	unsigned := l.Node(lab.NodeSpec{Name: "unsigned", Firmware: qemu.UEFISecure, Memory: 512})
	l.Expect(signed, bootLimit, "PXE over IPv4", "shimx64.efi", "grub>")
	l.Expect(unsigned, bootLimit, "PXE over IPv4", "snponly.efi", "Access Denied|Security Violation|failed")
}

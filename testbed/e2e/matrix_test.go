// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"cmp"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"slate/testbed/console"
	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/qemu"
)

var matrixRows = flag.String("matrix", "", "regular expression of the rows of the lab matrix to boot, as network/name; default: those of make test")

// chosen tells whether a row is booted.
func chosen(name string, always bool) bool {
	if *matrixRows == "" {
		return always
	}
	return regexp.MustCompile(*matrixRows).MatchString(name)
}

// row is a machine of the lab matrix: what it is, how it is connected, and what it
// shows on its way to the controller's first screen.
type row struct {
	network string // see networks
	name    string
	always  bool // a part of make test
	spec    lab.NodeSpec
	conf    string                          // a boot.conf of its own
	help    func(t *testing.T, n *lab.Node) // what else happens on the way
	shows   []string                        // before the last
	last    string                          // default: the first screen
	steps   []string                        // of its timeline
}

// How the kinds of firmware and the steps show themselves.
const (
	isROM       = `iPXE \(http`
	isPXE       = `PXE over IPv4`
	isHTTP      = `HTTP Boot over IPv4`
	isIPXE      = `iPXE 1\.`
	starts      = `Slate: \S+ starts demo/`
	firstScreen = `No system image was found on this machine\.`
)

var (
	romSteps  = []string{"dhcp done", "script done", "kernel done", "network done"}
	loadSteps = []string{"dhcp done", "loader done", "script done", "kernel done", "network done"}
)

// machines are the kinds of machines that boot in every network.
var machines = []row{
	{name: "BIOS virtio", spec: card("virtio-net-pci"), shows: []string{isROM, starts}, steps: romSteps},
	{name: "BIOS e1000", spec: card("e1000"), shows: []string{isROM, starts}, steps: romSteps},
	{name: "BIOS rtl8139", spec: card("rtl8139"), shows: []string{isROM, starts}, steps: romSteps},
	{name: "BIOS undionly", spec: card("e1000"), help: askAsPlainPXE, shows: []string{`undionly\.kpxe`, isIPXE, starts}, steps: loadSteps},
	{name: "UEFI PXE", spec: uefi(lab.NodeSpec{}), shows: []string{isPXE, isIPXE, starts}, steps: loadSteps},
	// The EFI ROM of QEMU's other cards is an iPXE, too.
	{name: "UEFI ROM e1000e", spec: uefi(card("e1000e")), shows: []string{isIPXE, starts}, steps: romSteps},
	{name: "UEFI HTTP", spec: lab.NodeSpec{Firmware: qemu.UEFI, UEFINet: map[string]bool{"ipv4": false, "ipv6": false}},
		shows: []string{isHTTP, isIPXE, starts}, steps: loadSteps},
	secureBoot,
}

// secureBoot is a machine with Microsoft's keys enforced. The kernel's messages are
// on the console from the start, "Secure boot enabled" with them.
var secureBoot = row{name: "Secure Boot", spec: lab.NodeSpec{Firmware: qemu.UEFISecure, UEFINet: map[string]bool{"ipv6": false}},
	conf:  "loader = \"grub\"\ncmdline = [\"loglevel=7\", \"panic=30\"]\n",
	shows: []string{isPXE, starts, `[Ss]ecure boot enabled`}, steps: loadSteps}

// others are the machines that boot in one network only.
var others = []row{
	{network: "server", name: "three cards, one link", steps: romSteps, shows: []string{`Link:down`, starts},
		spec: lab.NodeSpec{NICs: []lab.NIC{{Model: "e1000", Unplugged: true}, {Model: "rtl8139", Unplugged: true}, {Model: "virtio-net-pci"}}}},
	{network: "server", name: "three cards, one link, UEFI", steps: loadSteps, shows: []string{isPXE, isIPXE, starts},
		spec: uefi(lab.NodeSpec{NICs: []lab.NIC{{Unplugged: true}, {Unplugged: true}, {}}})},
	// The firmware waits for the switch, and the kernel's driver, which takes the
	// link down and up, makes the controller wait once more.
	{network: "server", name: "late link", steps: romSteps, help: holdAgain, conf: "cmdline = [\"loglevel=7\"]\n",
		spec: triesAgain(badLink(lab.NodeSpec{}, lab.Link{Hold: portHold}))},
	{network: "server", name: "late link, UEFI", steps: loadSteps, help: holdAgain,
		conf: "cmdline = [\"loglevel=7\"]\n", spec: badLink(uefi(lab.NodeSpec{}), lab.Link{Hold: portHold})},
	{network: "server", name: "loss", always: true, steps: romSteps, shows: []string{starts}, spec: badLink(lab.NodeSpec{}, lab.Link{Loss: 0.1})},
	{network: "server", name: "loss, UEFI", steps: loadSteps, shows: []string{isPXE, starts}, spec: badLink(uefi(lab.NodeSpec{}), lab.Link{Loss: 0.1})},
	// GRUB asks the server that the answer with the address names: it comes no
	// further than that, or boots, as the network's DHCP server says.
	{network: "proxy", name: "Secure Boot, astray", spec: secureBoot.spec, conf: secureBoot.conf,
		shows: []string{isPXE}, last: `Welcome to GRUB`, steps: []string{"dhcp done", "loader done", "loader note"}},
	inNetwork("next-server", secureBoot),
	// Debian 12 has no iPXE for arm64; what its firmware does with a loader shows
	// without one.
	{network: "server", name: "UEFI arm64", always: true, spec: lab.NodeSpec{Firmware: qemu.UEFIARM64}, steps: []string{"dhcp done", "loader done"},
		shows: []string{isPXE}, last: armMessage},
	{network: "arm64", name: "UEFI arm64 iPXE", spec: lab.NodeSpec{Firmware: qemu.UEFIARM64}, steps: []string{"dhcp done", "loader done", "script failed"},
		shows: []string{isPXE, isIPXE}, last: `is not started: demo/\S+ is for amd64, and this machine is UEFI arm64`},
}

// always are the rows of machines that make test boots: each kind of firmware.
// TestProxy boots beside another server, TestRelayedMachine behind a relay.
var always = []string{"server/BIOS e1000", "server/BIOS undionly", "server/UEFI HTTP", "server/Secure Boot"}

// networks are what there is between the machines and an appliance, each in a lab
// of its own.
var networks = []struct {
	name   string
	bridge string // the machines are on; "": the main one
	site   func(*testing.T) *site
}{
	{"server", "", serverNetwork},
	{"proxy", "", proxyNetwork},
	{"relay", farBridge, relayNetwork},
	{"relay and proxy", farBridge, relayedProxyNetwork},
	{"next-server", "", nextServerNetwork},
	{"arm64", "", armNetwork},
}

func inNetwork(name string, r row) row {
	r.network = name
	return r
}

func card(model string) lab.NodeSpec { return lab.NodeSpec{NICs: []lab.NIC{{Model: model}}} }

// uefi is a machine that does not try IPv6, which costs it a minute where there is none.
func uefi(s lab.NodeSpec) lab.NodeSpec {
	s.Firmware, s.UEFINet = qemu.UEFI, map[string]bool{"ipv6": false}
	return s
}

func badLink(s lab.NodeSpec, l lab.Link) lab.NodeSpec {
	s.NICs = []lab.NIC{{Link: l}}
	return s
}

// triesAgain is a BIOS that starts anew 5 s after no device could be booted, as
// real ones do after a minute or at once.
func triesAgain(s lab.NodeSpec) lab.NodeSpec {
	s.Extra = []string{"-boot", "reboot-timeout=5000"}
	return s
}

// matrix is all rows, their machines named, numbered and plugged in.
func matrix() []row {
	rows := slices.Clone(others)
	for _, n := range networks {
		for _, r := range machines {
			if n.name == "arm64" || n.name == "next-server" || strings.Contains(n.name, "proxy") && r.name == secureBoot.name {
				continue
			}
			r.network = n.name
			r.always = slices.Contains(always, n.name+"/"+r.name)
			rows = append(rows, r)
		}
	}
	for i := range rows {
		r := &rows[i]
		r.spec.Name = strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(r.name))
		r.spec.Boot = []string{"net"}
		r.spec.NICs = slices.Clone(r.spec.NICs)
		if r.spec.NICs == nil {
			r.spec.NICs = []lab.NIC{{}}
		}
		for k := range r.spec.NICs {
			r.spec.NICs[k].MAC = net.HardwareAddr{0x52, 0x54, 0x5a, byte(i), 0x01, byte(k)}
		}
		if r.last == "" {
			r.last = firstScreen
		}
	}
	return rows
}

// Whatever firmware and card a machine has, and whatever is between it and the
// appliance, it comes to the controller's first screen.
func TestMatrix(t *testing.T) {
	t.Parallel()
	rows := matrix()
	for _, n := range networks {
		mine := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.network != n.name || !chosen(r.network+"/"+r.name, r.always) })
		if len(mine) == 0 {
			continue
		}
		t.Run(n.name, func(t *testing.T) {
			t.Parallel()
			s := n.site(t)
			s.conf("system/boot.conf", "image = \"demo@stable\"\ntimeout = 0\n"+slowMachine) // the chooser waits for a person
			for _, r := range mine {
				for k := range r.spec.NICs {
					r.spec.NICs[k].Bridge = n.bridge
				}
				if r.conf != "" { // the node's name is made from its address
					s.conf("nodes/"+nodeName(r.spec.NICs[0].MAC)+"/system/boot.conf", r.conf)
				}
				t.Run(r.name, func(t *testing.T) {
					t.Parallel()
					r.boot(t, s.part(t))
				})
			}
			s.serve() // the machines start once this function has returned
		})
	}
}

func (r row) boot(t *testing.T, s *site) {
	start := time.Now()
	n := s.Node(r.spec)
	defer n.PowerCut()
	if r.help != nil {
		r.help(t, n)
	}
	s.Expect(n, bootLimit, append(slices.Clone(r.shows), r.last)...)
	t.Logf("%s/%s: %.0f s from power on", r.network, r.name, time.Since(start).Seconds())
	keepPicture(t, n)
	s.wantEvents(n, r.steps...)
}

// keepPicture puts a picture of what a person sees at the machine among the test's artifacts.
func keepPicture(t *testing.T, n *lab.Node) {
	png, err := n.Screenshot(t.Context())
	if err == nil {
		err = os.WriteFile(filepath.Join(t.ArtifactDir(), "screen.png"), png, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// askAsPlainPXE makes the iPXE that QEMU's cards have in their BIOS ROMs ask like
// any other PXE ROM, so that it is given the loader that others get, and starts it
// the way they do. It waits 2 seconds for Ctrl-B, which a busy host can sleep through:
// the key is pressed until it works, and the machine is reset if it never does.
func askAsPlainPXE(t *testing.T, n *lab.Node) {
	con := n.Console()
	shell := func() error {
		if _, err := con.Expect(t.Context(), bootLimit, `iPXE initialising`); err != nil {
			return err
		}
		var err error
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			if err := con.Send("\x02"); err != nil {
				return err
			}
			if _, err = con.Expect(t.Context(), 200*time.Millisecond, `iPXE>`); !errors.Is(err, console.ErrTimeout) {
				return err
			}
		}
		return err
	}
	err := shell()
	for range 3 {
		if err == nil {
			break
		}
		if err := n.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		err = shell()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"set user-class PXE", "autoboot"} {
		if err := con.Type(t.Context(), commandLimit, line); err != nil {
			t.Fatal(err)
		}
		if err := con.SendLine(""); err != nil {
			t.Fatal(err)
		}
	}
}

// portHold is for how long a switch port forwards nothing after its link came up.
const portHold = 35 * time.Second

// holdAgain makes the switch port wait anew when the controller takes the card, as
// one does when the kernel's driver takes the link down and up a moment earlier.
func holdAgain(t *testing.T, n *lab.Node) {
	if _, err := n.Console().Expect(t.Context(), bootLimit, `step network \(4/10\)`); err != nil {
		t.Fatal(err)
	}
	if err := n.SetLink(0, lab.Link{Hold: portHold}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Console().Expect(t.Context(), bootLimit, `waiting for a DHCP answer on .*, 2\d s`); err != nil {
		t.Fatal(err)
	}
}

// loader puts a loader of the site's own into its place.
func (s *site) loader(name string, content []byte) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "data/loaders")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func serverNetwork(t *testing.T) *site {
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.wantMode("server")
	s.loader("snponly-arm64.efi", armProgram())
	return s
}

// armNetwork has the iPXE for arm64 that Debian's package ipxe has from 13 on.
func armNetwork(t *testing.T) *site {
	ipxe := cmp.Or(os.Getenv("SLATE_IPXE_ARM64"), "/usr/lib/ipxe/ipxe-arm64.efi")
	b, err := os.ReadFile(ipxe)
	if err != nil {
		t.Skip("needs Debian 13's ipxe: ", err)
	}
	s := newSite(t, labtest.New(t, lab.Options{}))
	s.loader("snponly-arm64.efi", b)
	return s
}

func proxyNetwork(t *testing.T) *site { return besideServer(t) }

// nextServerNetwork has a DHCP server that names the appliance as the one to boot from.
func nextServerNetwork(t *testing.T) *site {
	return besideServer(t, "--dhcp-boot=,,10.77.0.1")
}

func besideServer(t *testing.T, more ...string) *site {
	l := labtest.New(t, lab.Options{})
	addressServer(t, l, more...)
	s := newSite(t, l)
	s.wantMode("proxy")
	return s
}

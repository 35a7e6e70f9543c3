// SPDX-License-Identifier: GPL-2.0-or-later

package machine_test

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"slate/installer/machine"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var serverKey = strings.Repeat("A", 43) + "="

var digest = strings.Repeat("0123456789abcdef", 4)

func TestParseCmdline(t *testing.T) {
	def := func(edit func(*machine.Settings)) machine.Settings {
		s := machine.Settings{
			Mode: machine.Ask, Choice: machine.ChooseDiskless, Timeout: 10 * time.Second,
			Measure: machine.Measure{Timeout: 2 * time.Second, Samples: 3}, Move: machine.MoveOnFailure,
			ModuleOptions: map[string][]string{}, Blacklist: map[string]bool{}, Speeds: map[string]int{},
		}
		edit(&s)
		return s
	}
	problem := func(want string) func(*machine.Settings) {
		return func(s *machine.Settings) { s.Problems = []string{"kernel command line: " + want} }
	}
	tests := []struct {
		name, line string
		want       machine.Settings
	}{
		{"empty", "", def(func(*machine.Settings) {})},
		{"only the kernel's own", "console=tty0 console=ttyS0,115200n8 console=ttyS1 console=,5 ro quiet panic=30", def(func(s *machine.Settings) {
			s.Speeds = map[string]int{"ttyS0": 115200, "": 5}
		})},
		{"all of the appliance's", "slate.server=http://10.77.0.1:8070 slate.node=lab-0a1b2c slate.boot=20a.1 slate.image=demo/1 slate.tree=" + digest +
			" slate.nfs=10.77.0.1:2049:/demo/" + digest + " slate.mode=diskless slate.choice=shell slate.timeout=0 BOOTIF=01-52-54-00-12-34-56",
			def(func(s *machine.Settings) {
				s.Server = &url.URL{Scheme: "http", Host: "10.77.0.1:8070"}
				s.Servers = []machine.Server{{URL: s.Server, Weight: 1}}
				s.Node, s.Boot, s.Image, s.Tree = "lab-0a1b2c", "20a.1", "demo/1", digest
				s.NFS = machine.Export{Server: netip.MustParseAddrPort("10.77.0.1:2049"), Path: "/demo/" + digest}
				s.Mode, s.Choice, s.Timeout = machine.Diskless, machine.ChooseShell, 0
				s.BootMAC = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}
			})},
		{"from the drive, for the last time", "slate.slot=b slate.disk=ABCD-1 panic=0 slate.last", def(func(s *machine.Settings) {
			s.Slot, s.Disk, s.Last = "b", "abcd-1", true
		})},
		{"the last one wins", "slate.mode=diskless slate.mode=ask", def(func(*machine.Settings) {})},
		{"several servers", "slate.server=http://10.0.0.1:8070,standby slate.server=http://10.0.0.2:8070 slate.server=http://10.0.0.2:8070,weight=3,key=" + serverKey +
			" slate.measure=5,1 slate.move=never", def(func(s *machine.Settings) {
			s.Server = &url.URL{Scheme: "http", Host: "10.0.0.1:8070"}
			s.Servers = []machine.Server{{URL: s.Server, Weight: 1, Standby: true}, {URL: &url.URL{Scheme: "http", Host: "10.0.0.2:8070"}, Weight: 3, Key: make([]byte, 32)}}
			s.Measure, s.Move = machine.Measure{Timeout: 5 * time.Second, Samples: 1}, machine.MoveNever
		})},
		{"server's bad weight", "slate.server=http://10.0.0.1:8070,weight=0", def(problem(`slate.server: "0" is not a weight between 1 and 1000`))},
		{"server's bad key", "slate.server=http://10.0.0.1:8070,key=x", def(problem(`slate.server: "x" is not a public key`))},
		{"server's unknown word", "slate.server=http://10.0.0.1:8070,fast", def(problem(`slate.server: "fast" is none of weight=, standby, key=`))},
		{"bad measure", "slate.measure=5", def(problem(`slate.measure: "5": want seconds,samples up to 30,20, taking 2,3`))},
		{"IPv6 server", "slate.nfs=[fd00::1]:2049:/demo/1", def(func(s *machine.Settings) {
			s.NFS = machine.Export{Server: netip.MustParseAddrPort("[fd00::1]:2049"), Path: "/demo/1"}
		})},
		{"quoted as the kernel does", `"slate.image=demo/1" slate.node="a"`, def(func(s *machine.Settings) { s.Image, s.Node = "demo/1", "a" })},
		{"words behind -- are init's", "slate.node=a -- slate.node=b", def(func(s *machine.Settings) { s.Node = "a" })},
		{"module options", "e1000e.IntMode=1 usbcore.quirks=a:b snd-hda.x modprobe.blacklist=nouveau,snd-hda", def(func(s *machine.Settings) {
			s.ModuleOptions = map[string][]string{"e1000e": {"IntMode=1"}, "usbcore": {"quirks=a:b"}, "snd_hda": {"x"}}
			s.Blacklist = map[string]bool{"nouveau": true, "snd_hda": true}
		})},
		{"BOOTIF without a type", "BOOTIF=52:54:00:12:34:56", def(func(s *machine.Settings) { s.BootMAC = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56} })},
		{"another init", "init=/bin/sh", def(func(s *machine.Settings) { s.Init = "/bin/sh" })},
		{"init outside", "init=/../sh", def(problem(`init: "/../sh" is not the path of a program`))},
		{"unknown word of ours", "slate.moed=ask", def(problem("slate.moed: unknown word, ignored"))},
		{"from its own disk", "slate.mode=installed slate.slot=b slate.disk=AB-cd-01 slate.install=now", def(func(s *machine.Settings) {
			s.Mode, s.Slot, s.Disk, s.Install = machine.Installed, "b", "ab-cd-01", true
		})},
		{"bad mode", "slate.mode=fast", def(problem(`slate.mode: "fast" is none of [ask diskless installed], taking "ask"`))},
		{"bad time", "slate.timeout=-1", def(problem(`slate.timeout: "-1" is not a number of seconds up to 86400, taking 10s`))},
		{"export with an option in it", "slate.nfs=10.0.0.1:2049:/a,rw", def(problem(`slate.nfs: "/a,rw" is not an export path`))},
		{"export without a port", "slate.nfs=10.0.0.1:/a", def(problem(`slate.nfs: "10.0.0.1:/a": want address:port:/path`))},
		{"node that is no host name", "slate.node=a_b", def(problem(`slate.node: "a_b" is not a host name`))},
		{"boot that leaves its place", "slate.boot=../../x", def(problem(`slate.boot: "../../x" is not an identity`))},
		{"tree that is too short", "slate.tree=abc", def(problem(`slate.tree: "abc" is not a digest of 64 hexadecimal digits`))},
		{"server of another kind", "slate.server=ftp://x", def(problem(`slate.server: "ftp://x": want http://address:port`))},
		{"BOOTIF of nothing", "BOOTIF=01-52", def(problem(`BOOTIF: "01-52" is not a hardware address like 01-52-54-00-12-34-56`))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := machine.ParseCmdline(tt.line)
			if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
				t.Errorf("ParseCmdline(%q) (- want, + got):\n%s", tt.line, d)
			}
		})
	}
}

// A command line can be anything: whatever it is, what comes out is fit to be put
// into mount options, URLs and host names.
func FuzzParseCmdline(f *testing.F) {
	f.Add("slate.nfs=10.77.0.1:2049:/demo/1 slate.node=a BOOTIF=01-52-54-00-12-34-56")
	f.Add(`"slate.server=http://[::1]:80" slate.timeout=99999999999 -- "`)
	f.Fuzz(func(t *testing.T, line string) {
		s := machine.ParseCmdline(line)
		if s.NFS.Server.IsValid() && (strings.ContainsAny(s.NFS.Path, ", \n\t") || !strings.HasPrefix(s.NFS.Path, "/")) {
			t.Errorf("export path %q", s.NFS.Path)
		}
		if strings.ContainsAny(s.Node+s.Boot, "/ \n\"") || len(s.Node) > 63 {
			t.Errorf("node %q, boot %q", s.Node, s.Boot)
		}
		if s.Timeout < 0 {
			t.Errorf("timeout %v", s.Timeout)
		}
		if s.Server != nil && s.Server.Host == "" {
			t.Errorf("server %v", s.Server)
		}
		again := machine.ParseCmdline(line)
		if d := cmp.Diff(s, again, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.IgnoreFields(machine.Settings{}, "Server")); d != "" {
			t.Errorf("not the same twice:\n%s", d)
		}
	})
}

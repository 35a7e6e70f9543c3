// SPDX-License-Identifier: GPL-2.0-or-later

// Package installer is the controller: everything between the kernel and the
// system's own init. It runs as /init of the initramfs and takes the machine
// through the steps that Stages lists; slate-init plan prints them.
//
// # Kernel parameters
//
//	slate.server=http://10.77.0.1:8070      an appliance; several words name several. The first one
//	                                        knows slate.boot. ,weight=N ,standby ,key=KEY may follow
//	slate.medium=ID                         the machine started from a stick or disc with this id
//	slate.measure=2,3                       seconds a server has to answer, questions to each
//	slate.move=failure|never                may the running machine report to another server?
//	slate.node=lab-0a1b2c                   node name; host name of the system
//	slate.boot=ID                           identity of this boot, for events
//	slate.image=demo/1                      version, for people
//	slate.tree=DIGEST                       digest of the tree list
//	slate.nfs=10.77.0.1:2049:/demo/DIGEST   where the root is
//	slate.mode=ask|diskless|installed       what to do without a local system
//	slate.install=now                       install, even if there is a local system
//	slate.slot=a|b slate.disk=GUID          which system of which drive the loader started
//	slate.last                              the loader found no tries left: this start must not restart by itself
//	slate.choice=diskless|shell|reboot|poweroff   the chooser's answer when nobody is there
//	slate.timeout=10                        seconds until then; 0: wait for a person
//	BOOTIF=01-52-54-00-12-34-56             the interface the firmware booted from
//	init=/bin/sh                            program to start in the root instead of /sbin/init
//	console=...                             all consoles show the boot and take keys
//	module.option=value, modprobe.blacklist=a,b   as modprobe reads them
//
// # Files of the initramfs
//
//	/init                            this program
//	/lib/modules/RELEASE/            modules, modules.dep, .alias, .softdep, .builtin
//	/lib/firmware/                   what drivers ask for
//	/etc/slate/site.pub              the site's public key
//	/etc/slate/*.sha256              digests of the files above
//
// # Files it leaves in the running system
//
//	/run/slate/facts                 who and what runs here, KEY=value lines
//	/run/slate/boot.log              what was on the screen
//	/run/slate/root                  the bare image, read-only
//	/run/slate/rw                    what was written since the start
//	/run/slate/user-data             what is kept over a restart, if there is a disk for it
//	/run/slate/lease.json            the DHCP lease, kept up by the agent
//	/run/slate/rw/slate-init         the agent's program; bin/slate-agent is a link to it
//	/run/slate/agent.sock            where the agent answers slate-agent
//	/run/slate/bundle, site.pub      the signed configuration of this start, and the site's key
//
// # Processes
//
// PID 1 only supervises: it starts the controller as its child, so that even a
// fault that the Go runtime does not survive (memory, a crash) ends in a message
// and a choice rather than in a kernel panic. When the child is done, PID 1
// switches the root, starts the agent and becomes the system's init.
package installer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"slate/installer/disk"
	"slate/installer/machine"
	"slate/installer/network"
	"slate/installer/root"
	"slate/installer/screen"
	"slate/installer/servers"
	"slate/installer/slot"
	"slate/netboot/api"
	"slate/netboot/config"
)

// RunDir is where the controller leaves its files in the running system.
const RunDir = "/run/slate"

// Boot is one start of a machine: what was asked for, what was found, what has
// happened so far. The stages fill it in order.
type Boot struct {
	Root     string // of /proc, /sys, ... in tests; "" is /
	Settings machine.Settings
	Args     []string // words the kernel left for init
	Console  *screen.Console
	Reporter *servers.Reporter
	Fleet    *servers.Fleet

	Identity    machine.Identity
	Memory      machine.Memory
	Loader      *machine.Loader
	Lease       network.Lease
	Lower       root.Lower       // what step system chose; the zero value: slate.nfs
	System      *System          // on a drive of this machine, that could be started; nil: none
	Local       *Local           // what is on the drive of ours; nil: there is none
	Cycle       slot.Cycle       // that began with this start, of an installed machine
	Drives      []disk.Drive     // as they were last looked at
	NoInstall   string           // why nothing can be installed; empty: it can
	Interrupted string           // an installation that did not come to its end
	ConfigDir   string           // on the boot partition; empty: none
	Config      *config.Node     // nil until step config
	UserData    machine.Mount    // the disk's user-data; the zero value: memory
	Ranked      []servers.Ranked // the servers, best first
	Medium      *Medium          // it started from; nil: from none, or it was not found
	Offline     error            // why there is no network, for a machine that may do without
	Changes     []root.Change
	Mounts      []machine.Mount
	Init        string // program in the new root

	Cycles []slot.Cycle // the records of earlier starts

	grant    string // the slot that gets one more try if the machine is well over the network
	bundle   []byte // the signed configuration, if it was fetched
	inForce  []byte // the signed configuration that holds; nil: the defaults
	confFrom string // where that comes from

	shipping sync.Once

	configRefused error    // why what the appliance sent does not count
	healthy       []string // services that a healthy start-up must have running

	restore []func() // undo what the kernel was told, before the hand-over

	mu    sync.Mutex
	step  api.Step
	note  string
	since time.Time // of the note
	log   strings.Builder
}

// maxOwnLog bounds the log kept for /run/slate/boot.log.
const maxOwnLog = 256 << 10

// printf writes to the consoles and to the log.
func (b *Boot) printf(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	b.mu.Lock()
	if b.log.Len() < maxOwnLog {
		fmt.Fprintf(&b.log, "[%8.2f] %s", machine.Uptime(), s)
	}
	c := b.Console
	b.mu.Unlock()
	if c != nil {
		fmt.Fprint(c, screen.Plain(strings.TrimSuffix(s, "\n"))+"\n")
	}
}

// Note tells what a step does or waits for now.
func (b *Boot) Note(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	b.mu.Lock()
	same := b.note == s
	if !same {
		b.note, b.since = s, time.Now()
	}
	step := b.step
	b.mu.Unlock()
	if !same {
		b.printf("slate:   %s\n", s)
		b.event(step, api.StateNote, s)
	}
}

// keys gives the keys pressed, nil before there is a console.
func (b *Boot) keys() <-chan screen.Key {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Console == nil {
		return nil
	}
	return b.Console.Keys()
}

func (b *Boot) begin(step api.Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.step, b.note, b.since = step, "", time.Now()
}

// waitingFor gives what the step waits for, and how long it has.
func (b *Boot) waitingFor() (string, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	what := b.note
	if what == "" {
		what = "still at it"
	}
	return what, time.Since(b.since)
}

func (b *Boot) event(step api.Step, state api.State, text string) {
	if b.Reporter != nil {
		b.Reporter.Add(api.Event{Step: step, State: state, Text: screen.Plain(text), Uptime: machine.Uptime()})
	}
}

// Log gives what happened so far, with times.
func (b *Boot) Log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// logFrom gives what the log holds from an offset on.
func (b *Boot) logFrom(from int64) []byte {
	text := b.Log()
	return []byte(text[min(from, int64(len(text))):])
}

// shipLog sends the log to the appliance while the controller runs; the agent goes on with it.
func (b *Boot) shipLog(ctx context.Context) {
	if b.Fleet.Usable() {
		b.shipping.Do(func() { go servers.ShipLog(ctx, b.logFrom, b.Fleet.PostLog) })
	}
}

// node is the machine's name: the one it was given, or one made from the address
// on its label, so that two unknown machines are told apart.
func (b *Boot) node() string {
	if b.Settings.Node != "" {
		return b.Settings.Node
	}
	mac := strings.ReplaceAll(or2(b.Lease.MAC, b.ownMAC()), ":", "")
	if len(mac) < 6 {
		return "node"
	}
	return "node-" + mac[len(mac)-6:]
}

// ownMAC is the address by which a machine is told from others, with a network or
// without: that of the card it was first booted from, else the lowest of its cards.
func (b *Boot) ownMAC() string {
	if len(b.Settings.BootMAC) > 0 {
		return b.Settings.BootMAC.String()
	}
	var out string
	for _, i := range network.List(b.Root) {
		if mac := i.MAC.String(); out == "" || mac < out {
			out = mac
		}
	}
	return out
}

// facts are the lines below the choices.
func (b *Boot) facts() []screen.Fact {
	var out []screen.Fact
	add := func(name, value string) {
		if value = strings.TrimSpace(value); value != "" {
			out = append(out, screen.Fact{Name: name, Value: value})
		}
	}
	add("Machine", strings.TrimSpace(b.Identity.Vendor+" "+b.Identity.Product+" "+b.Identity.Serial))
	if b.Lease.Address.IsValid() {
		add("Address", fmt.Sprintf("%s on %s (%s)", b.Lease.Address.Addr(), b.Lease.Interface, b.Lease.MAC))
	}
	if b.Settings.Server != nil {
		add("Server", b.Settings.Server.String())
	}
	tree := ""
	if len(b.Settings.Tree) >= 12 {
		tree = " (" + b.Settings.Tree[:12] + ")"
	}
	add("Image", b.Settings.Image+tree)
	return out
}

// factsFile is /run/slate/facts: plain KEY=value lines for people and scripts.
func (b *Boot) factsFile() string {
	var s strings.Builder
	line := func(k, v string) { fmt.Fprintf(&s, "SLATE_%s=%q\n", k, v) }
	line("NODE", b.node())
	line("BOOT", b.Settings.Boot)
	if b.Lower.Local() {
		line("MODE", "installed")
	} else {
		line("MODE", "diskless")
	}
	line("IMAGE", b.Settings.Image)
	line("TREE", b.Settings.Tree)
	if b.Settings.Server != nil {
		line("SERVER", b.Settings.Server.String())
	}
	line("ROOT", b.rootInput().Lower.String())
	line("INTERFACE", b.Lease.Interface)
	line("MAC", b.Lease.MAC)
	if b.Lease.Address.IsValid() {
		line("ADDRESS", b.Lease.Address.String())
	}
	line("OVERLAY", b.config().Tmpfs.Limit.Total)
	return s.String()
}

// path gives a system path below the root that tests replace.
func (b *Boot) path(p string) string { return filepath.Join(b.Root, p) }

func readText(name string) string {
	t, _ := os.ReadFile(name)
	return strings.TrimSpace(string(t))
}

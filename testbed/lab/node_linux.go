// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"slate/testbed/console"
	"slate/testbed/process"
	"slate/testbed/qemu"
)

// NodeSpec describes a machine of the lab. The zero value of a field is its
// default.
type NodeSpec struct {
	Name     string        // must be given, unique in the lab
	Firmware qemu.Firmware // default: BIOS
	Memory   int           // MiB; default: 1024
	CPUs     int           // default: 1
	NICs     []NIC         // default: one on the main bridge; empty: none
	Disks    []Disk
	Boot     []string        // see qemu.Config
	UEFINet  map[string]bool // see qemu.Config
	Clock    time.Time       // see qemu.Config
	// Kernel, Initrd and Append start a Linux kernel without firmware's help.
	Kernel, Initrd, Append string
	Extra                  []string // further arguments for QEMU

	// FailOn are what Expect gives up on; default: a kernel's panic.
	FailOn []*regexp.Regexp
}

// NIC is a network card of a machine.
type NIC struct {
	Model  string           // QEMU's device name; default: virtio-net-pci
	MAC    net.HardwareAddr // default: made from the numbers of machine and card
	ROM    string           // see qemu.NIC
	Bridge string           // default: MainBridge
	// Unplugged starts the machine with no cable in this card.
	Unplugged bool
	// Link, if not zero, makes the cable a bad one.
	Link Link
}

var defaultFailOn = []*regexp.Regexp{regexp.MustCompile(`Kernel panic - not syncing.*`)}

// ErrOff is the error of what cannot be done with a machine that is off.
var ErrOff = errors.New("the machine is off")

// Node is a machine of the lab. Its disks and UEFI variables live as long as the
// lab, whatever happens to its power.
type Node struct {
	Spec   NodeSpec // with the defaults filled in
	number int
	lab    *Lab
	hub    *Hub

	vars  string
	disks []qemu.Disk

	power sync.Mutex // held while power is switched

	mu      sync.Mutex
	vm      *qemu.VM // nil: off
	con     *console.Console
	started time.Time
	wires   []*wire // per card; nil: plugged in directly
	off     chan struct{}
}

// AddNode makes a machine, which is off, and its disks.
func (l *Lab) AddNode(s NodeSpec) (*Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &Node{lab: l, number: len(l.nodes) + 1, hub: newHub(), off: closedChan()}
	if s.Name == "" || slices.ContainsFunc(l.nodes, func(o *Node) bool { return o.Spec.Name == s.Name }) {
		return nil, fmt.Errorf("machine %d: the name %q is empty or taken", n.number, s.Name)
	}
	if s.NICs == nil {
		s.NICs = []NIC{{}}
	}
	s.NICs = slices.Clone(s.NICs)
	for i := range s.NICs {
		c := &s.NICs[i]
		if c.MAC == nil {
			// Locally administered, as QEMU's own; 0x5a1e is as near to
			// the project's name as hexadecimal gets.
			c.MAC = net.HardwareAddr{0x52, 0x54, 0x5a, 0x1e, byte(n.number), byte(i + 1)}
		}
		if c.Bridge == "" {
			c.Bridge = MainBridge
		}
		if c.Link != (Link{}) && c.Link.Seed == 0 {
			c.Link.Seed = uint64(n.number)<<8 | uint64(i)
		}
	}
	if s.FailOn == nil {
		s.FailOn = defaultFailOn
	}
	n.Spec = s
	var err error
	if n.disks, err = l.makeDisks(s); err != nil {
		return nil, fmt.Errorf("machine %s: %w", s.Name, err)
	}
	if n.vars, err = l.makeVars(s); err != nil {
		return nil, fmt.Errorf("machine %s: %w", s.Name, err)
	}
	l.nodes = append(l.nodes, n)
	return n, nil
}

// Nodes lists the machines in the order they were made.
func (l *Lab) Nodes() []*Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.nodes)
}

// makeVars gives a UEFI machine its own variables.
func (l *Lab) makeVars(s NodeSpec) (string, error) {
	_, template := s.Firmware.FirmwareFiles()
	if template == "" {
		return "", nil
	}
	b, err := os.ReadFile(template)
	if errors.Is(err, os.ErrNotExist) {
		pkg := "ovmf"
		if s.Firmware == qemu.UEFIARM64 {
			pkg = "qemu-efi-aarch64"
		}
		return "", &Error{fmt.Errorf("firmware: %w", err), "install the package " + pkg}
	} else if err != nil {
		return "", err
	}
	file := filepath.Join(l.dir, s.Name+".vars.fd")
	return file, os.WriteFile(file, b, 0o600)
}

// MAC is the address of the first network card; nil if there is none.
func (n *Node) MAC() net.HardwareAddr {
	if len(n.Spec.NICs) == 0 {
		return nil
	}
	return n.Spec.NICs[0].MAC
}

// UUID is what the machine's firmware tells as its identity, the same in each
// lab.
func (n *Node) UUID() string {
	id := n.MAC()
	if id == nil {
		id = net.HardwareAddr{0, 0, 0, 0, 0, byte(n.number)}
	}
	return fmt.Sprintf("51a7e000-0000-4000-8000-%x", []byte(id))
}

// Name is the machine's name.
func (n *Node) Name() string { return n.Spec.Name }

// Start switches the machine on. ctx bounds the start only.
func (n *Node) Start(ctx context.Context) error {
	n.power.Lock()
	defer n.power.Unlock()
	if n.Running() {
		return fmt.Errorf("machine %s: is on already", n.Name())
	}
	if err := n.newRecords(); err != nil {
		return fmt.Errorf("machine %s: %w", n.Name(), err)
	}
	conf, wires, err := n.config()
	closeFiles := func() {
		for _, c := range conf.NICs {
			if c.File != nil {
				c.File.Close() // QEMU has its own
			}
		}
	}
	if err == nil {
		err = n.run(ctx, conf, wires)
	}
	closeFiles()
	if err != nil {
		closeWires(wires)
		return fmt.Errorf("machine %s: %w", n.Name(), err)
	}
	return nil
}

// config plugs the machine's cables in and returns what QEMU needs.
func (n *Node) config() (qemu.Config, []*wire, error) {
	s := n.Spec
	c := qemu.Config{
		Name: s.Name, Firmware: s.Firmware, Memory: s.Memory, CPUs: s.CPUs, Accel: s.Firmware.Accel(),
		UUID: n.UUID(), Serial: "LAB-" + s.Name, Clock: s.Clock,
		Disks: n.disks, Boot: s.Boot, VarsFile: n.vars, UEFINet: s.UEFINet,
		Kernel: s.Kernel, Initrd: s.Initrd, Append: s.Append, Extra: s.Extra,
	}
	var wires []*wire
	for i, card := range s.NICs {
		q := qemu.NIC{Model: card.Model, MAC: card.MAC, ROM: card.ROM, Datagrams: card.Link != (Link{})}
		tap, err := openTap(n.lab.ns, n.tapName(i), !q.Datagrams)
		if err != nil {
			return c, wires, err
		}
		var w *wire
		q.File = tap
		if q.Datagrams {
			near, far, err := datagramPair()
			if err != nil {
				tap.Close()
				return c, wires, err
			}
			w, q.File = newWire(tap, near, card.Link), far
		}
		wires = append(wires, w)
		c.NICs = append(c.NICs, q)
		if !card.Unplugged {
			if err := n.lab.ns.Attach(n.tapName(i), card.Bridge); err != nil {
				return c, wires, err
			}
		}
	}
	return c, wires, nil
}

func (n *Node) tapName(i int) string { return fmt.Sprintf("tap%d-%d", n.number, i) }

// run starts QEMU and what belongs to a machine that is on.
func (n *Node) run(ctx context.Context, conf qemu.Config, wires []*wire) error {
	var logs [3]*os.File
	for i, suffix := range []string{".console.log", ".console.raw", ".qemu.log"} {
		f, err := n.lab.logFile(n.Name() + suffix)
		if err != nil {
			return err
		}
		logs[i] = f
	}
	var vm *qemu.VM
	err := n.lab.bounded(ctx, func(life context.Context) (err error) {
		spec := process.Spec{Log: logs[2], NS: n.lab.ns, PIDNS: n.lab.janitor.pidns}
		vm, err = qemu.Start(life, conf, spec, nil)
		return err
	})
	if err != nil {
		return err
	}
	for i, c := range n.Spec.NICs {
		if c.Unplugged {
			if err := vm.SetLink(ctx, i, false); err != nil {
				vm.Kill()
				return err
			}
		}
	}
	off := make(chan struct{})
	n.mu.Lock()
	n.vm, n.wires, n.off, n.started = vm, wires, off, time.Now()
	con := console.New(vm.Serial(), console.Options{Log: logs[0], Raw: io.MultiWriter(logs[1], n.hub), FailOn: n.Spec.FailOn})
	n.con = con
	n.mu.Unlock()
	n.hub.plug(vm.Serial())
	n.lab.owned.Go(func() {
		<-vm.Process().Done()
		<-con.Done()
		n.hub.plug(nil)
		vm.Serial().Close()
		vm.Kill() // is dead; this closes the monitor
		closeWires(wires)
		n.mu.Lock()
		n.vm, n.wires = nil, nil
		n.mu.Unlock()
		close(off)
		n.lab.log.Info("off", "node", n.Name())
	})
	n.lab.log.Info("on", "node", n.Name(), "firmware", conf.Firmware, "accel", conf.Accel)
	return nil
}

func closeWires(wires []*wire) {
	for _, w := range wires {
		if w != nil {
			w.close()
		}
	}
}

// Running tells whether the machine is on.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.vm != nil
}

// Uptime is how long the machine has been on, 0 if it is off.
func (n *Node) Uptime() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.vm == nil {
		return 0
	}
	return time.Since(n.started)
}

// Console is the serial line since the last power-on; nil before the first.
func (n *Node) Console() *console.Console {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.con
}

// Hub is where people attach to the serial line.
func (n *Node) Hub() *Hub { return n.hub }

// VM is the machine itself, or nil if it is off.
func (n *Node) VM() *qemu.VM {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.vm
}

// Wait waits until the machine is off.
func (n *Node) Wait(ctx context.Context) error {
	n.mu.Lock()
	off := n.off
	n.mu.Unlock()
	select {
	case <-off:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("machine %s: still on: %w", n.Name(), context.Cause(ctx))
	}
}

// PowerOff presses the power button and waits until the machine is off. One whose
// system does not react stays on until ctx ends, and longer.
func (n *Node) PowerOff(ctx context.Context) error {
	if err := n.do(func(vm *qemu.VM) error { return vm.PressPower(ctx) }); err != nil {
		return err
	}
	return n.Wait(ctx)
}

// PowerCut pulls the machine's plug. It is off when PowerCut returns.
func (n *Node) PowerCut() {
	n.power.Lock()
	defer n.power.Unlock()
	n.mu.Lock()
	vm, off := n.vm, n.off
	n.mu.Unlock()
	if vm != nil {
		vm.Kill()
		<-off
	}
}

// Reset presses the reset button.
func (n *Node) Reset(ctx context.Context) error {
	return n.do(func(vm *qemu.VM) error { return vm.Reset(ctx) })
}

// Screenshot returns a PNG picture of the machine's screen.
func (n *Node) Screenshot(ctx context.Context) (png []byte, err error) {
	err = n.do(func(vm *qemu.VM) (err error) { png, err = vm.Screenshot(ctx); return err })
	return png, err
}

// SetPlugged plugs the cable of card i in or pulls it.
func (n *Node) SetPlugged(ctx context.Context, i int, plugged bool) error {
	return n.do(func(vm *qemu.VM) error {
		var err error
		if plugged {
			err = n.lab.ns.Attach(n.tapName(i), n.Spec.NICs[i].Bridge)
		} else {
			err = n.lab.ns.Detach(n.tapName(i))
		}
		return errors.Join(err, vm.SetLink(ctx, i, plugged))
	})
}

// SetLink changes the cable of card i, which must have been a bad one at
// power-on.
func (n *Node) SetLink(i int, l Link) error {
	return n.do(func(*qemu.VM) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if i >= len(n.wires) || n.wires[i] == nil {
			return fmt.Errorf("machine %s: card %d was started on a perfect link", n.Name(), i)
		}
		n.wires[i].set(l)
		return nil
	})
}

// do calls f with the machine, if it is on.
func (n *Node) do(f func(*qemu.VM) error) error {
	vm := n.VM()
	if vm == nil {
		return fmt.Errorf("machine %s: %w", n.Name(), ErrOff)
	}
	return f(vm)
}

func closedChan() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

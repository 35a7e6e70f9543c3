// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"context"
	"fmt"
	"net/netip"

	"slate/testbed/netns"
	"slate/testbed/process"
)

// Host is a computer of the lab that is no virtual machine: a network namespace
// with interfaces on some of the bridges. It serves as a relay, a router, a rival
// server or a client.
type Host struct {
	Name string
	lab  *Lab
	ns   *netns.NS
}

// Port is a host's interface on a bridge.
type Port struct {
	Bridge string       // default: MainBridge
	Name   string       // default: eth0, eth1, … in order
	Addr   netip.Prefix // default: none
}

// AddHost makes a host.
func (l *Lab) AddHost(name string, ports ...Port) (*Host, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	l.mu.Lock()
	l.hosts = append(l.hosts, &Host{name, l, ns})
	number := len(l.hosts)
	h := l.hosts[number-1]
	l.mu.Unlock()
	for i, p := range ports {
		if err := h.addPort(fmt.Sprintf("host%d-%d", number, i), i, p); err != nil {
			return nil, fmt.Errorf("host %s: %w", name, err)
		}
	}
	return h, nil
}

func (h *Host) addPort(plug string, i int, p Port) error {
	if p.Bridge == "" {
		p.Bridge = MainBridge
	}
	if p.Name == "" {
		p.Name = fmt.Sprintf("eth%d", i)
	}
	if err := h.lab.ns.Veth(plug, h.ns, p.Name); err != nil {
		return err
	}
	if err := h.lab.ns.Attach(plug, p.Bridge); err != nil {
		return err
	}
	if !p.Addr.IsValid() {
		return nil
	}
	return h.ns.Address(p.Name, p.Addr)
}

// NS is the host's network namespace.
func (h *Host) NS() *netns.NS { return h.ns }

// Start runs a program on the host, as Lab.Start does in the lab.
func (h *Host) Start(ctx context.Context, name string, argv ...string) (*process.Process, error) {
	return h.StartSpec(ctx, process.Spec{Name: name, Argv: argv})
}

// StartSpec is Start with all that can be said about a program.
func (h *Host) StartSpec(ctx context.Context, s process.Spec) (*process.Process, error) {
	s.NS = h.ns
	return h.lab.StartSpec(ctx, s)
}

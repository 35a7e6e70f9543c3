// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"slate/dhcp"
	"slate/dhcp/leases"
	"slate/dhcp/radv"
	"slate/netboot/api"
	"slate/netboot/boot"
)

// The ports of DHCP servers, and of proxyDHCP's second question (PXE
// specification 2.1, section 2.2).
const (
	portDHCP  = 67
	portProxy = 4011
)

// listenDHCP opens the ports of the mode: 67 for a server, 67 and 4011 for a proxy.
func (s *Server) listenDHCP(ctx context.Context) ([]*dhcp.Conn, error) {
	var ports []int
	switch s.Settings.DHCP.Mode {
	case DHCPServer:
		ports = []int{portDHCP}
	case DHCPProxy:
		ports = []int{portDHCP, portProxy}
	}
	var conns []*dhcp.Conn
	for _, n := range s.local() {
		for _, port := range ports {
			c, err := dhcp.Listen(ctx, n.iface, port)
			if err != nil {
				return conns, fmt.Errorf("dhcp: %w", err)
			}
			conns = append(conns, c)
		}
	}
	return conns, nil
}

func (s *Server) serveDHCP(ctx context.Context) error {
	if s.Settings.DHCP.Mode == DHCPProxy {
		p := &dhcp.Proxy{Booter: booter{s}, Events: s.dhcpEvent, Log: s.Log}
		return p.Serve(ctx, s.dhcp...)
	}
	subnets, err := s.subnets()
	if err != nil {
		return err
	}
	store, err := leases.Open(filepath.Join(s.Settings.Data, "leases.db"), s.Log)
	if err != nil {
		return err
	}
	defer store.Close()
	d := &dhcp.Server{Subnets: subnets, Leases: store, Booter: booter{s}, Hosts: &hosts{Server: s}, Events: s.dhcpEvent, Log: s.Log}
	return d.Serve(ctx, s.dhcp...)
}

// booter gives the boot decision to the DHCP engines.
type booter struct{ *Server }

// Boot decides which loader the client is told.
func (b booter) Boot(_ context.Context, c dhcp.Client) (dhcp.Boot, bool) {
	client := bootClient(c)
	if c.UserClass != dhcp.ProbeClass { // slate doctor gets an answer always
		f := factsOf(c)
		n, _ := b.nodeOf(b.site.current(), f)
		switch {
		case b.unwanted(f):
			b.stranger(c)
			return dhcp.Boot{Reason: reasonUnknown}, false
		case b.ignored(n):
			return dhcp.Boot{Reason: boot.ReasonIgnored}, false
		}
		if !c.IPXE {
			client.Loader = b.configOf(n).Boot.Loader
		}
	}
	self := b.on(c.Interface)
	l, ok := boot.ChooseLoader(client, b.bootServer(self))
	return dhcp.Boot{NextServer: self, File: l.File, URL: l.URL, Reason: l.Reason}, ok
}

func bootClient(c dhcp.Client) boot.Client {
	return boot.Client{Arch: boot.Arch(c.Arch), PXE: c.PXE, HTTPClient: c.HTTPClient, IPXE: c.IPXE}
}

// dhcpEvent puts a machine's DHCP conversation into its timeline. A machine that
// only asks for an address is no node of ours; if it is one, its system runs.
func (s *Server) dhcpEvent(ev dhcp.Event) {
	if ev.Kind == dhcp.EventRival {
		s.rivals.add(*ev.Rival, time.Now())
		return
	}
	c := ev.Client
	if c.UserClass == dhcp.ProbeClass {
		return // slate doctor, not a machine
	}
	mac := c.MAC.String()
	if !c.WantsBoot() {
		if ev.Kind == dhcp.EventAck && ev.Addr.IsValid() {
			s.nodes.Moved(mac, ev.Addr.String())
		}
		return
	}
	if ev.Kind == dhcp.EventRequest && s.Settings.DHCP.Mode == DHCPProxy && ev.Addr.IsValid() {
		s.nodes.Moved(mac, ev.Addr.String()) // of the network's server: behind a relay there is no other way to know it
		return
	}
	e := api.Event{Step: api.StepDHCP}
	if c.IPXE {
		s.ipxeSeen.Store(mac, time.Now())
	}
	switch ev.Kind {
	case dhcp.EventOffer:
		e.State = api.StateStart
	case dhcp.EventAck, dhcp.EventProxy:
		e.State = api.StateDone
	case dhcp.EventNak, dhcp.EventSilence, dhcp.EventConflict, dhcp.EventDecline:
		e.State = api.StateNote
		e.Text = string(ev.Kind) + ": " + ev.Reason
	default:
		return
	}
	f := factsOf(c)
	if s.unwanted(f) {
		return
	}
	if c.ArchKnown {
		f.Firmware = boot.Arch(c.Arch).String()
	}
	if ev.Addr.IsValid() {
		f.Address = ev.Addr.String()
	}
	if s.ignores(f) {
		s.nodes.Seen(f)
		return
	}
	if e.Text == "" {
		e.Text = c.Kind() + ": " + cmp.Or(ev.Boot.File, ev.Boot.URL, ev.Boot.Reason)
		if f.Address != "" && ev.Kind == dhcp.EventAck {
			e.Text += ", address " + f.Address
		}
	}
	s.nodes.Firmware(f, e)
}

// ipxeWait is for how long after its DHCP request a machine's iPXE may still be
// waiting for an IPv6 router.
const ipxeWait = 30 * time.Second

// serveRouterAdvertisements spares machines whose iPXE has just asked for an
// address the wait for an IPv6 router. Without IPv6 on the interface they wait.
func (s *Server) serveRouterAdvertisements(ctx context.Context, iface string) error {
	conn, err := radv.Listen(iface)
	if err != nil {
		s.Log.Info("machines with iPXE wait some seconds for an IPv6 router", "why", err)
	}
	for errors.Is(err, radv.ErrNoIPv6) { // the address comes a little after the interface
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Second):
		}
		conn, err = radv.Listen(iface)
	}
	if err != nil {
		return nil // logged above; it only makes booting slower
	}
	r := &radv.Responder{Log: s.Log, Wants: func(mac net.HardwareAddr) bool {
		seen, ok := s.ipxeSeen.Load(mac.String())
		if ok && time.Since(seen.(time.Time)) > ipxeWait {
			s.ipxeSeen.Delete(mac.String())
			return false
		}
		return ok
	}}
	return r.Serve(ctx, conn)
}

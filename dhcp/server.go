// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"slate/dhcp/leases"
)

// Server is a full DHCP server that also tells machines what to boot. Set its
// fields, then call Serve once.
type Server struct {
	Subnets []Subnet      // at least one
	Leases  *leases.Store // nil: in memory, forgotten at the end. The caller closes it after Serve.
	Booter  Booter        // nil: nobody boots, addresses only
	Hosts   Hosts         // what is known of single machines; nil: nothing
	Events  func(Event)   // called for each step, from several goroutines; must be quick. Nil: nobody looks
	Log     *slog.Logger  // nil: silent

	// SkipProbe leaves out the ARP question whether somebody uses an address
	// already, before it is offered to a machine that did not have it last. The
	// question costs the first boot of a machine about a third of a second.
	SkipProbe bool

	// ByClientID makes the client identifier (option 61) tell machines apart, as
	// RFC 2131 has it. By default the MAC does: firmware, iPXE and the running
	// system each send another identifier, and would take three addresses.
	ByClientID bool
}

// Subnet is one network with the addresses to give there.
type Subnet struct {
	Interface string       // on which its machines are heard; "": only through relays
	Server    netip.Addr   // our address as these machines reach it; also the server identifier
	Prefix    netip.Prefix // the subnet
	First     netip.Addr   // the range for everybody, both ends included;
	Last      netip.Addr   // both invalid: only machines with a fixed address are served

	Gateway   netip.Addr // invalid: none
	DNS       []netip.Addr
	Domain    string
	NTP       []netip.Addr
	LeaseTime time.Duration    // 0: 12 hours
	Options   map[uint8][]byte // others, by code, ready for the wire; go to clients that ask for them
}

// DefaultLeaseTime is the lease time of a subnet that names none: a working day,
// so that a machine that is used daily keeps its address and a lent one does not.
const DefaultLeaseTime = 12 * time.Hour

// declineTime is for how long an address that is in use unasked is left alone.
const declineTime = time.Hour

func (n Subnet) check() error {
	switch {
	case !n.Prefix.IsValid() || !n.Prefix.Addr().Is4():
		return fmt.Errorf("subnet %v: not an IPv4 prefix", n.Prefix)
	case !n.Server.Is4():
		return fmt.Errorf("subnet %v: the server's address is missing", n.Prefix.Masked())
	case n.Interface != "" && !n.Prefix.Contains(n.Server):
		return fmt.Errorf("subnet %v on %s: the server's address %v is not in it", n.Prefix.Masked(), n.Interface, n.Server)
	case n.Gateway.IsValid() && !n.Prefix.Contains(n.Gateway):
		return fmt.Errorf("subnet %v: the gateway %v is not in it", n.Prefix.Masked(), n.Gateway)
	case n.LeaseTime < 0 || n.LeaseTime > 0 && n.LeaseTime < 4*time.Second:
		return fmt.Errorf("subnet %v: lease time %v is too short to renew in", n.Prefix.Masked(), n.LeaseTime)
	}
	return nil
}

// Serve answers what comes in on the connections until ctx is cancelled, and
// then returns nil. It does not close them.
func (s *Server) Serve(ctx context.Context, conns ...*Conn) error {
	e, err := s.engine()
	if err != nil {
		return err
	}
	for _, n := range s.Subnets {
		if n.Interface != "" && !hasConn(conns, n.Interface) {
			return fmt.Errorf("subnet %v: nothing listens on its interface %s", n.Prefix.Masked(), n.Interface)
		}
	}
	return serve(ctx, e.out, conns, handler{one: e.handle, all: e.store.Flush, crew: e.crew})
}

func hasConn(conns []*Conn, iface string) bool {
	for _, c := range conns {
		if c.Name() == iface && c.port == portServer {
			return true
		}
	}
	return false
}

// engine is a Server at work.
type engine struct {
	*Server
	out     *outlet
	crew    *crew
	subnets []*subnet
	store   *leases.Store
	probes  singleflight
	now     func() time.Time
}

// subnet is a Subnet at work.
type subnet struct {
	Subnet
	pool *leases.Pool
}

func (s *Server) engine() (*engine, error) {
	if len(s.Subnets) == 0 {
		return nil, errors.New("DHCP server without a subnet")
	}
	e := &engine{Server: s, out: newOutlet(s.Log, s.Events), crew: newCrew(), now: time.Now}
	if e.store = s.Leases; e.store == nil {
		e.store = leases.NewMemory()
	}
	for _, n := range s.Subnets {
		if err := n.check(); err != nil {
			return nil, err
		}
		if n.Interface != "" && e.subnetOn(n.Interface) != nil {
			return nil, fmt.Errorf("subnet %v: interface %s has another subnet already", n.Prefix.Masked(), n.Interface)
		}
		if n.LeaseTime == 0 {
			n.LeaseTime = DefaultLeaseTime
		}
		pool, err := e.store.Pool(leases.Range{Prefix: n.Prefix, First: n.First, Last: n.Last, Reserved: func(a netip.Addr) bool {
			return a == n.Server || a == n.Gateway || s.Hosts != nil && s.Hosts.Reserved(a)
		}})
		if err != nil {
			return nil, err
		}
		e.subnets = append(e.subnets, &subnet{n, pool})
	}
	return e, nil
}

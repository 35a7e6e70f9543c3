// SPDX-License-Identifier: GPL-2.0-or-later

package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// VendorClass is what we call ourselves in DHCP.
const VendorClass = "slate-init"

// Client asks DHCP servers for an address on one interface.
type Client struct {
	Interface Interface
	Hostname  string
	// Conn makes the packet connection; nil: a packet socket on the interface.
	Conn func() (net.PacketConn, error)
	// First is the time before the first repetition, which then doubles up to
	// eight times of it; 0: one second.
	First time.Duration
	// Note is told what is being waited for; may be nil.
	Note func(format string, a ...any)
}

func (c Client) note(format string, a ...any) {
	if c.Note != nil {
		c.Note(format, a...)
	}
}

func (c Client) options() []dhcpv4.Modifier {
	mods := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(VendorClass)),
		// The form iPXE uses: the server then sees one client and not two.
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, c.Interface.MAC...))),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionClasslessStaticRoute,
			dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionHostName,
			dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers, dhcpv4.OptionIPAddressLeaseTime,
			dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue),
	}
	if c.Hostname != "" {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptHostName(c.Hostname)))
	}
	return mods
}

func (c Client) open() (*nclient4.Client, error) {
	var conn net.PacketConn
	var err error
	if c.Conn != nil {
		conn, err = c.Conn()
	} else {
		conn, err = nclient4.NewRawUDPConn(c.Interface.Name, nclient4.ClientPort)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Interface, err)
	}
	// One try per SendAndRead: the pauses between tries are ours, with jitter.
	return nclient4.NewWithConn(conn, c.Interface.MAC, nclient4.WithRetry(1), nclient4.WithTimeout(time.Hour))
}

// ErrNoAnswer means that nobody offered an address.
var ErrNoAnswer = errors.New("no DHCP server answered")

// ErrRefused means that the server took the address back (NAK): start anew.
var ErrRefused = errors.New("the DHCP server refused the address")

// Acquire gets an address: DISCOVER, OFFER, REQUEST, ACK, repeated with growing
// jittered pauses until ctx ends.
func (c Client) Acquire(ctx context.Context) (Lease, error) {
	cl, err := c.open()
	if err != nil {
		return Lease{}, err
	}
	defer cl.Close()
	last := ErrNoAnswer
	for try := 0; ; try++ {
		l, err := c.attempt(ctx, cl, c.pause(try))
		if err == nil {
			return l, nil
		}
		if ctx.Err() != nil {
			return Lease{}, fmt.Errorf("%s: %w", c.Interface, last)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			last = err
			c.note("%s: %v", c.Interface.Name, err)
			if !sleep(ctx, c.pause(try)) {
				return Lease{}, fmt.Errorf("%s: %w", c.Interface, last)
			}
		}
	}
}

// pause is RFC 2131's doubling, from one second rather than four: links that are
// ready answer at once, and a room of machines is spread by the jitter.
func (c Client) pause(try int) time.Duration {
	base := c.first() << min(try, 3)
	return base*3/4 + rand.N(base/2)
}

func (c Client) first() time.Duration {
	if c.First == 0 {
		return time.Second
	}
	return c.First
}

// offers accepts an OFFER that has an address. A proxyDHCP server answers too,
// with an OFFER of its own that has boot data and no address, often first.
func offers(p *dhcpv4.DHCPv4) bool {
	_, addr := hostAddr(p.YourIPAddr)
	_, server := hostAddr(p.ServerIdentifier())
	return p.MessageType() == dhcpv4.MessageTypeOffer && addr && server
}

func (c Client) attempt(ctx context.Context, cl *nclient4.Client, wait time.Duration) (Lease, error) {
	discover, err := dhcpv4.NewDiscovery(c.Interface.MAC, c.options()...)
	if err != nil {
		return Lease{}, err
	}
	octx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	offer, err := cl.SendAndRead(octx, nclient4.DefaultServers, discover, offers)
	if err != nil {
		return Lease{}, err
	}
	c.note("%s: %v offers %v", c.Interface.Name, offer.ServerIdentifier(), offer.YourIPAddr)
	request, err := dhcpv4.NewRequestFromOffer(offer, c.options()...)
	if err != nil {
		return Lease{}, err
	}
	rctx, cancel := context.WithTimeout(ctx, max(wait, 8*c.first()))
	defer cancel()
	return c.finish(rctx, cl, nclient4.DefaultServers, request, offer.ServerIdentifier())
}

func (c Client) finish(ctx context.Context, cl *nclient4.Client, to *net.UDPAddr, request *dhcpv4.DHCPv4, server net.IP) (Lease, error) {
	match := func(p *dhcpv4.DHCPv4) bool {
		t := p.MessageType()
		return (t == dhcpv4.MessageTypeAck || t == dhcpv4.MessageTypeNak) && (server == nil || p.ServerIdentifier().Equal(server))
	}
	var ack *dhcpv4.DHCPv4
	for try := 0; ack == nil; try++ {
		tctx, cancel := context.WithTimeout(ctx, c.pause(try))
		p, err := cl.SendAndRead(tctx, to, request, match)
		cancel()
		if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return Lease{}, err
		}
		ack = p
	}
	if ack.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, fmt.Errorf("%w: %q", ErrRefused, ack.Message())
	}
	l, err := NewLease(ack, time.Now())
	if err != nil {
		return Lease{}, err
	}
	l.Interface, l.Index, l.MAC = c.Interface.Name, c.Interface.Index, c.Interface.MAC.String()
	return l, nil
}

// Extend asks for more time: the server that gave the lease, or all of them.
func (c Client) Extend(ctx context.Context, l Lease, a Action) (Lease, error) {
	old, err := dhcpv4.FromBytes(l.ACK)
	if err != nil {
		return Lease{}, fmt.Errorf("lease: %w", err)
	}
	to, server := nclient4.DefaultServers, net.IP(nil)
	if a == Renew {
		to, server = &net.UDPAddr{IP: l.Server.AsSlice(), Port: nclient4.ServerPort}, l.Server.AsSlice()
		if c.Conn == nil {
			// Renewal goes from our address to the server's, through the kernel and its routes.
			c.Conn = func() (net.PacketConn, error) {
				return net.ListenUDP("udp4", &net.UDPAddr{IP: l.Address.Addr().AsSlice(), Port: nclient4.ClientPort})
			}
		}
	}
	cl, err := c.open()
	if err != nil {
		return Lease{}, err
	}
	defer cl.Close()
	request, err := dhcpv4.NewRenewFromAck(old, c.options()...)
	if err != nil {
		return Lease{}, err
	}
	rctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	n, err := c.finish(rctx, cl, to, request, server)
	if err != nil {
		return Lease{}, err
	}
	if n.Address.Addr() != l.Address.Addr() {
		return Lease{}, fmt.Errorf("%w: it answered with %v", ErrRefused, n.Address.Addr())
	}
	return n, nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ProbeTime is how long Probe listens, unless its context ends earlier. Servers
// that ping an address before they offer it take up to three seconds.
const ProbeTime = 4 * time.Second

// Probe asks on the interface who answers DHCP there and lists them by address.
// The interface must be up, but needs no address of its own. It asks as a plain
// machine, a BIOS and a UEFI PXE client, since many servers answer only some of
// these, with a made-up hardware address, always the same, so that repeating it
// uses up nothing. A server on this very machine does not hear it.
func Probe(ctx context.Context, iface string) ([]Rival, error) {
	fail := func(err error) ([]Rival, error) {
		return nil, &ListenError{iface, portClient, err, listenHint(iface, portClient, err)}
	}
	ifi, err := net.InterfaceByName(iface)
	switch {
	case err != nil:
		return fail(errNoInterface)
	case ifi.Flags&net.FlagUp == 0:
		return fail(errInterfaceDown)
	case len(ifi.HardwareAddr) != 6:
		return nil, fmt.Errorf("look for DHCP servers on %s: not an Ethernet interface", iface)
	}
	filter, err := bpf.Assemble(fromServers)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(ifi, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return fail(cause(err))
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, ProbeTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	p := probe{iface: iface, conn: conn, found: map[netip.Addr]Rival{}}
	if p.questions, err = questions(ifi.HardwareAddr); err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() { sent <- p.ask(ctx) }()
	err = p.listen(ctx)
	cancel()
	if err := errors.Join(err, <-sent); err != nil {
		return nil, fmt.Errorf("look for DHCP servers on %s: %w", iface, err)
	}
	return p.list(), nil
}

type probe struct {
	iface     string
	conn      *packet.Conn
	questions []*dhcpv4.DHCPv4
	found     map[netip.Addr]Rival
}

// questions are the DISCOVERs of the kinds of machines there are.
func questions(mac net.HardwareAddr) ([]*dhcpv4.DHCPv4, error) {
	made := slices.Clone(mac)
	made[0] = made[0]&^1 | 2 // locally administered
	made[5] ^= 0x55          // apart from a real one that has the bit set already
	var list []*dhcpv4.DHCPv4
	for _, class := range []string{"", "PXEClient:Arch:00000:UNDI:002001", "PXEClient:Arch:00007:UNDI:003016"} {
		p := &dhcpv4.DHCPv4{
			OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: made, NumSeconds: 4,
			Options: dhcpv4.Options{
				dhcpv4.OptionDHCPMessageType.Code():        {byte(dhcpv4.MessageTypeDiscover)},
				dhcpv4.OptionParameterRequestList.Code():   {1, 3, 6, 43, 54, 60, 66, 67},
				dhcpv4.OptionMaximumDHCPMessageSize.Code(): {0x05, 0xdc},
			},
		}
		if _, err := rand.Read(p.TransactionID[:]); err != nil {
			return nil, err
		}
		p.SetBroadcast() // the made-up hardware address could not be reached otherwise
		if arch, ok := parseArch(nil, class); ok {
			p.Options[dhcpv4.OptionClassIdentifier.Code()] = []byte(class)
			p.Options[dhcpv4.OptionClientSystemArchitectureType.Code()] = []byte{byte(arch >> 8), byte(arch)}
			p.Options[dhcpv4.OptionClientNetworkInterfaceIdentifier.Code()] = []byte{1, 3, 16}
			p.Options[dhcpv4.OptionClientMachineIdentifier.Code()] = make([]byte, 17)
		}
		list = append(list, p)
	}
	return list, nil
}

// ask sends the questions, and once more in case the first got lost.
func (p *probe) ask(ctx context.Context) error {
	from := netip.AddrPortFrom(netip.IPv4Unspecified(), portClient)
	to := netip.AddrPortFrom(broadcastAddr, portServer)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for range 2 {
		for _, q := range p.questions {
			if _, err := p.conn.WriteTo(udpPacket(from, to, q.ToBytes()), &packet.Addr{HardwareAddr: broadcastMAC}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
	return nil
}

func (p *probe) listen(ctx context.Context) error {
	buf := make([]byte, 4<<10)
	for {
		n, from, err := p.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		src, payload, ok := udpPayload(buf[:n])
		if !ok {
			continue
		}
		answer, err := parsePacket(payload)
		if err != nil || answer.OpCode != dhcpv4.OpcodeBootReply || !p.mine(answer) {
			continue
		}
		var mac net.HardwareAddr
		if a, ok := from.(*packet.Addr); ok {
			mac = a.HardwareAddr
		}
		r := rivalOf(answer, src, mac)
		r.Interface = p.iface
		p.add(r)
	}
}

func (p *probe) mine(answer *dhcpv4.DHCPv4) bool {
	return slices.ContainsFunc(p.questions, func(q *dhcpv4.DHCPv4) bool { return q.TransactionID == answer.TransactionID })
}

// add joins what one server answered to the different questions.
func (p *probe) add(r Rival) {
	old, ok := p.found[r.Server]
	if !ok {
		p.found[r.Server] = r
		return
	}
	if !old.Offers.IsValid() {
		old.Offers = r.Offers
	}
	if old.BootFile == "" {
		old.BootFile, old.NextBoot = r.BootFile, r.NextBoot
	}
	old.Proxy = old.Proxy && r.Proxy
	p.found[r.Server] = old
}

func (p *probe) list() []Rival {
	var list []Rival
	for _, r := range p.found {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Rival) int { return a.Server.Compare(b.Server) })
	return list
}

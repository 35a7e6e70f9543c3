// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Conn is the sockets of one interface and port.
type Conn struct {
	iface string
	port  int
	udp   *net.UDPConn

	// On port 67 of anything but loopback:
	raw *packet.Conn // frames to machines without an address; what other servers say
	arp *prober
}

// receiveBuffer holds what comes in while all workers are busy: a few thousand
// requests of a whole building that is switched on.
const receiveBuffer = 4 << 20

// ListenError says why an interface and port cannot be used.
type ListenError struct {
	Interface string
	Port      int
	Err       error
	hint      string
}

func (e *ListenError) Error() string {
	return fmt.Sprintf("listen on UDP port %d of interface %s: %v", e.Port, e.Interface, e.Err)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Hint is what to do about it.
func (e *ListenError) Hint() string { return e.hint }

// Listen opens UDP port 67 or 4011 on one interface, for Server or Proxy. A port
// that any other program has for this interface is an error: DHCP servers that
// share a port would each get some of the requests. It needs CAP_NET_RAW and
// CAP_NET_BIND_SERVICE.
func Listen(ctx context.Context, iface string, port int) (*Conn, error) {
	fail := func(err error) (*Conn, error) {
		return nil, &ListenError{iface, port, err, listenHint(iface, port, err)}
	}
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return fail(errNoInterface)
	}
	if ifi.Flags&net.FlagUp == 0 {
		return fail(errInterfaceDown)
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var serr error
		err := rc.Control(func(fd uintptr) {
			serr = unix.BindToDevice(int(fd), iface)
			// More than the system's limit needs CAP_NET_ADMIN; less will do too.
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
		})
		return errors.Join(err, serr)
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return fail(cause(err))
	}
	c := &Conn{iface: iface, port: port, udp: pc.(*net.UDPConn)}
	if err := ipv4.NewPacketConn(pc).SetControlMessage(ipv4.FlagDst, true); err != nil {
		c.Close()
		return fail(cause(err))
	}
	if port == portServer && ifi.Flags&net.FlagLoopback == 0 {
		if err := c.openRaw(ifi); err != nil {
			c.Close()
			return fail(cause(err))
		}
	}
	return c, nil
}

func (c *Conn) openRaw(ifi *net.Interface) error {
	filter, err := bpf.Assemble(fromServers)
	if err != nil {
		return err
	}
	c.raw, err = packet.Listen(ifi, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return err
	}
	c.arp, err = newProber(ifi)
	return err
}

// fromServers passes what other DHCP servers send to clients, and nothing that
// we send ourselves. Offsets count from the IP header.
var fromServers = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 8},
	bpf.LoadAbsolute{Off: 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4}, // a later fragment
	bpf.LoadMemShift{Off: 0},
	bpf.LoadIndirect{Off: 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: portClient, SkipTrue: 1},
	bpf.RetConstant{Val: 65535},
	bpf.RetConstant{Val: 0},
}

// Name is the interface's name.
func (c *Conn) Name() string { return c.iface }

// Addr is the interface's first IPv4 address now, invalid if it has none.
func (c *Conn) Addr() netip.Addr {
	ifi, err := net.InterfaceByName(c.iface)
	if err != nil {
		return netip.Addr{}
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			return addrOf(n.IP)
		}
	}
	return netip.Addr{}
}

// Close closes the sockets.
func (c *Conn) Close() error {
	errs := []error{c.udp.Close()}
	if c.raw != nil {
		errs = append(errs, c.raw.Close())
	}
	if c.arp != nil {
		errs = append(errs, c.arp.conn.Close())
	}
	return errors.Join(errs...)
}

// interrupt ends pending reads.
func (c *Conn) interrupt() {
	past := time.Unix(1, 0)
	c.udp.SetReadDeadline(past)
	if c.raw != nil {
		c.raw.SetReadDeadline(past)
		c.arp.conn.SetReadDeadline(past)
	}
}

// Send sends a reply: as a frame of our own making if the destination has a MAC,
// else through the UDP socket.
func (c *Conn) Send(b []byte, to destination, self netip.Addr) error {
	if to.MAC != nil && c.raw != nil {
		frame := udpPacket(netip.AddrPortFrom(self, uint16(c.port)), to.AddrPort, b)
		_, err := c.raw.WriteTo(frame, &packet.Addr{HardwareAddr: to.MAC})
		return err
	}
	if self.IsValid() && c.raw != nil {
		cm := ipv4.ControlMessage{Src: self.AsSlice()}
		if _, _, err := c.udp.WriteMsgUDPAddrPort(b, cm.Marshal(), to.AddrPort); err == nil {
			return nil
		}
		// self is not, or no longer, an address of this machine.
	}
	_, err := c.udp.WriteToUDPAddrPort(b, to.AddrPort)
	return err
}

// watch looks at what other servers tell clients.
func (c *Conn) watch(ctx context.Context, out *outlet) error {
	buf := make([]byte, 4<<10)
	for {
		n, from, err := c.raw.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			if !pause(ctx, out, c.iface, err) {
				return ctx.Err()
			}
			continue
		}
		src, payload, ok := udpPayload(buf[:n])
		if !ok {
			continue
		}
		p, err := parsePacket(payload)
		if err != nil || p.OpCode != dhcpv4.OpcodeBootReply {
			continue
		}
		var mac net.HardwareAddr
		if a, ok := from.(*packet.Addr); ok {
			mac = a.HardwareAddr
		}
		r := rivalOf(p, src, mac)
		r.Interface = c.iface
		out.rivals.report(out, r, parseClient(p))
	}
}

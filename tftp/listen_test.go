// SPDX-License-Identifier: GPL-2.0-or-later

package tftp_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"slate/tftp"
)

func TestPortTaken(t *testing.T) {
	s := start(t, nil)
	_, err := tftp.Listen(t.Context(), s.addr)
	var perr *tftp.PortError
	if want := fmt.Sprintf("TFTP port %v (UDP) is taken by another program", s.addr); !errors.As(err, &perr) || err.Error() != want {
		t.Fatalf("Listen = %v, want %s", err, want)
	}
	if want := fmt.Sprintf(":%d`", s.addr.Port()); !strings.Contains(perr.Hint(), want) {
		t.Errorf("Hint() = %q, want %q in it", perr.Hint(), want)
	}
	if _, err = tftp.Listen(t.Context(), netip.MustParseAddrPort("192.0.2.1:69")); err == nil || !strings.Contains(err.Error(), "no interface of this machine has that address") {
		t.Errorf("Listen on a foreign address = %v", err)
	}
}

// On a machine with several addresses the answer comes from the one asked.
func TestAnswerComesFromAddressAsked(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		s := start(t, func(s *site) { s.addr = netip.MustParseAddrPort(listen) })
		for _, ip := range []string{"127.0.0.1", "127.0.0.7", "127.1.2.3"} {
			c, err := net.ListenUDP("udp4", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			asked := netip.MustParseAddr(ip)
			if _, err := c.WriteToUDPAddrPort([]byte("\x00\x01small\x00octet\x00"), netip.AddrPortFrom(asked, s.addr.Port())); err != nil {
				t.Fatal(err)
			}
			got, from := receive(t, c)
			if from.Addr().Unmap() != asked || got != "\x00\x03\x00\x01hello" {
				t.Errorf("listening on %s, asked %v: %q from %v", listen, asked, got, from)
			}
			if _, err := c.WriteToUDPAddrPort([]byte("\x00\x04\x00\x01"), from); err != nil {
				t.Fatal(err)
			}
			if e := s.outcome(t); e.Kind != tftp.Done || e.Local != asked {
				t.Errorf("event %+v", e)
			}
		}
	}
}

func TestIPv6(t *testing.T) {
	s := start(t, func(s *site) { s.addr = netip.MustParseAddrPort("[::1]:0") })
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.send(t, c, "\x00\x01small\x00octet\x00")
	got, from := receive(t, c)
	if got != "\x00\x03\x00\x01hello" || from.Addr() != s.addr.Addr() {
		t.Errorf("got %q from %v", got, from)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slate/dhcp"
)

// An option of more than 255 bytes goes out in parts with one code, and is put
// together again from them (RFC 3396), wherever the parts lie.
func TestLongOptions(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 60)
	r := newRoom(t, func(s *dhcp.Server) { s.Subnets[0].Options = map[uint8][]byte{225: long} })
	s := r.send(discover(map[uint8]string{55: "\x01\xe1", 57: "\x05\xdc"}), dhcp.How{})
	r.want(s, offer, "10.0.0.100")
	if !bytes.Equal(s.Packet.Options[225], long) {
		t.Errorf("option 225 came back with %d bytes, want %d", len(s.Packet.Options[225]), len(long))
	}
	wire := s.Packet.ToBytes()
	for _, part := range [][]byte{append([]byte{225, 255}, long[:255]...), append([]byte{225, 255}, long[255:510]...), append([]byte{225, 90}, long[510:]...)} {
		if !bytes.Contains(wire, part) {
			t.Errorf("the packet lacks the part %q…", part[:12])
		}
	}

	// A client that sends its user class in two parts, one after the options and one in
	// the file field (option 52).
	p := discover(map[uint8]string{60: uefiClass, 52: "\x01", 77: "iP"}).ToBytes()
	copy(p[108:236], "\x4d\x02XE\xff"+strings.Repeat("\x00", 123))
	q, err := dhcp.ParsePacket(p)
	if err != nil || !dhcp.ParseClient(q).IPXE {
		t.Errorf("a user class in two parts: %q, %v, want iPXE", q.Options[77], err)
	}
}

// Who names option 150 gets the boot server in it (RFC 5859), or what the admin set.
func TestTFTPServerAddressOption(t *testing.T) {
	for _, c := range []struct{ list, set, want string }{
		{pxeList, "", ""},
		{pxeList + "\x96", "", ip("10.0.0.1")},
		{pxeList + "\x96", ip("10.9.9.9"), ip("10.9.9.9")},
	} {
		r := newRoom(t, func(s *dhcp.Server) {
			s.Booter = booter{site}
			if c.set != "" {
				s.Subnets[0].Options = map[uint8][]byte{150: []byte(c.set)}
			}
		})
		s := r.send(discover(map[uint8]string{60: uefiClass, 93: "\x00\x07", 55: c.list}), dhcp.How{})
		r.want(s, offer, "10.0.0.100")
		if got := string(s.Packet.Options.Get(dhcpv4.OptionTFTPServerAddress)); got != c.want {
			t.Errorf("asked for %q with %q set: option 150 is %q, want %q", c.list, c.set, got, c.want)
		}
	}
}

// While the disk stalls, requests go on, and then wait once too many are unsaved.
func TestStalledDiskHoldsUpTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall, calls := make(chan struct{}), 0
		want, end := dhcp.After(func() { calls++; <-stall })
		if !want(false) {
			t.Error("the first is not taken")
		}
		synctest.Wait() // it stalls
		if !want(false) || want(false) {
			t.Error("one more is to be noted, and the others with it")
		}
		went := false
		go func() { want(true); went = true }()
		synctest.Wait()
		if went {
			t.Error("a reader with too many unsaved requests does not wait")
		}
		stall <- struct{}{}
		synctest.Wait()
		if !went || calls != 2 {
			t.Errorf("after the first was done the reader goes on: %v, calls %d, want 2", went, calls)
		}
		close(stall)
		end()
		if calls != 3 {
			t.Errorf("calls %d at the end, want 3: what was due is done", calls)
		}
	})
}

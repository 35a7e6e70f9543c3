// SPDX-License-Identifier: GPL-2.0-or-later

package pcap_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"slate/testbed/pcap"
)

// frame makes an Ethernet and IPv4 frame around what proto carries.
func frame(proto byte, src, dst string, payload []byte) []byte {
	b := append(bytes.Repeat([]byte{0xff}, 6), 0x52, 0x54, 0, 1, 2, 3, 8, 0)
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	ip = append(append(ip, s[:]...), d[:]...)
	return append(append(b, ip...), payload...)
}

func udp(src, dst string, sport, dport uint16, payload string) []byte {
	h := binary.BigEndian.AppendUint16(nil, sport)
	h = binary.BigEndian.AppendUint16(h, dport)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(payload)))
	return frame(17, src, dst, append(append(h, 0, 0), payload...))
}

func tcp(flags byte, payload string) []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h[0:], 4444)
	binary.BigEndian.PutUint16(h[2:], 8070)
	h[12], h[13] = 5<<4, flags
	return frame(6, "10.0.0.9", "10.0.0.1", append(h, payload...))
}

func discover(t *testing.T) string {
	t.Helper()
	m, err := dhcpv4.NewDiscovery(net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3},
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})),
		dhcpv4.WithUserClass("iPXE", false))
	if err != nil {
		t.Fatal(err)
	}
	return string(m.ToBytes())
}

func TestSummary(t *testing.T) {
	arp, _ := hex.DecodeString("ffffffffffff525400010203" + "0806" + "0001080006040001" + "525400010203" + "0a000009" + "000000000000" + "0a000001")
	for _, c := range []struct {
		frame []byte
		want  string
	}{
		{udp("0.0.0.0", "255.255.255.255", 68, 67, discover(t)), "0.0.0.0:68 > 255.255.255.255:67 DHCP DISCOVER 52:54:00:01:02:03 class=PXEClient:Arch:00007:UNDI:003016 user=iPXE arch=7"},
		{udp("10.0.0.9", "10.0.0.1", 2070, 69, "\x00\x01snponly.efi\x00octet\x00blksize\x001468\x00"), "10.0.0.9:2070 > 10.0.0.1:69 TFTP RRQ snponly.efi octet blksize 1468"},
		{udp("10.0.0.1", "10.0.0.9", 40000, 2070, "\x00\x06tsize\x00173792\x00"), "10.0.0.1:40000 > 10.0.0.9:2070 TFTP OACK tsize 173792"},
		{udp("10.0.0.1", "10.0.0.9", 40000, 2070, "\x00\x03\x00\x07abc"), "10.0.0.1:40000 > 10.0.0.9:2070 TFTP DATA 7, 3 bytes"},
		{udp("10.0.0.9", "10.0.0.1", 2070, 40000, "\x00\x04\x00\x07"), "10.0.0.9:2070 > 10.0.0.1:40000 TFTP ACK 7"},
		{udp("10.0.0.1", "10.0.0.9", 40000, 2070, "\x00\x05\x00\x01not found\x00"), "10.0.0.1:40000 > 10.0.0.9:2070 TFTP ERROR 1 not found"},
		{udp("10.0.0.1", "10.0.0.9", 53, 2070, "\x00\x04\x00\x07"), "10.0.0.1:53 > 10.0.0.9:2070 UDP 4 bytes"},
		{tcp(2, ""), "10.0.0.9:4444 > 10.0.0.1:8070 TCP SYN"},
		{tcp(0x10, "GET /boot.ipxe HTTP/1.1\r\nHost: x\r\n"), "10.0.0.9:4444 > 10.0.0.1:8070 GET /boot.ipxe HTTP/1.1"},
		{tcp(0x11, "data"), "10.0.0.9:4444 > 10.0.0.1:8070 TCP FIN"},
		{frame(1, "10.0.0.1", "10.0.0.2", []byte{3, 3, 0, 0}), "10.0.0.1 > 10.0.0.2 ICMP type 3 code 3"},
		{arp, "ARP who has 10.0.0.1, tell 10.0.0.9"},
		{append(frame(17, "1.1.1.1", "2.2.2.2", nil), make([]byte, 26)...), "1.1.1.1 > 2.2.2.2 IP protocol 17"},
		{[]byte("short"), "short frame of 5 bytes"},
	} {
		if got := pcap.Summary(c.frame); got != c.want {
			t.Errorf("Summary() = %q\n          want %q", got, c.want)
		}
	}
}

func TestFileRoundTrip(t *testing.T) {
	var file bytes.Buffer
	w, err := pcap.NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	want := []pcap.Packet{
		{time.Unix(1700000000, 123456789), 60, tcp(2, "")},
		{time.Unix(1700000001, 5), 9000, tcp(16, "GET / HTTP/1.0\r\n")},
	}
	for _, p := range want {
		if err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	r, err := pcap.NewReader(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range want {
		if got, err := r.Next(); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("packet %d = %v, %v, want %v", i, got, err, p)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last packet: %v", err)
	}

	lines, err := pcap.Summaries(bytes.NewReader(file.Bytes()[:file.Len()-3]))
	if err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "0.000 10.0.0.9:4444") {
		t.Errorf("Summaries() of a file cut at its end = %q, %v", lines, err)
	}
}

func TestBadFiles(t *testing.T) {
	head := "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00"
	for name, text := range map[string]string{"empty": "", "short": head, "text": strings.Repeat("not a capture ", 3), "not Ethernet": head + "\x71\x00\x00\x00"} {
		if _, err := pcap.NewReader(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r, err := pcap.NewReader(strings.NewReader(head + "\x01\x00\x00\x00" + strings.Repeat("\xff", 16)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a packet of 4 GB: %v", err)
	}
}

func FuzzSummary(f *testing.F) {
	f.Add(udp("1.2.3.4", "5.6.7.8", 68, 67, "\x01\x01\x06"))
	f.Add(udp("1.2.3.4", "5.6.7.8", 2000, 69, "\x00\x05\x00"))
	f.Add(tcp(0x10, "GET / HTTP/1.0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if pcap.Summary(b) == "" {
			t.Errorf("Summary(%x) is empty", b)
		}
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package pcap_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"slate/testbed/netns"
	"slate/testbed/pcap"
)

func TestMain(m *testing.M) { netns.Main(m) }

// Two hosts talk over a bridge in a third namespace; the capture on the bridge
// sees them.
func TestCaptureOnBridge(t *testing.T) {
	var ns [3]*netns.NS
	for i := range ns {
		var err error
		if ns[i], err = netns.New(); err != nil {
			t.Fatal(err)
		}
		defer ns[i].Close()
	}
	sw, a, b := ns[0], ns[1], ns[2]
	for _, err := range []error{
		sw.Veth("pa", a, "eth0"), sw.Veth("pb", b, "eth0"), sw.Bridge("br0", "pa", "pb"),
		a.Address("eth0", netip.MustParsePrefix("10.9.0.1/24")), b.Address("eth0", netip.MustParsePrefix("10.9.0.2/24")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var src *pcap.Source
	if err := sw.Do(func() (err error) { src, err = pcap.Open("br0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var file bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Record(ctx, &file) }()

	server, err := a.ListenPacket("udp4", "10.9.0.1:69")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := b.ListenPacket("udp4", "10.9.0.2:2000")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.WriteTo([]byte("\x00\x01x\x00octet\x00"), &net.UDPAddr{IP: net.IPv4(10, 9, 0, 1), Port: 69}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := server.ReadFrom(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lines, err := pcap.Summaries(&file)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{"ARP who has 10.9.0.1, tell 10.9.0.2", "ARP 10.9.0.1 is at", "10.9.0.2:2000 > 10.9.0.1:69 TFTP RRQ x octet"} {
		if !strings.Contains(all, want) {
			t.Errorf("capture lacks %q:\n%s", want, all)
		}
	}
}

func TestCaptureNowhere(t *testing.T) {
	if _, err := pcap.Open("no-such-if"); err == nil || !strings.Contains(err.Error(), "capture on no-such-if") {
		t.Errorf("Open() = %v", err)
	}
}

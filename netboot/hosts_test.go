// SPDX-License-Identifier: GPL-2.0-or-later

package netboot_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"slate/netboot"
	"slate/netboot/api"
	"slate/testbed/netns"
)

// machine is a namespace with eth0 on a bridge of the appliance.
type machine struct {
	*netns.NS
	mac net.HardwareAddr
}

func newMachine(t *testing.T, bridge, port string) *machine {
	t.Helper()
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := errors.Join(home.Veth(port, ns, "eth0"), home.Attach(port, bridge), home.Up(port), ns.Up("eth0")); err != nil {
		t.Fatal(err)
	}
	mac, err := ns.HardwareAddr("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return &machine{ns, mac}
}

// pxe makes a request look like UEFI firmware's.
var pxe = []dhcpv4.Modifier{
	dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
	dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})),
}

// lease asks for an address, tries times for a second each, and returns the
// server's ACK.
func (m *machine) lease(t *testing.T, tries int, mods ...dhcpv4.Modifier) (ack *dhcpv4.DHCPv4, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	mods = append([]dhcpv4.Modifier{dhcpv4.WithRequestedOptions(dhcpv4.OptionHostName, dhcpv4.OptionTFTPServerAddress, dhcpv4.OptionDomainName, dhcpv4.OptionRouter)}, mods...)
	err = m.Do(func() error {
		c, err := nclient4.New("eth0", nclient4.WithTimeout(time.Second), nclient4.WithRetry(tries))
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := c.Request(ctx, mods...)
		if err == nil {
			ack = l.ACK
		}
		return err
	})
	return ack, err
}

func writeConf(t *testing.T, s *netboot.Server, name, text string) {
	t.Helper()
	file := filepath.Join(s.Settings.ConfigD, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// What config.d says of a machine reaches it, and makes it the node: address,
// name, options; by its group too once it is in one.
func TestFixedAddressNameAndOptions(t *testing.T) {
	s := newAppliance(t)
	m, other := newMachine(t, "lab0", "port0"), newMachine(t, "lab0", "port1")
	s.Settings.DHCP.Domain = "lab.example"
	s.Settings.DHCP.Options = map[string]string{"150": "10.77.0.7"}
	writeConf(t, s, "nodes/pc1/system/dhcp.conf", "mac = [\""+m.mac.String()+"\"]\naddress = \"10.77.0.100\"\nlease = \"1h\"\n[options]\n150 = \"10.77.0.9\"\n")
	writeConf(t, s, "groups/room1/system/dhcp.conf", "domain = \"room1.example\"\n")
	start(t, s)

	ack, err := other.lease(t, 5)
	if err != nil || ack.YourIPAddr.String() != "10.77.0.101" || ack.HostName() != "" || ack.DomainName() != "lab.example" {
		t.Fatalf("a machine that nothing is said of: %v, %v; want 10.77.0.101, as the first is pc1's", ack, err)
	}
	if got := ack.Options.Get(dhcpv4.OptionTFTPServerAddress); string(got) != "\x0a\x4d\x00\x07" {
		t.Errorf("option 150 of the subnet = %v", got)
	}
	ack, err = m.lease(t, 5, pxe...)
	if err != nil || ack.YourIPAddr.String() != "10.77.0.100" || ack.HostName() != "pc1" || ack.IPAddressLeaseTime(0) != time.Hour {
		t.Fatalf("pc1: %v, %v; want 10.77.0.100 for an hour and its name", ack, err)
	}
	if got := ack.Options.Get(dhcpv4.OptionTFTPServerAddress); string(got) != "\x0a\x4d\x00\x09" {
		t.Errorf("option 150 of pc1 = %v", got)
	}

	admin := api.DialAdmin(filepath.Join(s.Settings.Data, api.AdminSocket))
	if _, err := admin.Change(t.Context(), api.Change{Targets: api.Targets{Targets: []string{"pc1"}}, Join: []string{"room1"}}); err != nil {
		t.Fatalf("pc1 did not become a node: %v", err)
	}
	if ack, err = m.lease(t, 5); err != nil || ack.DomainName() != "room1.example" || ack.YourIPAddr.String() != "10.77.0.100" {
		t.Errorf("pc1 in room1: %v, %v", ack, err)
	}
}

// A machine that is no node is left alone in both modes if config.d says so, by
// DHCP and by the boot script; one that config.d names is not.
func TestUnknownMachinesAreIgnored(t *testing.T) {
	for _, mode := range []netboot.DHCPMode{netboot.DHCPServer, netboot.DHCPProxy} {
		t.Run(string(mode), func(t *testing.T) {
			s := newAppliance(t)
			s.Settings.DHCP.Mode = mode
			known, stranger := newMachine(t, "lab0", "port0"), newMachine(t, "lab0", "port1")
			writeConf(t, s, "system/dhcp.conf", "unknown = \"ignore\"\n")
			writeConf(t, s, "nodes/pc1/system/dhcp.conf", "mac = [\""+known.mac.String()+"\"]\n")
			start(t, s)
			if offer, err := known.offer(t, 5); err != nil || !strings.Contains(string(offer.Options.Get(dhcpv4.OptionBootfileName))+offer.BootFileName, "snponly.efi") {
				t.Errorf("the machine that config.d names: %v, %v", offer, err)
			}
			if offer, err := stranger.offer(t, 2); err == nil {
				t.Errorf("a stranger gets an answer: %v", offer)
			}
			resp, err := http.Get("http://" + labAddr + ":8070/boot.ipxe?mac=" + stranger.mac.String())
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			st, err := (&api.Client{Base: "http://" + labAddr + ":8070"}).Status(t.Context())
			if err != nil || len(st.Nodes) != 1 || st.Nodes[0].Name != "pc1" {
				t.Errorf("nodes = %+v, %v, want pc1 alone", st.Nodes, err)
			}

			writeConf(t, s, "system/dhcp.conf", "unknown = \"serve\"\n")
			if _, err := stranger.offer(t, 10); err != nil {
				t.Errorf("once unknown machines are served: %v", err)
			}
		})
	}
}

// offer asks as firmware does and returns the first answer.
func (m *machine) offer(t *testing.T, tries int) (offer *dhcpv4.DHCPv4, err error) {
	t.Helper()
	err = m.Do(func() error {
		c, err := nclient4.New("eth0", nclient4.WithTimeout(time.Second), nclient4.WithRetry(tries))
		if err != nil {
			return err
		}
		defer c.Close()
		p, err := dhcpv4.NewDiscovery(m.mac, append([]dhcpv4.Modifier{dhcpv4.WithBroadcast(true)}, pxe...)...)
		if err != nil {
			return err
		}
		offer, err = c.SendAndRead(t.Context(), nclient4.DefaultServers, p, nil)
		return err
	})
	return offer, err
}

// A second interface: its machines get addresses of their own network, and reach
// everything at the appliance's address there.
func TestSecondInterface(t *testing.T) {
	s := newAppliance(t)
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	if err := errors.Join(home.Bridge("lab1"), home.Address("lab1", netip.MustParsePrefix("10.78.0.1/24")), home.Up("lab1")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Delete("lab1") })
	m := newMachine(t, "lab1", "port0")
	var second netboot.SubnetSettings
	second.Interface, second.Lease = "lab1", s.Settings.DHCP.Lease
	if err := second.Range.UnmarshalText([]byte("10.78.0.50-10.78.0.60")); err != nil {
		t.Fatal(err)
	}
	s.Settings.DHCP.Subnets = []netboot.SubnetSettings{second}
	start(t, s)
	ack, err := m.lease(t, 5, pxe...)
	if err != nil || ack.YourIPAddr.String() != "10.78.0.50" || ack.ServerIPAddr.String() != "10.78.0.1" {
		t.Fatalf("on the second interface: %v, %v", ack, err)
	}
	if err := m.Address("eth0", netip.MustParsePrefix("10.78.0.50/24")); err != nil {
		t.Fatal(err)
	}
	var script string
	err = m.Do(func() error {
		conn, err := net.Dial("tcp", "10.78.0.1:8070")
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET /boot.ipxe?mac=" + m.mac.String() + " HTTP/1.0\r\n\r\n")); err != nil {
			return err
		}
		b := make([]byte, 16<<10)
		for n := 0; ; {
			k, err := conn.Read(b[n:])
			if n += k; err != nil {
				script = string(b[:n])
				return nil
			}
		}
	})
	if err != nil || !strings.Contains(script, "slate.server=http://10.78.0.1:8070 ") || !strings.Contains(script, "slate.nfs=10.78.0.1:2049:") {
		t.Errorf("boot script: %v\n%s", err, script)
	}
}

// Beside another DHCP server the appliance does not know a machine's address: what the
// machine loads by HTTP is in its timeline all the same.
func TestLoaderByHTTPBesideAnotherServer(t *testing.T) {
	s := newAppliance(t)
	s.Settings.DHCP.Mode = netboot.DHCPProxy
	start(t, s)
	m := newMachine(t, "lab0", "port0")
	err := m.Do(func() error {
		c, err := nclient4.New("eth0", nclient4.WithTimeout(time.Second), nclient4.WithRetry(5))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.DiscoverOffer(t.Context(), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003016")),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 16})))
		return err
	})
	if err == nil {
		err = m.Address("eth0", netip.MustParsePrefix("10.77.0.50/24"))
	}
	if err != nil {
		t.Fatal(err)
	}
	web := http.Client{Transport: &http.Transport{DialContext: m.DialContext}}
	resp, err := web.Get("http://" + labAddr + ":8070/loader/snponly.efi")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	waitForNode(t, "has its loader", func(n api.Node) bool {
		return len(n.Boots) == 1 && slices.ContainsFunc(n.Boots[0].Events, func(e api.Event) bool { return e.Step == api.StepLoader && e.State == api.StateDone })
	})

	// It takes the address that the network's server offers.
	request, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(m.mac),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003016")),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 60))), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 77, 0, 254))))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := m.ListenPacket("udp4", "10.77.0.50:68")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteTo(request.ToBytes(), &net.UDPAddr{IP: net.ParseIP(labAddr), Port: 67}); err != nil {
		t.Fatal(err)
	}
	waitForNode(t, "has the address 10.77.0.60", func(n api.Node) bool { return n.Address == "10.77.0.60" })
}

// waitForNode waits until the only node is so.
func waitForNode(t *testing.T, what string, is func(api.Node) bool) api.Node {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		st, err := (&api.Client{Base: "http://" + labAddr + ":8070"}).Status(t.Context())
		if err != nil || len(st.Nodes) != 1 {
			t.Fatalf("nodes = %+v, %v", st.Nodes, err)
		}
		if n := st.Nodes[0]; is(n) {
			return n
		} else if time.Now().After(deadline) {
			t.Fatalf("not so: it %s: %+v", what, n)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/process"
)

// farBridge is the network behind the relay.
const farBridge = "far"

var (
	farNet    = netip.MustParsePrefix("10.78.0.0/24")
	farRouter = netip.MustParsePrefix("10.78.0.1/24")
	relayAddr = netip.MustParsePrefix("10.77.0.3/24")
)

// addRelay makes the far network, and the router between it and the main one.
func addRelay(t *testing.T, l *labtest.Lab) *lab.Host {
	t.Helper()
	if err := l.AddBridge(farBridge, netip.Prefix{}); err != nil {
		t.Fatal(err)
	}
	relay, err := l.AddHost("relay", lab.Port{Addr: relayAddr}, lab.Port{Bridge: farBridge, Addr: farRouter})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{relay.NS().Forward(), l.NS().Route(farNet, relayAddr.Addr())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return relay
}

// A simulated machine behind a relay gets its address, loader, script and kernel
// from an appliance that is on another network.
func TestRelayedMachine(t *testing.T) {
	t.Parallel()
	s := relayNetwork(t)
	s.serve()
	host, err := s.AddHost("client", lab.Port{Bridge: farBridge})
	if err != nil {
		t.Fatal(err)
	}
	c := &stormClient{site: s, host: host}
	if c.mac, err = host.NS().HardwareAddr("eth0"); err != nil {
		t.Fatal(err)
	}
	if err := c.boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := s.slate("node", "show", nodeName(c.mac)); !strings.Contains(out, "10.78.0.1") || !strings.Contains(out, "booting at kernel") {
		t.Errorf("slate node show does not say that the machine has an address of its network, and its kernel:\n%s", out)
	}
}

// relayNetwork has the machines behind a DHCP relay, and the appliance as the
// server for them.
func relayNetwork(t *testing.T) *site {
	labtest.Need(t, "dnsmasq")
	l := labtest.New(t, lab.Options{})
	relay := addRelay(t, l)
	_, err := relay.StartSpec(t.Context(), process.Spec{Name: "relay", Ready: &process.Ready{Line: regexp.MustCompile(`DHCP relay`)},
		Argv: []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=root", "--log-facility=-",
			"--dhcp-relay=" + farRouter.Addr().String() + "," + l.Addr().Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, l)
	f, err := os.OpenFile(s.dir+"/slate.toml", os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("\n[[dhcp.subnet]]\nsubnet = \"10.78.0.0/24\"\nrange = \"10.78.0.100-10.78.0.120\"\ngateway = \"10.78.0.1\"\n")
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// relayedProxyNetwork has the machines behind a relay that asks two servers: one
// for addresses, and the appliance as proxy.
func relayedProxyNetwork(t *testing.T) *site {
	labtest.Need(t, "dhcrelay")
	l := labtest.New(t, lab.Options{})
	router := addressServer(t, l, "--dhcp-range=set:far,10.78.0.100,10.78.0.120,255.255.255.0,1h", "--dhcp-option=tag:far,option:router,"+farRouter.Addr().String())
	relay := addRelay(t, l)
	if err := router.NS().Route(farNet, relayAddr.Addr()); err != nil {
		t.Fatal(err)
	}
	_, err := relay.StartSpec(t.Context(), process.Spec{Name: "relay", Ready: &process.Ready{Line: regexp.MustCompile(`Sending on +Socket`)},
		Argv: []string{"dhcrelay", "-4", "-d", "--no-pid", "-a", "-id", "eth1", "-iu", "eth0", "10.77.0.2", l.Addr().Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, l)
	s.wantMode("proxy")
	return s
}

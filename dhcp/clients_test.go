// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"slate/dhcp"
	"slate/dhcp/leases"
	"slate/testbed/labtest"
	"slate/testbed/netns"
)

// dhclientHook sets the address, so that renewals come from it, and reports.
const dhclientHook = `PATH=/usr/sbin:/usr/bin:/sbin:/bin
case $reason in
BOUND|REBOOT) ip addr add $new_ip_address/24 dev $interface;;
EXPIRE|FAIL|RELEASE|STOP) ip addr flush dev $interface;;
esac
echo "$reason $new_ip_address $new_domain_name"`

func startDHClient(l *lan, ns *netns.NS) *client {
	conf := filepath.Join(l.TempDir(), "dhclient.conf")
	l.must(os.WriteFile(conf, []byte("request subnet-mask, routers, domain-name, dhcp-renewal-time, dhcp-rebinding-time;\n"), 0o600))
	return l.start(ns, dhclientHook, "dhclient", "-4", "-d", "-v", "-cf", conf, "-sf", "SCRIPT", "-pf", "DIR/pid", "-lf", "DIR/leases", "eth0")
}

// ISC dhclient leases, renews by unicast, survives our restart, and releases.
func TestDHClient(t *testing.T) {
	labtest.Need(t, "dhclient")
	l := newLAN(t)
	path := filepath.Join(t.TempDir(), "leases.db")
	store, err := leases.Open(path, nil)
	l.must(err)
	n := l.subnet()
	n.LeaseTime, n.Domain = 6*time.Second, "lab.example"
	stop := l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{n}, Leases: store})

	c := startDHClient(l, l.machine())
	c.expect("BOUND 10.77.0.100 lab.example")
	isUnicast := func(e dhcp.Event) bool { return e.Kind == dhcp.EventAck && e.Client.IP.IsValid() }
	l.awaitThat("first ack", isUnicast)
	l.awaitThat("ack of a renewal", isUnicast)
	c.expect("RENEW 10.77.0.100")

	stop()
	l.must(store.Close())
	store, err = leases.Open(path, nil)
	l.must(err)
	defer store.Close()
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{n}, Leases: store})
	c.expect("RENEW 10.77.0.100")

	c.signal(syscall.SIGTERM) // dhclient keeps the lease then; -r releases
	c.cmd.Wait()
	if lease, ok := store.Lookup(addr("10.77.0.100")); !ok || lease.State != leases.Bound {
		t.Errorf("lease %+v, want it bound", lease)
	}
}

func TestDHClientReleases(t *testing.T) {
	labtest.Need(t, "dhclient")
	l := newLAN(t)
	store := leases.NewMemory()
	stop := l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{l.subnet()}, Leases: store, SkipProbe: true})
	ns := l.machine()
	dir := t.TempDir()
	conf := filepath.Join(dir, "hook")
	l.must(os.WriteFile(conf, []byte("#!/bin/sh\n"+dhclientHook+"\n"), 0o700))
	run := func(args ...string) {
		cmd := exec.Command("dhclient", append([]string{"-4", "-1", "-v", "-cf", "/dev/null", "-sf", conf, "-pf", dir + "/pid", "-lf", dir + "/leases"}, args...)...)
		done := make(chan error, 1)
		if err := ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("dhclient %v: %v", args, err)
			}
		case <-time.After(patience):
			cmd.Process.Kill()
			t.Fatalf("dhclient %v does not end", args)
		}
	}
	run("eth0") // goes to the background once bound
	l.await(dhcp.EventAck)
	run("-r", "eth0")
	l.await(dhcp.EventRelease)
	stop() // what was begun is finished
	if lease, _ := store.Lookup(addr("10.77.0.100")); lease.State != leases.Released {
		t.Errorf("lease %+v, want it released", lease)
	}
}

// The server's address cannot be reached: renewing fails, and dhclient asks
// everybody when its time is nearly up.
func TestDHClientRebinds(t *testing.T) {
	labtest.Need(t, "dhclient")
	l := newLAN(t)
	n := l.subnet()
	n.LeaseTime, n.Server = 16*time.Second, addr("10.77.0.9")
	n.Options = map[uint8][]byte{58: {0, 0, 0, 2}, 59: {0, 0, 0, 4}} // room for its dawdling
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{n}, SkipProbe: true})
	c := startDHClient(l, l.machine())
	c.expect("BOUND 10.77.0.100")
	c.expect("RE") // RENEW or REBIND: dhclient is not sure what to call it
}

const udhcpcHook = `PATH=/usr/sbin:/usr/bin:/sbin:/bin
case $1 in
deconfig) ip addr flush dev $interface;;
bound) ip addr add $ip/24 dev $interface;;
esac
echo "$1 $ip $domain $siaddr $message"`

// busybox udhcpc leases, renews when told to, releases, and is refused an
// address that is no longer its own.
func TestUdhcpc(t *testing.T) {
	labtest.Need(t, "udhcpc")
	l := newLAN(t)
	hosts := &changing{}
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{l.subnet()}, Hosts: hosts})
	ns := l.machine()
	mac, err := ns.HardwareAddr("eth0")
	l.must(err)
	c := l.start(ns, udhcpcHook, "udhcpc", "-f", "-i", "eth0", "-s", "SCRIPT", "-t", "5", "-T", "1")
	c.expect("bound 10.77.0.100")
	c.signal(syscall.SIGUSR1)
	c.expect("renew 10.77.0.100")

	hosts.set(dhcp.HostTable{{MAC: mac.String(), Host: dhcp.Host{Addr: addr("10.77.0.50")}}})
	c.signal(syscall.SIGUSR1)
	c.expect("nak")
	c.expect("bound 10.77.0.50")
	c.signal(syscall.SIGUSR2)
	l.awaitThat("release", func(e dhcp.Event) bool { return e.Kind == dhcp.EventRelease && e.Addr == addr("10.77.0.50") })
}

// Somebody uses an address of the range without having asked: real ARP.
func TestSquatterIsFoundByARP(t *testing.T) {
	labtest.Need(t, "udhcpc")
	l := newLAN(t)
	squatter := l.machine()
	l.must(squatter.Address("eth0", netip.MustParsePrefix("10.77.0.100/24")))
	mac, err := squatter.HardwareAddr("eth0")
	l.must(err)
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{l.subnet()}})
	c := l.start(l.machine(), udhcpcHook, "udhcpc", "-f", "-i", "eth0", "-s", "SCRIPT", "-t", "5", "-T", "2")
	if e := l.await(dhcp.EventConflict); e.Addr != addr("10.77.0.100") || e.Reason != "in use by "+mac.String() {
		t.Errorf("conflict %v: %s", e.Addr, e.Reason)
	}
	c.expect("bound 10.77.0.101")
}

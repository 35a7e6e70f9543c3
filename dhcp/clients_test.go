// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	l.await(dhcp.EventAck)
	l.awaitKept(addr("10.77.0.100"))
	c.expect("RENEW 10.77.0.100")

	stop()
	l.must(store.Close())
	store, err = leases.Open(path, nil)
	l.must(err)
	defer store.Close()
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{n}, Leases: store})
	c.expect("RENEW 10.77.0.100")

	c.signal(syscall.SIGTERM) // dhclient keeps the lease then; -r releases
	c.ends()
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
	first := startDHClient(l, ns)
	first.expect("BOUND 10.77.0.100")
	// The one that is to release ends the one that runs, whose files it is given.
	second := l.startIn(first.dir, ns, dhclientHook, "dhclient", "-4", "-d", "-v", "-r", "-cf", "/dev/null", "-sf", "SCRIPT", "-pf", "DIR/pid", "-lf", "DIR/leases", "eth0")
	l.await(dhcp.EventRelease)
	for _, c := range []*client{first, second} {
		c.ends()
	}
	stop() // what was begun is finished
	if lease, _ := store.Lookup(addr("10.77.0.100")); lease.State != leases.Released {
		t.Errorf("lease %+v, want it released", lease)
	}
}

// unreachable is a subnet whose server cannot be reached at the address it names:
// renewing fails, and the client asks everybody when its time is nearly up.
func unreachable(l *lan) dhcp.Subnet {
	n := l.subnet()
	n.LeaseTime, n.Server = 16*time.Second, addr("10.77.0.9")
	n.Options = map[uint8][]byte{58: {0, 0, 0, 2}, 59: {0, 0, 0, 4}} // room for its dawdling
	return n
}

// awaitKept waits until a client that has the address asks to keep it, and may.
func (l *lan) awaitKept(want netip.Addr) {
	l.Helper()
	l.awaitThat("request to keep the address", func(e dhcp.Event) bool { return e.Kind == dhcp.EventRequest && e.Client.IP.IsValid() })
	if e := l.await(dhcp.EventAck); e.Addr != want {
		l.Errorf("ack of %v, want %v", e.Addr, want)
	}
}

func TestDHClientRebinds(t *testing.T) {
	labtest.Need(t, "dhclient")
	l := newLAN(t)
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{unreachable(l)}, SkipProbe: true})
	c := startDHClient(l, l.machine())
	c.expect("BOUND 10.77.0.100")
	c.expect("RE") // RENEW or REBIND: dhclient is not sure what to call it
	l.awaitKept(addr("10.77.0.100"))
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

func TestUdhcpcRebinds(t *testing.T) {
	labtest.Need(t, "udhcpc")
	l := newLAN(t)
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{unreachable(l)}, SkipProbe: true})
	c := l.start(l.machine(), udhcpcHook, "udhcpc", "-f", "-i", "eth0", "-s", "SCRIPT", "-t", "5", "-T", "1")
	c.expect("bound 10.77.0.100")
	l.awaitKept(addr("10.77.0.100"))
	c.expect("renew 10.77.0.100")
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

// networkdScript runs systemd-networkd with directories of its own: it reads
// and writes fixed paths. A read-only /sys makes it do without udev.
const networkdScript = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases
chown -R systemd-network /run/systemd
mount -t sysfs -o ro sysfs /sys
printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' >/run/systemd/network/eth0.network
exec /lib/systemd/systemd-networkd`

func startNetworkd(l *lan) *client {
	l.Helper()
	labtest.Need(l, "unshare", "networkctl")
	labtest.NeedFile(l, "/lib/systemd/systemd-networkd")
	if m, err := os.ReadFile("/proc/self/uid_map"); err != nil || !strings.Contains(string(m), "4294967295") {
		l.Skip("systemd-networkd changes to a user of its own, which a user namespace does not have")
	}
	return l.start(l.machine(), "", "unshare", "--mount", "sh", "-c", networkdScript)
}

// systemd-networkd leases, renews and releases when it ends.
func TestNetworkd(t *testing.T) {
	l := newLAN(t)
	n := l.subnet()
	n.LeaseTime = 6 * time.Second
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{n}})
	c := startNetworkd(l)
	first := l.await(dhcp.EventAck)
	if first.Addr != addr("10.77.0.100") || first.Client.ClientID == "" {
		t.Errorf("ack of %v to %+v", first.Addr, first.Client)
	}
	l.awaitKept(first.Addr)
	c.signal(syscall.SIGTERM)
	if e := l.await(dhcp.EventRelease); e.Addr != first.Addr {
		t.Errorf("release of %v, want %v", e.Addr, first.Addr)
	}
}

func TestNetworkdRebinds(t *testing.T) {
	l := newLAN(t)
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{unreachable(l)}, SkipProbe: true})
	startNetworkd(l)
	l.awaitKept(addr("10.77.0.100"))
}

// A client behind a relay (dnsmasq as the relay): the answers go to the relay,
// the renewal comes directly, through the router.
func TestClientBehindARelay(t *testing.T) {
	labtest.Need(t, "udhcpc", "dnsmasq")
	l := newLAN(t)
	n := l.subnet()
	far := n
	far.Interface, far.Prefix = "", netip.MustParsePrefix("10.78.0.0/24")
	far.First, far.Last, far.Gateway = addr("10.78.0.100"), addr("10.78.0.120"), addr("10.78.0.254")
	l.serve(&dhcp.Server{Subnets: []dhcp.Subnet{n, far}})
	l.must(l.home.Route(far.Prefix, addr("10.77.0.254")))

	router, pc := l.machine(), l.machineApart()
	l.must(router.Address("eth0", netip.MustParsePrefix("10.77.0.254/24")))
	l.must(router.Veth("eth1", pc, "eth0"))
	l.must(router.Address("eth1", netip.MustParsePrefix("10.78.0.254/24")))
	l.must(router.Forward())
	relay := exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root",
		"--dhcp-relay=10.78.0.254,10.77.0.1", "--log-facility=-", "--pid-file=", "--dhcp-leasefile="+t.TempDir()+"/leases")
	out := newWatcher("DHCP relay")
	relay.Stdout, relay.Stderr = out, out
	relay.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	l.must(router.Start(relay))
	t.Cleanup(func() {
		relay.Process.Kill()
		relay.Wait()
		if t.Failed() {
			t.Logf("relay said:\n%s", out)
		}
	})
	select {
	case <-out.seen:
	case <-time.After(patience):
		t.Fatalf("the relay does not start: %s", out)
	}

	c := l.start(pc, udhcpcHook+"\n[ $1 = bound ] && ip route add default via $router", "udhcpc", "-f", "-i", "eth0", "-s", "SCRIPT", "-t", "5", "-T", "2")
	c.expect("bound 10.78.0.100")
	if e := l.await(dhcp.EventAck); e.Client.Relay != addr("10.78.0.254") {
		t.Errorf("relay %v, want 10.78.0.254", e.Client.Relay)
	}
	c.signal(syscall.SIGUSR1)
	c.expect("renew 10.78.0.100")
	if e := l.await(dhcp.EventAck); e.Client.Relay.IsValid() || e.Addr != addr("10.78.0.100") {
		t.Errorf("renewal of %v through relay %v, want it direct", e.Addr, e.Client.Relay)
	}
}

// One server on two interfaces: each machine gets an address of its own network,
// from the server's address there.
func TestTwoInterfaces(t *testing.T) {
	labtest.Need(t, "udhcpc")
	l := newLAN(t)
	second := l.bridge + "b"
	l.must(l.home.Bridge(second))
	t.Cleanup(func() { l.home.Delete(second) })
	l.must(l.home.Address(second, netip.MustParsePrefix("10.79.0.1/24")))
	pc := l.machineApart()
	l.must(pc.Veth("eth0", l.home, second+"p"))
	l.must(l.home.Attach(second+"p", second))

	there := dhcp.Subnet{Interface: second, Server: addr("10.79.0.1"), Prefix: netip.MustParsePrefix("10.79.0.0/24"), First: addr("10.79.0.5"), Last: addr("10.79.0.6")}
	s := &dhcp.Server{Subnets: []dhcp.Subnet{l.subnet(), there}, Events: l.event, SkipProbe: true}
	c1 := l.listen(67)
	c2, err := dhcp.Listen(t.Context(), second, 67)
	l.must(err)
	defer c2.Close()
	stop := l.run(func(ctx context.Context) error { return s.Serve(ctx, c1, c2) })
	defer stop()
	l.start(pc, udhcpcHook, "udhcpc", "-f", "-i", "eth0", "-s", "SCRIPT", "-t", "5", "-T", "2").expect("bound 10.79.0.5")
	l.start(l.machine(), udhcpcHook, "udhcpc", "-f", "-i", "eth0", "-s", "SCRIPT", "-t", "5", "-T", "2").expect("bound 10.77.0.100")
}

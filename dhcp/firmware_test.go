// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"slate/dhcp"
	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/process"
	"slate/testbed/qemu"
)

// scriptBooter sends firmware to iPXE's loaders, and iPXE to a script.
type scriptBooter struct{ booter }

func (b scriptBooter) Boot(ctx context.Context, c dhcp.Client) (dhcp.Boot, bool) {
	if c.IPXE {
		return dhcp.Boot{URL: "tftp://10.77.0.1/boot.ipxe"}, true
	}
	boot, ok := b.booter.Boot(ctx, c)
	boot.NextServer = netip.Addr{}
	return boot, ok
}

var dnsmasqUp = regexp.MustCompile(`dnsmasq-(dhcp|tftp)`)

// Real firmware: QEMU's BIOS with its iPXE ROM, and OVMF, whose own PXE loads
// iPXE; with a server, and with a proxy beside a dnsmasq that gives addresses.
func TestFirmwareBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("starts machines")
	}
	labtest.Need(t, "dnsmasq")
	labtest.NeedFile(t, "/usr/lib/ipxe/snponly.efi")
	for _, mode := range []string{"server", "proxy"} {
		t.Run(mode, func(t *testing.T) {
			l := labtest.New(t, lab.Options{})
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			root := filepath.Join(l.Dir(), "tftp")
			must(os.Mkdir(root, 0o755))
			loader, err := os.ReadFile("/usr/lib/ipxe/snponly.efi")
			must(err)
			must(os.WriteFile(filepath.Join(root, "snponly.efi"), loader, 0o644))
			must(os.WriteFile(filepath.Join(root, "boot.ipxe"), []byte("#!ipxe\necho SCRIPT ${platform} ${net0/ip} from ${net0.dhcp/dhcp-server}\nshell\n"), 0o644))
			dnsmasq := []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=root", "--log-facility=-", "--log-dhcp"}
			ready := &process.Ready{Line: dnsmasqUp}
			_, err = l.StartSpec(t.Context(), process.Spec{Name: "tftp", Ready: ready,
				Argv: append(dnsmasq, "--enable-tftp", "--tftp-root="+root, "--interface="+lab.MainBridge, "--bind-dynamic")})
			must(err)

			conns := map[int]*dhcp.Conn{}
			for _, port := range []int{67, 4011} {
				must(l.NS().Do(func() (err error) {
					conns[port], err = dhcp.Listen(t.Context(), lab.MainBridge, port)
					return err
				}))
				defer conns[port].Close()
			}
			serve, from := func(ctx context.Context) error {
				return (&dhcp.Server{Booter: scriptBooter{}, Subnets: []dhcp.Subnet{{
					Interface: lab.MainBridge, Server: addr("10.77.0.1"), Prefix: netip.MustParsePrefix("10.77.0.0/24"),
					First: addr("10.77.0.100"), Last: addr("10.77.0.110"), LeaseTime: time.Hour,
				}}}).Serve(ctx, conns[67])
			}, "10.77.0.1"
			if mode == "proxy" {
				host, err := l.AddHost("dhcpd", lab.Port{Bridge: lab.MainBridge, Addr: netip.MustParsePrefix("10.77.0.2/24")})
				must(err)
				_, err = host.StartSpec(t.Context(), process.Spec{Name: "dhcpd", Ready: ready, Argv: append(dnsmasq,
					"--dhcp-range=10.77.0.100,10.77.0.110,1h", "--no-ping", "--dhcp-leasefile="+filepath.Join(l.Dir(), "leases"))})
				must(err)
				serve, from = func(ctx context.Context) error {
					return (&dhcp.Proxy{Booter: scriptBooter{}, Addr: addr("10.77.0.1")}).Serve(ctx, conns[67], conns[4011])
				}, "10.77.0.2"
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- serve(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Errorf("Serve: %v", err)
				}
			}()

			const limit = 4 * time.Minute
			bios := l.Node(lab.NodeSpec{Name: "b", Memory: 256})
			uefi := l.Node(lab.NodeSpec{Name: "u", Memory: 256, Firmware: qemu.UEFI})
			l.Expect(bios, limit, "SCRIPT pcbios 10.77.0.1", "from "+from)
			l.Expect(uefi, limit, "PXE over IPv4", "SCRIPT efi 10.77.0.1", "from "+from)
		})
	}
}

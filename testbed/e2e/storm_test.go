// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/pin/tftp/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slate/testbed/lab"
	"slate/testbed/labtest"
)

var stormSize = flag.Int("storm", 24, "how many machines are switched on at once in the boot storm")

// A room is switched on: all machines ask for an address, a loader, a script and a
// kernel at once. A sixth of them may load at the same time, the others are told
// their place and come again; none fails. The machines are simulated up to the
// kernel, each with a network stack of its own.
func TestBootStorm(t *testing.T) {
	s := newSite(t, labtest.New(t, lab.Options{NoCapture: true}))
	settings, err := os.ReadFile(s.dir + "/slate.toml")
	if err != nil {
		t.Fatal(err)
	}
	limit := max(*stormSize/6, 1)
	settings = regexp.MustCompile(`(?m)^boots = .*`).ReplaceAll(settings, fmt.Appendf(nil, "boots = %d", limit))
	settings = regexp.MustCompile(`(?m)^range = .*`).ReplaceAll(settings, []byte(`range = "10.77.0.5-10.77.0.254"`))
	if err := os.WriteFile(s.dir+"/slate.toml", settings, 0o600); err != nil {
		t.Fatal(err)
	}
	s.serve()
	var clients []*stormClient
	for i := range *stormSize {
		host, err := s.AddHost(fmt.Sprint("client", i), lab.Port{})
		if err != nil {
			t.Fatal(err)
		}
		c := &stormClient{site: s, host: host}
		if c.mac, err = host.NS().HardwareAddr("eth0"); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}

	start := time.Now()
	var g errgroup.Group
	for i, c := range clients {
		g.Go(func() error {
			if err := c.boot(t.Context()); err != nil {
				return fmt.Errorf("client %d (%s): %w", i, c.mac, err)
			}
			c.took = time.Since(start)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(clients, func(a, b *stormClient) int { return int(a.took - b.took) })
	var waited int
	var loaded int64
	for _, c := range clients {
		if loaded += c.loaded; c.waited > 0 {
			waited++
		}
	}
	last := clients[len(clients)-1].took
	t.Logf("%d machines, %d at a time: the first has its kernel after %.1f s, half of them after %.1f s, the last after %.1f s; %d waited in the queue; %.1f GB, %.0f MB/s",
		len(clients), limit, clients[0].took.Seconds(), clients[len(clients)/2].took.Seconds(), last.Seconds(), waited, float64(loaded)/1e9, float64(loaded)/1e6/last.Seconds())
	if waited == 0 {
		t.Error("no machine had to wait for its turn")
	}
	checkStorm(t, s, clients)
}

// checkStorm looks at what slate status says about the machines.
func checkStorm(t *testing.T, s *site, clients []*stormClient) {
	var status struct {
		Nodes []struct {
			MACs  []string
			Boots []struct{ Events []event }
		}
	}
	if err := json.Unmarshal([]byte(s.slate("status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Nodes) != len(clients) {
		t.Errorf("%d nodes, want one for each of %d machines", len(status.Nodes), len(clients))
	}
	waited := 0
	for _, n := range status.Nodes {
		if len(n.Boots) == 0 {
			t.Errorf("%v: no boot", n.MACs)
			continue
		}
		var words []string
		for _, e := range n.Boots[0].Events {
			words = append(words, e.Step+" "+e.State)
			if strings.Contains(e.Text, "waits for its turn to load: place ") {
				waited++
			}
		}
		if slices.ContainsFunc(words, func(w string) bool { return strings.HasSuffix(w, " failed") }) || !slices.Contains(words, "kernel done") || !slices.Contains(words, "loader done") {
			t.Errorf("%v: the timeline is %q", n.MACs, words)
		}
	}
	if waited == 0 {
		t.Error("no timeline says that a machine waited for its turn")
	}
}

// stormClient is a machine as the appliance sees it: UEFI's PXE, then iPXE.
type stormClient struct {
	*site
	host   *lab.Host
	mac    net.HardwareAddr
	took   time.Duration
	waited int   // how often it was told to ask again
	loaded int64 // bytes by HTTP
}

func (c *stormClient) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	firmware, err := c.address(ctx, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")))
	if err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	if err := c.host.NS().Address("eth0", netip.PrefixFrom(netip.AddrFrom4([4]byte(firmware.YourIPAddr.To4())), 24)); err != nil {
		return err
	}
	if r := firmware.Router(); len(r) > 0 {
		if err := c.host.NS().Route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.AddrFrom4([4]byte(r[0].To4()))); err != nil {
			return err
		}
	}
	if err := c.loader(firmware); err != nil {
		return fmt.Errorf("loader: %w", err)
	}
	ipxe, err := c.address(ctx, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003010")),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE"))))
	if err != nil {
		return fmt.Errorf("iPXE: %w", err)
	}
	return c.script(ctx, string(ipxe.Options.Get(dhcpv4.OptionBootfileName)))
}

// address asks for an address as firmware does, and again when no answer comes.
func (c *stormClient) address(ctx context.Context, as ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	var conn net.PacketConn
	err := c.host.NS().Do(func() (err error) {
		lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
			var serr error
			err := rc.Control(func(fd uintptr) {
				serr = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(int(fd), "eth0"))
			})
			return errors.Join(err, serr)
		}}
		conn, err = lc.ListenPacket(ctx, "udp4", "0.0.0.0:68")
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	as = append(as, dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64)))
	discover, err := dhcpv4.NewDiscovery(c.mac, as...)
	if err != nil {
		return nil, err
	}
	offer, err := exchange(ctx, conn, discover, dhcpv4.MessageTypeOffer)
	if err != nil {
		return nil, err
	}
	request, err := dhcpv4.NewRequestFromOffer(offer, as...)
	if err != nil {
		return nil, err
	}
	return exchange(ctx, conn, request, dhcpv4.MessageTypeAck)
}

// exchange sends a packet until its answer comes, with the pauses of UEFI.
func exchange(ctx context.Context, conn net.PacketConn, p *dhcpv4.DHCPv4, want dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	buf := make([]byte, 1500)
	for _, pause := range []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second} {
		if _, err := conn.WriteTo(p.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
			return nil, err
		}
		for deadline := time.Now().Add(pause); ctx.Err() == nil; {
			_ = conn.SetReadDeadline(deadline)
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				break
			}
			if r, err := dhcpv4.FromBytes(buf[:n]); err == nil && r.TransactionID == p.TransactionID && bytes.Equal(r.ClientHWAddr, p.ClientHWAddr) && r.MessageType() == want {
				return r, nil
			}
		}
	}
	return nil, fmt.Errorf("no %s in four tries", want)
}

func (c *stormClient) loader(ack *dhcpv4.DHCPv4) error {
	return c.host.NS().Do(func() error {
		client, err := tftp.NewClient(net.JoinHostPort(ack.ServerIPAddr.String(), "69"))
		if err != nil {
			return err
		}
		client.SetBlockSize(1428)
		file, err := client.Receive(strings.TrimRight(ack.BootFileName, "\x00"), "octet")
		if err != nil {
			return err
		}
		_, err = file.WriteTo(io.Discard)
		return err
	})
}

var (
	chainLine = regexp.MustCompile(`(?m)^chain .*(http://[^? ]+)\?`)
	sleepLine = regexp.MustCompile(`(?m)^sleep (\d+)$`)
	fileLine  = regexp.MustCompile(`(?m)^(?:kernel|initrd) --name \S+ (http://\S+)`)
)

// script does what the scripts say: ask again with its name, wait for its turn,
// load kernel and initramfs.
func (c *stormClient) script(ctx context.Context, at string) error {
	web := &http.Client{Transport: &http.Transport{DialContext: c.host.NS().DialContext, DisableKeepAlives: true}}
	var text []byte
	for {
		var err error
		if text, err = c.get(ctx, web, at, true); err != nil {
			return err
		}
		chain := chainLine.FindSubmatch(text)
		if chain == nil || fileLine.Match(text) {
			break
		}
		if m := sleepLine.FindSubmatch(text); bytes.Contains(text, []byte("waits for its turn")) && m != nil {
			c.waited++
			seconds, _ := strconv.Atoi(string(m[1]))
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		at = string(chain[1]) + "?" + url.Values{"mac": {c.mac.String()}, "platform": {"efi"}, "arch": {"x86_64"}}.Encode()
	}
	files := fileLine.FindAllSubmatch(text, -1)
	if len(files) < 3 {
		return fmt.Errorf("no kernel and initramfs in the script:\n%s", text)
	}
	for _, f := range files {
		if _, err := c.get(ctx, web, string(f[1]), false); err != nil {
			return err
		}
	}
	return nil
}

func (c *stormClient) get(ctx context.Context, web *http.Client, from string, keep bool) (text []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", from, resp.Status)
	}
	if keep {
		return io.ReadAll(resp.Body)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	c.loaded += n
	return nil, err
}

// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"slate/dhcp"
	"slate/dhcp/leases"
	"slate/testbed/labtest"
	"slate/testbed/netns"
)

// The benchmarks compare Server with kea-dhcp4 over a veth pair. The load comes
// through a simulated relay, in one namespace; the server runs as a process of
// its own in another, so that its time can be counted. Ours syncs each lease to
// disk before the answer; Kea's memfile does not sync.
//
//	go test -run - -bench . -benchtime 20000x ./dhcp

// benchServerEnv makes the test binary a DHCP server with its leases in that directory.
const benchServerEnv = "SLATE_DHCP_BENCH_SERVER"

func benchServer(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := func() error {
		store, err := leases.Open(filepath.Join(dir, "leases.db"), nil)
		if err != nil {
			return err
		}
		defer store.Close()
		c, err := dhcp.Listen(ctx, "eth0", 67)
		if err != nil {
			return err
		}
		defer c.Close()
		fmt.Println("ready")
		s := &dhcp.Server{Leases: store, Subnets: []dhcp.Subnet{{
			Interface: "eth0", Server: addr("10.77.0.1"), Prefix: netip.MustParsePrefix("10.77.0.0/16"),
			First: addr("10.77.1.0"), Last: addr("10.77.255.250"), Gateway: addr("10.77.0.1"), LeaseTime: time.Hour,
		}}}
		return s.Serve(ctx, c)
	}()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// wire is a server process and the socket of a relay in front of it.
type wire struct {
	testing.TB
	server, relay *netns.NS
	cmd           *exec.Cmd
	out           *watcher
}

func newWire(b testing.TB) *wire {
	b.Helper()
	w := &wire{TB: b}
	for _, ns := range []**netns.NS{&w.server, &w.relay} {
		n, err := netns.New()
		w.must(err)
		b.Cleanup(func() { n.Close() })
		*ns = n
	}
	w.must(w.server.Veth("eth0", w.relay, "eth0"))
	w.must(w.server.Up("lo"))
	w.must(w.server.Address("eth0", netip.MustParsePrefix("10.77.0.1/16")))
	w.must(w.relay.Address("eth0", netip.MustParsePrefix("10.77.0.2/16")))
	return w
}

func (w *wire) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// start runs the server until it says ready; stop ends it.
func (w *wire) start(ready string, env []string, args ...string) {
	w.Helper()
	w.out = newWatcher(ready)
	w.cmd = exec.Command(args[0], args[1:]...)
	w.cmd.Env = append(os.Environ(), env...)
	w.cmd.Stdout, w.cmd.Stderr = w.out, w.out
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.must(w.server.Start(w.cmd))
	w.Cleanup(func() { w.stop() })
	select {
	case <-w.out.seen:
	case <-time.After(patience):
		w.Fatalf("%s does not start: %s", args[0], w.out)
	}
}

// stop ends the server and returns its CPU time and largest memory.
func (w *wire) stop() (cpu time.Duration, rss int64) {
	if w.cmd == nil {
		return 0, 0
	}
	cmd := w.cmd
	w.cmd = nil
	// Not from rusage: that begins with the memory of the process it was forked from.
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if m := highWater.FindSubmatch(status); m != nil {
		kb, _ := strconv.ParseInt(string(m[1]), 10, 64)
		rss = kb << 10
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), rss
}

var highWater = regexp.MustCompile(`VmHWM:\s*(\d+) kB`)

// servers are what is compared. One that is slow makes a fiftieth of the leases,
// and is not asked at a fixed rate.
var servers = []struct {
	name  string
	start func(w *wire)
	slow  bool
}{
	{"slate", func(w *wire) {
		exe, err := os.Executable()
		w.must(err)
		w.start("ready", []string{benchServerEnv + "=" + w.TempDir()}, exe)
	}, false},
	{"kea", startKea, false},
	{"dnsmasq", startDnsmasq, true},
}

// startDnsmasq starts dnsmasq, which syncs its lease file for each lease.
func startDnsmasq(w *wire) {
	w.Helper()
	labtest.Need(w, "dnsmasq")
	w.start("IP range", nil, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root",
		"--interface=eth0", "--dhcp-authoritative", "--no-ping", "--dhcp-lease-max=70000", "--dhcp-range=10.77.1.0,10.77.255.250,255.255.0.0,1h",
		"--quiet-dhcp", "--log-facility=-", "--pid-file=", "--dhcp-leasefile="+w.TempDir()+"/leases")
}

func startKea(w *wire) {
	w.Helper()
	labtest.Need(w, "kea-dhcp4")
	dir := w.TempDir()
	conf, err := json.Marshal(map[string]any{"Dhcp4": map[string]any{
		"interfaces-config": map[string]any{"interfaces": []string{"eth0"}, "dhcp-socket-type": "udp"},
		"lease-database":    map[string]any{"type": "memfile", "persist": true, "name": dir + "/leases.csv", "lfc-interval": 0},
		"multi-threading":   map[string]any{"enable-multi-threading": true, "thread-pool-size": 2, "packet-queue-size": 64},
		"valid-lifetime":    3600,
		"subnet4": []any{map[string]any{"id": 1, "subnet": "10.77.0.0/16",
			"pools": []any{map[string]any{"pool": "10.77.1.0 - 10.77.255.250"}}}},
		"loggers": []any{map[string]any{"name": "kea-dhcp4", "severity": "INFO", "output_options": []any{map[string]any{"output": "stdout"}}}},
	}})
	w.must(err)
	file := filepath.Join(dir, "kea.json")
	w.must(os.WriteFile(file, conf, 0o600))
	w.start("DHCP4_STARTED", []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir}, "kea-dhcp4", "-c", file)
}

// BenchmarkLeases measures whole leases, DISCOVER to ACK, in a closed loop with
// as many clients at once.
func BenchmarkLeases(b *testing.B) {
	for _, clients := range []int{1, 32} {
		for _, s := range servers {
			b.Run(fmt.Sprintf("%s/clients=%d", s.name, clients), func(b *testing.B) {
				w := newWire(b)
				s.start(w)
				l := newLoad(w)
				n := b.N
				if s.slow {
					n = max(1, n/50)
				}
				b.ResetTimer()
				l.run(n, clients)
				b.StopTimer()
				cpu, rss := w.stop()
				l.report(b, cpu, rss)
			})
		}
	}
}

// load is machines behind a relay.
type load struct {
	*wire
	conn    net.PacketConn
	waiting []chan *dhcpv4.DHCPv4 // by worker

	mu     sync.Mutex
	holder map[netip.Addr]int
	took   []time.Duration
	drops  atomic.Int64
}

func newLoad(w *wire) *load {
	w.Helper()
	c, err := w.relay.ListenPacket("udp4", "10.77.0.2:67")
	w.must(err)
	c.(*net.UDPConn).SetReadBuffer(4 << 20)
	w.Cleanup(func() { c.Close() })
	return &load{wire: w, conn: c, holder: map[netip.Addr]int{}}
}

func (l *load) run(n, workers int) {
	l.open(workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				l.lease(worker, i%60_000)
			}
		})
	}
	wg.Wait()
}

// runUntil goes on, from a machine on, until a question is not answered. enough is
// closed after so many leases.
func (l *load) runUntil(from, workers, leases int, enough chan struct{}) {
	l.open(workers)
	var next, made atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for l.lease(worker, int(next.Add(1))-1) {
				if made.Add(1) == int64(leases) {
					close(enough)
				}
			}
		})
	}
	wg.Wait()
}

// open makes a place for the answers to each worker.
func (l *load) open(workers int) {
	if l.waiting != nil {
		return
	}
	for range workers {
		l.waiting = append(l.waiting, make(chan *dhcpv4.DHCPv4, 16))
	}
	go l.read()
}

func (l *load) read() {
	buf := make([]byte, 2048)
	for {
		n, _, err := l.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		p, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			continue
		}
		if w := int(binary.BigEndian.Uint16(p.TransactionID[:2])); w < len(l.waiting) {
			select {
			case l.waiting[w] <- p:
			default: // an answer that nobody waits for any more
			}
		}
	}
}

// lease is one machine's way to its address; false: it got none.
func (l *load) lease(worker, machine int) bool {
	start := time.Now()
	p := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, HopCount: 1, GatewayIPAddr: net.IPv4(10, 77, 0, 2),
		ClientHWAddr: machineMAC(machine),
		Options:      dhcpv4.Options{53: {1}, 55: {1, 3, 6, 15}},
	}
	offer := l.exchange(p, worker, machine, dhcpv4.MessageTypeOffer)
	if offer == nil {
		return false
	}
	p.Options[53] = []byte{3}
	p.Options[50], p.Options[54] = offer.YourIPAddr.To4(), offer.Options[54]
	ack := l.exchange(p, worker, machine, dhcpv4.MessageTypeAck)
	if ack == nil {
		return false
	}
	a, _ := netip.AddrFromSlice(ack.YourIPAddr.To4())
	l.mu.Lock()
	defer l.mu.Unlock()
	if h, ok := l.holder[a]; ok && h != machine {
		l.Errorf("%v was given to machines %d and %d", a, h, machine)
	}
	l.holder[a] = machine
	l.took = append(l.took, time.Since(start))
	return true
}

func (l *load) exchange(p *dhcpv4.DHCPv4, worker, machine int, want dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	binary.BigEndian.PutUint16(p.TransactionID[:2], uint16(worker))
	binary.BigEndian.PutUint16(p.TransactionID[2:], uint16(machine)+uint16(want)<<13)
	if _, err := l.conn.WriteTo(p.ToBytes(), &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 67}); err != nil {
		l.Error(err)
		return nil
	}
	timeout := time.NewTimer(time.Second)
	defer timeout.Stop()
	for {
		select {
		case a := <-l.waiting[worker]:
			if a.TransactionID == p.TransactionID && a.MessageType() == want {
				return a
			}
		case <-timeout.C:
			l.drops.Add(1)
			return nil
		}
	}
}

func (l *load) report(b *testing.B, cpu time.Duration, rss int64) {
	b.Helper()
	if len(l.took) == 0 {
		b.Fatalf("no lease at all; the server said:\n%s", l.out)
	}
	slices.Sort(l.took)
	ms := func(p int) float64 { return l.took[(len(l.took)-1)*p/100].Seconds() * 1000 }
	b.ReportMetric(float64(len(l.took))/b.Elapsed().Seconds(), "leases/s")
	b.ReportMetric(ms(50), "p50-ms")
	b.ReportMetric(ms(99), "p99-ms")
	b.ReportMetric(float64(l.drops.Load()), "drops")
	b.ReportMetric(float64(cpu.Microseconds())/float64(len(l.took)), "server-µs/lease")
	b.ReportMetric(float64(rss)/1e6, "server-MB")
	b.ReportMetric(0, "ns/op")
}

var dropsRatio = regexp.MustCompile(`drops ratio: ([0-9.]+) ?%`)

// BenchmarkPerfdhcp measures with Kea's perfdhcp at a fixed rate, whether the
// server keeps up or not. It runs for three seconds, whatever -benchtime says.
func BenchmarkPerfdhcp(b *testing.B) {
	labtest.Need(b, "perfdhcp")
	for _, rate := range []int{3000, 6000} {
		for _, s := range servers {
			if s.slow {
				continue
			}
			b.Run(fmt.Sprintf("%s/rate=%d", s.name, rate), func(b *testing.B) {
				w := newWire(b)
				s.start(w)
				cmd := exec.Command("perfdhcp", "-4", "-l", "eth0", "-r", strconv.Itoa(rate), "-R", "50000", "-p", "3", "10.77.0.1")
				var out strings.Builder
				cmd.Stdout, cmd.Stderr = &out, &out
				w.must(w.relay.Start(cmd))
				err := cmd.Wait() // status 3: some packets were dropped
				drops := dropsRatio.FindAllStringSubmatch(out.String(), -1)
				if len(drops) != 2 {
					b.Fatalf("perfdhcp: %v\n%s", err, out.String())
				}
				for i, unit := range []string{"%-dropped-DISCOVER", "%-dropped-REQUEST"} {
					v, err := strconv.ParseFloat(drops[i][1], 64)
					w.must(err)
					b.ReportMetric(v, unit)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp_test

import (
	"cmp"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slate/testbed/labtest"
)

var (
	peerRounds = flag.Int("tftp.peers", 0, "compare with other TFTP servers, so many rounds")
	peerOnly   = flag.String("tftp.only", "", "only rows whose name contains this")
)

// load is one row of the comparison.
type load struct {
	size      int64
	clients   int
	blockSize int
	window    int
}

func (l load) String() string {
	if l.clients > 1 {
		return fmt.Sprintf("%d x %d MB, block %d, window %d", l.clients, l.size/1e6, l.blockSize, l.window)
	}
	return fmt.Sprintf("%d MB, block %d, window %d", l.size/1e6, l.blockSize, l.window)
}

type measured struct {
	mbps, cpuPerGB, firstReplyP99 float64
	retransmitted, failed         int
}

// TestPeers measures this server beside others, in turns, and prints a table.
// Run it with -tftp.peers=5 -v.
func TestPeers(t *testing.T) {
	if *peerRounds == 0 {
		t.Skip("a measurement: run with -tftp.peers=5 -v")
	}
	labtest.Need(t, "atftpd", "dnsmasq")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sums := map[int64]uint32{}
	loads := []load{
		{50e6, 1, 512, 1}, {50e6, 1, 1428, 1}, {50e6, 1, 1428, 4}, {50e6, 1, 1428, 16}, {50e6, 1, 1428, 64},
		{1e6, 64, 1428, 1}, {1e6, 64, 1428, 16},
	}
	for _, l := range loads {
		b := make([]byte, l.size)
		rand.NewChaCha8([32]byte{1}).Read(b)
		sums[l.size] = crc32.Checksum(b, castagnoli)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(l.size)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	peers := startPeers(t, dir)
	fmt.Println("| Transfer | Server | MB/s | Server CPU s/GB | First reply p99 ms | Sent again | Errors |\n|---|---|---|---|---|---|---|")
	for _, l := range loads {
		if !strings.Contains(l.String(), *peerOnly) {
			continue
		}
		results := make([][]measured, len(peers))
		for round := range *peerRounds {
			for i := range peers {
				p := (i + round) % len(peers)
				results[p] = append(results[p], measure(t, peers[p], l, sums[l.size]))
			}
		}
		for i, p := range peers {
			r := results[i]
			again, failed := 0, 0
			for _, m := range r {
				again += m.retransmitted
				failed += m.failed
			}
			fmt.Printf("| %v | %s | %.1f | %.2f | %.2f | %d | %d |\n", l, p.name,
				median(r, func(m measured) float64 { return m.mbps }), median(r, func(m measured) float64 { return m.cpuPerGB }),
				median(r, func(m measured) float64 { return m.firstReplyP99 }), again, failed)
		}
	}
}

type peer struct {
	name string
	addr netip.AddrPort
	pid  int
}

func startPeers(t *testing.T, dir string) []peer {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var peers []peer
	start := func(name, addr string, argv ...string) {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stderr = os.Stderr
		cmd.Env = append(os.Environ(), serveEnv+"="+name)
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		p := peer{name, netip.MustParseAddrPort(addr), cmd.Process.Pid}
		if err := fetchAll(&fetch{server: p.addr, name: "1000000", blockSize: 1428, window: 1, timeout: 50 * time.Millisecond, tries: 100}); err != nil {
			t.Fatalf("%s does not answer: %v", name, err)
		}
		peers = append(peers, p)
	}
	start("slate", "127.0.0.1:7001", self, "127.0.0.1:7001", dir)
	start("atftpd", "127.0.0.1:7002", "atftpd", "--daemon", "--no-fork", "--port=7002", "--bind-address=127.0.0.1",
		"--user=root.root", "--maxthread=200", "--verbose=0", "--logfile=/dev/null", dir)
	start("dnsmasq", "127.0.0.1:69", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--enable-tftp", "--tftp-root="+dir,
		"--listen-address=127.0.0.1", "--bind-interfaces", "--user=root", "--group=root", "--tftp-max=200", "--log-facility=/dev/null", "--pid-file=")
	start("pin", "127.0.0.1:7003", self, "127.0.0.1:7003", dir)
	return peers
}

func measure(t *testing.T, p peer, l load, sum uint32) measured {
	fetches := make([]*fetch, l.clients)
	for i := range fetches {
		fetches[i] = &fetch{server: p.addr, name: fmt.Sprint(l.size), blockSize: l.blockSize, window: l.window, timeout: time.Second, tries: 5}
	}
	before, start := cpuTime(t, p.pid), time.Now()
	_ = fetchAll(fetches...) // counted below
	took, cpu := time.Since(start), cpuTime(t, p.pid)-before
	var m measured
	var first []time.Duration
	for _, f := range fetches {
		m.retransmitted += f.retransmitted
		first = append(first, f.firstReply)
		if f.err != nil || f.size != l.size || f.sum != sum {
			t.Logf("%s, %v: %d bytes, %v", p.name, l, f.size, f.err)
			m.failed++
		}
	}
	total := float64(l.size) * float64(l.clients)
	m.mbps = total / 1e6 / took.Seconds()
	m.cpuPerGB = cpu.Seconds() / (total / 1e9)
	slices.Sort(first)
	m.firstReplyP99 = first[min(len(first)*99/100, len(first)-1)].Seconds() * 1e3
	return m
}

// cpuTime is what a process has used, threads that have ended included.
func cpuTime(t *testing.T, pid int) time.Duration {
	var ts unix.Timespec
	// The clock of another process, see clock_getcpuclockid(3).
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func median(r []measured, of func(measured) float64) float64 {
	v := slices.SortedFunc(slices.Values(r), func(a, b measured) int { return cmp.Compare(of(a), of(b)) })
	return of(v[len(v)/2])
}

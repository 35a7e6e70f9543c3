// SPDX-License-Identifier: GPL-2.0-or-later

package tftp_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	pin "github.com/pin/tftp/v3"
	"github.com/vishvananda/netlink"

	"slate/testbed/labtest"
	"slate/tftp"
)

// clients are programs and libraries that others wrote. Each fetches a file from
// a server; block 0 leaves the size to the client.
var clients = []struct {
	name   string
	needs  string // program
	blocks []int
	fetch  func(t *testing.T, server netip.AddrPort, name string, block int) ([]byte, error)
}{
	{"curl", "curl", []int{0, 1428}, func(t *testing.T, server netip.AddrPort, name string, block int) ([]byte, error) {
		args := []string{"--silent", "--show-error", "--max-time", "60"}
		if block != 0 {
			args = append(args, "--tftp-blksize", strconv.Itoa(block))
		}
		return exec.Command("curl", append(args, fmt.Sprintf("tftp://%v/%s", server, name))...).Output()
	}},
	{"tftp-hpa", "tftp", []int{0}, func(t *testing.T, server netip.AddrPort, name string, _ int) ([]byte, error) {
		file := filepath.Join(t.TempDir(), "got")
		out, err := exec.Command("tftp", "-4", "-m", "octet", server.Addr().String(), strconv.Itoa(int(server.Port())), "-c", "get", name, file).CombinedOutput()
		if err != nil || len(out) > 0 { // it ends with status 0 whatever happens
			return nil, fmt.Errorf("%s%w", out, errors.Join(err, errors.New("see its output")))
		}
		return os.ReadFile(file)
	}},
	{"pin/tftp", "", []int{0, 1428, 8192, 65464}, func(t *testing.T, server netip.AddrPort, name string, block int) ([]byte, error) {
		c, err := pin.NewClient(server.String())
		if err != nil {
			return nil, err
		}
		c.SetTimeout(100 * time.Millisecond)
		c.SetRetries(20)
		c.SetBackoff(func(int) time.Duration { return 0 })
		c.RequestTSize(true)
		c.SetBlockSize(block)
		from, err := c.Receive(name, "octet")
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		_, err = from.WriteTo(&b)
		return b.Bytes(), err
	}},
}

func TestForeignClients(t *testing.T) {
	// tftp-hpa does not take even 127.0.0.1 for an address where there is no other.
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("192.0.2.1/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.AddrDel(lo, addr); err != nil {
			t.Error(err)
		}
	})
	s := start(t, nil)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			if c.needs != "" {
				labtest.Need(t, c.needs)
			}
			for _, name := range []string{"small", "empty", "big", "dir/undionly.kpxe"} {
				for _, block := range c.blocks {
					got, err := c.fetch(t, s.addr, name, block)
					if err != nil || !bytes.Equal(got, s.files[name]) {
						t.Fatalf("%s, block %d: %v, %d of %d bytes", name, block, err, len(got), len(s.files[name]))
					}
					if e := s.outcome(t); e.Kind != tftp.Done || e.Bytes != int64(len(got)) {
						t.Errorf("%s, block %d: event %+v", name, block, e)
					}
				}
			}
			if got, err := c.fetch(t, s.addr, "nope", c.blocks[0]); err == nil {
				t.Errorf("a missing file gave %d bytes and no error", len(got))
			}
			s.outcome(t)
		})
	}
}

// lossy carries one client's packets to a server and back, on sockets of its own,
// and loses, doubles and swaps some of them.
type lossy struct {
	near, far *net.UDPConn // towards the client, towards the server
	server    netip.AddrPort

	mu     sync.Mutex
	rng    *rand.Rand
	client netip.AddrPort
	peer   netip.AddrPort // the server's port for this transfer
	lost   int
}

func newLossy(t *testing.T, server netip.AddrPort, seed uint64) *lossy {
	t.Helper()
	l := &lossy{server: server, peer: server, rng: rand.New(rand.NewPCG(seed, 0))}
	for _, c := range []**net.UDPConn{&l.near, &l.far} {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		*c = conn
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.carry(l.near, l.far, true) })
	wg.Go(func() { l.carry(l.far, l.near, false) })
	t.Cleanup(func() { l.near.Close(); l.far.Close(); wg.Wait() })
	return l
}

func (l *lossy) addr() netip.AddrPort {
	return l.near.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (l *lossy) carry(in, out *net.UDPConn, toServer bool) {
	buf := make([]byte, 70_000)
	var held []byte // a packet that lets the next one pass
	for {
		n, from, err := in.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		l.mu.Lock()
		if toServer && from != l.client {
			l.client, l.peer = from, l.server // a new transfer starts with a request
		} else if !toServer {
			l.peer = from
		}
		to := l.client
		if toServer {
			to = l.peer
		}
		chance := l.rng.Float64()
		if chance < 0.05 {
			l.lost++
		}
		l.mu.Unlock()
		packets := [][]byte{buf[:n]}
		switch {
		case chance < 0.05:
			packets = nil
		case chance < 0.10:
			packets = append(packets, buf[:n])
		case chance < 0.15 && held == nil:
			held, packets = bytes.Clone(buf[:n]), nil
		case held != nil:
			packets, held = append(packets, held), nil
		}
		for _, p := range packets {
			_, _ = out.WriteToUDPAddrPort(p, to) // a lost packet, should it fail
		}
	}
}

func TestLossyNetwork(t *testing.T) {
	s := start(t, func(s *site) {
		s.Timeout, s.MaxTimeout, s.Retries = 30*time.Millisecond, 60*time.Millisecond, 100
		s.files["medium"] = noise(40_000)
	})
	for seed := range uint64(3) {
		for _, window := range []int{1, 4, 16} {
			l := newLossy(t, s.addr, seed)
			f := s.fetch("medium", 1024, window)
			f.server, f.timeout, f.tries = l.addr(), 50*time.Millisecond, 50
			if err := fetchAll(f); err != nil || f.size != 40_000 {
				t.Errorf("seed %d, window %d: %v, %d bytes", seed, window, err, f.size)
			}
		}
		l := newLossy(t, s.addr, 100+seed)
		pin := clients[len(clients)-1]
		got, err := pin.fetch(t, l.addr(), "medium", 1428)
		if err != nil || !bytes.Equal(got, s.files["medium"]) {
			t.Errorf("pin/tftp, seed %d: %v, %d bytes", seed, err, len(got))
		}
		l.mu.Lock()
		if l.lost == 0 {
			t.Errorf("seed %d: nothing was lost", seed)
		}
		l.mu.Unlock()
	}
}

// A block never needs more than one frame. This network namespace is the test's
// own, and so is the MTU of its lo.
func TestBlockFitsPath(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMTU(lo, 1500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkSetMTU(lo, lo.Attrs().MTU); err != nil {
			t.Error(err)
		}
	})
	s := start(t, nil)
	for _, window := range []int{1, 16} {
		f := s.fetch("big", 8192, window)
		if err := fetchAll(f); err != nil {
			t.Fatal(err)
		}
		if got, want := f.options["blksize"], "1468"; got != want { // 1500 - 20 IP - 8 UDP - 4 TFTP
			t.Errorf("blksize %s, want %s", got, want)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/tftp"
)

// site is a running server with files in memory.
type site struct {
	*tftp.Server
	addr   netip.AddrPort
	files  map[string][]byte
	events chan tftp.Event
	log    *lockedBuffer
	stop   func() error // ends Serve and returns its error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a server on loopback; change, if not nil, sets its fields.
func start(t *testing.T, change func(*site)) *site {
	t.Helper()
	s := &site{Server: new(tftp.Server), addr: netip.MustParseAddrPort("127.0.0.1:0"), events: make(chan tftp.Event, 10_000), log: new(lockedBuffer),
		files: map[string][]byte{"small": []byte("hello"), "empty": {}, "big": noise(300_000), "text": []byte("a\nb\rc\n"), "dir/undionly.kpxe": noise(2048)}}
	s.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.Events = func(e tftp.Event) { s.events <- e }
	s.Open = func(name string, _ netip.AddrPort) (tftp.File, error) {
		b, ok := s.files[name]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return tftp.Bytes(b), nil
	}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := tftp.Listen(ctx, s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.addr = netip.AddrPortFrom(s.addr.Addr(), conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, conn) }()
	var once sync.Once
	s.stop = func() (err error) {
		once.Do(func() { cancel(); err = <-ended })
		return err
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{9}).Read(b)
	return b
}

// outcome waits for the end of a request and returns its event.
func (s *site) outcome(t *testing.T) tftp.Event {
	t.Helper()
	for {
		select {
		case e := <-s.events:
			if e.Kind != tftp.Requested {
				return e
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no end of the request in 20 s; log:\n%s", s.log)
		}
	}
}

func (s *site) fetch(name string, block, window int) *fetch {
	return &fetch{server: s.addr, name: name, blockSize: block, window: window, timeout: time.Second, tries: 5}
}

// conn is a client socket that a test drives by hand.
func (s *site) conn(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *site) send(t *testing.T, c *net.UDPConn, packet string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(packet), s.addr); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 70_000)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), from
}

func TestFiles(t *testing.T) {
	s := start(t, nil)
	for name, content := range s.files {
		for _, p := range [][2]int{{512, 1}, {1428, 1}, {1428, 16}, {8192, 4}, {65464, 64}, {8, 64}} {
			f := s.fetch(name, p[0], p[1])
			if err := fetchAll(f); err != nil {
				t.Fatalf("%s, block %d, window %d: %v", name, p[0], p[1], err)
			}
			if f.size != int64(len(content)) || f.sum != crc32.Checksum(content, castagnoli) {
				t.Errorf("%s, block %d, window %d: content differs", name, p[0], p[1])
			}
			e := s.outcome(t)
			if e.Kind != tftp.Done || e.Name != name || e.Bytes != int64(len(content)) || e.Size != e.Bytes || e.BlockSize != min(p[0], 65464) {
				t.Errorf("%s, block %d, window %d: event %+v", name, p[0], p[1], e)
			}
		}
	}
}

func TestManyClients(t *testing.T) {
	s := start(t, func(s *site) { s.MaxPerClient = 100 })
	fetches := make([]*fetch, 64)
	for i := range fetches {
		fetches[i] = s.fetch("big", []int{512, 1428}[i%2], []int{1, 16}[i/2%2])
	}
	if err := fetchAll(fetches...); err != nil {
		t.Fatal(err)
	}
	for _, f := range fetches {
		if f.sum != crc32.Checksum(s.files["big"], castagnoli) {
			t.Error("content differs")
		}
		if e := s.outcome(t); e.Kind != tftp.Done {
			t.Errorf("event %+v", e)
		}
	}
}

func TestRefused(t *testing.T) {
	s := start(t, func(s *site) {
		open := s.Open
		s.Open = func(name string, client netip.AddrPort) (tftp.File, error) {
			switch name {
			case "forbidden":
				return nil, fmt.Errorf("/srv/secret/forbidden: %w", fs.ErrPermission)
			case "broken":
				return nil, errors.New("/srv/secret/broken: disk on fire")
			}
			return open(name, client)
		}
	})
	tests := []struct{ name, packet, reply, reason string }{
		{"no such file", "\x00\x01nope\x00octet\x00", "\x00\x05\x00\x01file not found\x00", "file not found"},
		{"forbidden", "\x00\x01forbidden\x00octet\x00", "\x00\x05\x00\x02access violation\x00", "/srv/secret/forbidden: permission denied"},
		{"broken", "\x00\x01broken\x00octet\x00", "\x00\x05\x00\x00the server cannot read the file\x00", "/srv/secret/broken: disk on fire"},
		{"write", "\x00\x02new\x00octet\x00", "\x00\x05\x00\x02this server only sends files\x00", "this server only sends files"},
		{"mail", "\x00\x01small\x00mail\x00", "\x00\x05\x00\x04mode mail is not supported, use octet\x00", "mode mail is not supported, use octet"},
		{"up", "\x00\x01../../etc/passwd\x00octet\x00", "\x00\x05\x00\x02access violation\x00", "the name leads out of the published files"},
		{"up with backslashes", "\x00\x01..\\..\\etc\\passwd\x00octet\x00", "\x00\x05\x00\x02access violation\x00", "the name leads out of the published files"},
		{"up from the top", "\x00\x01/../etc/passwd\x00octet\x00", "\x00\x05\x00\x02access violation\x00", "the name leads out of the published files"},
		{"absolute", "\x00\x01/etc/passwd\x00octet\x00", "\x00\x05\x00\x01file not found\x00", "file not found"},
		{"line break", "\x00\x01a\nb\x00octet\x00", "\x00\x05\x00\x02access violation\x00", "the name has control characters"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := s.conn(t)
			s.send(t, c, tt.packet)
			if got, _ := receive(t, c); got != tt.reply {
				t.Errorf("reply %q, want %q", got, tt.reply)
			}
			if e := s.outcome(t); e.Kind != tftp.Refused || e.Reason != tt.reason {
				t.Errorf("event %+v, want refused: %s", e, tt.reason)
			}
		})
	}
	if log := s.log.String(); strings.Contains(log, "a\nb") || !strings.Contains(log, "leads out") {
		t.Errorf("log:\n%s", log)
	}
}

// No name and no symbolic link leads out of a directory, whatever cleanName does.
func TestDirKeepsInside(t *testing.T) {
	top := t.TempDir()
	write := func(name string) {
		if err := os.WriteFile(top+"/"+name, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("outside")
	if err := os.Mkdir(top+"/in", 0o755); err != nil {
		t.Fatal(err)
	}
	write("in/file")
	for link, to := range map[string]string{"in/leaving": "../outside", "in/absolute": top + "/outside", "in/staying": "file"} {
		if err := os.Symlink(to, top+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(top + "/in")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	open := tftp.Dir(root)
	for name, ok := range map[string]bool{"file": true, "staying": true, "leaving": false, "absolute": false, "../outside": false, ".": false, "nope": false} {
		f, err := open(name, netip.AddrPort{})
		if (err == nil) != ok {
			t.Errorf("Dir open %q: %v, want success %v", name, err, ok)
		}
		if err == nil {
			f.Close()
		}
	}
}

func TestLayerSuffix(t *testing.T) {
	s := start(t, func(s *site) { s.files["pxelinux.0"] = []byte("x") })
	for asked, found := range map[string]string{"dir/undionly.kpxe.0": "dir/undionly.kpxe", "/dir//undionly.kpxe": "dir/undionly.kpxe", "pxelinux.0": "pxelinux.0"} {
		f := s.fetch(asked, 512, 1)
		if err := fetchAll(f); err != nil || f.size != int64(len(s.files[found])) {
			t.Errorf("%s: %v, %d bytes", asked, err, f.size)
		}
		if e := s.outcome(t); e.Name != found {
			t.Errorf("%s: event names %q, want %q", asked, e.Name, found)
		}
	}
}

// A PXE ROM asks once for the size, hangs up, and asks again.
func TestSizeProbe(t *testing.T) {
	s := start(t, nil)
	c := s.conn(t)
	s.send(t, c, "\x00\x01big\x00octet\x00tsize\x000\x00BLKSIZE\x001456\x00")
	got, from := receive(t, c)
	if want := "\x00\x06tsize\x00300000\x00BLKSIZE\x001456\x00"; got != want {
		t.Fatalf("OACK %q, want %q", got, want)
	}
	if _, err := c.WriteToUDPAddrPort([]byte("\x00\x05\x00\x08User aborted\x00"), from); err != nil {
		t.Fatal(err)
	}
	if e := s.outcome(t); e.Kind != tftp.Probed || e.Size != 300_000 || e.Bytes != 0 {
		t.Errorf("event %+v, want probed", e)
	}

	// Some just close the port: the kernel of the client then says so.
	c = s.conn(t)
	s.send(t, c, "\x00\x01big\x00octet\x00tsize\x000\x00")
	receive(t, c)
	c.Close()
	if e := s.outcome(t); e.Kind != tftp.Probed {
		t.Errorf("event %+v, want probed", e)
	}
}

func TestNetascii(t *testing.T) {
	s := start(t, func(s *site) { s.files["huge"] = make([]byte, 2<<20) })
	c := s.conn(t)
	s.send(t, c, "\x00\x01text\x00NetASCII\x00tsize\x000\x00")
	got, from := receive(t, c)
	if want := "\x00\x06tsize\x009\x00"; got != want {
		t.Fatalf("OACK %q, want %q", got, want)
	}
	if _, err := c.WriteToUDPAddrPort([]byte("\x00\x04\x00\x00"), from); err != nil {
		t.Fatal(err)
	}
	if got, _ = receive(t, c); got != "\x00\x03\x00\x01a\r\nb\r\x00c\r\n" {
		t.Errorf("DATA %q", got)
	}
	c = s.conn(t)
	s.send(t, c, "\x00\x01huge\x00netascii\x00")
	if got, _ = receive(t, c); got != "\x00\x05\x00\x04too large for netascii, use octet\x00" {
		t.Errorf("reply %q", got)
	}
}

// A request that arrives twice is answered once; another one from the same port
// ends the transfer before it, as ROMs use one port for all.
func TestSamePort(t *testing.T) {
	s := start(t, func(s *site) { s.Timeout = time.Minute; s.MaxTimeout = time.Minute })
	c := s.conn(t)
	s.send(t, c, "\x00\x01big\x00octet\x00")
	s.send(t, c, "\x00\x01big\x00octet\x00")
	_, first := receive(t, c)
	s.send(t, c, "\x00\x01small\x00octet\x00")
	got, second := receive(t, c)
	if got != "\x00\x03\x00\x01hello" || first == second {
		t.Fatalf("got %q from %v, want the other file from another port than %v", got, second, first)
	}
	if e := s.outcome(t); e.Kind != tftp.Failed || e.Name != "big" || e.Reason != "the client asked again" {
		t.Errorf("event %+v", e)
	}
	if _, err := c.WriteToUDPAddrPort([]byte("\x00\x04\x00\x01"), second); err != nil {
		t.Fatal(err)
	}
	if e := s.outcome(t); e.Kind != tftp.Done || e.Name != "small" {
		t.Errorf("event %+v", e)
	}
}

// A client that falls silent after its first ACKs and asks again from the same
// port has started over.
func TestStartedOver(t *testing.T) {
	s := start(t, func(s *site) { s.Timeout = time.Millisecond; s.MaxTimeout = time.Minute })
	c := s.conn(t)
	request := "\x00\x01big\x00octet\x00timeout\x00200\x00"
	s.send(t, c, request)
	_, first := receive(t, c)
	if _, err := c.WriteToUDPAddrPort([]byte("\x00\x04\x00\x00"), first); err != nil {
		t.Fatal(err)
	}
	receive(t, c)
	for {
		s.send(t, c, request)
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 600)
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err == nil && from != first {
			if !bytes.HasPrefix(b[:n], []byte("\x00\x06")) {
				t.Errorf("got %q, want an OACK", b[:n])
			}
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("never answered anew")
		}
	}
}

func TestVanishedClientFreesItsTransfer(t *testing.T) {
	s := start(t, func(s *site) {
		s.Timeout, s.MaxTimeout, s.Retries, s.MaxTransfers = time.Millisecond, 2*time.Millisecond, 3, 1
	})
	c := s.conn(t) // open, so that no closed port is reported
	s.send(t, c, "\x00\x01big\x00octet\x00")
	e := s.outcome(t)
	if e.Kind != tftp.Failed || e.Retransmitted != 3 || e.Reason != "no answer from the client at block 1 of 586" {
		t.Errorf("event %+v", e)
	}
	f := s.fetch("small", 512, 1)
	f.timeout, f.tries = 20*time.Millisecond, 100 // its place is free a moment after the event
	if err := fetchAll(f); err != nil {
		t.Errorf("the next client: %v", err)
	}
}

func TestLimits(t *testing.T) {
	s := start(t, func(s *site) {
		s.MaxTransfers, s.MaxPerClient, s.Timeout, s.MaxTimeout = 3, 2, time.Minute, time.Minute
		s.addr = netip.MustParseAddrPort("0.0.0.0:0")
	})
	ask := func(ip byte) *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, ip)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.WriteToUDPAddrPort([]byte("\x00\x01big\x00octet\x00"), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.addr.Port())); err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := ask(1), ask(1)
	receive(t, a)
	receive(t, b)
	ask(1)
	if e := s.outcome(t); e.Kind != tftp.Refused || e.Reason != "too many transfers of this client, left unanswered" {
		t.Errorf("third of one client: event %+v", e)
	}
	other := ask(2)
	receive(t, other)
	ask(3)
	if e := s.outcome(t); e.Kind != tftp.Refused || e.Reason != "too many transfers, left unanswered" {
		t.Errorf("fourth: event %+v", e)
	}
}

func TestStop(t *testing.T) {
	s := start(t, nil)
	c := s.conn(t)
	s.send(t, c, "\x00\x01big\x00octet\x00")
	receive(t, c)
	if err := s.stop(); err != nil {
		t.Fatalf("Serve = %v, want nil", err)
	}
	if e := s.outcome(t); e.Kind != tftp.Failed || e.Reason != "the server is stopping" {
		t.Errorf("event %+v", e)
	}
	if got, _ := receive(t, c); got != "\x00\x05\x00\x00the server is stopping\x00" {
		t.Errorf("client got %q", got)
	}
	conn, err := tftp.Listen(t.Context(), s.addr)
	if err != nil {
		t.Fatalf("a second start: %v", err)
	}
	conn.Close()
}

func TestGarbage(t *testing.T) {
	s := start(t, nil)
	c := s.conn(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		b := make([]byte, rng.IntN(64))
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		if i%3 == 0 && len(b) > 2 {
			b[0], b[1] = 0, byte(1+rng.IntN(6))
		}
		s.send(t, c, string(b))
	}
	s.send(t, c, strings.Repeat("\x00\x01", 20_000))
	f := s.fetch("small", 512, 1)
	f.timeout, f.tries = 100*time.Millisecond, 50 // the kernel may drop some of the flood
	if err := fetchAll(f); err != nil {
		t.Fatalf("after garbage: %v", err)
	}
	if lines := strings.Count(s.log.String(), "packet ignored"); lines < 5 || lines > 60 {
		t.Errorf("%d log lines about garbage, want a few", lines)
	}
}

func TestEventsOfOneTransfer(t *testing.T) {
	s := start(t, nil)
	if err := fetchAll(s.fetch("/small", 1024, 4)); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	close(s.events)
	var got []string
	for e := range s.events {
		got = append(got, fmt.Sprintf("%v %s %d/%d block %d window %d again %d %q", e.Kind, e.Name, e.Bytes, e.Size, e.BlockSize, e.Window, e.Retransmitted, e.Reason))
		if e.Time.IsZero() || !e.Client.IsValid() || e.Local != s.addr.Addr() || (e.Duration > 0) != (e.Kind == tftp.Done) {
			t.Errorf("event %+v", e)
		}
	}
	want := []string{`requested small 0/0 block 0 window 0 again 0 ""`, `done small 5/5 block 1024 window 4 again 0 ""`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events: -want +got\n%s", diff)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"slate/testbed/labtest"
)

// needFiles sees to it that this process and those it starts may open n files.
func needFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= n {
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: max(n, limit.Max)}); err != nil {
		labtest.Lacking(t, "this process may open %d files, and not be given %d: %v", limit.Max, n, err)
	}
}

// Ten thousand clients cost little memory, be they silent, all asking at once, or
// with half a call sent, and one more is served as if they were not there.
func TestTenThousandConnections(t *testing.T) {
	const conns, perConn = 10000, 16 << 10
	needFiles(t, conns+500)
	dir := t.TempDir()
	makeBig(t, filepath.Join(dir, "file"), 4<<20)
	s := startSlate(t, fmt.Sprintf("/root/1=%s", dir))
	root, err := mount(s.mount, "/root/1")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := s.rss()
	all := make([]*session, conns)
	for i := range all {
		if all[i], err = open(s.nfs); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer all[i].nc.Close()
		all[i].buf = make([]byte, 1024)
	}
	check := func(what string) {
		t.Helper()
		now, most := s.rss()
		t.Logf("%d connections, %s: %.1f KB each now, %.1f at most", conns, what, float64(now-before)/conns/1e3, float64(most-before)/conns/1e3)
		if !raceEnabled && (most-before)/conns > perConn {
			t.Errorf("%s: %d bytes for a connection, want at most %d", what, (most-before)/conns, perConn)
		}
		start := time.Now()
		one, err := open(s.nfs)
		if err != nil {
			t.Fatal(err)
		}
		defer one.nc.Close()
		one.nc.SetDeadline(start.Add(10 * time.Second))
		entries, err := one.listPlus(root)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: one more client gets %v, %v", what, entries, err)
		}
	}
	list := handleCall(procReaddirplus, root, 0, 0, 0, 0, 1000, 1000)
	for i, c := range all {
		if status, _, err := c.call(list); err != nil || status != 0 {
			t.Fatalf("connection %d: status %d, %v", i, status, err)
		}
	}
	check("one after the other")

	for i, c := range all {
		binary.BigEndian.PutUint32(list[xidAt:], uint32(i))
		if _, err := c.nc.Write(list); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	var want int
	for i, c := range all {
		n, err := readReply(c.nc, c.buf)
		if want == 0 {
			want = n
		}
		if err != nil || n != want || binary.BigEndian.Uint32(c.buf[xidAt:]) != uint32(i) || bad(c.buf[:n]) {
			t.Fatalf("connection %d: a reply of %d bytes, want %d: %v", i, n, want, err)
		}
	}
	check("all at once")

	for i, c := range all {
		if _, err := c.nc.Write(list[:len(list)/2]); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	check("half a call each")
	for i, c := range all {
		if _, err := c.nc.Write(list[len(list)/2:]); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if n, err := readReply(c.nc, c.buf); err != nil || n != want || bad(c.buf[:n]) {
			t.Fatalf("connection %d, after half a call: a reply of %d bytes, want %d: %v", i, n, want, err)
		}
	}
	check("the other half")
}

// readReply reads one reply with its record mark.
func readReply(r io.Reader, buf []byte) (int, error) {
	if _, err := io.ReadFull(r, buf[:4]); err != nil {
		return 0, err
	}
	n := 4 + int(binary.BigEndian.Uint32(buf)&^(1<<31))
	if n > len(buf) {
		return 0, io.ErrShortBuffer
	}
	_, err := io.ReadFull(r, buf[4:n])
	return n, err
}

// What is kept for clients that take no replies stays within the setting.
func TestMemoryIsBounded(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const idlers, slack = 300, 6 << 20 // slack: code, stacks, what waits for the collector
	dir := t.TempDir()
	for i := range 2000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%04d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	above := func(limit int64) int64 {
		s := startSlate(t, fmt.Sprintf("/root/1=%s", dir), fmt.Sprintf("%s=%d", memoryEnv, limit), slowEnv+"=1s")
		defer s.stop()
		root, err := mount(s.mount, "/root/1")
		if err != nil {
			t.Fatal(err)
		}
		idle, _ := s.rss()
		list := handleCall(procReaddirplus, root, 0, 0, 0, 0, 8192, 65536)
		for range idlers {
			idler, err := net.Dial("tcp", s.nfs)
			if err != nil {
				t.Fatal(err)
			}
			defer idler.Close()
			idler.(*net.TCPConn).SetReadBuffer(4096)
			go idler.Write(bytes.Repeat(list, 100)) // the server does not take it all
		}
		// Buffers are given in turn: who gets some now has seen all the others served.
		c, err := open(s.nfs)
		if err != nil {
			t.Fatal(err)
		}
		defer c.nc.Close()
		if entries, err := c.listPlus(root); err != nil || len(entries) != 2000 {
			t.Errorf("limit %d MB: a client gets %d entries, %v", limit>>20, len(entries), err)
		}
		_, most := s.rss()
		t.Logf("limit %d MB: idle %.1f MB, at most %.1f MB above", limit>>20, float64(idle)/1e6, float64(most-idle)/1e6)
		if most-idle > limit+slack {
			t.Errorf("limit %d MB: %.1f MB above idle", limit>>20, float64(most-idle)/1e6)
		}
		return most - idle
	}
	if little, much := above(2<<20), above(64<<20); much < 2<<20+slack {
		t.Errorf("%d and %d bytes above idle: the load is too small to tell the limits apart", little, much)
	}
}

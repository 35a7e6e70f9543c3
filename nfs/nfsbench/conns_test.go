// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Ten thousand clients that are connected and silent must cost little, and one
// more must be served as if they were not there.
func TestTenThousandConnections(t *testing.T) {
	const conns, perConn = 10000, 16 << 10
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < conns+500 {
		t.Skipf("this process may open %d files", limit.Cur)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 100), 0o644); err != nil {
		t.Fatal(err)
	}
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
	// Each has done something, so that what that leaves behind counts too.
	for round := range 2 {
		for i, c := range all {
			if status, _, err := c.call(handleCall(procReaddirplus, root, 0, 0, 0, 0, 1000, 1000)); err != nil || status != 0 {
				t.Fatalf("round %d, connection %d: status %d, %v", round, i, status, err)
			}
		}
	}
	after, most := s.rss()
	t.Logf("%d connections: %.1f KB each, %.1f MB at most in all", conns, float64(after-before)/conns/1e3, float64(most)/1e6)
	if !raceEnabled && (most-before)/conns > perConn {
		t.Errorf("%d bytes for a connection, want at most %d", (most-before)/conns, perConn)
	}
}

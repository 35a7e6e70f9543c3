// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"slate/nfs"
	"slate/nfs/internal/xdr"
)

// The procedures that clients call all the time allocate nothing, whatever the
// number of bytes they answer.
func TestHotProceduresDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget what they hold")
	}
	dir := t.TempDir()
	makeBig(t, filepath.Join(dir, "big"), 4<<20)
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	addr := serveHere(t, dir)
	root, err := mount(addr, "/root/1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.nc.Close()
	big, link := entry{name: "big"}, entry{name: "link"}
	for _, e := range []*entry{&big, &link} {
		if err := s.look(root, e); err != nil {
			t.Fatal(err)
		}
	}
	getacl := newCall(progACL, procGetacl, xdr.AppendUint32(xdr.AppendOpaque(nil, root), 5))
	reply := make([]byte, 2<<20)
	for _, tc := range []struct {
		name string
		call call
	}{
		{"GETATTR", handleCall(procGetattr, root)},
		{"LOOKUP", lookupCall(root, "big")},
		{"LOOKUP of nothing", lookupCall(root, "nothing")},
		{"ACCESS", handleCall(procAccess, root, 31)},
		{"READLINK", handleCall(procReadlink, link.fh)},
		{"READ 4 KiB", readCall(big.fh, 4096, 4096)},
		{"READ 16 KiB", readCall(big.fh, 0, 16<<10)},
		{"READ 1 MiB", readCall(big.fh, 1<<20, 1<<20)},
		{"READDIR", handleCall(procReaddir, root, 0, 0, 0, 0, 4096)},
		{"READDIRPLUS", handleCall(procReaddirplus, root, 0, 0, 0, 0, 4096, 32768)},
		{"FSSTAT", handleCall(procFsstat, root)},
		{"FSINFO", handleCall(procFsinfo, root)},
		{"PATHCONF", handleCall(procConf, root)},
		{"GETACL", getacl},
	} {
		roundTrip := func() {
			if _, err := s.nc.Write(tc.call); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s.nc, reply[:4]); err != nil {
				t.Fatal(err)
			}
			n := binary.BigEndian.Uint32(reply) &^ (1 << 31)
			if _, err := io.ReadFull(s.nc, reply[:n]); err != nil {
				t.Fatal(err)
			}
		}
		roundTrip() // the first may open a blob
		runtime.GC()
		if got := testing.AllocsPerRun(200, roundTrip); got > 0 {
			t.Errorf("%s: %v allocations for a call", tc.name, got)
		}
	}
}

// serveHere serves a directory in this process.
func serveHere(t *testing.T, dir string) (addr string) {
	t.Helper()
	site, err := newDirSite(map[string]string{"/root/1": dir})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&nfs.Server{Exports: site, Blobs: site}).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

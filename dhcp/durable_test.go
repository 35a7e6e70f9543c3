// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slate/dhcp/leases"
)

// A server is killed in the middle of its work, again and again. Whoever was given an
// address has it still, and the next one gives none of them to anybody else: load
// fails the test if an address comes twice.
//
// That such a lease survives the machine's death too is shown in two parts: the
// journal is open so that a write that has returned is on disk, which is looked at
// here; and nobody is told before it has returned, see TestLeaseWaitsForTheDisk.
func TestKilledServerKeepsItsWord(t *testing.T) {
	const rounds, clients, each = 3, 32, 400
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t)
	dir := t.TempDir()
	l := newLoad(w)
	for round := range rounds {
		w.start("ready", []string{benchServerEnv + "=" + dir}, exe)
		for _, name := range []string{"leases.db.journal0", "leases.db.journal1"} {
			if !syncs(t, w.cmd.Process.Pid, filepath.Join(dir, name)) {
				t.Errorf("%s is not open with O_DSYNC", name)
			}
		}
		enough, killed := make(chan struct{}), make(chan struct{})
		server := w.cmd.Process
		go func() {
			defer close(killed)
			<-enough
			server.Kill()
		}()
		l.runUntil(round*10_000, clients, each, enough)
		<-killed
		w.stop()

		store, err := leases.Open(filepath.Join(dir, "leases.db"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for a, machine := range l.holder {
			got, ok := store.Lookup(a)
			if want := machineMAC(machine).String(); !ok || got.MAC != want || got.State != leases.Bound {
				t.Errorf("round %d: %v was given to %s, and belongs to %+v after the kill", round, a, want, got)
			}
		}
		store.Close()
	}
	if len(l.holder) < rounds*each {
		t.Errorf("%d leases in all, want at least %d", len(l.holder), rounds*each)
	}
	t.Logf("%d leases, %d questions without an answer", len(l.holder), l.drops.Load())
}

// syncs tells whether the process has the file open with O_DSYNC.
func syncs(t *testing.T, pid int, file string) bool {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err != nil || to != file {
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd.Name()))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if octal, ok := strings.CutPrefix(s.Text(), "flags:"); ok {
				flags, err := strconv.ParseUint(strings.TrimSpace(octal), 8, 64)
				return err == nil && flags&unix.O_DSYNC != 0
			}
		}
	}
	return false
}

// machineMAC is the hardware address of one of the machines behind the relay.
func machineMAC(machine int) net.HardwareAddr {
	return net.HardwareAddr{2, 0, 0, byte(machine >> 16), byte(machine >> 8), byte(machine)}
}

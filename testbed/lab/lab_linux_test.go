// SPDX-License-Identifier: GPL-2.0-or-later

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slate/testbed/lab"
	"slate/testbed/labtest"
	"slate/testbed/process"
	"slate/testbed/qemu"
)

var (
	dnsmasqReady = regexp.MustCompile(`dnsmasq-tftp.*TFTP root|dnsmasq-dhcp.*DHCP relay`)
	readyLine    = regexp.MustCompile(`^ready`)
)

// After kill -9 of its owner, no process of a lab is left, and no file.
func TestNothingSurvivesKill(t *testing.T) {
	labtest.Need(t, qemu.Program)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var dir string
	var pids []int
	s := bufio.NewScanner(out)
	for s.Scan() && s.Text() != "up" {
		what, arg, _ := strings.Cut(s.Text(), " ")
		switch what {
		case "dir":
			dir = arg
		case "pid":
			fd, err := unix.PidfdOpen(atoi(t, arg), 0)
			if err != nil {
				t.Fatalf("process %s: %v", arg, err)
			}
			defer unix.Close(fd)
			pids = append(pids, fd)
		default:
			t.Fatal(s.Text())
		}
	}
	if len(pids) < 4 {
		t.Fatalf("%d processes to watch, want the shell, its session, its sleep and QEMU", len(pids))
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for i, fd := range pids {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000); n != 1 {
			t.Errorf("process %d still runs: %v", i, err)
		}
	}
	eventually(t, func() bool { _, err := os.Stat(dir); return errors.Is(err, os.ErrNotExist) }, dir+" is still there")
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	for _, c := range s {
		if c < '0' || c > '9' {
			t.Fatalf("not a number: %q", s)
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// eventually waits until ok, for at most 20 seconds.
func eventually(t *testing.T, ok func() bool, complaint string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(complaint)
		}
	}
}

// A closed lab is gone, programs were asked to end, and its logs can be kept.
func TestClose(t *testing.T) {
	l, err := lab.Open(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.StartSpec(t.Context(), process.Spec{Name: "polite", Argv: []string{"sh", "-c", `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done`},
		Ready: &process.Ready{Line: readyLine}})
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(t.TempDir(), "kept")
	if err := l.KeepLogs(kept); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Errorf("the program was not asked politely: %v", err)
	}
	if _, err := os.Stat(l.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there", l.Dir())
	}
	if b, err := os.ReadFile(filepath.Join(kept, "polite.log")); err != nil || string(b) != "ready\n" {
		t.Errorf("kept log %q, %v", b, err)
	}
	for _, f := range []string{"lab0.pcap", "lab.log"} {
		if _, err := os.Stat(filepath.Join(kept, f)); err != nil {
			t.Error(err)
		}
	}
}

// The context of Start bounds the start, not the program.
func TestStartIsBounded(t *testing.T) {
	l := labtest.New(t, lab.Options{NoCapture: true, NoRouter: true})
	ctx, cancel := context.WithCancel(t.Context())
	p, err := l.Start(ctx, "stays", "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := p.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the program ended with the context of its start: %v", err)
	}
	_, err = l.StartSpec(short, process.Spec{Name: "slow", Argv: []string{"sleep", "1000"}, Ready: &process.Ready{Line: readyLine}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a start that never gets ready = %v", err)
	}
}

func TestDirMustBeNew(t *testing.T) {
	dir := t.TempDir()
	if _, err := lab.Open(t.Context(), lab.Options{Dir: dir}); !errors.Is(err, os.ErrExist) {
		t.Errorf("Open() in a directory of somebody else = %v", err)
	}
}

// Hosts on two bridges reach the lab and each other only where a cable goes.
func TestHostsAndBridges(t *testing.T) {
	l := labtest.New(t, lab.Options{NoRouter: true})
	if err := l.AddBridge("far", netip.Prefix{}); err != nil {
		t.Fatal(err)
	}
	router, err := l.AddHost("router", lab.Port{Addr: netip.MustParsePrefix("10.77.0.2/24")}, lab.Port{Bridge: "far", Addr: netip.MustParsePrefix("10.78.0.1/24")})
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.AddHost("far", lab.Port{Bridge: "far", Name: "wan", Addr: netip.MustParsePrefix("10.78.0.9/24")})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := far.NS().Listen("tcp", "10.78.0.9:80")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
	go srv.Serve(ln)
	defer srv.Close()
	if resp, err := l.HTTPClient().Get("http://10.78.0.9/"); err == nil {
		resp.Body.Close()
		t.Error("reached a network without a way to it")
	}
	for _, err := range []error{
		router.NS().Forward(),
		l.NS().Route(netip.MustParsePrefix("10.78.0.0/24"), netip.MustParseAddr("10.77.0.2")),
		far.NS().Route(netip.MustParsePrefix("10.77.0.0/24"), netip.MustParseAddr("10.78.0.1")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	resp, err := l.HTTPClient().Get("http://10.78.0.9/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(b), "10.77.0.1:") {
		t.Errorf("far saw %s, want the lab's own address", b)
	}
}

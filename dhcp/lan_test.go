// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp_test

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"slate/dhcp"
	"slate/testbed/labtest"
	"slate/testbed/netns"
)

// patience is how long a test waits for something that takes a moment.
const patience = 30 * time.Second

var lanCount atomic.Int32

// lan is a bridge, 10.77.0.1/24, in the namespace of the test, to which machines
// are attached that are namespaces.
type lan struct {
	*testing.T
	home   *netns.NS
	bridge string
	ports  int
	events chan dhcp.Event
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	labtest.NeedRoot(t)
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	l := &lan{T: t, home: home, bridge: fmt.Sprintf("lan%d", lanCount.Add(1)), events: make(chan dhcp.Event, 10_000)}
	l.must(home.Bridge(l.bridge))
	t.Cleanup(func() { home.Delete(l.bridge) })
	l.must(home.Address(l.bridge, netip.MustParsePrefix("10.77.0.1/24")))
	return l
}

func (l *lan) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// machine attaches a namespace with the interface eth0, up.
func (l *lan) machine() *netns.NS {
	l.Helper()
	ns := l.machineApart()
	l.ports++
	port := fmt.Sprintf("%sp%d", l.bridge, l.ports)
	l.must(ns.Veth("eth0", l.home, port))
	l.must(l.home.Attach(port, l.bridge))
	l.Cleanup(func() { l.home.Delete(port) })
	return ns
}

// machineApart is a namespace that is not attached.
func (l *lan) machineApart() *netns.NS {
	l.Helper()
	ns, err := netns.New()
	l.must(err)
	l.Cleanup(func() { ns.Close() })
	return ns
}

func (l *lan) subnet() dhcp.Subnet {
	return dhcp.Subnet{
		Interface: l.bridge, Server: addr("10.77.0.1"), Prefix: netip.MustParsePrefix("10.77.0.0/24"),
		First: addr("10.77.0.100"), Last: addr("10.77.0.120"), Gateway: addr("10.77.0.1"), DNS: []netip.Addr{addr("10.77.0.1")},
		LeaseTime: time.Hour,
	}
}

func (l *lan) event(e dhcp.Event) { l.events <- e }

// listen opens port 67 or 4011 on the bridge.
func (l *lan) listen(port int) *dhcp.Conn {
	l.Helper()
	c, err := dhcp.Listen(l.Context(), l.bridge, port)
	l.must(err)
	l.Cleanup(func() { c.Close() })
	return c
}

// run serves until the test ends or stop is called; serving must end without an error.
func (l *lan) run(serve func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	var once bool
	stop = func() {
		cancel()
		if !once {
			once = true
			if err := <-done; err != nil {
				l.Errorf("Serve: %v", err)
			}
		}
	}
	l.Cleanup(stop)
	return stop
}

func (l *lan) serve(s *dhcp.Server) (stop func()) {
	s.Events = l.event
	c := l.listen(67)
	return l.run(func(ctx context.Context) error {
		defer c.Close()
		return s.Serve(ctx, c)
	})
}

// await returns the next event of the kind.
func (l *lan) await(kind dhcp.Kind) dhcp.Event {
	l.Helper()
	return l.awaitThat(string(kind), func(e dhcp.Event) bool { return e.Kind == kind })
}

func (l *lan) awaitThat(what string, ok func(dhcp.Event) bool) dhcp.Event {
	l.Helper()
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case e := <-l.events:
			if ok(e) {
				return e
			}
			seen = append(seen, strings.TrimSpace(string(e.Kind)+" "+e.Reason))
		case <-timeout:
			l.Fatalf("no event %s in %v; seen: %s", what, patience, strings.Join(seen, ", "))
		}
	}
}

// client is a DHCP client program in a machine. Its hook script reports each
// change, one line each, which arrive in reports.
type client struct {
	*lan
	cmd     *exec.Cmd
	dir     string // its own
	over    chan struct{}
	reports chan string
}

// start runs a client program. In args, SCRIPT stands for the hook script, DIR
// for a directory of its own. hook is shell that prints what it reports.
func (l *lan) start(ns *netns.NS, hook string, args ...string) *client {
	l.Helper()
	return l.startIn(l.TempDir(), ns, hook, args...)
}

// startIn is start in the directory of another one, which it goes on from.
func (l *lan) startIn(dir string, ns *netns.NS, hook string, args ...string) *client {
	l.Helper()
	own := l.TempDir()
	fifo, script := filepath.Join(own, "reports"), filepath.Join(own, "hook")
	l.must(syscall.Mkfifo(fifo, 0o600))
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	l.must(err)
	l.must(os.WriteFile(script, []byte("#!/bin/sh\nexec >"+fifo+"\n"+hook+"\n"), 0o700))
	for i := range args {
		args[i] = strings.ReplaceAll(strings.ReplaceAll(args[i], "SCRIPT", script), "DIR", dir)
	}
	c := &client{lan: l, cmd: exec.Command(args[0], args[1:]...), dir: dir, over: make(chan struct{}), reports: make(chan string, 1000)}
	var out strings.Builder
	c.cmd.Stdout, c.cmd.Stderr = &out, &out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	l.must(ns.Start(c.cmd))
	go func() {
		c.cmd.Wait()
		close(c.over)
	}()
	go func() {
		for s := bufio.NewScanner(f); s.Scan(); {
			c.reports <- s.Text()
		}
	}()
	l.Cleanup(func() {
		c.cmd.Process.Kill()
		<-c.over
		f.Close()
		if l.Failed() {
			l.Logf("%s said:\n%s", args[0], out.String())
		}
	})
	return c
}

// expect waits for a report that starts so.
func (c *client) expect(prefix string) {
	c.Helper()
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case r := <-c.reports:
			if strings.HasPrefix(r, prefix) {
				return
			}
			seen = append(seen, r)
		case <-timeout:
			var events []string
			for len(c.events) > 0 {
				e := <-c.events
				events = append(events, strings.TrimSpace(string(e.Kind)+" "+e.Reason))
			}
			c.Fatalf("%s did not report %q in %v; reports: %q; events: %q", c.cmd.Args[0], prefix, patience, seen, events)
		}
	}
}

func (c *client) signal(s os.Signal) {
	c.Helper()
	c.must(c.cmd.Process.Signal(s))
}

// ends waits until the program has ended.
func (c *client) ends() {
	c.Helper()
	select {
	case <-c.over:
	case <-time.After(patience):
		c.Fatalf("%s does not end", c.cmd.Args[0])
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package agent is the part of the controller that stays while the system runs.
// It renews the lease of the interface that the root hangs on, tells the appliance
// when the machine is ready for a login, takes its orders, and delivers the events
// that the boot could not send in time.
//
// It runs from a copy in /run/slate and has that as its root directory, so that it
// needs nothing of the root it serves, and its first argument begins with '@', so that systemd spares it when
// it ends all other processes (systemd.io/ROOT_STORAGE_DAEMONS).
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"slate/installer/health"
	"slate/installer/live"
	"slate/installer/machine"
	"slate/installer/network"
	"slate/installer/servers"
	"slate/installer/update"
	"slate/netboot/api"
	"slate/netboot/config"
)

// Argv0 is the name the agent runs under.
const Argv0 = "@slate-agent"

// Files of the agent, below its directory.
const (
	ConfigFile = "agent.json"
	LeaseFile  = "lease.json"
	BootDir    = "boot"     // where the boot partition of an installed machine is mounted
	LogFile    = "boot.log" // the controller's log, which the agent goes on with
)

// Config is what the controller leaves for the agent.
type Config struct {
	Server  string      `json:"server,omitempty"`  // that it reports to
	Servers []string    `json:"servers,omitempty"` // where else it may, as slate.server has them, Server first
	Hello   api.Hello   `json:"hello,omitzero"`    // what it says to those
	Boot    string      `json:"boot,omitempty"`
	Node    string      `json:"node,omitempty"`
	Pending []api.Event `json:"pending,omitempty"`
	Spaces  []Space     `json:"spaces,omitempty"`

	// Version runs, e.g. lab/3; From says what it is configured by.
	Version string `json:"version,omitempty"`
	From    string `json:"from,omitempty"`
	Named   string `json:"named,omitempty"` // by the appliance

	Drive *Drive `json:"drive,omitempty"` // of an installed machine

	// Slot is the system that runs from this machine's own drive, a or b; empty: none.
	Slot  string `json:"slot,omitempty"`
	Cycle int    `json:"cycle,omitempty"` // number of its record on user-data; 0: it has none
	Tries int    `json:"tries,omitempty"` // that the slot gets back when it is healthy
	Last  bool   `json:"last,omitempty"`  // it must not restart by itself
	// Grant is a slot that gets one more try once this start, which is not of its system
	// because none of its had come up, is healthy.
	Grant string `json:"grant,omitempty"`
	Tree  string `json:"tree,omitempty"` // digest of the version's tree list
	Late  *Late  `json:"late,omitempty"` // set if it started without a network
	Root  string `json:"root,omitempty"` // address and port of the NFS server of a diskless machine's root

	Verify config.VerifyFiles `json:"verify,omitzero"`

	Health      health.Spec   `json:"health"`
	HealthLimit time.Duration `json:"health-limit,omitempty"` // 0: DefaultHealthLimit
}

// Save writes the configuration.
func (c Config) Save(dir string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ConfigFile), append(b, '\n'), 0o600)
}

// Agent is the running agent. Its zero value for Root and the functions means the
// real machine.
type Agent struct {
	Dir  string // where its files are: /run/slate, which it has as its root
	Proc fs.FS  // /proc
	Log  io.Writer
	// Probe looks at the health of the system; nil: nobody looks.
	Probe func(context.Context, health.Spec) (health.Result, error)
	// Verify compares files of the running system; nil: nobody does.
	Verify func(context.Context, VerifyJob) ([]string, error)
	// Live changes the running system; nil: nobody does.
	Live func(context.Context, live.Input) (live.Result, error)

	// Network gets an address; nil: nobody does.
	Network func(context.Context, Late) (network.Lease, error)
	// Fill fills the slot that does not run; nil: nobody does.
	Fill func(context.Context, update.Order, func(string)) (update.Result, error)

	leased  chan struct{} // closed when a machine that started without a network has its lease
	config  configState
	root    rootState
	updates updates

	now    func() time.Time
	extend func(context.Context, network.Lease, network.Action) (network.Lease, error)
	renew  func(context.Context, network.Lease) (network.Lease, error)
	apply  func(network.Lease) error
	remove func(network.Lease) error

	reach    func(context.Context, netip.AddrPort) error
	redirect func(from, to netip.AddrPort) (redirection, error)

	look  time.Duration
	usage func(dir string) (used, total uint64, err error)

	spaceLook time.Duration

	restart   func() error
	verifying func()        // has all files compared, and does not wait; nil: there is nothing to compare
	verifyOne sync.Mutex    // held while files are compared
	force     func() error  // restarts though the system does not
	stopped   time.Duration // how long a system that was told to restart has for it
}

func (a *Agent) defaults(node string) {
	client := func(l network.Lease) network.Client {
		mac, _ := net.ParseMAC(l.MAC)
		return network.Client{Interface: network.Interface{Index: l.Index, Name: currentName(l), MAC: mac}, Hostname: node}
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.extend == nil {
		a.extend = func(ctx context.Context, l network.Lease, act network.Action) (network.Lease, error) {
			return client(l).Extend(ctx, l, act)
		}
	}
	if a.renew == nil {
		a.renew = func(ctx context.Context, l network.Lease) (network.Lease, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			return client(l).Acquire(ctx)
		}
	}
	if a.apply == nil {
		a.apply = network.Apply
	}
	if a.remove == nil {
		a.remove = network.Remove
	}
	if a.reach == nil {
		a.reach = reach
	}
	if a.redirect == nil {
		a.redirect = openRedirect
	}
	if a.restart == nil {
		a.restart = restart
	}
	if a.force == nil {
		a.force = forceRestart
	}
	if a.stopped == 0 {
		a.stopped = time.Minute
	}
	if a.look == 0 {
		a.look = time.Second
	}
	if a.usage == nil {
		a.usage = usage
	}
	if a.spaceLook == 0 {
		a.spaceLook = spacePause
	}
	if a.Log == nil {
		a.Log = io.Discard
	}
}

// currentName finds the interface by its index: udev may have renamed it.
func currentName(l network.Lease) string {
	if i, err := net.InterfaceByIndex(l.Index); err == nil {
		return i.Name
	}
	return l.Interface
}

// maxLog bounds the log file: it lies in memory.
const maxLog = 1 << 20

// logf writes to the kernel's log, and to the one that the controller began.
func (a *Agent) logf(format string, args ...any) {
	line := fmt.Sprintf("slate-agent: "+format+"\n", args...)
	io.WriteString(a.Log, line)
	f, err := os.OpenFile(filepath.Join(a.Dir, LogFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return // the kernel's log has it
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() < maxLog {
		fmt.Fprintf(f, "[%8.2f] %s", machine.Uptime(), line)
	}
}

// logFrom gives what the log holds from an offset on, as much as is sent at once.
func (a *Agent) logFrom(from int64) []byte {
	f, err := os.Open(filepath.Join(a.Dir, LogFile))
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, from, api.MaxLogBytes))
	if err != nil {
		return nil
	}
	return text
}

// Run works until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	var c Config
	b, err := os.ReadFile(filepath.Join(a.Dir, ConfigFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("%s: %w", ConfigFile, err)
	}
	a.defaults(c.Node)
	a.loadConfig(c.From)
	rep := servers.NewReporter(c.Pending...)
	var tasks sync.WaitGroup
	if c.Slot != "" && a.Verify != nil {
		a.verifying = func() { tasks.Go(func() { a.verifyOrdered(ctx, c, rep.Add) }) }
		tasks.Go(func() { a.verifyAtPace(ctx, c, rep.Add) })
	}
	fleet := a.fleet(c)
	a.leased = make(chan struct{})
	report := func() {
		rep.Start(ctx, fleet)
		tasks.Go(func() { servers.ShipLog(ctx, a.logFrom, fleet.PostLog) })
		tasks.Go(func() {
			var updating func() // of a diskless machine: a restart is enough
			if c.Drive != nil {
				updating = func() { tasks.Go(func() { a.updateNow(ctx, c, fleet, rep.Add) }) }
			}
			a.takeOrders(ctx, c.Named, fleet, rep.Add, updating, func() { a.followServers(ctx, c, fleet, rep.Add) })
		})
		var once sync.Once
		tasks.Go(func() {
			a.tellReports(ctx, c, func(ctx context.Context, r api.Report) error {
				err := fleet.PostReport(ctx, r)
				if err == nil {
					once.Do(func() { a.tellOldLogs(c.Cycle) })
				}
				return err
			})
		})
		if root, err := netip.ParseAddrPort(c.Root); err == nil {
			a.root.from, a.root.now = root, root
			tasks.Go(func() { a.watchRoot(ctx, c, fleet, rep.Add) })
		}
		if c.Drive != nil {
			tasks.Go(func() { a.watchNight(ctx, c, fleet, rep.Add) })
		}
	}
	switch {
	case fleet.Usable():
		report()
	case c.Late != nil && a.Network != nil:
		tasks.Go(func() {
			if a.joinLate(ctx, *c.Late, fleet) {
				tellLate(rep)
				report()
			}
		})
	}
	if a.Live != nil { // else this is no real machine
		tasks.Go(func() {
			if err := a.serveSocket(ctx, a.local(c, fleet)); err != nil {
				a.logf("%s: %v", SocketFile, err)
			}
		})
	}
	tasks.Go(func() { a.watchSpace(ctx, c.Spaces, rep.Add) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		if a.waitLogin(ctx, 10*time.Minute) {
			a.logf("the system asks for a login")
			rep.Add(api.Event{Step: api.StepLogin, State: api.StateDone, Uptime: machine.Uptime()})
		}
	}()
	if a.Probe != nil {
		tasks.Go(func() { a.watchHealth(ctx, c, rep.Add) })
	}
	err = a.keepLease(ctx)
	<-done
	tasks.Wait()
	rep.Stop(time.Second)
	return err
}

// fleet is what the agent reports to.
func (a *Agent) fleet(c Config) *servers.Fleet {
	list := c.Servers
	if len(list) == 0 && c.Server != "" {
		list = []string{c.Server}
	}
	var known []machine.Server
	for _, text := range list {
		s, err := machine.ParseServer(text)
		if err != nil {
			a.logf("%s: %v", ConfigFile, err)
			continue
		}
		known = append(known, s)
	}
	f := servers.NewFleet(known, c.Boot)
	f.Introduce(c.Hello)
	f.Moved = func(from, to machine.Server, why error) {
		a.logf("%s does not answer (%v): going on with %s", from.URL, why, to.URL)
	}
	return f
}

// keepLease renews the lease for as long as the machine runs. When the lease ends
// all the same, the address stays: without it the root is gone for certain, with
// it only perhaps, and the next answer settles it.
func (a *Agent) keepLease(ctx context.Context) error {
	file := filepath.Join(a.Dir, LeaseFile)
	l, err := network.LoadLease(file)
	if errors.Is(err, os.ErrNotExist) {
		select {
		case <-a.leased:
			l, err = network.LoadLease(file)
		case <-ctx.Done(): // a static address
			return nil
		}
	}
	if err != nil {
		return err
	}
	for {
		act, pause := l.Next(a.now())
		if act != network.Wait {
			if n, ok := a.step(ctx, l, act); ok {
				l = n
				if err := l.Save(file); err != nil {
					a.logf("%v", err)
				}
				continue
			}
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// step does what the lease needs and gives the lease to go on with.
func (a *Agent) step(ctx context.Context, l network.Lease, act network.Action) (network.Lease, bool) {
	if act != network.Discover {
		n, err := a.extend(ctx, l, act)
		if err == nil {
			if err := a.apply(n); err != nil {
				a.logf("%v", err)
			}
			return n, true
		}
		if !errors.Is(err, network.ErrRefused) {
			a.logf("the lease of %v was not renewed: %v", l.Address.Addr(), err)
			return l, false
		}
		a.logf("%v: asking for another address", err)
	}
	n, err := a.renew(ctx, l)
	if err != nil {
		a.logf("the lease of %v has ended and no server gives another; keeping it: %v", l.Address.Addr(), err)
		return l, false
	}
	if err := a.apply(n); err != nil {
		a.logf("%v", err)
		return l, false
	}
	if n.Address != l.Address {
		// The new address is there before the old one goes: the kernel's NFS client
		// finds its way on by itself when the connection breaks.
		a.logf("the address of %s is now %v, was %v", l.Interface, n.Address, l.Address)
		if err := a.remove(l); err != nil {
			a.logf("%v", err)
		}
		if err := a.apply(n); err != nil {
			a.logf("%v", err)
		}
	}
	return n, true
}

// waitLogin waits until a program that asks for a login runs on a terminal.
func (a *Agent) waitLogin(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(a.look)
	defer tick.Stop()
	seen := logins{proc: a.Proc, kernel: map[string]bool{}}
	for {
		if seen.found() {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// logins watches /proc for a program that asks for a login. Kernel threads, most
// of what there is while a system starts, are looked at once only.
type logins struct {
	proc   fs.FS
	kernel map[string]bool
}

// found reports whether a getty, a login program or a display manager runs.
func (l *logins) found() bool {
	entries, _ := fs.ReadDir(l.proc, ".")
	for _, e := range entries {
		pid := e.Name()
		if pid[0] < '1' || pid[0] > '9' || l.kernel[pid] {
			continue
		}
		b, err := fs.ReadFile(l.proc, pid+"/comm")
		if err != nil {
			continue
		}
		if slices.Contains(health.LoginPrograms, strings.TrimSpace(string(b))) {
			return true
		}
		if args, err := fs.ReadFile(l.proc, pid+"/cmdline"); err == nil && len(args) == 0 {
			l.kernel[pid] = true
		}
	}
	return false
}

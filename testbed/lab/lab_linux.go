// SPDX-License-Identifier: GPL-2.0-or-later

// Package lab is a network with machines that exists only as long as it is
// needed: a network namespace with a bridge, QEMU machines plugged into it,
// programs that serve them, and further hosts such as relays.
//
// It serves the verb `slate lab` and the tests alike. It knows machines, cables
// and programs; what the programs do is theirs.
//
// Nothing outlives the process that opened the lab, not even after kill -9: all
// programs run in a PID namespace whose first process waits for the end of its
// owner, ends everything and removes the lab's directory.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"slate/testbed/netns"
	"slate/testbed/pcap"
	"slate/testbed/process"
)

// MainBridge is the network that is always there.
const MainBridge = "lab0"

// DefaultAddr is what the lab's own end of the main bridge is called.
var DefaultAddr = netip.MustParsePrefix("10.77.0.1/24")

// Options of a lab. The zero value of a field is its default.
type Options struct {
	// Addr is the address of the lab's namespace, and so of the appliance, on
	// the main bridge. Default: DefaultAddr.
	Addr netip.Prefix
	// Dir holds disks, logs and sockets; it is made, and removed at the end.
	// Default: a new one in the directory for temporary files.
	Dir string
	// NoCapture leaves out the record of the main bridge's packets.
	NoCapture bool
	// NoRouter leaves out the answer "no IPv6 here" to machines that ask; then
	// iPXE waits for it, as it does on real networks without IPv6.
	NoRouter bool
	Log      *slog.Logger // besides the file lab.log; default: silent
}

// Lab is a running lab.
type Lab struct {
	dir     string
	addr    netip.Prefix
	log     *slog.Logger
	ns      *netns.NS
	janitor *janitor
	ctx     context.Context // ends with the lab
	cancel  context.CancelFunc
	owned   sync.WaitGroup // goroutines that write into dir

	mu    sync.Mutex
	nodes []*Node
	hosts []*Host
	procs []*process.Process
	logs  []*os.File
}

// Error is a reason why there can be no lab here, with what to do about it.
type Error struct {
	Err    error
	Advice string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Hint is the person's next step.
func (e *Error) Hint() string { return e.Advice }

// Open makes a lab without machines. It ends with Close, or when ctx does; Close
// must be called in either case.
func Open(ctx context.Context, o Options) (*Lab, error) {
	if !o.Addr.IsValid() {
		o.Addr = DefaultAddr
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := checkTun(); err != nil {
		return nil, err
	}
	l := &Lab{addr: o.Addr}
	var err error
	if l.ns, err = netns.New(); err != nil {
		return nil, &Error{fmt.Errorf("lab: %w", err),
			"a lab needs root, or user namespaces: tests get them by netns.Main, slate lab makes one itself"}
	}
	if l.dir, err = makeDir(o.Dir); err != nil {
		l.ns.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	if l.janitor, err = startJanitor(l.dir); err != nil {
		l.ns.Close()
		os.RemoveAll(l.dir)
		return nil, fmt.Errorf("lab: %w", err)
	}
	l.ctx, l.cancel = context.WithCancel(ctx)
	if err := l.furnish(o); err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

func makeDir(dir string) (string, error) {
	if dir == "" {
		// Short: sockets live here, and their paths may have 107 bytes.
		return os.MkdirTemp("", "slate-lab-")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	// It is removed at the end, so it must not be anybody else's.
	return dir, os.Mkdir(dir, 0o700)
}

func (l *Lab) furnish(o Options) error {
	if err := os.Mkdir(l.LogDir(), 0o755); err != nil {
		return err
	}
	f, err := l.logFile("lab.log")
	if err != nil {
		return err
	}
	l.log = slog.New(slog.NewMultiHandler(o.Log.Handler(), slog.NewTextHandler(f, nil)))
	if err := l.AddBridge(MainBridge, l.addr); err != nil {
		return err
	}
	if !o.NoRouter {
		// A kernel without IPv6 has no use for it.
		if err := l.quietRouter(); err != nil {
			l.log.Warn("no answers for IPv6; iPXE will wait for them", "err", err)
		}
	}
	if o.NoCapture {
		return nil
	}
	return l.capture(MainBridge)
}

// capture records a bridge's packets until the lab ends.
func (l *Lab) capture(bridge string) error {
	f, err := os.Create(filepath.Join(l.LogDir(), bridge+".pcap"))
	if err != nil {
		return err
	}
	var src *pcap.Source
	err = l.ns.Do(func() (err error) { src, err = pcap.Open(bridge); return err })
	if err != nil {
		f.Close()
		return err
	}
	l.owned.Go(func() {
		if err := src.Record(l.ctx, f); err != nil {
			l.log.Warn("the record of the packets ended", "bridge", bridge, "err", err)
		}
		src.Close()
		f.Close()
	})
	return nil
}

// Dir is the lab's directory. It is removed by Close.
func (l *Lab) Dir() string { return l.dir }

// LogDir holds what consoles and programs said, and captured packets.
func (l *Lab) LogDir() string { return filepath.Join(l.dir, "logs") }

// Addr is the address of the lab's namespace on the main bridge.
func (l *Lab) Addr() netip.Prefix { return l.addr }

// NS is the namespace of the bridges and of the programs that Start starts.
func (l *Lab) NS() *netns.NS { return l.ns }

// HTTPClient makes requests from inside the lab, to numeric addresses.
func (l *Lab) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: l.ns.DialContext}}
}

// AddBridge makes a further network. With a valid addr, the lab's namespace is on
// it too.
func (l *Lab) AddBridge(name string, addr netip.Prefix) error {
	if err := l.ns.Bridge(name); err != nil {
		return err
	}
	if !addr.IsValid() {
		return nil
	}
	return l.ns.Address(name, addr)
}

// Start runs a program in the lab. Its output goes to the log file name.log. ctx
// bounds the start only; the program ends with the lab at the latest.
func (l *Lab) Start(ctx context.Context, name string, argv ...string) (*process.Process, error) {
	return l.StartSpec(ctx, process.Spec{Name: name, Argv: argv})
}

// StartSpec is Start with all that can be said about a program, such as how it
// shows that it is ready. Its namespaces are the lab's unless NS is given.
func (l *Lab) StartSpec(ctx context.Context, s process.Spec) (*process.Process, error) {
	if s.NS == nil {
		s.NS = l.ns
	}
	s.PIDNS = l.janitor.pidns
	if s.Log == nil {
		f, err := l.logFile(s.Name + ".log")
		if err != nil {
			return nil, err
		}
		s.Log = f
	}
	var p *process.Process
	err := l.bounded(ctx, func(life context.Context) (err error) {
		p, err = process.Start(life, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.procs = append(l.procs, p)
	l.mu.Unlock()
	l.log.Debug("started", "program", p.Name(), "pid", p.Pid())
	return p, nil
}

// bounded calls start with a context that lives as long as the lab; until start
// has returned, the end of ctx ends it, too.
func (l *Lab) bounded(ctx context.Context, start func(life context.Context) error) error {
	life, cancel := context.WithCancelCause(l.ctx)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	err := start(life)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel(err)
	}
	return err
}

// logFile opens a file in LogDir that is closed with the lab.
func (l *Lab) logFile(name string) (*os.File, error) {
	name = strings.ReplaceAll(name, "/", "_")
	f, err := os.OpenFile(filepath.Join(l.LogDir(), name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.logs = append(l.logs, f)
	l.mu.Unlock()
	return f, nil
}

// KeepLogs copies the logs to dir, which is made.
func (l *Lab) KeepLogs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return fs.WalkDir(os.DirFS(l.LogDir()), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(l.LogDir(), path))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o644)
	})
}

// Close ends everything that runs in the lab and removes it. Programs get SIGTERM
// first, the last started first; machines lose power.
func (l *Lab) Close() error {
	var errs []error
	if l.ctx != nil {
		l.mu.Lock()
		nodes, procs := slices.Clone(l.nodes), slices.Clone(l.procs)
		l.mu.Unlock()
		for _, n := range nodes {
			n.PowerCut()
		}
		for _, p := range slices.Backward(procs) {
			errs = append(errs, p.Stop(context.Background()))
		}
		l.cancel()
		for _, p := range procs {
			<-p.Done()
		}
		l.owned.Wait()
	}
	for _, h := range l.hosts {
		errs = append(errs, h.ns.Close())
	}
	for _, f := range l.logs {
		errs = append(errs, f.Close())
	}
	errs = append(errs, l.janitor.dismiss(), l.ns.Close())
	if _, err := os.Stat(l.dir); err == nil {
		errs = append(errs, fmt.Errorf("lab: %s could not be removed", l.dir))
	}
	return errors.Join(errs...)
}

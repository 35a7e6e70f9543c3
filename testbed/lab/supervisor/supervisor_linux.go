// SPDX-License-Identifier: GPL-2.0-or-later

// Package supervisor keeps a lab running in the background, for the verbs of
// `slate lab`: a process that owns the lab and listens on a socket in its
// directory, and the client of that socket.
//
// The lab ends with its supervisor, so the directory exists exactly as long as
// the lab does.
package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"slate/testbed/lab"
	"slate/testbed/process"
)

// Config is what a lab in the background consists of. It travels as JSON from
// the verb to the supervisor's process.
type Config struct {
	Name  string
	Dir   string // of the lab; must not exist
	Nodes []lab.NodeSpec
	// Appliance is the program that serves the machines, its words; none if
	// empty. With ApplianceNotify it tells when it is ready, as in sd_notify(3).
	Appliance       []string
	ApplianceNotify bool
}

// controlSocket is the name of the socket in the lab's directory.
const controlSocket = "control"

// idleLimit bounds requests that do not stay, and the appliance's start.
const idleLimit = 30 * time.Second

// Supervisor is a lab that is run for others.
type Supervisor struct {
	conf      Config
	lab       *lab.Lab
	started   time.Time
	appliance *process.Process // nil: none
	down      context.CancelFunc
}

// Run opens the lab, starts what c lists, calls ready, and then serves the
// control socket until somebody asks for the lab's end or ctx ends. An error
// before ready means that nothing is left.
func Run(ctx context.Context, c Config, ready func() error) error {
	ctx, down := context.WithCancel(ctx)
	defer down()
	// The clean-up below ends the lab in good order, not the end of ctx.
	l, err := lab.Open(context.WithoutCancel(ctx), lab.Options{Dir: c.Dir})
	if err != nil {
		return err
	}
	s := &Supervisor{conf: c, lab: l, started: time.Now(), down: down}
	err = s.run(ctx, ready)
	return errors.Join(err, l.Close())
}

func (s *Supervisor) run(ctx context.Context, ready func() error) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	ln, err := net.Listen("unix", filepath.Join(s.lab.Dir(), controlSocket))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s.handler(ctx), BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	if err := ready(); err != nil {
		srv.Close()
		return err
	}
	select {
	case err = <-served:
	case <-ctx.Done():
		// The answer to "down" is on its way; consoles are cut.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = nil
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
	}
	return err
}

// start brings up the appliance, then the machines.
func (s *Supervisor) start(ctx context.Context) error {
	if len(s.conf.Appliance) > 0 {
		ctx, cancel := context.WithTimeout(ctx, idleLimit)
		defer cancel()
		spec := process.Spec{Name: "appliance", Argv: s.conf.Appliance}
		if s.conf.ApplianceNotify {
			spec.Ready = &process.Ready{Notify: filepath.Join(s.lab.Dir(), "notify")}
		}
		var err error
		if s.appliance, err = s.lab.StartSpec(ctx, spec); err != nil {
			return err
		}
	}
	for _, spec := range s.conf.Nodes {
		n, err := s.lab.AddNode(spec)
		if err != nil {
			return err
		}
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Status is what a person wants to know of a lab.
type Status struct {
	Name      string
	Dir       string
	Pid       int
	Uptime    time.Duration
	Address   string
	Appliance ApplianceStatus
	Nodes     []NodeStatus
}

// ApplianceStatus is the state of the program that serves the machines.
type ApplianceStatus struct {
	Command []string // empty: there is none
	Pid     int
	Running bool
	Last    string // its last line
}

// NodeStatus is the state of a machine.
type NodeStatus struct {
	Name     string
	Firmware string
	MAC      string
	On       bool
	Uptime   time.Duration
	Last     string // the last line on its console that is not empty
}

func (s *Supervisor) status() Status {
	st := Status{Name: s.conf.Name, Dir: s.conf.Dir, Pid: os.Getpid(), Uptime: time.Since(s.started), Address: s.lab.Addr().String()}
	if p := s.appliance; p != nil {
		st.Appliance = ApplianceStatus{Command: s.conf.Appliance, Pid: p.Pid(), Running: true, Last: lastText(p.Tail())}
		select {
		case <-p.Done():
			st.Appliance.Running = false
		default:
		}
	}
	for _, n := range s.lab.Nodes() {
		ns := NodeStatus{Name: n.Name(), Firmware: string(n.Spec.Firmware), MAC: n.MAC().String(), On: n.Running(), Uptime: n.Uptime()}
		if c := n.Console(); c != nil {
			ns.Last = lastText(c.Tail(20))
		}
		st.Nodes = append(st.Nodes, ns)
	}
	return st
}

func lastText(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if lines[i] != "" {
			return lines[i]
		}
	}
	return ""
}

// handler answers on the control socket.
func (s *Supervisor) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(s.status()) // who asked has gone
	})
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		s.down()
	})
	mux.HandleFunc("GET /nodes/{node}/screen", s.withNode(func(w http.ResponseWriter, r *http.Request, n *lab.Node) error {
		png, err := n.Screenshot(r.Context())
		if err == nil {
			_, err = w.Write(png)
		}
		return err
	}))
	mux.HandleFunc("POST /nodes/{node}/console", s.withNode(func(w http.ResponseWriter, r *http.Request, n *lab.Node) error {
		return serveConsole(ctx, w, n.Hub())
	}))
	for action, f := range map[string]func(context.Context, *lab.Node) error{
		"start": func(ctx context.Context, n *lab.Node) error { return n.Start(ctx) },
		"reset": func(ctx context.Context, n *lab.Node) error { return n.Reset(ctx) },
		"poweroff": func(ctx context.Context, n *lab.Node) error {
			// The person waits for it as long as they like.
			return n.PowerOff(ctx)
		},
		"powercut": func(_ context.Context, n *lab.Node) error { n.PowerCut(); return nil },
	} {
		mux.HandleFunc("POST /nodes/{node}/"+action, s.withNode(func(w http.ResponseWriter, r *http.Request, n *lab.Node) error {
			return f(r.Context(), n)
		}))
	}
	return mux
}

// withNode finds the machine that a request names, by name or number, and reports
// errors.
func (s *Supervisor) withNode(f func(http.ResponseWriter, *http.Request, *lab.Node) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("node")
		var names []string
		for i, n := range s.lab.Nodes() {
			if name == n.Name() || name == fmt.Sprint(i+1) {
				if err := f(w, r, n); err != nil {
					http.Error(w, err.Error(), http.StatusConflict)
				}
				return
			}
			names = append(names, n.Name())
		}
		http.Error(w, fmt.Sprintf("no machine %q in the lab; there are %v", name, names), http.StatusNotFound)
	}
}

// serveConsole turns the request's connection into a line to the hub.
func serveConsole(ctx context.Context, w http.ResponseWriter, hub *lab.Hub) error {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: console\r\n\r\n")
	_ = hub.Attach(ctx, line{buf.Reader, conn}) // ends when who watches leaves
	return nil
}

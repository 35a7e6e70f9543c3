// SPDX-License-Identifier: GPL-2.0-or-later

// Package health looks at a running system from inside: whether its start-up has
// come to its end, and whether what must run does. It knows systemd and OpenRC, and
// runs the admin's own checks. It decides nothing about what comes of it.
package health

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"slate/builder/command"
)

// Spec is what a healthy start-up must show.
type Spec struct {
	Services []string `json:"services,omitempty"` // that must run
	Checks   []Check  `json:"checks,omitempty"`
}

// Check is a program of the system that ends with status 0 when all is well.
type Check struct {
	Name  string        `json:"name"`
	Run   []string      `json:"run"`
	Limit time.Duration `json:"limit,omitempty"` // 0: DefaultCheckLimit
}

// DefaultCheckLimit is how long a check may run, if it does not say.
const DefaultCheckLimit = 30 * time.Second

// Result is what a look showed.
type Result struct {
	// Waiting is what is still to come, or wrong: a healthy system has nothing here.
	Waiting []string `json:"waiting,omitempty"`
	// Stopping: the system shuts down, and nothing of it is to be judged any more.
	Stopping bool `json:"stopping,omitempty"`
	// Good is what was found as it must be.
	Good []string `json:"good,omitempty"`
}

// Healthy reports whether all was found as it must be.
func (r Result) Healthy() bool { return len(r.Waiting) == 0 }

// String says it in a line.
func (r Result) String() string {
	if r.Healthy() {
		return strings.Join(r.Good, "; ")
	}
	return strings.Join(r.Waiting, "; ")
}

func (r *Result) add(ok bool, good, bad string) {
	if ok {
		r.Good = append(r.Good, good)
	} else {
		r.Waiting = append(r.Waiting, bad)
	}
}

// System is how the probe sees a system.
type System struct {
	Root fs.FS // of the system
	// Run runs a program of the system and returns what it printed. The error is of
	// type *command.Error if the program ran and failed.
	Run func(ctx context.Context, args ...string) (string, error)
}

// Here is the system that this process runs in.
func Here() System {
	return System{Root: os.DirFS("/"), Run: func(ctx context.Context, args ...string) (string, error) {
		return command.Output(ctx, command.Cmd{Args: args, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}})
	}}
}

// Probe looks once. Checks run only when everything else is as it must be: before
// that they could only fail.
func (s System) Probe(ctx context.Context, spec Spec) Result {
	var r Result
	switch {
	case s.exists("run/systemd/system"): // sd_booted(3)
		s.systemd(ctx, spec.Services, &r)
	case s.exists("run/openrc/softlevel"):
		s.openRC(ctx, spec.Services, &r)
	default: // another one, or one that has only just begun
		r.add(s.asksForLogin(), "a login prompt", "no login prompt yet")
		for _, name := range spec.Services {
			r.Waiting = append(r.Waiting, name+": this init system cannot be asked for services")
		}
	}
	if !r.Healthy() {
		return r
	}
	for _, c := range spec.Checks {
		limit := c.Limit
		if limit == 0 {
			limit = DefaultCheckLimit
		}
		cctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
		_, err := s.Run(cctx, c.Run...)
		if err != nil && cctx.Err() != nil {
			err = context.Cause(cctx)
		}
		cancel()
		r.add(err == nil, "check "+c.Name, fmt.Sprintf("check %s: %v", c.Name, oneLine(err)))
	}
	return r
}

// LoginPrograms are what asks a person to log in, by the kernel's names.
var LoginPrograms = []string{"agetty", "getty", "mingetty", "mgetty", "login", "gdm3", "gdm", "lightdm", "sddm"}

func (s System) asksForLogin() bool {
	names, _ := fs.Glob(s.Root, "proc/[0-9]*/comm")
	return slices.ContainsFunc(names, func(name string) bool {
		comm, err := fs.ReadFile(s.Root, name)
		return err == nil && slices.Contains(LoginPrograms, strings.TrimSpace(string(comm)))
	})
}

func (s System) exists(name string) bool {
	_, err := fs.Stat(s.Root, name)
	return err == nil
}

func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// systemd asks for the default target and the services: is-active prints a word
// for each, in their order, and its status only sums them up.
func (s System) systemd(ctx context.Context, services []string, r *Result) {
	units := []string{"default.target"}
	for _, name := range services {
		if !strings.Contains(name, ".") {
			name += ".service"
		}
		units = append(units, name)
	}
	out, err := s.Run(ctx, append([]string{"systemctl", "is-active"}, units...)...)
	words := strings.Fields(out)
	if len(words) != len(units) {
		r.Waiting = append(r.Waiting, fmt.Sprintf("systemd does not say what runs: %s", oneLine(err)))
		return
	}
	for i, u := range units {
		r.add(words[i] == "active", u, u+" is "+words[i])
	}
	if !r.Healthy() {
		state, _ := s.Run(ctx, "systemctl", "is-system-running") // its status says what its word says
		r.Stopping = strings.TrimSpace(state) == "stopping"
	}
}

// openRC looks at what OpenRC keeps below /run/openrc: the runlevel, and a mark
// while it is being entered. A service that has crashed is known to its status only.
func (s System) openRC(ctx context.Context, services []string, r *Result) {
	level, _ := fs.ReadFile(s.Root, "run/openrc/softlevel")
	name := strings.TrimSpace(string(level))
	r.Stopping = s.exists("run/openrc/rc.stopping") || slices.Contains([]string{"shutdown", "reboot", "off"}, name)
	switch {
	case s.exists("run/openrc/rc.starting"):
		r.Waiting = append(r.Waiting, "runlevel "+name+" is being entered")
	case slices.Contains([]string{"", "sysinit", "boot"}, name):
		r.Waiting = append(r.Waiting, "the default runlevel is not reached")
	default:
		r.Good = append(r.Good, "runlevel "+name)
	}
	for _, service := range services {
		service = strings.TrimSuffix(service, ".service")
		out, err := s.Run(ctx, "rc-service", service, "status")
		state := strings.TrimSpace(out)
		if _, after, ok := strings.Cut(state, "status: "); ok {
			state = after
		}
		r.add(err == nil, service, strings.TrimSpace(service+" is not running: "+stateOr(state, err)))
	}
}

func stateOr(state string, err error) string {
	if state != "" {
		return strings.Join(strings.Fields(state), " ")
	}
	return oneLine(err)
}

// Serve reads a Spec, looks once, and writes the Result, both as JSON: the probe
// runs as a process of its own, inside the system.
func Serve(ctx context.Context, s System, in io.Reader, out io.Writer) error {
	var spec Spec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return fmt.Errorf("what to look for: %w", err)
	}
	return json.NewEncoder(out).Encode(s.Probe(ctx, spec))
}

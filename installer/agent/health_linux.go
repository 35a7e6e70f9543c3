// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slate/builder/command"
	"slate/installer/health"
	"slate/installer/machine"
	"slate/netboot/api"
)

// ProbeRole is the argument with which the agent's program looks at the system.
const ProbeRole = "health"

// Pauses between two looks: while the system starts, and once it was well.
const (
	probePause     = 5 * time.Second
	probeAfterward = time.Minute
	probeLimit     = 2 * time.Minute // of one look that does not end
)

// DefaultHealthLimit is how long a start-up may take to become healthy.
const DefaultHealthLimit = 5 * time.Minute

// Probe returns a function that looks at the system from inside. The agent itself
// stands outside of it, in a root of its own, so that it keeps nothing busy: the
// look is a process that enters through /proc, whose directory proc is, and ends.
func Probe(program string, proc *os.File) func(context.Context, health.Spec) (health.Result, error) {
	return func(ctx context.Context, spec health.Spec) (r health.Result, err error) {
		in, err := json.Marshal(spec)
		if err != nil {
			return r, err
		}
		ctx, cancel := context.WithTimeout(ctx, probeLimit)
		defer cancel()
		out, err := command.Output(ctx, command.Cmd{Args: []string{program, ProbeRole}, Stdin: bytes.NewReader(in), Files: []*os.File{proc}})
		if err != nil {
			return r, err
		}
		return r, json.Unmarshal([]byte(out), &r)
	}
}

// EnterSystem makes the root of the machine's system this process's: that of
// process 1. Descriptor 3 is /proc.
func EnterSystem() error {
	const proc = 3
	if err := unix.Fchdir(proc); err != nil {
		return fmt.Errorf("enter the system: /proc: %w", err)
	}
	if err := unix.Chroot("1/root"); err != nil {
		return fmt.Errorf("enter the system: %w", err)
	}
	unix.Close(proc)
	return unix.Chdir("/")
}

// systemdEnded tells whether systemd has given way to the program that ends all that is
// left (systemd-shutdown(8)): nobody can be asked any more.
func (a *Agent) systemdEnded() bool {
	comm, err := fs.ReadFile(a.Proc, "1/comm")
	return err == nil && strings.TrimSpace(string(comm)) == "systemd-shutdow" // the kernel keeps 15 bytes
}

// watchHealth tells when the start-up has become healthy, or that it has not within
// its limit; after that, when it changes. A start-up of an installed machine that has
// failed is ended.
func (a *Agent) watchHealth(ctx context.Context, c Config, tell func(api.Event)) {
	limit := c.HealthLimit
	if limit == 0 {
		limit = DefaultHealthLimit
	}
	began := time.Now() // and not a.now: the clock may be set meanwhile
	var told api.State
	say := func(s api.State, text string) {
		if told == s {
			return
		}
		told = s
		a.logf("health: %s: %s", s, text)
		tell(api.Event{Step: api.StepHealth, State: s, Text: text, Uptime: machine.Uptime()})
	}
	for {
		r, err := a.Probe(ctx, c.Health)
		if ctx.Err() != nil || r.Stopping || (err != nil || !r.Healthy()) && a.systemdEnded() {
			return
		}
		text := r.String()
		if err != nil {
			text = fmt.Sprintf("the system cannot be asked: %v", err)
		}
		pause := probePause
		switch {
		case err == nil && r.Healthy():
			if told != api.StateDone {
				a.becameHealthy(c)
			}
			say(api.StateDone, text)
			pause = probeAfterward
		case told != "" || time.Since(began) >= limit:
			first := told == ""
			say(api.StateFailed, text)
			pause = probeAfterward
			if first && a.failed(ctx, c, text, tell) {
				return
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

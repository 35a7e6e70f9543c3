// SPDX-License-Identifier: GPL-2.0-or-later

// Package process runs the programs of the lab: in a chosen network namespace,
// with their output in a log, ready when they say so, and gone, with all they
// started, when their owner is.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slate/testbed/netns"
)

// Spec says what to run and where.
type Spec struct {
	Name  string     // for messages; default: Argv[0]
	Argv  []string   // Argv[0] is looked up in PATH
	Env   []string   // added to this process's environment
	Dir   string     // working directory; default: this process's
	Stdin io.Reader  // default: empty
	Log   io.Writer  // gets standard output and error; default: only Tail keeps some
	Files []*os.File // descriptors 3 and up

	NS *netns.NS // network namespace; default: this process's
	// PIDNS is the PID namespace; default: this process's. In another one the
	// program ends with that namespace, not with this process: os/exec would
	// miss its parent there and take it for dead.
	PIDNS *os.File

	// Ready, if given, is what Start waits for.
	Ready *Ready
}

// Ready is how a program shows that it does its work now: one of the fields.
type Ready struct {
	Line   *regexp.Regexp // a line of its output that matches
	Notify string         // READY=1 on a socket made at this path, as in sd_notify(3)
}

// stopGrace is how long a program may take to end after SIGTERM.
const stopGrace = 10 * time.Second

// Process is a running program.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
	err  error // how it ended; valid after done
}

// Start starts the program and waits until it is ready. When ctx ends, the
// program and its process group are killed; so they are when this process dies.
func Start(ctx context.Context, s Spec) (*Process, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, context.Cause(ctx))
	}
	if s.Name == "" && len(s.Argv) > 0 {
		s.Name = s.Argv[0]
	}
	p := &Process{name: s.Name, out: newOutput(s.Log), done: make(chan struct{})}
	p.cmd = exec.Command(s.Argv[0], s.Argv[1:]...)
	p.cmd.Env = append(os.Environ(), s.Env...)
	p.cmd.Dir, p.cmd.Stdin, p.cmd.ExtraFiles = s.Dir, s.Stdin, s.Files
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = time.Second // a child that keeps the output open does not keep us
	// A group of its own: Ctrl-C at the terminal is for us, and so is the order
	// in which things end.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.PIDNS == nil {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}

	var ready <-chan error
	if s.Ready != nil {
		var err error
		if ready, err = p.watchReady(ctx, s.Ready); err != nil {
			return nil, fmt.Errorf("start %s: %w", p.name, err)
		}
	}
	if err := p.start(s); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		select {
		case <-ctx.Done():
			p.Kill()
		case <-p.done:
		}
	}()
	if ready == nil {
		return p, nil
	}
	select {
	case err := <-ready:
		if err == nil {
			return p, nil
		}
		p.Kill()
		return nil, fmt.Errorf("%s did not get ready: %w%s", p.name, err, p.tailText())
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w%s", p.name, p.ended(), p.tailText())
	case <-ctx.Done():
		<-p.done
		return nil, fmt.Errorf("%s did not get ready: %w%s", p.name, context.Cause(ctx), p.tailText())
	}
}

// start forks on a thread that is kept until the program has ended: the death
// signal fires when that thread ends, not when the process does.
func (p *Process) start(s Spec) error {
	started := make(chan error, 1)
	keep := func() error {
		err := inPIDNS(s.PIDNS, p.cmd.Start)
		started <- err
		if err != nil {
			return nil
		}
		netns.WaitNoReap(p.cmd.Process.Pid)
		// Whatever it left behind in its group ends with it. The group still
		// exists, for its leader has not been reaped.
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
		p.err = p.cmd.Wait()
		p.out.close()
		close(p.done)
		return nil
	}
	go func() {
		if s.NS != nil {
			if err := s.NS.Do(keep); err != nil {
				started <- err
			}
			return
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = keep()
	}()
	return <-started
}

// inPIDNS calls start with new children going into the PID namespace ns. The
// caller is locked to its thread.
func inPIDNS(ns *os.File, start func() error) error {
	if ns == nil {
		return start()
	}
	home, err := os.Open("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("enter PID namespace: %w", err)
	}
	err = start()
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWPID) != nil {
		// In a user namespace there is no way back to a PID namespace from
		// outside. A lock that is never released ends the thread with its
		// goroutine, so that nobody else's children are born in there.
		runtime.LockOSThread()
	}
	return err
}

// Name is the name for messages.
func (p *Process) Name() string { return p.name }

// Pid is the process id as seen from here.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the program and returns nil if its status was 0. If
// ctx ends first, the program goes on.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s: %w%s", p.name, p.err, p.tailText())
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", p.name, context.Cause(ctx))
	}
}

// Signal sends a signal to the program alone.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the program to end (SIGTERM) and waits. One that does not end within
// ten seconds is killed, and that is an error; its exit status is not.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("stop %s: it did not end after SIGTERM, killed%s", p.name, p.tailText())
	}
}

// Kill ends the program and its group at once and waits until it is gone.
func (p *Process) Kill() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // may have ended just now
	<-p.done
}

// WaitLine waits for a line of output that matches, from the start of the
// program on, and returns it.
func (p *Process) WaitLine(ctx context.Context, re *regexp.Regexp) (string, error) {
	found := p.out.watch(re)
	select {
	case line := <-found:
		return line, nil
	case <-p.done:
		select {
		case line := <-found:
			return line, nil
		default:
		}
		return "", fmt.Errorf("%s ended (%w) without a line that matches %q%s", p.name, p.ended(), re, p.tailText())
	case <-ctx.Done():
		return "", fmt.Errorf("%s gave no line that matches %q: %w%s", p.name, re, context.Cause(ctx), p.tailText())
	}
}

// Tail returns the last lines of output.
func (p *Process) Tail() []string { return p.out.last() }

func (p *Process) ended() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

func (p *Process) tailText() string {
	lines := p.Tail()
	if len(lines) == 0 {
		return "; it wrote nothing"
	}
	return "; its last lines:\n  " + strings.Join(lines, "\n  ")
}

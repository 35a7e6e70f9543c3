// SPDX-License-Identifier: GPL-2.0-or-later

package command

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runGroup starts cmd as the leader of its own process group, so that a
// Ctrl-C on the terminal reaches only us, and waits for it. On cancellation the
// group gets SIGTERM and, after grace, SIGKILL.
func runGroup(ctx context.Context, cmd *exec.Cmd, c Cmd, grace time.Duration) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true,
		// Should we be killed ourselves, the program goes too. In a process
		// namespace of its own it takes everything it started along.
		Pdeathsig: syscall.SIGKILL,
	}
	if c.Isolate {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
		// Unshared in the child, Go also cuts the propagation of its mounts.
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		if c.NoNetwork {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
		}
	}
	if c.Terminal != nil {
		cmd.SysProcAttr.Foreground = true
		cmd.SysProcAttr.Ctty = int(c.Terminal.Fd())
		defer takeTerminal(c.Terminal)
	}
	started, done := make(chan error, 1), make(chan error, 1)
	go func() {
		// Pdeathsig fires when the starting *thread* ends, so that thread must
		// live as long as the program does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	pgid := cmd.Process.Pid
	select {
	case err := <-done:
		if errors.Is(err, exec.ErrWaitDelay) {
			// The program itself ended well, but left something behind that
			// holds its output open.
			kill(pgid, syscall.SIGKILL)
			return nil
		}
		return err
	case <-ctx.Done():
	}
	if c.Isolate {
		// The first process of a namespace never sees a SIGTERM it has no handler
		// for; and with the namespace everything goes that it would tidy up.
		kill(pgid, syscall.SIGKILL)
		return <-done
	}
	kill(pgid, syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case err := <-done:
		// The leader obeyed; what is left of the group did not.
		kill(pgid, syscall.SIGKILL)
		return err
	case <-timer.C:
		kill(pgid, syscall.SIGKILL)
		return <-done
	}
}

// kill signals the group. It may be gone already, which is what we want.
func kill(pgid int, sig syscall.Signal) { _ = syscall.Kill(-pgid, sig) }

// takeTerminal makes our process group the terminal's again.
func takeTerminal(t *os.File) {
	// Asked from the background, the kernel would stop us for asking.
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(int(t.Fd()), unix.TIOCSPGRP, syscall.Getpgrp())
}

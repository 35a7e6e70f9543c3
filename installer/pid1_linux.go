// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"slate/installer/agent"
	"slate/installer/machine"
	"slate/installer/root"

	"golang.org/x/sys/unix"
)

// maxCrashes bounds how often the controller is started again before the machine is.
const maxCrashes = 5

// supervise is PID 1. It does as little as it can, because what goes wrong here is
// a kernel panic: it starts the controller, starts it again with a message when it
// ended badly, and switches the root when it ended well.
func supervise(args []string) {
	program, env, moved := args[0], os.Environ(), false
	for crash := 0; crash < maxCrashes; crash++ {
		err := runController(program, args[1:], env)
		if err == nil {
			moved, err = startSystem()
		}
		env = append(os.Environ(), envFailed+"="+err.Error())
		if moved {
			// The initramfs is gone; the agent's copy is what is left of us.
			program = agentProgram
			env = append(env, envMoved+"=1")
		}
		say("slate: %v\n", err)
	}
	say("slate: the controller ended %d times; restarting in 30 s\n", maxCrashes)
	time.Sleep(30 * time.Second)
	for {
		_ = machine.End(machine.Restart)
		time.Sleep(time.Second)
	}
}

func say(format string, a ...any) { fmt.Fprintf(os.Stderr, format, a...) }

// runController runs the controller to its end and reaps what else dies meanwhile.
func runController(program string, args, env []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	c := exec.Command(program, append([]string{controllerRole}, args...)...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, w
	c.Env = env
	err = c.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	tail := make(chan string, 1)
	go func() { tail <- lastWords(r) }()
	status, err := reap(c.Process.Pid)
	if err != nil {
		return err
	}
	words := ""
	select {
	case words = <-tail:
	case <-time.After(time.Second): // somebody else holds the pipe
	}
	switch {
	case status.Exited() && status.ExitStatus() == 0:
		return nil
	case status.Signaled():
		return fmt.Errorf("the controller was ended by signal %d (%v)%s", status.Signal(), status.Signal(), words)
	}
	return fmt.Errorf("the controller ended with status %d%s", status.ExitStatus(), words)
}

// lastWords passes the controller's error output on and keeps the beginning of
// it: that is where the Go runtime says what happened.
func lastWords(r io.Reader) string {
	var keep bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		os.Stderr.Write(buf[:n])
		if room := 400 - keep.Len(); room > 0 {
			keep.Write(buf[:min(n, room)])
		}
		if err != nil {
			break
		}
	}
	if s := strings.TrimSpace(keep.String()); s != "" {
		return ": " + s
	}
	return ""
}

// reap waits for one child; PID 1 inherits every orphan.
func reap(pid int) (unix.WaitStatus, error) {
	for {
		var st unix.WaitStatus
		got, err := unix.Wait4(-1, &st, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return st, fmt.Errorf("wait for the controller: %w", err)
		}
		if got == pid && (st.Exited() || st.Signaled()) {
			return st, nil
		}
	}
}

// startSystem leaves the initramfs, starts the agent and becomes the system's
// init. It returns only when that fails, and says whether the old root is gone.
func startSystem() (moved bool, err error) {
	text, err := os.ReadFile(handoverFile)
	if err != nil {
		return false, err
	}
	var h handover
	if err := json.Unmarshal(text, &h); err != nil {
		return false, fmt.Errorf("%s: %w", handoverFile, err)
	}
	if err := root.Switch(); err != nil {
		return false, err
	}
	_ = os.Remove(handoverFile)
	if err := startAgent(); err != nil {
		// A system without an agent is still a system.
		say("slate: the agent did not start: %v\n", err)
	}
	return true, root.Exec(h.Init, h.Args, os.Environ())
}

// startAgent starts the agent in the new root, in a session of its own.
func startAgent() error {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(agentProgram, []string{agent.Argv0}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []*os.File{null, null, null}, Sys: &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	if err := root.Spare("/", p.Pid); err != nil {
		say("slate: a shut-down may end the agent early: %v\n", err)
	}
	return p.Release()
}

// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// janitor is the first process of the lab's PID namespace. It waits for the other
// end of a pipe to be closed, which the kernel does for us when this process
// ends, however it ends.
type janitor struct {
	cmd   *exec.Cmd
	pipe  *os.File // our end
	pidns *os.File
}

// janitorScript ends all other processes of the namespace, removes the lab's
// directory without following mounts, and with its own end the kernel kills
// whatever came up meanwhile.
const janitorScript = `read -r _; kill -KILL -1; exec rm -rf --one-file-system -- "$1"`

func startJanitor(dir string) (*janitor, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", janitorScript, "slate-lab", dir)
	cmd.Stdin = r
	cmd.Dir = "/"
	// A session of its own: neither Ctrl-C nor a hang-up may reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("start the lab's first process: %w", err)
	}
	j := &janitor{cmd: cmd, pipe: w}
	if j.pidns, err = os.Open(fmt.Sprintf("/proc/%d/ns/pid", cmd.Process.Pid)); err != nil {
		w.Close()
		_ = cmd.Wait()
		return nil, fmt.Errorf("the lab's PID namespace: %w", err)
	}
	return j, nil
}

// dismiss lets the janitor do its work and waits for it.
func (j *janitor) dismiss() error {
	j.pipe.Close()
	err := j.cmd.Wait()
	j.pidns.Close()
	if err != nil {
		return fmt.Errorf("lab: clean up: %w", err)
	}
	return nil
}

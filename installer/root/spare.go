// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Spare has a shut-down spare a process when it ends all others. systemd looks at a
// process's name (systemd.io/ROOT_STORAGE_DAEMONS), System V's scripts read a directory
// of numbers (sendsigs), and OpenRC's get theirs on the command line (kill_all -o).
func Spare(root string, pid int) error {
	omit := filepath.Join(root, "run/sendsigs.omit.d")
	err := os.MkdirAll(omit, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(omit, "slate-agent"), fmt.Appendf(nil, "%d\n", pid), 0o644)
	}
	script, rerr := os.ReadFile(filepath.Join(root, "etc/init.d/killprocs"))
	if rerr != nil || !bytes.Contains(script, []byte("killall5_opts")) {
		return err
	}
	return errors.Join(err, addLine(filepath.Join(root, "etc/conf.d/killprocs"), fmt.Sprintf("killall5_opts=\"${killall5_opts} -o %d\" # the agent that the root may hang on", pid)))
}

// addLine adds a line to a file, which may not be there.
func addLine(name, line string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + line + "\n")
	return errors.Join(err, f.Close())
}

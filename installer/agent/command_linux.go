// SPDX-License-Identifier: GPL-2.0-or-later

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slate/netboot/api"
)

// CommandName is the program's name for people at the machine.
const CommandName = "slate-agent"

const usageText = `slate-agent: what runs on this machine, and its agent's work

  slate-agent status [--json]   version, configuration, what waits for a restart
  slate-agent update            fetch the version that this machine is to run into the
                                system that does not run; the next start starts it
  slate-agent verify            compare every file of the system with its signed list; what
                                is wrong is replaced at the next start
  slate-agent log [--follow]    what was on the screen while this machine started, and
                                what the agent has done since
`

// Command is slate-agent as root calls it at the machine. dir is the agent's directory.
func Command(ctx context.Context, dir string, args []string, stdout, stderr io.Writer) int {
	var err error
	flag := func(name string) bool { return slices.Contains(args[1:], name) }
	switch {
	case len(args) == 0:
		io.WriteString(stderr, usageText)
		return 2
	case slices.Contains(args, "--help"), slices.Contains(args, "-h"), args[0] == "help":
		io.WriteString(stdout, usageText)
	case args[0] == "status" && known(args[1:], "--json"):
		err = printStatus(ctx, dir, flag("--json"), stdout)
	case args[0] == "update" && len(args) == 1:
		err = doUpdate(ctx, dir, stdout)
	case args[0] == "verify" && len(args) == 1:
		err = ask(ctx, dir, "POST", pathVerify, stdout)
	case args[0] == "log" && known(args[1:], "--follow", "-f"):
		err = printLog(ctx, filepath.Join(dir, LogFile), flag("--follow") || flag("-f"), stdout)
	default:
		fmt.Fprintf(stderr, "slate-agent: %s: not known\n\n%s", strings.Join(args, " "), usageText)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "slate-agent: %v\n", err)
		return 1
	}
	return 0
}

func known(flags []string, all ...string) bool {
	return !slices.ContainsFunc(flags, func(f string) bool { return !slices.Contains(all, f) })
}

func printStatus(ctx context.Context, dir string, asJSON bool, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var text bytes.Buffer
	if err := ask(ctx, dir, "GET", pathStatus, &text); err != nil {
		return err
	}
	if asJSON {
		_, err := text.WriteTo(w)
		return err
	}
	var s LocalStatus
	if err := json.Unmarshal(text.Bytes(), &s); err != nil {
		return err
	}
	row := func(what, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-13s %s\n", what, value)
		}
	}
	row("node", s.Node)
	row("version", s.Version+map[bool]string{true: ", diskless", false: ", system " + strings.ToUpper(s.Slot)}[s.Slot == ""])
	row("appliance", s.Server)
	for _, l := range s.Report.Lines() {
		row(l.What, l.Text)
	}
	row("load", fmt.Sprintf("%.2f, %d MiB free", s.Load, s.Free))
	row("agent", fmt.Sprintf("%.1f MB of memory", float64(s.Agent)/1000))
	return nil
}

// doUpdate has a version fetched, and says meanwhile how far that is.
func doUpdate(ctx context.Context, dir string, w io.Writer) error {
	done := make(chan error, 1)
	var answer bytes.Buffer
	go func() { done <- ask(ctx, dir, "POST", pathUpdate, &answer) }()
	said := ""
	for {
		select {
		case err := <-done:
			io.Copy(w, &answer)
			return err
		case <-time.After(logLook):
		}
		var text bytes.Buffer
		var s LocalStatus
		if ask(ctx, dir, "GET", pathStatus, &text) != nil || json.Unmarshal(text.Bytes(), &s) != nil || s.Update.State != api.UpdateFetching || s.Update.Text == said {
			continue
		}
		said = s.Update.Text
		fmt.Fprintf(w, "%s: %s\n", s.Update.Version, said)
	}
}

// logLook is between two looks whether the log has grown.
const logLook = time.Second

func printLog(ctx context.Context, name string, follow bool, w io.Writer) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := io.Copy(w, f); err != nil || !follow {
			return err
		}
		select {
		case <-time.After(logLook):
		case <-ctx.Done():
			return nil
		}
	}
}

func trimLine(text []byte) string { return strings.Join(strings.Fields(string(text)), " ") }

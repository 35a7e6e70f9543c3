// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"slate/netboot/api"
)

type nodeLogsCmd struct {
	Node   string `arg:"" help:"The node's name."`
	Boot   string `default:"1" help:"Which boot: 1 is the newest, 2 the one before, or a boot's id." placeholder:"N"`
	Follow bool   `short:"f" help:"Go on as the log grows, and with the next boot when one starts. Ctrl-C ends it."`
	List   bool   `help:"List the logs that are kept."`
	JSON   bool   `help:"Print the list as JSON."`
}

// Help is shown by slate node logs --help.
func (nodeLogsCmd) Help() string {
	return `What the controller wrote on the machine's screen while it started, and what its agent
said since. A machine sends it as soon as its network is up, and goes on while it runs.`
}

// Run prints a log, or lists them.
func (c *nodeLogsCmd) Run(ctx context.Context, a *app) error {
	if c.List || c.JSON {
		return a.admin(ctx, func(ctx context.Context, client *api.Client) error {
			list, err := client.Logs(ctx, c.Node)
			if err != nil {
				return err
			}
			if c.JSON {
				return printJSON(a.stdout, list)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "N\tBOOT\tCHANGED")
			for _, e := range list {
				fmt.Fprintf(w, "%d\t%s\t%s\n", e.Number, e.Boot, e.Changed.Local().Format(time.DateTime))
			}
			return w.Flush()
		})
	}
	socket, err := a.adminSocket()
	if err != nil {
		return err
	}
	// No time limit: following has none, and a log is not long.
	err = api.DialAdmin(socket).Log(ctx, c.Node, c.Boot, c.Follow, lineWriter{a.stdout})
	if c.Follow && ctx.Err() != nil {
		return nil
	}
	return adminHint(err)
}

// lineWriter makes what machines send printable.
type lineWriter struct{ w io.Writer }

func (l lineWriter) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		text, ended := bytes.CutSuffix(line, []byte("\n"))
		end := ""
		if ended {
			end = "\n"
		}
		if _, err := io.WriteString(l.w, printable(string(text))+end); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"slate/netboot"
	"slate/netboot/api"
)

type statusCmd struct {
	Server string `help:"Base URL of the appliance. Default: the one on this machine, as slate.toml says." placeholder:"URL"`
	JSON   bool   `help:"Print JSON, with the steps of each node's last boot."`
	Watch  bool   `help:"Show it live, until q or Ctrl-C." short:"w"`
}

// Run asks the appliance how it is and prints it, and how each node is.
func (c *statusCmd) Run(ctx context.Context, a *app) error {
	ask, err := c.asker(a)
	if err != nil {
		return err
	}
	if c.Watch {
		if c.JSON {
			return usageError{errors.New("--watch is for people, --json for programs: not both")}
		}
		return a.watch(ctx, func(ctx context.Context) (api.Status, error) { return ask(ctx, false) })
	}
	st, err := ask(ctx, c.JSON)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(a.stdout, st)
	}
	printStatus(a.stdout, st, time.Now(), a.colours())
	return nil
}

// asker finds out whom to ask: the admin's socket, or else the appliance's address.
func (c *statusCmd) asker(a *app) (func(ctx context.Context, events bool) (api.Status, error), error) {
	clients := []*api.Client{{Base: c.Server}}
	if c.Server == "" {
		s, err := a.settings()
		if err != nil {
			return nil, err
		}
		socket, err := a.adminSocket()
		if err != nil {
			return nil, err
		}
		base, err := baseURL(s)
		if err != nil {
			return nil, err
		}
		clients = []*api.Client{api.DialAdmin(socket), {Base: base}}
	}
	return func(ctx context.Context, events bool) (st api.Status, err error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		for _, client := range clients {
			if events {
				st, err = client.Status(ctx)
			} else {
				st, err = client.Summary(ctx)
			}
			var refused *api.Error
			if err == nil || errors.As(err, &refused) {
				return st, err
			}
		}
		return st, hintError{err, "does it run? start it with: slate serve"}
	}, nil
}

// baseURL is where the appliance of the settings answers HTTP.
func baseURL(s netboot.Settings) (string, error) {
	addr := s.Network.Address
	if !addr.IsValid() {
		ifc, err := netboot.InterfaceByName(s.Network.Interface)
		if err != nil {
			return "", err
		}
		if len(ifc.Prefixes) == 0 {
			return "", fmt.Errorf("network.interface: %s has no IPv4 address", ifc.Name)
		}
		addr = ifc.Prefixes[0].Addr()
	}
	return "http://" + net.JoinHostPort(addr.String(), strconv.Itoa(s.HTTP.Port)), nil
}

// queueText says how many machines do what they do.
func queueText(q api.Queue) string {
	if q.Kind == api.QueueFetches {
		return fmt.Sprintf("%d machines fetch a version", q.Busy)
	}
	return fmt.Sprintf("%d machines load their kernel", q.Busy)
}

// printStatus prints the appliance in a few lines and each node in one.
func printStatus(w io.Writer, st api.Status, now time.Time, p palette) {
	fmt.Fprintf(w, "%s\nrunning since %s on %s, DHCP mode %s\n", st.Version, st.Started.Local().Format(time.DateTime), st.Address, st.DHCP)
	for _, i := range st.Images {
		fmt.Fprintf(w, "image %s\n", i)
	}
	for _, q := range st.Queues {
		if q.Waiting > 0 {
			fmt.Fprintf(w, "%s, %d wait for their turn ([queue] %s = %d)\n", queueText(q), q.Waiting, q.Kind, q.Limit)
		}
	}
	for _, r := range st.Rivals {
		if r.Gives && st.DHCP == string(netboot.DHCPProxy) {
			fmt.Fprintf(w, "the network's DHCP server: %s %s, %s; seen %s\n", r.Address, r.MAC, printable(r.Offers), r.Seen.Local().Format(time.DateTime))
			continue
		}
		fmt.Fprintf(w, "%sanother DHCP server, %s %s, %s; seen %s%s\n", p.bad, r.Address, r.MAC, printable(r.Offers), r.Seen.Local().Format(time.DateTime), p.plain)
	}
	if len(st.Nodes) == 0 {
		fmt.Fprintln(w, "no nodes yet")
		return
	}
	fmt.Fprintf(w, "%s\n\n", counts(st.Nodes))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NODE\tVERSION\tASSIGNED\tADDRESS\tSTATE")
	for _, n := range st.Nodes {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", n.Name, dash(n.Runs()), dash(n.Assigned), dash(n.Address), describe(n, now, p))
	}
	tw.Flush()
}

// counts says how many nodes are in which state.
func counts(nodes []api.Node) string {
	n := map[api.Condition]int{}
	for _, node := range nodes {
		n[condition(node)]++
	}
	parts := []string{fmt.Sprintf("%d nodes", len(nodes))}
	for _, c := range []api.Condition{api.Failed, api.Booting, api.Running, api.Off, api.Ignored} {
		if n[c] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[c], c))
		}
	}
	return strings.Join(parts, ", ")
}

// describe says how a node is, at which step and for how long.
func describe(n api.Node, now time.Time, p palette) string {
	if n.Progress == nil {
		return "-"
	}
	colour := map[api.Condition]string{api.Failed: p.bad, api.Booting: p.busy, api.Running: p.good}[n.Progress.Condition]
	text := string(n.Progress.Condition)
	switch n.Progress.Condition {
	case api.Booting, api.Failed:
		text += fmt.Sprintf(" at %s", n.Progress.Step)
	}
	if !n.Progress.Since.IsZero() {
		text += " for " + age(now.Sub(n.Progress.Since))
	}
	if n.Progress.Text != "" {
		text += ": " + printable(n.Progress.Text)
	}
	if r := n.Report; r != nil && n.Progress.Condition == api.Running {
		text += remarks(*r)
	}
	if colour == "" {
		return text
	}
	return colour + text + p.plain
}

// remarks are what is worth knowing at a glance of a machine that runs.
func remarks(r api.Report) (text string) {
	if u := r.Update; u.State != "" {
		text += "; " + printable(strings.TrimSpace(u.Version+" "+u.State))
	}
	if n := len(r.Config.Waits); n > 0 {
		text += fmt.Sprintf("; %d settings await a restart", n)
	}
	return text
}

// age is a duration as people say it, in one or two units.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// palette holds the terminal's codes for what is good and what is not; empty where
// there is no terminal.
type palette struct{ bad, busy, good, plain string }

func (a *app) colours() palette {
	out, ok := a.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(out.Fd())) || os.Getenv("NO_COLOR") != "" {
		return palette{}
	}
	return palette{bad: "\x1b[1;31m", busy: "\x1b[33m", good: "\x1b[32m", plain: "\x1b[0m"}
}

// urgent sorts nodes for a screen: those that need somebody first.
func urgent(nodes []api.Node) []api.Node {
	rank := map[api.Condition]int{api.Failed: 0, api.Booting: 1, api.Running: 2, api.Off: 3, api.Ignored: 4}
	out := slices.Clone(nodes)
	slices.SortStableFunc(out, func(x, y api.Node) int { return cmp.Compare(rank[condition(x)], rank[condition(y)]) })
	return out
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"slate/netboot/api"
)

type nodeCmd struct {
	List     nodeListCmd     `cmd:"" help:"List nodes and how they are."`
	Show     nodeShowCmd     `cmd:"" help:"Show what is known of a node: identity, hardware, settings, and all its boots."`
	Logs     nodeLogsCmd     `cmd:"" help:"Print what a node wrote while it started."`
	Explain  nodeExplainCmd  `cmd:"" help:"Say what a node would boot now, and why."`
	Set      nodeSetCmd      `cmd:"" help:"Set what nodes boot, and how."`
	Install  nodeInstallCmd  `cmd:"" help:"Have nodes installed on their own drives at their next start."`
	Group    nodeGroupCmd    `cmd:"" help:"Put nodes into groups, or take them out."`
	Wake     nodeWakeCmd     `cmd:"" help:"Switch nodes on, by Wake-on-LAN."`
	Reboot   nodeRebootCmd   `cmd:"" help:"Restart nodes that run."`
	Update   nodeUpdateCmd   `cmd:"" help:"Bring nodes to the version that they are to run now, a few at a time."`
	Rollback nodeRollbackCmd `cmd:"" help:"Bring nodes back to the version that they had before."`
	Verify   nodeVerifyCmd   `cmd:"" help:"Have installed nodes compare the files of their systems."`
	Forget   nodeForgetCmd   `cmd:"" help:"Remove nodes and all that is known of them."`
}

// nodeTargets are the nodes a verb is about.
type nodeTargets struct {
	Nodes []string `arg:"" help:"Nodes: names, globs in quotes ('pc*'), groups (@room1)."`
	JSON  bool     `help:"Print JSON."`
}

// adminSocket finds the socket of the appliance on this machine.
func (a *app) adminSocket() (string, error) {
	s, err := a.settings()
	if err != nil {
		return "", err
	}
	return filepath.Join(s.Data, api.AdminSocket), nil
}

// admin connects with the appliance on this machine, to do f with it.
func (a *app) admin(ctx context.Context, f func(context.Context, *api.Client) error) error {
	socket, err := a.adminSocket()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return adminHint(f(ctx, api.DialAdmin(socket)))
}

// adminHint adds what to do when the appliance cannot be reached at all.
func adminHint(err error) error {
	var unanswered *url.Error
	if !errors.As(err, &unanswered) || errors.Is(err, context.Canceled) {
		return err
	}
	return hintError{fmt.Errorf("the appliance on this machine does not answer: %w", err), "does it run, and may you open its socket? start it with: slate serve"}
}

// act does something with nodes and prints what became of each.
func (a *app) act(ctx context.Context, asJSON bool, f func(context.Context, *api.Client) ([]api.Done, error)) error {
	return a.admin(ctx, func(ctx context.Context, c *api.Client) error {
		done, err := f(ctx, c)
		if err != nil {
			return err
		}
		var errs []error
		for _, d := range done {
			if d.Error != "" {
				errs = append(errs, fmt.Errorf("%s: %s", d.Node, d.Error))
			} else if !asJSON {
				fmt.Fprintf(a.stdout, "%s: %s\n", d.Node, d.Text)
			}
		}
		if asJSON {
			errs = append(errs, printJSON(a.stdout, done))
		}
		return errors.Join(errs...)
	})
}

type nodeListCmd struct {
	Nodes []string `arg:"" optional:"" help:"Only these: names, globs in quotes ('pc*'), groups (@room1)."`
	JSON  bool     `help:"Print JSON."`
}

// Run lists nodes.
func (c *nodeListCmd) Run(ctx context.Context, a *app) error {
	return a.admin(ctx, func(ctx context.Context, client *api.Client) error {
		nodes, err := client.Nodes(ctx, c.Nodes...)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(a.stdout, nodes)
		}
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NODE\tSTATE\tGROUPS\tADDRESS\tMAC\tFIRMWARE\tPRODUCT\tSEEN")
		for _, n := range nodes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, condition(n), dash(strings.Join(n.Groups, ",")), dash(n.Address), dash(strings.Join(n.MACs, ",")),
				dash(n.Firmware), dash(n.Product), n.Seen.Local().Format(time.DateTime))
		}
		return w.Flush()
	})
}

func condition(n api.Node) api.Condition {
	if n.Progress == nil {
		return "-"
	}
	return n.Progress.Condition
}

type nodeShowCmd struct {
	Node string `arg:"" help:"The node's name."`
	JSON bool   `help:"Print JSON."`
}

// Run shows a node.
func (c *nodeShowCmd) Run(ctx context.Context, a *app) error {
	return a.admin(ctx, func(ctx context.Context, client *api.Client) error {
		n, err := client.Node(ctx, c.Node)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(a.stdout, n)
		}
		printNode(a.stdout, n, a.colours())
		return nil
	})
}

// printNode prints all that is known of a node.
func printNode(w io.Writer, n api.Node, p palette) {
	row := func(what, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-9s %s\n", what, value)
		}
	}
	fmt.Fprintln(w, n.Name)
	row("state", describe(n, time.Now(), p))
	row("runs", n.Runs())
	row("assigned", n.Assigned)
	if r := n.Report; r != nil {
		row("reported", r.Time.Local().Format(time.DateTime)+fmt.Sprintf(", load %.2f, %d MiB free, agent %.1f MB", r.Load, r.Free, float64(r.Agent)/1000))
		for _, l := range r.Lines() {
			fmt.Fprintf(w, "  %-13s %s\n", l.What, printable(l.Text))
		}
	}
	row("groups", strings.Join(n.Groups, ", "))
	row("image", n.Set.Image)
	row("mode", n.Set.Mode)
	row("cmdline", strings.Join(n.Set.Cmdline, " "))
	row("MAC", strings.Join(n.MACs, ", "))
	row("UUID", n.UUID)
	row("serial", n.Serial)
	row("product", n.Product)
	row("firmware", n.Firmware)
	row("address", n.Address)
	row("seen", n.Seen.Local().Format(time.DateTime))
	if h := n.Hardware; h != nil {
		row("CPU", strings.TrimSpace(fmt.Sprintf("%s, %d processors", cmp.Or(h.CPU, "unknown"), h.Cores)))
		row("memory", fmt.Sprintf("%d MiB", h.MemoryMiB))
		row("setup", strings.Trim(h.Firmware+" "+h.BIOSVersion, " ")+map[bool]string{true: ", Secure Boot on"}[h.SecureBoot])
		for _, d := range h.Disks {
			row("disk", strings.Join(strings.Fields(fmt.Sprintf("%s %.1f GB %s %s %s", d.Name, float64(d.Size)/1e9, d.Transport, d.Model, d.Serial)), " "))
			if d.ID != "" || d.Path != "" {
				row("", strings.TrimSpace("by-id "+d.ID+"  path "+d.Path))
			}
		}
		for _, c := range h.NICs {
			link := "no link"
			if c.Link {
				link = "link up"
				if c.Speed > 0 {
					link = fmt.Sprintf("%d Mbit/s", c.Speed)
				}
			}
			row("network", strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s", c.Name, c.MAC, c.Driver, link)), " "))
		}
	}
	for _, b := range n.Boots {
		fmt.Fprintln(w)
		printBoot(w, b, p)
	}
}

// printBoot prints the timeline of a boot: for each event when it was since the
// boot began, and for the end of a step how long that took.
func printBoot(w io.Writer, b api.Boot, p palette) {
	fmt.Fprintf(w, "  boot %s at %s  %s\n", b.ID, b.Started.Local().Format(time.DateTime), b.Image)
	began := map[api.Step]time.Time{}
	for i, e := range b.Events {
		took, mark, end := "", "", ""
		switch e.State {
		case api.StateStart:
			began[e.Step] = e.Time
			if i+1 < len(b.Events) && b.Events[i+1].Step == e.Step && e.Text == "" {
				continue // the next line says it all
			}
			mark = "… "
		case api.StateDone, api.StateFailed:
			if t, ok := began[e.Step]; ok {
				took = fmt.Sprintf("%.2f s", e.Time.Sub(t).Seconds())
				delete(began, e.Step)
			}
			if e.Text == took { // the controller says how long it took, too
				e.Text = ""
			}
			if e.State == api.StateFailed {
				mark, end = p.bad+"FAILED ", p.plain
			}
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %7.2f s  %-10s %9s  %s%s%s", e.Time.Sub(b.Started).Seconds(), e.Step, took, mark, printable(e.Text), end), " "))
	}
}

// printable keeps what machines send from playing tricks on the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

type nodeExplainCmd struct {
	Node string `arg:"" help:"The node's name."`
	JSON bool   `help:"Print JSON."`
}

// Run prints the boot decision for a node.
func (c *nodeExplainCmd) Run(ctx context.Context, a *app) error {
	return a.admin(ctx, func(ctx context.Context, client *api.Client) error {
		e, err := client.Explain(ctx, c.Node)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(a.stdout, e)
		}
		for _, l := range e.Lines {
			fmt.Fprintf(a.stdout, "%-13s %s\n%14s(%s)\n", l.What, l.Value, "", l.Why)
		}
		if e.Error != "" {
			return hintError{fmt.Errorf("%s is not started: %s", e.Node, e.Error), e.Hint}
		}
		return nil
	})
}

type nodeSetCmd struct {
	nodeTargets
	Image   *string  `help:"The image: name@channel, name/number or name." placeholder:"IMAGE"`
	Mode    *string  `help:"ask, diskless, installed, or ignore to give them nothing to boot." placeholder:"MODE"`
	Cmdline *string  `help:"Words for the kernel command line, instead of config.d's." placeholder:"'WORDS'"`
	Unset   []string `help:"Leave these to config.d again: image, mode, cmdline." enum:"image,mode,cmdline" placeholder:"WHAT"`
}

// Help is shown by slate node set --help.
func (nodeSetCmd) Help() string {
	return `What is set holds from the nodes' next start on. It goes before boot.conf of
config.d, be it the site's, a group's or the node's; a cboot.conf goes before it.
slate node explain NODE shows what comes of it.`
}

// Run sets what nodes boot.
func (c *nodeSetCmd) Run(ctx context.Context, a *app) error {
	change := api.Change{Targets: api.Targets{Targets: c.Nodes}, Image: c.Image, Mode: c.Mode}
	if c.Cmdline != nil {
		words := strings.Fields(*c.Cmdline)
		change.Cmdline = &words
	}
	for _, what := range c.Unset {
		switch what {
		case "image":
			change.Image = new(string)
		case "mode":
			change.Mode = new(string)
		case "cmdline":
			change.Cmdline = &[]string{}
		}
	}
	if change.Image == nil && change.Mode == nil && change.Cmdline == nil {
		return usageError{errors.New("nothing to set: give --image, --mode, --cmdline or --unset")}
	}
	return a.act(ctx, c.JSON, func(ctx context.Context, client *api.Client) ([]api.Done, error) { return client.Change(ctx, change) })
}

type nodeInstallCmd struct {
	nodeTargets
	Cancel bool `help:"Take it back, for those that have not started yet."`
}

// Help is shown by slate node install --help.
func (nodeInstallCmd) Help() string {
	return `At its next start over the network each node puts the version that it is to boot on
the drive that config.d/controller/drives.conf allows, without asking anybody. It
does so once. A node whose drives do not fit any rule shows why and asks. An
installation that was interrupted is gone on with at the start after it.
slate node explain NODE shows what will happen; slate node show NODE its drives.`
}

// Run marks nodes.
func (c *nodeInstallCmd) Run(ctx context.Context, a *app) error {
	install := !c.Cancel
	change := api.Change{Targets: api.Targets{Targets: c.Nodes}, Install: &install}
	return a.act(ctx, c.JSON, func(ctx context.Context, client *api.Client) ([]api.Done, error) { return client.Change(ctx, change) })
}

type nodeGroupCmd struct {
	nodeTargets
	Join  []string `help:"Groups to put them into. The last one joined has precedence." placeholder:"GROUP"`
	Leave []string `help:"Groups to take them out of." placeholder:"GROUP"`
	Only  []string `help:"Take them out of all groups, and put them into these." placeholder:"GROUP"`
}

// Run changes the groups of nodes.
func (c *nodeGroupCmd) Run(ctx context.Context, a *app) error {
	if len(c.Join)+len(c.Leave)+len(c.Only) == 0 {
		return usageError{errors.New("nothing to change: give --join, --leave or --only")}
	}
	change := api.Change{Targets: api.Targets{Targets: c.Nodes}, Join: slices.Concat(c.Only, c.Join), Leave: c.Leave, LeaveAll: len(c.Only) > 0}
	return a.act(ctx, c.JSON, func(ctx context.Context, client *api.Client) ([]api.Done, error) { return client.Change(ctx, change) })
}

type nodeWakeCmd struct{ nodeTargets }

// Run wakes nodes.
func (c *nodeWakeCmd) Run(ctx context.Context, a *app) error {
	return a.act(ctx, c.JSON, func(ctx context.Context, client *api.Client) ([]api.Done, error) {
		return client.Act(ctx, "wake", c.Nodes...)
	})
}

type nodeRebootCmd struct{ nodeTargets }

// Help is shown by slate node reboot --help.
func (nodeRebootCmd) Help() string {
	return `The agent on each node asks its system to restart in an orderly way, as Ctrl-Alt-Del
does. A node whose agent does not listen is named, and the others are restarted.`
}

// Run restarts nodes.
func (c *nodeRebootCmd) Run(ctx context.Context, a *app) error {
	return a.act(ctx, c.JSON, func(ctx context.Context, client *api.Client) ([]api.Done, error) {
		return client.Act(ctx, "reboot", c.Nodes...)
	})
}

type nodeVerifyCmd struct{ nodeTargets }

// Help is shown by slate node verify --help.
func (nodeVerifyCmd) Help() string {
	return `The agent on each node compares every file of the system that runs from the node's
drive with its signed tree list, with the last claim on processor and disk. What came of
it is in the node's timeline, slate node show NODE. What is wrong is replaced at the
node's next start: from its other system, or else from an appliance. A diskless node has
nothing to compare.

How often nodes do it by themselves: [verify] in controller/update.chk.conf.`
}

// Run has nodes compare their files.
func (c *nodeVerifyCmd) Run(ctx context.Context, a *app) error {
	return a.act(ctx, c.JSON, func(ctx context.Context, client *api.Client) ([]api.Done, error) {
		return client.Act(ctx, "verify", c.Nodes...)
	})
}

type nodeRollbackCmd struct{ nodeTargets }

// Help is shown by slate node rollback --help.
func (nodeRollbackCmd) Help() string {
	return `Sets for each node the version that it had before as its image, and has it go there: an
installed node starts the other system of its drive, a diskless one restarts. It stays
there, whatever its channel does, until: slate node set NODE --unset image

To bring a whole channel back: slate image rollback, and then slate node update.`
}

// Run brings nodes back.
func (c *nodeRollbackCmd) Run(ctx context.Context, a *app) error {
	return a.act(ctx, c.JSON, func(ctx context.Context, client *api.Client) ([]api.Done, error) {
		return client.Act(ctx, "rollback", c.Nodes...)
	})
}

type nodeForgetCmd struct{ nodeTargets }

// Run forgets nodes.
func (c *nodeForgetCmd) Run(ctx context.Context, a *app) error {
	return a.act(ctx, c.JSON, func(ctx context.Context, client *api.Client) ([]api.Done, error) {
		return client.Act(ctx, "forget", c.Nodes...)
	})
}

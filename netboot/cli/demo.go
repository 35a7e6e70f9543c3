// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"slate/builder/command"
	"slate/images"
	"slate/images/durable"
	"slate/images/store"
	"slate/netboot"
	"slate/netboot/api"
	"slate/netboot/boot"
	"slate/testbed/lab"
	"slate/testbed/process"
	"slate/testbed/qemu"
)

type labDemoCmd struct {
	Dir     string        `help:"Where the settings and the image are kept for the next time." type:"path" default:".cache/demo" placeholder:"DIR"`
	Limit   time.Duration `help:"How long the machines may take to their login prompts." default:"8m"`
	Rebuild bool          `help:"Build the image anew."`

	BuildOnly bool `help:"Build the image if it is not there, and stop."`
	OpenRC    bool `name:"openrc" help:"Build one with OpenRC, too, which the tests boot."`
}

// Help is shown by slate lab demo --help.
func (labDemoCmd) Help() string {
	return `Builds a Debian image (once), starts an appliance in a virtual network, and boots
two virtual machines from it, one by BIOS PXE and one by UEFI PXE, to their login
prompts. Then it shows how long each step took. On a terminal it goes on to offer
the machines' consoles; the demo image lets root in with the password "slate".

Needs root, QEMU, OVMF, iPXE and mmdebstrap: make demo installs them.`
}

// The demo's image and its channel.
const (
	demoImage   = "demo"
	openrcImage = "openrc"
	demoTimeout = 5 // seconds that the chooser waits
)

// demo is a demo under way.
type demo struct {
	*labDemoCmd
	a    *app
	lab  *lab.Lab
	api  *api.Client
	runs []*demoRun
}

// demoRun is one machine's boot, in times since its power-on.
type demoRun struct {
	node  *lab.Node
	on    time.Time
	login time.Duration
}

// Run shows the demo.
func (c *labDemoCmd) Run(ctx context.Context, a *app) error {
	d := &demo{labDemoCmd: c, a: a}
	if err := d.prepare(ctx); err != nil || c.BuildOnly {
		return err
	}
	var err error
	if d.lab, err = lab.Open(ctx, lab.Options{Log: a.log}); err != nil {
		return err
	}
	defer d.lab.Close()
	if err := d.boot(ctx); err != nil {
		return d.explain(err)
	}
	if err := d.show(ctx); err != nil {
		return err
	}
	return d.consoles(ctx)
}

// prepare writes the settings of the demo's appliance and builds its image, as
// far as they are not there from the last time.
func (d *demo) prepare(ctx context.Context) error {
	if err := os.MkdirAll(d.Dir, 0o755); err != nil {
		return err
	}
	s, _, err := netboot.PlanSettings(netboot.SetupFacts{Interfaces: []netboot.Interface{
		{Name: lab.MainBridge, Up: true, Prefixes: []netip.Prefix{lab.DefaultAddr}},
	}})
	if err != nil {
		return err
	}
	s.Data = "data"
	text, err := s.Text()
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.config(), text, 0o644); err != nil {
		return err
	}
	quiet := *d.a
	quiet.stdout = io.Discard
	if err := writeExamples(&quiet, filepath.Join(d.Dir, "config.d")); err != nil {
		return err
	}
	// Emulated machines are slow: systemd may wait longer for their devices.
	choice := fmt.Appendf(nil, "# The demo does not wait for anybody.\nimage = %q\ntimeout = %d\ncmdline = [\"quiet\", \"panic=30\", \"systemd.default_device_timeout_sec=600\", \"no_timer_check\"]\n", demoImage+"@"+boot.StableChannel, demoTimeout)
	if err := durable.WriteFile(filepath.Join(d.Dir, "config.d/system/cboot.conf"), choice, 0o644); err != nil {
		return err
	}
	if err := writeKey(&quiet, filepath.Join(d.Dir, "site.key")); err != nil {
		return err
	}
	return d.build(ctx)
}

func (d *demo) config() string { return filepath.Join(d.Dir, "slate.toml") }

// build makes the demo's images unless they are there.
func (d *demo) build(ctx context.Context) error {
	st, err := store.Open(filepath.Join(d.Dir, "data"), store.Options{})
	if err != nil {
		return err
	}
	if err := d.buildImage(ctx, st, demoImage, "demo"); err != nil || !d.OpenRC {
		return err
	}
	return d.buildImage(ctx, st, openrcImage, "demo-openrc")
}

func (d *demo) buildImage(ctx context.Context, st *store.Store, image, recipe string) error {
	rec, err := st.Resolve(images.Ref{Name: image, Channel: boot.StableChannel})
	if err == nil && !d.Rebuild {
		d.say("Image %s is there, built %s.", rec.Ref(), rec.Time.Local().Format(time.DateTime))
		return nil
	}
	d.say("Building a Debian image; this takes about two minutes, once.")
	args := []string{"build", image, "--recipe", recipe, "--publish", boot.StableChannel, "--name", image}
	if d.Rebuild {
		args = append(args, "--force")
	}
	return d.slate(ctx, args...)
}

// slate runs another verb with the demo's settings, as a person would.
func (d *demo) slate(ctx context.Context, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append([]string{self, "--config", d.config(), "--data", filepath.Join(d.Dir, "data")}, args...)
	return command.Run(ctx, command.Cmd{Args: argv, Log: d.a.stderr})
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.a.stdout, format+"\n", args...) }

// boot starts the appliance and the machines and waits for their login prompts.
func (d *demo) boot(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = d.lab.StartSpec(ctx, process.Spec{
		Name:  "appliance",
		Argv:  []string{self, "--config", d.config(), "--data", filepath.Join(d.Dir, "data"), "serve"},
		Ready: &process.Ready{Notify: filepath.Join(d.lab.Dir(), "notify")},
	})
	if err != nil {
		return err
	}
	base := fmt.Sprintf("http://%s:%d", d.lab.Addr().Addr(), netboot.DefaultHTTPPort)
	d.api = &api.Client{Base: base, HTTP: d.lab.HTTPClient()}
	d.say("The appliance serves at %s, in a network of its own.", base)

	fctx, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(ctx)
	for _, f := range []qemu.Firmware{qemu.BIOS, qemu.UEFI} {
		n, err := d.lab.AddNode(lab.NodeSpec{Name: string(f), Firmware: f, Boot: []string{"net"}})
		if err != nil {
			return err
		}
		run := &demoRun{node: n}
		d.runs = append(d.runs, run)
		g.Go(func() error { return d.power(gctx, run) })
	}
	followed := make(chan struct{})
	go func() { defer close(followed); d.follow(fctx) }()
	if err := g.Wait(); err != nil {
		return err
	}
	select {
	case <-followed:
	case <-time.After(reportTime):
	}
	return nil
}

// reportTime is how long after the login prompts the machines may take to tell
// the appliance that they are ready.
const reportTime = 20 * time.Second

// power switches a machine on and waits for its login prompt.
func (d *demo) power(ctx context.Context, r *demoRun) error {
	if err := r.node.Start(ctx); err != nil {
		return err
	}
	r.on = time.Now()
	if _, err := r.node.Console().Expect(ctx, d.Limit, `login: `); err != nil {
		return fmt.Errorf("machine %s: no login prompt: %w", r.node.Name(), err)
	}
	r.login = time.Since(r.on)
	return nil
}

// follow prints the steps of all machines as they come, until all are ready for
// a login.
func (d *demo) follow(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	told := map[string]bool{}
	for ready := 0; ready < len(d.runs); {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st, err := d.api.Status(ctx)
		if err != nil {
			continue // it is asked again; a dead appliance shows at the machines
		}
		for _, r := range d.runs {
			for _, e := range bootOf(st, r.node).Events {
				key := fmt.Sprint(r.node.Name(), e.Step, e.State)
				if e.State != api.StateDone && e.State != api.StateFailed || told[key] {
					continue
				}
				told[key] = true
				d.say("%6.1f s  %-5s %-10s %s", e.Time.Sub(r.on).Seconds(), r.node.Name(), e.Step, e.Text)
				if e.Step == api.StepLogin {
					ready++
				}
			}
		}
	}
}

// bootOf is the newest boot of a machine of the lab, as the appliance knows it.
func bootOf(st api.Status, n *lab.Node) api.Boot {
	for _, node := range st.Nodes {
		if slices.Contains(node.MACs, n.MAC().String()) && len(node.Boots) > 0 {
			return node.Boots[0]
		}
	}
	return api.Boot{}
}

// show prints when each machine came to the steps that matter.
func (d *demo) show(ctx context.Context) error {
	st, err := d.api.Status(ctx)
	if err != nil {
		return err
	}
	d.say("\nSeconds from power on to:")
	w := tabwriter.NewWriter(d.a.stdout, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(what string, cell func(*demoRun) string) {
		cells := []string{what}
		for _, r := range d.runs {
			cells = append(cells, cell(r))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
	}
	row("", func(r *demoRun) string { return r.node.Name() })
	for _, step := range []struct {
		what string
		step api.Step
	}{
		{"DHCP answer", api.StepDHCP}, {"loader", api.StepLoader}, {"boot script", api.StepScript}, {"kernel loaded", api.StepKernel},
		{"controller", api.StepEarly}, {"network", api.StepNetwork}, {"root mounted", api.StepRoot}, {"ready for login", api.StepLogin},
	} {
		row(step.what, func(r *demoRun) string { return when(bootOf(st, r.node), step.step, r.on) })
	}
	row("login prompt", func(r *demoRun) string { return fmt.Sprintf("%.1f", r.login.Seconds()) })
	return w.Flush()
}

// when is the time of the first success of a step, "-" if there was none: a
// machine with iPXE in its ROM needs no loader.
func when(b api.Boot, step api.Step, on time.Time) string {
	for _, e := range b.Events {
		if e.Step == step && e.State == api.StateDone {
			return fmt.Sprintf("%.1f", e.Time.Sub(on).Seconds())
		}
	}
	return "-"
}

// explain adds to an error where the logs of the lab are.
func (d *demo) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	dir := filepath.Join(d.Dir, "logs")
	if kerr := d.lab.KeepLogs(dir); kerr != nil {
		return err
	}
	return hintError{err, "what the machines and the appliance said is in " + dir}
}

// consoles offers the machines' consoles to a person at a terminal.
func (d *demo) consoles(ctx context.Context) error {
	if !d.a.onTerminal() {
		return nil
	}
	in := bufio.NewReader(d.a.stdin)
	for {
		d.say("")
		for i, r := range d.runs {
			d.say("  %d  console of %s", i+1, r.node.Name())
		}
		fmt.Fprint(d.a.stdout, "  q  end the demo\n> ")
		choice, ok := ask(ctx, in)
		if !ok || choice == "q" {
			return nil
		}
		for i, r := range d.runs {
			if choice == strconv.Itoa(i+1) {
				if err := d.a.console(ctx, r.node.Name(), r.node.Hub().Attach); err != nil {
					return err
				}
			}
		}
	}
}

// ask reads a line; false at the end of the input and when ctx ends.
func ask(ctx context.Context, in *bufio.Reader) (string, bool) {
	answer := make(chan string, 1)
	go func() {
		defer close(answer)
		if line, err := in.ReadString('\n'); err == nil {
			answer <- strings.TrimSpace(line)
		}
	}()
	select {
	case line, ok := <-answer:
		return line, ok
	case <-ctx.Done():
		return "", false
	}
}

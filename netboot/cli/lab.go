// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"slate/images/durable"
	"slate/testbed/lab"
	"slate/testbed/lab/supervisor"
	"slate/testbed/netns"
	"slate/testbed/qemu"
)

type labCmd struct {
	Demo labDemoCmd `cmd:"" help:"Boot two virtual machines from an appliance and show how they got to their login prompts."`

	Up         labUpCmd         `cmd:"" help:"Start a lab in the background: a network, an appliance, virtual machines."`
	Status     labStatusCmd     `cmd:"" help:"Show the lab and its machines."`
	Console    labConsoleCmd    `cmd:"" help:"Attach the terminal to a machine's serial console. Ctrl-] leaves it."`
	Screenshot labScreenshotCmd `cmd:"" help:"Save a picture of a machine's screen."`
	Start      labStartCmd      `cmd:"" help:"Switch a machine on."`
	Reset      labResetCmd      `cmd:"" help:"Press a machine's reset button."`
	Poweroff   labPoweroffCmd   `cmd:"" help:"Press a machine's power button and wait until it is off."`
	Powercut   labPowercutCmd   `cmd:"" help:"Pull a machine's plug."`
	Down       labDownCmd       `cmd:"" help:"End the lab and all that runs in it."`
	Supervise  labSuperviseCmd  `cmd:"" hidden:"" help:"Run a lab that lab up asked for."`
}

// labName says which lab a verb is about.
type labName struct {
	Lab string `help:"Which lab, if there are several." default:"lab" placeholder:"NAME"`
}

// labNode is a verb's machine.
type labNode struct {
	labName
	Node string `arg:"" help:"The machine: its name, or its number from 1."`
}

// dir is where the lab is: in memory, where a restart of the computer leaves
// nothing of it.
func (n labName) dir() (string, error) {
	if n.Lab == "" || n.Lab != filepath.Base(n.Lab) || strings.HasPrefix(n.Lab, ".") {
		return "", usageError{fmt.Errorf("--lab %q: not a plain name", n.Lab)}
	}
	base := "/run"
	if os.Geteuid() != 0 {
		if base = os.Getenv("XDG_RUNTIME_DIR"); base == "" {
			base = filepath.Join(os.TempDir(), fmt.Sprintf("slate-%d", os.Getuid()))
		}
	}
	return filepath.Join(base, "slate-lab", n.Lab), nil
}

// client calls f with the lab's supervisor.
func (n labName) client(f func(*supervisor.Client) error) error {
	dir, err := n.dir()
	if err != nil {
		return err
	}
	err = f(&supervisor.Client{Dir: dir})
	if errors.Is(err, supervisor.ErrNotUp) {
		return hintError{fmt.Errorf("%q: %w", n.Lab, err), "slate lab up starts it"}
	}
	return err
}

type labUpCmd struct {
	labName
	Nodes     []string `help:"The machines, by firmware: bios, uefi, uefi-secure, uefi-arm64." default:"bios,uefi" placeholder:"FIRMWARE"`
	Memory    int      `help:"Memory of each machine, in MiB." default:"1024"`
	CPUs      int      `name:"cpus" help:"Processors of each machine." default:"1"`
	NIC       []string `name:"nic" help:"Model of each network card, as QEMU names it; several for several cards." default:"virtio-net-pci" placeholder:"MODEL"`
	Disk      []int64  `help:"An empty disk of so many GiB in each machine; several for several disks." placeholder:"GIB"`
	Appliance string   `help:"Shell command to serve the machines with, instead of slate itself; none for nothing." placeholder:"COMMAND"`
	Dir       string   `help:"Where the settings and the image of the lab's appliance are kept for the next time." type:"path" default:".cache/demo" placeholder:"DIR"`
}

// Help is shown by slate lab up --help.
func (labUpCmd) Help() string {
	return `Starts a network of its own with an appliance and virtual machines, and leaves it
running in the background until slate lab down. The first time, a Debian image is
built for the machines, as slate lab demo does.

Works as root, and without root where the system allows user namespaces and
/dev/net/tun; then --dir must hold an image already, or --appliance be given.`
}

// Run starts the lab.
func (c *labUpCmd) Run(ctx context.Context, a *app) error {
	conf, err := c.config()
	if err != nil {
		return err
	}
	client := &supervisor.Client{Dir: conf.Dir}
	if _, err := client.Status(ctx); err == nil {
		return hintError{fmt.Errorf("lab %s is up already", c.Lab), "slate lab status shows it, slate lab down ends it"}
	}
	if c.Appliance == "" {
		d := &demo{labDemoCmd: &labDemoCmd{Dir: c.Dir}, a: a}
		if err := d.prepare(ctx); err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		conf.Appliance = []string{self, "--config", d.config(), "--data", filepath.Join(c.Dir, "data"), "serve"}
		conf.ApplianceNotify = true
	}
	if err := supervise(ctx, conf); err != nil {
		return err
	}
	st, err := client.Status(ctx)
	if err != nil {
		return err
	}
	return printLab(a, st)
}

// config is the lab as the flags say, without slate's own appliance.
func (c *labUpCmd) config() (supervisor.Config, error) {
	dir, err := c.dir()
	if err != nil {
		return supervisor.Config{}, err
	}
	conf := supervisor.Config{Name: c.Lab, Dir: dir}
	if c.Appliance != "" && c.Appliance != "none" {
		conf.Appliance = []string{"/bin/sh", "-c", c.Appliance}
	}
	seen := map[string]int{}
	for _, fw := range c.Nodes {
		switch qemu.Firmware(fw) {
		case qemu.BIOS, qemu.UEFI, qemu.UEFISecure, qemu.UEFIARM64:
		default:
			return conf, usageError{fmt.Errorf("--nodes %s: not bios, uefi, uefi-secure or uefi-arm64", fw)}
		}
		s := lab.NodeSpec{Name: fw, Firmware: qemu.Firmware(fw), Memory: c.Memory, CPUs: c.CPUs}
		if seen[fw]++; seen[fw] > 1 {
			s.Name = fmt.Sprintf("%s%d", fw, seen[fw])
		}
		for _, model := range c.NIC {
			s.NICs = append(s.NICs, lab.NIC{Model: model})
		}
		for _, gib := range c.Disk {
			s.Disks = append(s.Disks, lab.Disk{Size: gib << 30})
		}
		conf.Nodes = append(conf.Nodes, s)
	}
	return conf, nil
}

// labReport is what the supervisor says about its start.
type labReport struct{ Error, Hint string }

// supervise starts a lab's supervisor in the background, and waits until the lab
// is up.
func supervise(ctx context.Context, conf supervisor.Config) error {
	b, err := json.Marshal(conf)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	cmd := exec.Command("/proc/self/exe", "lab", "supervise")
	cmd.Args[0] = os.Args[0]
	cmd.Stdin = bytes.NewReader(b)
	cmd.Stderr = os.Stderr // until the lab has a place for it
	cmd.ExtraFiles = []*os.File{w}
	// A session of its own: it stays when the terminal goes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() != 0 {
		netns.Isolate(cmd)
	}
	if err := cmd.Start(); err != nil {
		return netns.Explain(err)
	}
	w.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var rep labReport
	if err := json.NewDecoder(r).Decode(&rep); err != nil {
		return errors.Join(context.Cause(ctx), errors.New("the lab's supervisor ended without a word"), cmd.Wait())
	}
	if rep.Error != "" {
		_ = cmd.Wait() // its error is the report
		return hintError{errors.New(rep.Error), rep.Hint}
	}
	return cmd.Process.Release()
}

type labSuperviseCmd struct{}

// Run is the supervisor: configuration on standard input, report on descriptor 3.
func (labSuperviseCmd) Run(ctx context.Context, a *app) error {
	report := os.NewFile(3, "report")
	if report == nil {
		return usageError{errors.New("lab supervise is for slate lab up")}
	}
	defer report.Close()
	unix.CloseOnExec(3)
	var conf supervisor.Config
	if err := json.NewDecoder(a.stdin).Decode(&conf); err != nil {
		return usageError{fmt.Errorf("lab supervise is for slate lab up: %w", err)}
	}
	err := netns.Enter()
	if err == nil {
		err = supervisor.Run(ctx, conf, func() error {
			return errors.Join(redirectStderr(filepath.Join(conf.Dir, "logs", "supervisor.log")),
				json.NewEncoder(report).Encode(labReport{}), report.Close())
		})
	}
	if err != nil {
		rep := labReport{Error: err.Error()}
		if h := (hinter)(nil); errors.As(err, &h) {
			rep.Hint = h.Hint()
		}
		_ = json.NewEncoder(report).Encode(rep) // closed if the lab was up already
	}
	return err
}

// redirectStderr lets go of the terminal that the supervisor was started from.
func redirectStderr(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Dup3(int(f.Fd()), 2, 0)
}

type labStatusCmd struct {
	labName
	JSON bool `name:"json" help:"For programs."`
}

// Run shows the lab.
func (c *labStatusCmd) Run(ctx context.Context, a *app) error {
	return c.client(func(cl *supervisor.Client) error {
		st, err := cl.Status(ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			e := json.NewEncoder(a.stdout)
			e.SetIndent("", "  ")
			return e.Encode(st)
		}
		return printLab(a, st)
	})
}

func printLab(a *app, st supervisor.Status) error {
	fmt.Fprintf(a.stdout, "Lab %s is up for %s, its own address is %s, its logs are in %s.\n",
		st.Name, st.Uptime.Round(time.Second), st.Address, filepath.Join(st.Dir, "logs"))
	switch ap := st.Appliance; {
	case len(ap.Command) == 0:
		fmt.Fprintln(a.stdout, "No appliance.")
	case ap.Running:
		fmt.Fprintf(a.stdout, "Appliance: process %d. Commands run in its network with: nsenter -t %d -n\n", ap.Pid, ap.Pid)
	default:
		fmt.Fprintf(a.stdout, "Appliance: ENDED. Its last line: %s\n", ap.Last)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "#\tNODE\tFIRMWARE\tMAC\tPOWER\tLAST LINE ON THE CONSOLE")
	for i, n := range st.Nodes {
		power := "off"
		if n.On {
			power = "on " + n.Uptime.Round(time.Second).String()
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", i+1, n.Name, n.Firmware, n.MAC, power, shorten(n.Last, 60))
	}
	return w.Flush()
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

type labConsoleCmd struct{ labNode }

// Run attaches the terminal.
func (c *labConsoleCmd) Run(ctx context.Context, a *app) error {
	return c.client(func(cl *supervisor.Client) error {
		if _, err := cl.Status(ctx); err != nil {
			return err // before the terminal is touched
		}
		return a.console(ctx, c.Node, func(ctx context.Context, rw io.ReadWriter) error { return cl.Console(ctx, c.Node, rw) })
	})
}

type labScreenshotCmd struct {
	labNode
	File string `arg:"" help:"The PNG file to write." type:"path"`
}

// Run saves the picture.
func (c *labScreenshotCmd) Run(ctx context.Context, a *app) error {
	return c.client(func(cl *supervisor.Client) error {
		png, err := cl.Screen(ctx, c.Node)
		if err != nil {
			return err
		}
		return durable.WriteFile(c.File, png, 0o644)
	})
}

type labStartCmd struct{ labNode }

// Run switches the machine on.
func (c *labStartCmd) Run(ctx context.Context) error { return c.power(ctx, "start") }

type labResetCmd struct{ labNode }

// Run resets the machine.
func (c *labResetCmd) Run(ctx context.Context) error { return c.power(ctx, "reset") }

type labPoweroffCmd struct{ labNode }

// Run switches the machine off the polite way.
func (c *labPoweroffCmd) Run(ctx context.Context) error { return c.power(ctx, "poweroff") }

type labPowercutCmd struct{ labNode }

// Run switches the machine off the hard way.
func (c *labPowercutCmd) Run(ctx context.Context) error { return c.power(ctx, "powercut") }

func (n labNode) power(ctx context.Context, action string) error {
	return n.client(func(cl *supervisor.Client) error { return cl.Power(ctx, n.Node, action) })
}

type labDownCmd struct{ labName }

// Run ends the lab.
func (c *labDownCmd) Run(ctx context.Context, a *app) error {
	return c.client(func(cl *supervisor.Client) error {
		if err := cl.Down(ctx); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "Lab %s is down.\n", c.Lab)
		return nil
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slate/installer/agent"
	"slate/installer/health"
	"slate/installer/live"
	"slate/installer/machine"
	"slate/installer/root"
	"slate/installer/screen"
	"slate/installer/servers"
	"slate/installer/update"

	"golang.org/x/sys/unix"
)

// Main is the whole program: which part it plays depends on how it was started.
// As PID 1 it does not return.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	switch {
	case os.Getpid() == 1:
		supervise(args)
		return 1 // not reached
	case filepath.Base(args[0]) == agent.Argv0:
		return runAgent(ctx)
	case filepath.Base(args[0]) == agent.CommandName:
		return agent.Command(ctx, RunDir, args[1:], stdout, stderr)
	case len(args) > 2 && args[1] == "-q" && args[2] == "--":
		return modprobe(ctx, args[3:]) // as the kernel calls its modprobe
	case len(args) > 1 && args[1] == controllerRole && os.Getppid() == 1:
		return controller(ctx, args[2:])
	case len(args) == 2 && args[1] == agent.ProbeRole:
		return inSystem(stderr, func() error { return health.Serve(ctx, health.Here(), os.Stdin, stdout) })
	case len(args) == 2 && args[1] == agent.UpdateRole:
		return inSystem(stderr, func() error { return update.Serve(ctx, os.Stdin, stdout, stderr) })
	case len(args) == 2 && args[1] == agent.NetworkRole:
		return inSystem(stderr, func() error { return agent.ServeNetwork(ctx, os.Stdin, stdout) })
	case len(args) == 2 && args[1] == agent.LiveRole:
		return inSystem(stderr, func() error { return live.Serve(ctx, live.Here(), os.Stdin, stdout) })
	case len(args) == 2 && args[1] == agent.VerifyRole:
		if err := agent.ServeVerify(ctx, os.Stdin, stdout); err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	case len(args) == 2 && args[1] == endRole:
		if err := agent.RecordEnd(RunDir); err != nil {
			fmt.Fprintf(stderr, "slate: that this machine was shut down in order is not recorded: %v\n", err)
			return 1
		}
		return 0
	case len(args) > 1 && args[1] == "plan":
		fmt.Fprint(stdout, Plan(strings.Join(args[2:], " ")))
		return 0
	}
	fmt.Fprintln(stderr, "slate-init is the first program of a machine that boots from slate; it does its work as process 1.")
	fmt.Fprintln(stderr, "Here it can only show what it would do:  slate-init plan [KERNEL COMMAND LINE]")
	return 2
}

// controllerRole is the argument by which PID 1 starts the controller.
const controllerRole = "controller"

// endRole is the argument by which the system, shutting down, has its end recorded.
const endRole = "ended"

// Environment of the controller, from PID 1.
const (
	envFailed = "SLATE_FAILED" // what went wrong in the last try
	envMoved  = "SLATE_MOVED"  // set once the initramfs is gone
)

// Plan prints what a machine with this kernel command line would do.
func Plan(cmdline string) string {
	b := &Boot{Settings: machine.ParseCmdline(cmdline)}
	var s strings.Builder
	s.WriteString(FormatStages(Stages()))
	for _, p := range b.Settings.Problems {
		s.WriteString("\n" + p + "\n")
	}
	s.WriteString("\nBefore everything:\n" + root.Format(machine.EarlyMounts()))
	if b.Settings.NFS.Server.IsValid() {
		s.WriteString("\nThe root:\n" + b.rootPlan())
	}
	return s.String()
}

// controller takes the machine through the stages. Exit status 0 tells PID 1 that
// the new root is ready; it never ends otherwise by itself.
func controller(ctx context.Context, args []string) int {
	b := &Boot{Args: args, Reporter: servers.NewReporter(), Fleet: servers.NewFleet(nil, "")}
	r := Runner{Stages: Stages(), Fail: b.failed}
	if text := os.Getenv(envFailed); text != "" {
		if b.afterCrash(ctx, text) == GiveUp {
			return 1
		}
	}
	if err := r.Run(ctx, b); err != nil {
		b.printf("slate: %v\n", err)
		return 1
	}
	if err := b.finish(); err != nil {
		fmt.Fprintf(os.Stderr, "slate: %v\n", err)
		return 1
	}
	return 0
}

// afterCrash shows what ended the controller before this one, or what PID 1 could
// not do, before anything is tried again.
func (b *Boot) afterCrash(ctx context.Context, text string) Decision {
	_ = machine.MountEarly()
	b.Settings = machine.ParseCmdline(readText("/proc/cmdline"))
	b.Identity = machine.ReadIdentity("")
	b.printf("slate: %s\n", text)
	var s Stage
	if os.Getenv(envMoved) == "" {
		s.Run = func(context.Context, *Boot) error { return nil } // there is something to try again
	}
	for {
		d := b.failed(ctx, Failure{Stage: s, Title: crashTitle, Err: errors.New(text)})
		if d == TryAgain && s.Run != nil || d == GiveUp {
			return d
		}
	}
}

// inSystem does work of the agent's inside the machine's system.
func inSystem(stderr io.Writer, do func() error) int {
	err := agent.EnterSystem()
	if err == nil {
		err = do()
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// modprobe loads what the kernel asks for by name.
func modprobe(ctx context.Context, names []string) int {
	x, err := machine.ReadModuleIndex(os.DirFS("/"), machine.Release())
	if err != nil {
		return 1
	}
	b := &Boot{}
	digests, err := b.digests()
	if err != nil {
		return 1
	}
	l := machine.Loader{Index: x, Settings: machine.ParseCmdline(readText("/proc/cmdline")), Digests: digests}
	if _, err := l.Load(ctx, names...); err != nil {
		return 1
	}
	return 0
}

// outside leaves the system's root for the agent's directory, with /proc at hand.
func outside(run func(proc *os.Root, dir *os.File) error) error {
	proc, err := os.OpenRoot("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	dir, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Chroot(RunDir); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return run(proc, dir)
}

func runAgent(ctx context.Context) int {
	// The kernel log is the one place that is there before, during and after
	// every other log of the system; syslog and the journal read it too.
	log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		log = os.Stderr
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0o644)
	_, _ = time.Now().Local().Zone() // reads the system's time zone, which cannot be seen from there
	// Away from the root that hangs on us: nothing of it is ever touched again,
	// and systemd sees at shut-down that we do not keep it busy.
	err = outside(func(proc *os.Root, dir *os.File) error {
		program := "/" + relative(agentProgram)
		a := agent.Agent{Dir: "/", Proc: proc.FS(), Log: log, Probe: agent.Probe(program, dir), Live: agent.Apply(program, dir),
			Verify: agent.Verifier(program), Fill: agent.Filler(program, dir), Network: agent.Networker(program, dir)}
		return a.Run(ctx)
	})
	if err != nil {
		fmt.Fprintf(log, "slate-agent: %s\n", screen.Plain(err.Error()))
		return 1
	}
	return 0
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package cli is the slate command: one file per verb, and the only package
// that parses arguments. A verb collects its inputs here and calls the package
// that does the work.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// Set by the Makefile through -ldflags; see version.go for what they default to.
var (
	buildCommit string
	buildDate   string
)

// Exit statuses of the command.
const (
	exitOK     = 0
	exitFailed = 1 // the work did not succeed
	exitUsage  = 2 // the arguments make no sense
)

// commands is the command line as kong reads it: a field per verb.
type commands struct {
	globals

	Init   initCmd   `cmd:"" help:"Set up an appliance on this machine: settings, config.d and site key."`
	Build  buildCmd  `cmd:"" help:"Build an image from a recipe."`
	Image  imageCmd  `cmd:"" help:"List, import, publish and look after the images that nodes run."`
	Serve  serveCmd  `cmd:"" help:"Run the appliance."`
	Status statusCmd `cmd:"" help:"Show the appliance, and how each of its nodes is."`
	Node   nodeCmd   `cmd:"" help:"Look after nodes: list, explain, set, group, wake, restart."`
	Media  mediaCmd  `cmd:"" help:"Write media that start machines without network boot: USB sticks, ISO images."`
	Doctor doctorCmd `cmd:"" help:"Find what keeps machines from booting, and how to mend it."`
	Config configCmd `cmd:"" help:"Check and explain config.d, the configuration of the nodes."`
	Lab    labCmd    `cmd:"" help:"Try it all with virtual machines, in a network that exists only for that."`

	Version versionFlag `help:"Print the version, the commit it was built from and its date, and exit." short:"V"`
}

// globals are the flags every verb takes.
type globals struct {
	Config    string `help:"The appliance's settings file." type:"path" env:"SLATE_CONFIG" default:"/etc/slate/slate.toml" placeholder:"FILE"`
	Data      string `help:"Data directory: images, state and loaders. Default: the settings file's, or /var/lib/slate." type:"path" env:"SLATE_DATA" placeholder:"DIR"`
	LogFormat string `help:"How log lines look: text for people, json for programs." enum:"text,json" default:"text"`
	LogLevel  string `help:"The least important log lines to show: debug, info, warn, error." enum:"debug,info,warn,error" default:"info"`
}

// app is what a verb works with besides its own flags.
type app struct {
	globals
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	log    *slog.Logger
}

// usageError is an error in the arguments that kong cannot see; Main ends with
// status 2 for it.
type usageError struct{ error }

// hinter is an error that knows what the person should do next. Any package may
// return one; Main prints the hint on a line of its own.
type hinter interface{ Hint() string }

// Main runs the command and returns its exit status: 0 done, 1 failed, 2 wrong
// usage. The first SIGINT or SIGTERM cancels the context, the second ends the
// process at once.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal then has its default effect

	var cmds commands
	status := -1
	parser, err := newParser(&cmds,
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { status = code; panic(exitPanic{}) }),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		panic(fmt.Sprintf("BUG: command line: %v", err))
	}

	kctx, exited, err := parse(parser, args)
	switch {
	case exited:
		return status
	case err != nil:
		fmt.Fprintf(stderr, "slate: %v\n", err)
		var pe *kong.ParseError
		if errors.As(err, &pe) && pe.Context != nil && pe.Context.Selected() != nil {
			fmt.Fprintf(stderr, "See: slate %s --help\n", pe.Context.Selected().Path())
		} else {
			fmt.Fprintln(stderr, "See: slate --help")
		}
		return exitUsage
	}

	a := &app{globals: cmds.globals, stdin: stdin, stdout: stdout, stderr: stderr}
	a.log = newLogger(stderr, cmds.LogFormat, cmds.LogLevel)
	err = kctx.Run(a)
	return a.report(ctx, err)
}

// newParser makes what reads the command line.
func newParser(cmds *commands, more ...kong.Option) (*kong.Kong, error) {
	return kong.New(cmds, append([]kong.Option{
		kong.Name("slate"),
		kong.Description("Boots a room of machines over the network, from one immutable image."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	}, more...)...)
}

// exitPanic carries kong's wish to exit (after --help or --version) up to parse.
type exitPanic struct{}

func parse(p *kong.Kong, args []string) (kctx *kong.Context, exited bool, err error) {
	defer func() {
		switch r := recover(); r.(type) {
		case nil:
		case exitPanic:
			exited = true
		default:
			panic(r)
		}
	}()
	kctx, err = p.Parse(args)
	return kctx, false, err
}

// report prints err the way a person reads it and returns the exit status.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(a.stderr, "slate: interrupted")
		return exitFailed
	}
	for _, e := range flatten(err) {
		fmt.Fprintf(a.stderr, "slate: %v\n", e)
		var h hinter
		if errors.As(e, &h) && h.Hint() != "" {
			fmt.Fprintf(a.stderr, "  hint: %s\n", h.Hint())
		}
	}
	var ue usageError
	if errors.As(err, &ue) {
		return exitUsage
	}
	return exitFailed
}

// flatten lists the parts of a joined error, so that each gets its own line.
func flatten(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range j.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}

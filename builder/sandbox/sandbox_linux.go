// SPDX-License-Identifier: GPL-2.0-or-later

// Package sandbox runs programs inside a root tree as if it were a system of its
// own: with its own mounts, processes and host name, a /dev of six harmless
// nodes, and, unless it has to fetch something, no network. When the program
// ends, whatever it started ends, and all mounts are gone with the namespace
// they were made in. It needs root.
package sandbox

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"slate/builder/command"
)

// enter mounts what a system expects and changes the root.
//
//go:embed enter.sh
var enter string

// Options are what to run and how. Root and Args have to be set.
type Options struct {
	Root    string   // directory of the tree
	Args    []string // program inside the tree, and its arguments
	Env     []string // beside PATH, HOME, LANG and TERM
	Network bool     // share the machine's network, and its name servers
	Bind    []Bind   // directories of the machine that the program sees
	Stdin   io.Reader
	Stdout  io.Writer    // nil: as standard error
	Log     io.Writer    // gets the output that does not go to Stdout
	Line    func(string) // called for each line of that output

	// Terminal is given to the program, for a shell; Stdin to Line are not used then.
	Terminal *os.File
}

// Bind is a directory of the machine that is seen inside the tree.
type Bind struct {
	Outside, Inside string
	Write           bool // the program may change it
}

// mountPoints are the directories of the tree that are mounted over. A link in
// their place would lead the mounts elsewhere.
var mountPoints = []string{"proc", "sys", "dev", "run", "tmp"}

// Run runs the program and waits for its end.
func Run(ctx context.Context, o Options) error {
	if len(o.Args) == 0 {
		return errors.New("BUG: sandbox without a program")
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	defer root.Close()
	points := slices.Clone(mountPoints)
	for _, b := range o.Bind {
		points = append(points, b.Inside)
	}
	for _, p := range points {
		if err := mountPoint(root, p); err != nil {
			return fmt.Errorf("sandbox %s: %w", o.Root, err)
		}
	}
	if o.Network {
		undo, err := nameServers(root)
		if err != nil {
			return fmt.Errorf("sandbox %s: %w", o.Root, err)
		}
		defer undo()
	}
	args := []string{"/bin/sh", "-euc", enter, "sandbox", o.Root}
	for _, b := range o.Bind {
		args = append(args, map[bool]string{true: "--bind", false: "--bind-ro"}[b.Write], b.Outside, b.Inside)
	}
	args = append(args, "--")
	args = append(args, o.Args...)
	return command.Run(ctx, command.Cmd{
		Args:  args,
		Dir:   "/",
		Env:   append(environment(), o.Env...),
		Stdin: o.Stdin, Stdout: o.Stdout, Log: o.Log, Line: o.Line,
		Isolate: true, NoNetwork: !o.Network, Terminal: o.Terminal,
	})
}

// environment is what every program inside sees. What the caller has in its own
// must not find its way into an image.
func environment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "SYSTEMD_OFFLINE=1", "DEBIAN_FRONTEND=noninteractive",
	}
	if t := os.Getenv("TERM"); t != "" {
		env = append(env, "TERM="+t)
	}
	return env
}

// mountPoint makes sure that p is a directory of the tree itself.
func mountPoint(root *os.Root, p string) error {
	if !fs.ValidPath(p) {
		return fmt.Errorf("%q is no path inside", p)
	}
	// Every part of it: MkdirAll would follow links that stay inside.
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		fi, err := root.Lstat(p[:i])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := root.Mkdir(p[:i], 0o755); err != nil {
				return err
			}
		case err != nil:
			return err
		case !fi.IsDir():
			return fmt.Errorf("/%s is not a directory", p[:i])
		}
	}
	return nil
}

// nameServers gives the tree this machine's resolv.conf for as long as the
// program runs. A tree whose file is a link has it made by a service that does
// not run now; the link is put back.
func nameServers(root *os.Root) (undo func(), err error) {
	conf, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return func() {}, nil // then there are none to give
	}
	const name, aside = "etc/resolv.conf", "etc/.resolv.conf.slate"
	if _, err := root.Lstat("etc"); errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	_, err = root.Lstat(name)
	had := err == nil
	if had {
		if err := root.Rename(name, aside); err != nil {
			return nil, err
		}
	}
	undo = func() {
		_ = root.Remove(name)
		if had {
			_ = root.Rename(aside, name)
		}
	}
	if err := root.WriteFile(name, conf, 0o644); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

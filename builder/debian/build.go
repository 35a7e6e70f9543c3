// SPDX-License-Identifier: GPL-2.0-or-later

package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"slate/builder/command"
	"slate/builder/customize"
	"slate/builder/recipes"
	"slate/images"
)

// Options are what a build needs to know.
type Options struct {
	Recipe  *recipes.Recipe
	Sources []Source
	Actions []customize.Action        // run in the tree after the packages are in it
	Epoch   time.Time                 // no file's time is later; same epoch and inputs, same tree
	Log     io.Writer                 // gets everything mmdebstrap says
	Step    func(step, detail string) // what is going on; may be nil
	TempDir string                    // for scripts and for the tree while it grows; "": the system's
}

// Result is what is known after a build.
type Result struct {
	Release map[string]images.Digest // InRelease files apt used, by apt's name for them
	Saved   map[string]int64         // bytes that cleaning up removed, by what they were
}

// Build makes the recipe's tree and hands it to sink as a tar stream. sink has
// to be ready for a stream that ends in an error; Build returns after it.
func Build(ctx context.Context, o Options, sink func(context.Context, io.Reader) error) (Result, error) {
	m := modeUnshare
	if os.Geteuid() == 0 {
		m = modeRoot
	}
	hooks, err := writeHooks(ctx, o.Actions, o.TempDir)
	if err != nil {
		return Result{}, fmt.Errorf("debian: %w", err)
	}
	defer os.RemoveAll(hooks)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pr, pw := io.Pipe()
	sunk := make(chan error, 1)
	go func() {
		err := sink(ctx, pr)
		if err != nil {
			cancel(err) // nobody takes the tree any more: stop making it
		}
		pr.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		sunk <- err
	}()

	w := watcher{step: o.Step, result: Result{Release: map[string]images.Digest{}, Saved: map[string]int64{}}}
	env := environment(o.Epoch, hooks, os.Getenv)
	if o.TempDir != "" {
		env = append(env, "TMPDIR="+o.TempDir)
	}
	err = command.Run(ctx, command.Cmd{
		Args:   arguments(o.Recipe, o.Sources, m, hooks, len(o.Actions) > 0),
		Env:    env,
		Dir:    "/", // in a user namespace the caller's may be out of reach
		Stdout: pw,
		Log:    o.Log,
		Line:   w.line,
		// mmdebstrap needs a while to take its mounts down again.
		Grace:   20 * time.Second,
		Isolate: m == modeRoot,
	})
	pw.CloseWithError(err) // nil: the stream is complete
	sinkErr := <-sunk
	// The one that failed first is the cause: sink fails over a tree that breaks
	// off, and mmdebstrap is stopped when nobody takes the tree.
	var failed *command.Error
	if sinkErr != nil && !errors.As(err, &failed) {
		return w.result, sinkErr
	}
	return w.result, explain(err, o.Recipe)
}

// Version asks mmdebstrap for its version, and so finds out whether it is there.
func Version(ctx context.Context) (string, error) {
	out, err := command.Output(ctx, command.Cmd{Args: []string{"mmdebstrap", "--version"}})
	if errors.Is(err, exec.ErrNotFound) {
		return "", &buildError{errors.New("mmdebstrap is not installed"), "on Debian and Ubuntu: apt-get install mmdebstrap"}
	}
	return strings.TrimSpace(out), err
}

// writeHooks makes a directory with the scripts and files mmdebstrap needs.
// In a user namespace they are read by another user, so they are open to all;
// what is secret in a recipe is in the image anyway.
func writeHooks(ctx context.Context, actions []customize.Action, below string) (dir string, err error) {
	dir, err = os.MkdirTemp(below, "slate-build-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	perm, exec := fs.FileMode(0o644), fs.FileMode(0o755)
	if os.Geteuid() == 0 {
		perm, exec = 0o600, 0o700
	} else if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	files := filepath.Join(dir, "files")
	if err := os.Mkdir(files, exec); err != nil {
		return "", err
	}
	for i, a := range actions {
		if a.Stdin == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(files, strconv.Itoa(i)), a.Stdin, perm); err != nil {
			return "", err
		}
	}
	for _, f := range []struct {
		name, text string
		perm       fs.FileMode
	}{
		{"setup.sh", setupScript, exec},
		{"customize.sh", hookScript(actions, files), exec},
		{"apt.conf", hostAptSettings(ctx), perm},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), f.perm); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// hostAptSettings asks this machine's apt, if there is one.
func hostAptSettings(ctx context.Context) string {
	out, err := command.Output(ctx, command.Cmd{Args: []string{"apt-config", "dump"}})
	if err != nil {
		return ""
	}
	return aptSettings(out)
}

// stages are the words of mmdebstrap that begin something that takes a while,
// and ours for it.
var stages = map[string]string{
	"running apt-get update":                           "reading package lists",
	"downloading packages with apt":                    "downloading packages",
	"extracting archives":                              "unpacking essential packages",
	"installing essential packages":                    "installing essential packages",
	"installing remaining packages inside the chroot":  "installing packages",
	"installing remaining packages outside the chroot": "installing packages",
	"creating tarball":                                 "reading the tree",
}

// watcher makes sense of what mmdebstrap and our scripts print.
type watcher struct {
	step   func(step, detail string)
	now    string
	result Result
}

var inRelease = regexp.MustCompile(`^slate-inrelease: ([0-9a-f]{64}) (\S+)$`)

func (w *watcher) line(l string) {
	if m := inRelease.FindStringSubmatch(l); m != nil {
		if d, err := images.ParseDigest(m[1]); err == nil {
			w.result.Release[m[2]] = d
		}
		return
	}
	if v, ok := strings.CutPrefix(l, customize.SavedPrefix); ok {
		what, n := customize.ParseSaved(v)
		w.result.Saved[what] += n
		return
	}
	detail := l
	if v, ok := strings.CutPrefix(l, "slate-step: "); ok {
		w.now, detail = v, ""
	} else if v, ok := strings.CutPrefix(l, "I: "); ok {
		if step := stages[strings.TrimRight(v, ". ")]; step != "" {
			w.now, detail = step, ""
		}
	}
	if w.step != nil {
		w.step(w.now, detail)
	}
}

// buildError is a failed build with what to do about it.
type buildError struct {
	err  error
	hint string
}

func (e *buildError) Error() string { return e.err.Error() }
func (e *buildError) Unwrap() error { return e.err }
func (e *buildError) Hint() string  { return e.hint }

// explanations are what well-known lines of output mean.
var explanations = []struct{ line, hint string }{
	{"Unable to locate package", "the recipe names a package that the suite does not have; another component or suite may have it"},
	{"has no installation candidate", "the recipe names a package that the suite does not have; another component or suite may have it"},
	{"NO_PUBKEY", "this machine does not have the archive's key: install debian-archive-keyring, or set debian.keyring in the recipe"},
	{"is not signed", "this machine does not have the archive's key: install debian-archive-keyring, or set debian.keyring in the recipe"},
	{"Could not resolve", "the mirror's name could not be resolved: is this machine online? debian.mirror in the recipe names another"},
	{"Connection failed", "the mirror could not be reached; debian.mirror in the recipe names another"},
	{"Could not connect", "the mirror could not be reached; debian.mirror in the recipe names another"},
	{"is not valid yet", "this machine's clock is behind the archive's: set it"},
	{"No space left on device", "there is no room for the tree: free some, or point TMPDIR at a larger disk"},
	{"newuidmap", "building without root needs the package uidmap and lines for this user in /etc/subuid and /etc/subgid; or build as root"},
	{"/etc/subuid", "building without root needs the package uidmap and lines for this user in /etc/subuid and /etc/subgid; or build as root"},
}

func explain(err error, r *recipes.Recipe) error {
	var ce *command.Error
	if !errors.As(err, &ce) {
		return err
	}
	err = fmt.Errorf("building %s: %w", r.Name, err)
	if ce.Hint() != "" {
		return err
	}
	text := strings.Join(ce.Tail, "\n")
	for _, x := range explanations {
		if strings.Contains(text, x.line) {
			return &buildError{err, x.hint}
		}
	}
	return err
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"slate/builder"
	"slate/builder/recipes"
	"slate/builder/sandbox"
	"slate/images"
)

type buildCmd struct {
	Recipe  string `arg:"" help:"The recipe: the name of a shipped one, such as debian or demo, or a file."`
	From    string `name:"recipe" help:"Another recipe than the one of that name, for an image that is called so." placeholder:"RECIPE"`
	Name    string `help:"Name of the image. Default: the recipe's." placeholder:"NAME"`
	Publish string `help:"Point this channel at the version when it is built." placeholder:"CHANNEL"`
	Note    string `help:"A remark to keep with the version." placeholder:"TEXT"`
	Force   bool   `help:"Build even if neither the recipe nor the archives have changed."`

	Shell      bool `help:"Open a shell in the tree before it becomes a version. Needs root."`
	Keep       bool `help:"Keep the tree as a directory, to look at it. Needs root."`
	ShowRecipe bool `help:"Print the recipe, as a start for one's own, and build nothing."`
}

// Run builds a version.
func (c *buildCmd) Run(ctx context.Context, a *app) error {
	name := cmp.Or(c.From, c.Recipe)
	if c.ShowRecipe {
		text, err := recipes.Text(name)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(text)
		return err
	}
	r, err := recipes.Load(name)
	if err != nil {
		return err
	}
	if c.Publish != "" {
		if err := images.CheckChannel(c.Publish); err != nil {
			return usageError{err}
		}
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	terminal, ok := a.stdin.(*os.File)
	if c.Shell && (!ok || !term.IsTerminal(int(terminal.Fd()))) {
		return usageError{errors.New("--shell needs a terminal")}
	}
	p := newProgress(a.stderr)
	var edit func(context.Context, string) error
	if c.Shell {
		edit = func(ctx context.Context, root string) error { return c.shell(ctx, a, p, terminal, root) }
	}
	b, err := builder.Build(ctx, st, builder.BuildOptions{
		Recipe: r, Name: c.Name, Note: c.Note, Force: c.Force, Keep: c.Keep, Edit: edit,
		Step: p.step, Warn: p.warn,
	})
	p.close()
	if err != nil {
		return err
	}
	c.report(a, b, p.elapsed())
	if c.Publish == "" {
		return nil
	}
	ref := images.Ref{Name: b.Record.Name, Number: b.Record.Number}
	if err := st.Publish(ctx, ref, c.Publish); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s@%s is now %s\n", ref.Name, c.Publish, b.Record.Ref())
	return nil
}

// errDiscarded is the answer of a person who does not want what they did.
var errDiscarded = errors.New("the tree was thrown away, no version was made")

// shell lets a person change the tree, and asks whether it is to be kept: the
// status of a shell is that of its last command, which says nothing.
func (c *buildCmd) shell(ctx context.Context, a *app, p *progress, terminal *os.File, root string) error {
	p.pause()
	fmt.Fprintf(a.stderr, "This is the tree of the next version; leave it with exit or Ctrl-D. The network is up.\n")
	err := sandbox.Run(ctx, sandbox.Options{
		Root: root, Network: true, Terminal: terminal,
		Args: []string{"/bin/sh", "-c", "if [ -x /bin/bash ]; then exec /bin/bash; fi; exec /bin/sh"},
		Env:  []string{"HISTFILE=/dev/null", "debian_chroot=slate"},
	})
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return err
	}
	fmt.Fprint(a.stderr, "Make a version of it? [Y/n] ")
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil || strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "n") {
		return errDiscarded
	}
	p.resume()
	return nil
}

func (c *buildCmd) report(a *app, b builder.Built, took time.Duration) {
	rec := b.Record
	what := "is new"
	switch {
	case b.Unchanged && !b.New:
		what = "is up to date: neither the recipe nor the archives have changed"
	case !b.New:
		what = "is what this build made, too"
	}
	fmt.Fprintf(a.stdout, "%s %s (%d entries, %.0f MB, %.0f s)\n", rec.Ref(), what, rec.Entries, float64(rec.Size)/1e6, took.Seconds())
	if k := rec.Kernel; k != nil && b.New {
		fmt.Fprintf(a.stdout, "  kernel %s, %s, init %s\n", k.Release, rec.Arch, rec.Init)
	}
	if b.Kept != "" {
		fmt.Fprintf(a.stdout, "  tree: %s\n", b.Kept)
	}
	if b.Log != "" {
		fmt.Fprintf(a.stdout, "  log: %s\n", b.Log)
	}
}

// progress shows what a long piece of work is at. On a terminal that is one
// line that changes, with the time gone by; elsewhere a line for each step.
type progress struct {
	w     io.Writer
	start time.Time
	term  *os.File // nil: not a terminal

	mu     sync.Mutex
	now    string
	detail string
	quiet  bool // somebody else has the terminal
	stop   chan struct{}
	done   sync.WaitGroup
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, start: time.Now(), stop: make(chan struct{})}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.term = f
		p.done.Go(p.tick)
	}
	return p
}

func (p *progress) elapsed() time.Duration { return time.Since(p.start) }

// tick redraws the line, so that the time shows that we are alive.
func (p *progress) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

func (p *progress) step(step, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	isNew := step != p.now
	p.now, p.detail = step, detail
	switch {
	case p.term != nil:
		p.draw()
	case isNew && step != "":
		fmt.Fprintf(p.w, "%5.0fs %s\n", p.elapsed().Seconds(), strings.TrimRight(step+": "+detail, ": "))
	}
}

func (p *progress) warn(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, "warning: %s\n", text)
}

// pause leaves the terminal to somebody else, until resume.
func (p *progress) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.quiet = true
}

func (p *progress) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quiet = false
}

func (p *progress) draw() {
	if p.quiet {
		return
	}
	text := fmt.Sprintf("%5.0fs %s", p.elapsed().Seconds(), p.now)
	if p.detail != "" {
		text += ": " + p.detail
	}
	if width, _, err := term.GetSize(int(p.term.Fd())); err == nil && width > 1 {
		if r := []rune(text); len(r) > width-1 {
			text = string(r[:width-1])
		}
	}
	fmt.Fprintf(p.w, "\r\033[K%s", text)
}

func (p *progress) clear() {
	if p.term != nil {
		fmt.Fprint(p.w, "\r\033[K")
	}
}

// close ends the display.
func (p *progress) close() {
	if p.term == nil {
		return
	}
	close(p.stop)
	p.done.Wait()
	p.clear()
}

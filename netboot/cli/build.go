// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"slate/builder"
	"slate/builder/initramfs"
	"slate/builder/recipes"
	"slate/builder/remote"
	"slate/builder/sandbox"
	"slate/images"
	"slate/netboot/config"
)

type buildCmd struct {
	Recipe  string `arg:"" help:"The recipe: the name of a shipped one, such as gentoo, debian or demo, or a file."`
	From    string `name:"recipe" help:"Another recipe than the one of that name, for an image that is called so." placeholder:"RECIPE"`
	Name    string `help:"Name of the image. Default: the recipe's." placeholder:"NAME"`
	Publish string `help:"Point this channel at the version when it is built." placeholder:"CHANNEL"`
	Note    string `help:"A remark to keep with the version." placeholder:"TEXT"`
	For     string `help:"Build for the nodes of this group: its sources.conf counts too." placeholder:"GROUP"`
	Force   bool   `help:"Build even if neither the recipe nor what it builds on has changed."`
	Offline bool   `help:"Ask no server for anything: build from what was fetched before."`

	Shell      bool `help:"Open a shell in the tree before it becomes a version. Needs root."`
	Keep       bool `help:"Keep the tree as a directory, to look at it. Needs root."`
	Enter      bool `help:"Build nothing: open a shell in the tree of the image's last build that failed or was kept."`
	ShowRecipe bool `help:"Print the recipe, as a start for one's own, and build nothing."`
}

// Help is shown by slate build --help.
func (buildCmd) Help() string {
	return "Recipes that come with slate: " + strings.Join(recipes.Shipped(), ", ") + ". Where builds come from is said in config.d/sources/sources.conf. " +
		"What a step of a build makes is kept, and taken the next time if what goes into it is the same; if nothing has changed " +
		"nothing is built. Classes of kernel modules: " + strings.Join(initramfs.Classes(), ", ") + "."
}

// Run builds a version.
func (c *buildCmd) Run(ctx context.Context, a *app) error {
	if c.Publish != "" {
		if err := images.CheckChannel(c.Publish); err != nil {
			return usageError{err}
		}
	}
	terminal, ok := a.stdin.(*os.File)
	if (c.Shell || c.Enter) && (!ok || !term.IsTerminal(int(terminal.Fd()))) {
		return usageError{errors.New("a shell needs a terminal")}
	}
	if c.Enter {
		return c.enter(ctx, a, terminal)
	}
	o, err := c.options(ctx, a)
	if err != nil || c.ShowRecipe {
		return err
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	p := newProgress(a.stderr)
	if c.Shell {
		o.Edit = func(ctx context.Context, root string) error { return c.shell(ctx, a, p, terminal, root) }
	}
	o.Step, o.Warn = p.step, p.warn
	b, err := builder.Build(ctx, st, o)
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

// options reads config.d and the recipe; with --show-recipe it prints that.
func (c *buildCmd) options(ctx context.Context, a *app) (builder.BuildOptions, error) {
	o := builder.BuildOptions{Name: c.Name, Note: c.Note, Group: c.For, Force: c.Force, Keep: c.Keep, Offline: c.Offline}
	site, dir, err := c.site(a)
	if err != nil {
		return o, err
	}
	scope := config.Scope{}
	if c.For != "" {
		scope.Groups = []string{c.For}
		if !slices.Contains(site.Groups(), c.For) {
			return o, usageError{fmt.Errorf("no group %q has files in %s", c.For, dir)}
		}
	}
	o.ConfigD, o.Sources, o.Portage = dir, site.For(scope).Sources, site.Portage(scope)
	if err := c.remotes(ctx, a, &o); err != nil {
		return o, err
	}
	name := builder.FindRecipe(cmp.Or(c.From, c.Recipe), append([]string{dir}, o.Extra...))
	if c.ShowRecipe {
		text, err := recipes.Text(name)
		if err == nil {
			_, err = a.stdout.Write(text)
		}
		return o, err
	}
	o.Recipe, err = recipes.Load(name)
	return o, err
}

// site reads config.d. Without an appliance's settings its defaults count.
func (c *buildCmd) site(a *app) (*config.Site, string, error) {
	s, err := a.settings()
	if err != nil && errors.Is(err, fs.ErrNotExist) {
		site, err := config.Load(config.Examples())
		return site, "", err
	}
	if err != nil {
		return nil, "", err
	}
	if _, err := os.Stat(s.ConfigD); errors.Is(err, fs.ErrNotExist) {
		site, err := config.Load(config.Examples())
		return site, s.ConfigD, err
	}
	site, err := config.Load(os.DirFS(s.ConfigD))
	return site, s.ConfigD, err
}

// remotes fetches what sources.conf says comes from elsewhere. A file that is in
// config.d goes before it.
func (c *buildCmd) remotes(ctx context.Context, a *app, o *builder.BuildOptions) error {
	if len(o.Sources.Remote) == 0 {
		return nil
	}
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	p := newProgress(a.stderr)
	defer p.close()
	for _, r := range o.Sources.Remote {
		place, err := remote.Get(ctx, r, remote.Options{Dir: filepath.Join(st.Dir(), "builds", "remote"), Offline: c.Offline, Step: p.step,
			KeyFile: func(name string) string { return builder.SourcePath(*o, name) }})
		if err != nil {
			return err
		}
		if c.Offline {
			p.warn(fmt.Sprintf("offline: %s at %.12s, as it was fetched before", r.Name, place.Version))
		}
		o.Extra = append(o.Extra, place.Dir)
		o.Remote = append(o.Remote, builder.RemoteUsed{Name: r.Name, URL: r.URL, Version: place.Version})
		if err := addPortage(o.Portage, filepath.Join(place.Dir, config.PortageDir)); err != nil {
			return err
		}
	}
	return nil
}

// addPortage adds what a directory has and files lacks.
func addPortage(files map[string][]byte, dir string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || files[p] != nil {
			return err
		}
		files[p], err = root.ReadFile(p)
		return err
	})
}

// enter opens a shell in the tree of a build that is over.
func (c *buildCmd) enter(ctx context.Context, a *app, terminal *os.File) error {
	st, err := a.store(ctx)
	if err != nil {
		return err
	}
	name := cmp.Or(c.Name, strings.TrimSuffix(filepath.Base(c.Recipe), ".toml"))
	root := builder.KeptTree(st, name)
	if root == "" {
		return hintError{fmt.Errorf("no tree of a build of %s is kept", name), "a build that fails leaves its tree; slate build --keep keeps that of one that does not"}
	}
	fmt.Fprintf(a.stderr, "This is %s. What you change here gets into no version. Leave it with exit or Ctrl-D. The network is up.\n", root)
	return openShell(ctx, terminal, root)
}

func openShell(ctx context.Context, terminal *os.File, root string) error {
	err := sandbox.Run(ctx, sandbox.Options{
		Root: root, Network: true, Terminal: terminal,
		Args: []string{"/bin/sh", "-c", "if [ -x /bin/bash ]; then exec /bin/bash; fi; exec /bin/sh"},
		Env:  []string{"HISTFILE=/dev/null", "debian_chroot=slate"},
	})
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return nil // the status of a shell is that of its last command
	}
	return err
}

// errDiscarded is the answer of a person who does not want what they did.
var errDiscarded = errors.New("the tree was thrown away, no version was made")

// shell lets a person change the tree, and asks whether it is to be kept: the
// status of a shell is that of its last command, which says nothing.
func (c *buildCmd) shell(ctx context.Context, a *app, p *progress, terminal *os.File, root string) error {
	p.pause()
	fmt.Fprintf(a.stderr, "This is the tree of the next version; leave it with exit or Ctrl-D. The network is up.\n")
	if err := openShell(ctx, terminal, root); err != nil {
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
		what = "is up to date: neither the recipe nor what it builds on has changed"
	case !b.New:
		what = "is what this build made, too"
	}
	fmt.Fprintf(a.stdout, "%s %s (%d entries, %.0f MB, %.0f s)\n", rec.Ref(), what, rec.Entries, float64(rec.Size)/1e6, took.Seconds())
	if k := rec.Kernel; k != nil && b.New {
		fmt.Fprintf(a.stdout, "  kernel %s, %s, init %s\n", k.Release, rec.Arch, rec.Init)
	}
	var total int64
	var saved []string
	for _, what := range slices.Sorted(maps.Keys(b.Saved)) {
		total += b.Saved[what]
		saved = append(saved, fmt.Sprintf("%s %s", what, formatBytes(b.Saved[what])))
	}
	if total > 0 {
		fmt.Fprintf(a.stdout, "  cleaned away %s: %s\n", formatBytes(total), strings.Join(saved, ", "))
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

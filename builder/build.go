// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"slate/builder/command"
	"slate/builder/debian"
	"slate/builder/initramfs"
	"slate/builder/recipes"
	"slate/images"
	"slate/images/durable"
	"slate/images/store"
	"slate/images/tree"
)

// BuildOptions say what to build and how.
type BuildOptions struct {
	Recipe *recipes.Recipe
	Name   string // of the image; "": the recipe's
	Note   string
	Force  bool // build even if nothing has changed
	Keep   bool // leave the tree in the data directory, to look at it
	// Edit may change the tree before it is committed; with its error nothing is.
	// It is called even if nothing has changed. Like Keep it needs root.
	Edit    func(ctx context.Context, root string) error
	Modules initramfs.ModulesOptions

	Step func(step, detail string) // what is going on; may be nil
	Warn func(string)              // what is wrong, but no reason to stop; may be nil
}

// Built is what came out of a build.
type Built struct {
	Record    images.Record
	New       bool   // the version did not exist before
	Unchanged bool   // recipe and inputs are as they were: nothing was built
	Log       string // what the programs said; "" if none ran
	Saved     int64  // bytes that cleaning up removed
	Kept      string // directory with the tree; "" if it was not to be kept
}

// BuildError is a failed build, with its log.
type BuildError struct {
	Log string
	Err error
}

func (e *BuildError) Error() string { return e.Err.Error() + "\n  all of it: " + e.Log }
func (e *BuildError) Unwrap() error { return e.Err }

// Build makes the image's next version from a recipe. If the same recipe was
// built from the same inputs before, that tree is taken.
func Build(ctx context.Context, st *store.Store, o BuildOptions) (Built, error) {
	if o.Name == "" {
		o.Name = o.Recipe.Name
	}
	if err := images.CheckName(o.Name); err != nil {
		return Built{}, err
	}
	if (o.Keep || o.Edit != nil) && os.Geteuid() != 0 {
		return Built{}, errors.New("only root can have the tree of a build as a directory")
	}
	meta := Meta{Name: o.Name, Recipe: o.Recipe.Name, Note: o.Note, Modules: o.Modules, Step: o.Step, Warn: o.Warn}
	switch o.Recipe.Base {
	case "debian":
		return buildDebian(ctx, st, o, meta)
	}
	return Built{}, fmt.Errorf("recipe %s: no builder for base %q", o.Recipe.Name, o.Recipe.Base)
}

func buildDebian(ctx context.Context, st *store.Store, o BuildOptions, meta Meta) (Built, error) {
	version, err := debian.Version(ctx)
	if err != nil {
		return Built{}, err
	}
	sources, why := debian.Sources(o.Recipe.Debian, debian.ReadHost(os.DirFS("/")))
	meta.step("looking at the archives", "%s, from %s", sources[0].URI, why)
	in, err := debian.ReadInputs(ctx, nil, sources)
	cacheable := err == nil
	if err != nil {
		if ctx.Err() != nil {
			return Built{}, context.Cause(ctx)
		}
		meta.warn("the state of the archives is not known, so it cannot be seen whether anything changed: %v", err)
		in.Date = time.Now().UTC().Truncate(24 * time.Hour)
	}
	c := cache{dir: filepath.Join(st.Dir(), "builds", "cache"), key: debian.Key(o.Recipe, sources, in, version)}
	c.addModules(o.Modules)
	if cacheable && !o.Force && !o.Keep && o.Edit == nil {
		if rec, ok := c.lookup(ctx, st, meta); ok {
			rec, isNew, err := st.Commit(ctx, rec)
			return Built{Record: rec, New: isNew, Unchanged: true}, err
		}
	}
	log, err := openLog(filepath.Join(st.Dir(), "builds"), o.Name)
	if err != nil {
		return Built{}, err
	}
	defer log.Close()
	built, err := runDebian(ctx, st, o, meta, sources, in, log)
	built.Log = log.Name()
	if err != nil {
		if ctx.Err() != nil {
			return built, context.Cause(ctx)
		}
		return built, &BuildError{Log: log.Name(), Err: err}
	}
	if cacheable && o.Edit == nil {
		if err := c.save(built.Record, sources, in); err != nil {
			meta.warn("the result was not noted, the next build will start from nothing: %v", err)
		}
	}
	return built, nil
}

func runDebian(ctx context.Context, st *store.Store, o BuildOptions, meta Meta, sources []debian.Source, in debian.Inputs, log io.Writer) (b Built, err error) {
	opt := debian.Options{Recipe: o.Recipe, Sources: sources, Epoch: in.Date, Log: log, Step: o.Step}
	// In a user namespace the tree belongs to users that cannot enter our
	// directory; mmdebstrap then works in the system's and tidies up itself.
	if os.Geteuid() == 0 {
		w, err := newWorkspace(filepath.Join(st.Dir(), "builds", "work"))
		if err != nil {
			return b, err
		}
		defer func() { err = errors.Join(err, w.Close()) }()
		opt.TempDir = w.dir
	}
	var (
		t      *tree.Tree
		digest images.Digest
	)
	take := func(ctx context.Context, r io.Reader) error {
		var err error
		t, digest, err = st.AddTar(ctx, r, o.Name+".tar")
		return err
	}
	root := filepath.Join(opt.TempDir, "root")
	if o.Keep || o.Edit != nil {
		take = func(ctx context.Context, r io.Reader) error { return extract(ctx, r, root, log) }
	}
	res, err := debian.Build(ctx, opt, take)
	b.Saved = res.Saved
	if err == nil && o.Edit != nil {
		err = o.Edit(ctx, root)
	}
	if err != nil {
		return b, err
	}
	if t == nil {
		meta.step("reading the tree", "")
		if t, digest, err = st.AddDir(ctx, root); err != nil {
			return b, err
		}
	}
	if b.Record, b.New, err = commitTree(ctx, st, t, digest, meta); err != nil || !o.Keep {
		return b, err
	}
	b.Kept, err = keep(root, filepath.Join(st.Dir(), "builds", "kept"), o.Name)
	return b, err
}

// extract unpacks a tree with everything it has: owners by number, devices,
// capabilities.
func extract(ctx context.Context, r io.Reader, dir string, log io.Writer) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return command.Run(ctx, command.Cmd{
		Args: []string{"tar", "--extract", "--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*",
			// A directory gets its time when all of it is there, in whatever order it comes.
			"--delay-directory-restore", "--directory", dir},
		Stdin: r, Log: log,
	})
}

// keep moves a tree to where it stays until the next one of that name.
func keep(root, dir, name string) (string, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	kept := filepath.Join(dir, name)
	if _, err := os.Lstat(kept); err == nil {
		if err := removeTree(kept); err != nil {
			return "", err
		}
	}
	return kept, os.Rename(root, kept)
}

// openLog starts the log of an image's build; the one before is kept.
func openLog(dir, name string) (*os.File, error) {
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := filepath.Join(dir, name+".log")
	if err := os.Rename(p, p+".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Recipes may hold passwords, and programs print what they are given.
	return os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

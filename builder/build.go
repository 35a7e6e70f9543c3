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

	"slate/builder/customize"
	"slate/builder/debian"
	"slate/builder/fetch"
	"slate/builder/gentoo"
	"slate/builder/initramfs"
	"slate/builder/recipes"
	"slate/builder/rootfs"
	"slate/images"
	"slate/images/durable"
	"slate/images/store"
	"slate/images/tree"
	"slate/netboot/config"
)

// BuildOptions say what to build and how.
type BuildOptions struct {
	Recipe  *recipes.Recipe
	Sources config.Sources    // where it comes from
	Portage map[string][]byte // config.d's files for /etc/portage
	ConfigD string            // directory that files named in Sources are relative to
	Remote  []RemoteUsed      // what was fetched for this build, for the record
	Extra   []string          // directories with keys/ and overlays/ beside config.d's

	Name    string // of the image; "": the recipe's
	Note    string
	Group   string // whose processors and sources these are; "": the site's
	Force   bool   // build even if nothing has changed
	Keep    bool   // leave the tree in the data directory, to look at it
	Offline bool   // ask no server for anything
	// Edit may change the tree before it is committed; with its error nothing is.
	// It is called even if nothing has changed. Like Keep it needs root.
	Edit  func(ctx context.Context, root string) error
	Fetch fetch.Options

	Step func(step, detail string) // what is going on; may be nil
	Warn func(string)              // what is wrong, but no reason to stop; may be nil
}

// RemoteUsed is a place that files of this build came from.
type RemoteUsed struct {
	Name    string `toml:"name" json:"name"`
	URL     string `toml:"url" json:"url"`
	Version string `toml:"version" json:"version"` // commit or digest
}

// Built is what came out of a build.
type Built struct {
	Record    images.Record
	New       bool             // the version did not exist before
	Unchanged bool             // recipe and inputs are as they were: nothing was built
	Log       string           // what the programs said; "" if none ran
	Saved     map[string]int64 // bytes that cleaning up removed, by what they were
	Inputs    []Input          // what it was made from
	Kept      string           // directory with the tree; "" if it was not to be kept
}

// BuildError is a failed build, with its log and what there was of the tree.
type BuildError struct {
	Log  string
	Tree string // "": there is none
	Name string // of the image
	Err  error
}

func (e *BuildError) Error() string { return e.Err.Error() + "\n  all of it: " + e.Log }
func (e *BuildError) Unwrap() error { return e.Err }

// Hint says how to look around.
func (e *BuildError) Hint() string {
	var h interface{ Hint() string }
	hint := ""
	if errors.As(e.Err, &h) {
		hint = h.Hint()
	}
	if e.Tree == "" {
		return hint
	}
	if hint != "" {
		hint += "; "
	}
	return hint + fmt.Sprintf("the tree as it was then is kept: slate build --enter %s opens a shell in it", e.Name)
}

// job is one build under way.
type job struct {
	st   *store.Store
	o    BuildOptions
	meta Meta
	log  io.Writer

	base    base
	actions []customize.Action

	work *workspace
	root string // directory of the tree; what is in it is laid out
	laid bool
	// packing tells the steps that install packages from those after them.
	packing bool
	saved   map[string]int64

	tree      gentoo.Tree // the snapshot to unpack
	installed []Package   // before the records were cleaned away
}

// Build makes the image's next version from a recipe. If the same recipe was
// built from the same inputs before, that tree is taken.
func Build(ctx context.Context, st *store.Store, o BuildOptions) (Built, error) {
	if o.Name == "" {
		o.Name = o.Recipe.Name
	}
	if err := images.CheckName(o.Name); err != nil {
		return Built{}, err
	}
	if os.Geteuid() != 0 {
		switch {
		case o.Keep || o.Edit != nil:
			return Built{}, errors.New("only root can have the tree of a build as a directory")
		case o.Recipe.Base != recipes.BaseDebian:
			return Built{}, fmt.Errorf("only root can build on base %q: sudo slate build …", o.Recipe.Base)
		}
	}
	j := &job{st: st, o: o, actions: customize.Actions(o.Recipe), saved: map[string]int64{}, meta: Meta{
		Name: o.Name, Recipe: o.Recipe.Name, Note: o.Note, Modules: modulesOptions(o.Recipe.Modules), Step: o.Step, Warn: o.Warn}}
	var err error
	if j.base, err = j.resolve(ctx); err != nil {
		return Built{}, err
	}
	c := cache{dir: filepath.Join(st.Dir(), "builds", "cache"), key: j.wholeKey()}
	cacheable := !j.base.key.IsZero()
	if cacheable && !o.Force && !o.Keep && o.Edit == nil {
		if rec, ok := c.lookup(ctx, st, j.meta); ok {
			rec, isNew, err := st.Commit(ctx, rec)
			if err == nil && isNew {
				err = j.writeRecord(ctx, rec, nil)
			}
			return Built{Record: rec, New: isNew, Unchanged: true, Inputs: j.base.inputs}, err
		}
	}
	log, err := openLog(filepath.Join(st.Dir(), "builds"), o.Name)
	if err != nil {
		return Built{}, err
	}
	defer log.Close()
	j.log = log
	built, err := j.build(ctx)
	built.Log, built.Saved, built.Inputs = log.Name(), j.saved, j.base.inputs
	if err != nil {
		if ctx.Err() != nil {
			return built, context.Cause(ctx)
		}
		var be *BuildError
		if !errors.As(err, &be) {
			err = &BuildError{Log: log.Name(), Name: o.Name, Err: err}
		}
		return built, err
	}
	if cacheable && o.Edit == nil {
		if err := c.save(built.Record, j.base); err != nil {
			j.meta.warn("the result was not noted, the next build will start from nothing: %v", err)
		}
	}
	return built, j.writeRecord(ctx, built.Record, &built)
}

func modulesOptions(m recipes.Modules) initramfs.ModulesOptions {
	if len(m.Classes) == 0 {
		m.Classes = nil // all of them; a recipe writes that as an empty list
	}
	return initramfs.ModulesOptions{Classes: m.Classes, Extra: m.Extra, Exclude: m.Exclude, NoFirmware: m.NoFirmware,
		FirmwareBudget: int64(m.FirmwareBudget) << 20, NoMicrocode: m.NoMicrocode}
}

// build makes the tree and commits it.
func (j *job) build(ctx context.Context) (b Built, err error) {
	var (
		t      *tree.Tree
		digest images.Digest
	)
	if os.Geteuid() != 0 {
		t, digest, err = j.debianUnprivileged(ctx)
	} else {
		w, werr := newWorkspace(filepath.Join(j.st.Dir(), "builds", "work"))
		if werr != nil {
			return b, werr
		}
		j.work, j.root = w, filepath.Join(w.dir, "root")
		defer func() { err = errors.Join(err, w.Close()) }()
		if t, digest, err = j.make(ctx); err != nil {
			return b, j.failed(ctx, err)
		}
	}
	if err != nil {
		return b, err
	}
	if b.Record, b.New, err = commitTree(ctx, j.st, t, digest, j.meta); err != nil || !j.o.Keep {
		return b, err
	}
	b.Kept, err = keep(j.root, j.treesDir("kept"), j.o.Name)
	return b, err
}

// treesDir is where trees stay that somebody may want to look at.
func (j *job) treesDir(kind string) string { return filepath.Join(j.st.Dir(), "builds", kind) }

// make goes from the base over packages and whatever else the recipe says to the
// tree of the version. What a step makes is kept in the store, and taken from
// there if what goes into it is as it was.
func (j *job) make(ctx context.Context) (*tree.Tree, images.Digest, error) {
	digest, err := j.packages(ctx)
	if err != nil {
		return nil, images.Digest{}, err
	}
	if err := j.layOut(ctx, digest); err != nil {
		return nil, images.Digest{}, err
	}
	if err := j.notePackages(); err != nil {
		return nil, images.Digest{}, err
	}
	for _, a := range j.actions {
		if err := j.run(ctx, a); err != nil {
			return nil, images.Digest{}, err
		}
	}
	if j.o.Edit != nil {
		if err := j.o.Edit(ctx, j.root); err != nil {
			return nil, images.Digest{}, err
		}
	}
	if err := clampTimes(ctx, j.root, j.base.epoch); err != nil {
		return nil, images.Digest{}, err
	}
	j.meta.step("reading the tree", "")
	return j.st.AddDirAfresh(ctx, j.root)
}

// notePackages lists the packages, if the records of them will be cleaned away.
func (j *job) notePackages() error {
	if !j.o.Recipe.Clean.PackageDB {
		return nil
	}
	fsys, err := rootfs.Open(j.root)
	if err != nil {
		return err
	}
	defer fsys.Close()
	j.installed, err = Packages(fsys)
	return err
}

// packages returns the tree with the packages in it.
func (j *job) packages(ctx context.Context) (images.Digest, error) {
	key := j.packagesKey()
	if d, ok := j.known(ctx, key); ok {
		j.meta.step("taking the packages of an earlier build", "")
		return d, nil
	}
	digest, err := j.baseTree(ctx)
	if err != nil || len(j.base.actions) == 0 && j.base.prepare == nil {
		return digest, err
	}
	if err := j.layOut(ctx, digest); err != nil {
		return digest, err
	}
	if j.base.prepare != nil {
		if err := j.base.prepare(ctx, j); err != nil {
			return digest, err
		}
	}
	j.packing = true
	for _, a := range j.base.actions {
		if err := j.run(ctx, a); err != nil {
			return digest, err
		}
	}
	j.packing = false
	if key.IsZero() {
		return digest, nil // it is laid out, and that is what counts
	}
	j.meta.step("keeping the tree with its packages", "")
	_, digest, err = j.st.AddDirAfresh(ctx, j.root)
	if err != nil {
		return digest, err
	}
	return digest, j.remember(key, digest, "packages")
}

// baseTree returns the tree that the base begins with.
func (j *job) baseTree(ctx context.Context) (images.Digest, error) {
	if d, ok := j.known(ctx, j.base.key); ok && !j.o.Force {
		return d, nil
	}
	d, err := j.base.make(ctx, j)
	if err != nil || j.base.key.IsZero() {
		return d, err
	}
	return d, j.remember(j.base.key, d, "base")
}

// failed keeps what there is of the tree of a build that failed.
func (j *job) failed(ctx context.Context, err error) error {
	be := &BuildError{Name: j.o.Name, Err: err}
	if l, ok := j.log.(*os.File); ok {
		be.Log = l.Name()
	}
	if ctx.Err() != nil || !j.laid {
		return be
	}
	kept, kerr := keep(j.root, j.treesDir("failed"), j.o.Name)
	if kerr != nil {
		j.meta.warn("the tree was not kept: %v", kerr)
		return be
	}
	be.Tree = kept
	return be
}

// debianUnprivileged lets mmdebstrap do all of it, in a user namespace: the tree
// belongs to users that cannot enter our directory.
func (j *job) debianUnprivileged(ctx context.Context) (t *tree.Tree, digest images.Digest, err error) {
	err = j.mmdebstrap(ctx, "", j.actions, func(ctx context.Context, r io.Reader) (err error) {
		t, digest, err = j.st.AddTar(ctx, r, j.o.Name+".tar")
		return err
	})
	return t, digest, err
}

func (j *job) mmdebstrap(ctx context.Context, dir string, actions []customize.Action, take func(context.Context, io.Reader) error) error {
	res, err := debian.Build(ctx, debian.Options{Recipe: j.o.Recipe, Sources: j.base.archives, Actions: actions,
		Epoch: j.base.epoch, Log: j.log, Step: j.o.Step, TempDir: dir}, take)
	for what, n := range res.Saved {
		j.saved[what] += n
	}
	return err
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

// KeptTree returns the directory of the tree of an image's last build that
// failed or was to be kept, whichever is younger; "" if there is none.
func KeptTree(st *store.Store, name string) string {
	var found string
	var when time.Time
	for _, kind := range []string{"failed", "kept"} {
		dir := filepath.Join(st.Dir(), "builds", kind, name)
		// The directory was renamed when it was kept, which the parent shows.
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			if c := changeTime(fi); c.After(when) {
				found, when = dir, c
			}
		}
	}
	return found
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

// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/BurntSushi/toml"

	"slate/builder/initramfs"
	"slate/images"
	"slate/images/durable"
	"slate/images/store"
)

// recipeFormat changes when the same recipe and inputs make another tree.
const recipeFormat = 2

// packagesKey is the same for the same tree with its packages; zero: not known.
func (j *job) packagesKey() images.Digest {
	if j.base.key.IsZero() {
		return images.Digest{}
	}
	if len(j.base.actions) == 0 && j.base.prepare == nil {
		return j.base.key
	}
	h := sha256.New()
	fmt.Fprintf(h, "packages %d %s %q", recipeFormat, j.base.key, j.base.packager)
	return images.Digest(h.Sum(nil))
}

// wholeKey is the same for the same version.
func (j *job) wholeKey() images.Digest {
	h := sha256.New()
	fmt.Fprintf(h, "whole %d %s %d\n", recipeFormat, j.packagesKey(), j.base.epoch.Unix())
	for _, a := range j.actions {
		fmt.Fprintf(h, "%q %q %x\n", a.Script, a.Args, sha256.Sum256(a.Stdin))
	}
	fmt.Fprintf(h, "modules %d %+v", initramfs.Format, j.meta.Modules)
	return images.Digest(h.Sum(nil))
}

// step is a tree that a step of a build made; it is in the store.
type step struct {
	Tree  images.Digest `toml:"tree"`
	Image string        `toml:"image"`
	What  string        `toml:"what"`
	Time  time.Time     `toml:"time"`
	Epoch time.Time     `toml:"epoch"`
}

func (j *job) stepPath(key images.Digest) string {
	return filepath.Join(j.st.Dir(), "builds", "steps", key.String()+".toml")
}

// known returns the tree that a step with this key has made, if the store still
// has all of it: slate image gc may have taken it.
func (j *job) known(ctx context.Context, key images.Digest) (images.Digest, bool) {
	var s step
	if key.IsZero() || j.o.Force {
		return images.Digest{}, false
	}
	if _, err := toml.DecodeFile(j.stepPath(key), &s); err != nil || s.Tree.IsZero() {
		return images.Digest{}, false
	}
	t, err := j.st.Tree(ctx, s.Tree)
	if err != nil {
		return images.Digest{}, false
	}
	for b := range t.Blobs() {
		if fi, err := os.Stat(j.st.BlobPath(b.Digest)); err != nil || fi.Size() != b.Size {
			return images.Digest{}, false
		}
	}
	if j.base.epoch.IsZero() {
		j.base.epoch = s.Epoch
	}
	return s.Tree, true
}

// remember notes what a step has made.
func (j *job) remember(key, digest images.Digest, what string) error {
	var b bytes.Buffer
	s := step{Tree: digest, Image: j.o.Name, What: what, Time: time.Now().UTC().Truncate(time.Second), Epoch: j.base.epoch}
	if err := toml.NewEncoder(&b).Encode(s); err != nil {
		return err
	}
	p := j.stepPath(key)
	if err := durable.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(p, b.Bytes(), 0o644)
}

// cache remembers which version a build made, under everything that went in.
type cache struct {
	dir string
	key images.Digest
}

// cached is one entry: what a version's record needs.
type cached struct {
	Tree    images.Digest  `toml:"tree"`
	Arch    string         `toml:"arch"`
	Init    string         `toml:"init"`
	Kernel  *images.Kernel `toml:"kernel"`
	Modules *images.Blob   `toml:"modules"`
	Tools   *images.Blob   `toml:"tools"`

	Recipe string    `toml:"recipe"`
	Time   time.Time `toml:"time"`
	Epoch  time.Time `toml:"epoch"`
	Inputs []Input   `toml:"input"`
}

func (c *cache) path() string { return filepath.Join(c.dir, c.key.String()+".toml") }

// lookup returns the record of the version to commit, if the cache has the tree
// and the store still has all of it. Whatever is wrong with an entry, the answer
// is to build.
func (c *cache) lookup(ctx context.Context, st *store.Store, meta Meta) (images.Record, bool) {
	var e cached
	text, err := os.ReadFile(c.path())
	if err != nil {
		return images.Record{}, false
	}
	if _, err := toml.Decode(string(text), &e); err != nil || e.Tree.IsZero() {
		return images.Record{}, false
	}
	if _, err := st.Tree(ctx, e.Tree); err != nil {
		return images.Record{}, false
	}
	for _, b := range []*images.Blob{e.kernelBlob(), e.Modules, e.Tools} {
		if b == nil {
			continue
		}
		if fi, err := os.Stat(st.BlobPath(b.Digest)); err != nil || fi.Size() != b.Size {
			return images.Record{}, false
		}
	}
	return images.Record{Name: meta.Name, Tree: e.Tree, Arch: e.Arch, Init: e.Init, Kernel: e.Kernel,
		Modules: e.Modules, Tools: e.Tools, Recipe: meta.Recipe, Note: meta.Note}, true
}

func (e *cached) kernelBlob() *images.Blob {
	if e.Kernel == nil {
		return nil
	}
	return &e.Kernel.Blob
}

func (c *cache) save(rec images.Record, b base) error {
	e := cached{Tree: rec.Tree, Arch: rec.Arch, Init: rec.Init, Kernel: rec.Kernel, Modules: rec.Modules, Tools: rec.Tools,
		Recipe: rec.Recipe, Time: time.Now().UTC().Truncate(time.Second), Epoch: b.epoch, Inputs: b.inputs}
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(e); err != nil {
		return err
	}
	if err := durable.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	return durable.WriteFile(c.path(), text.Bytes(), 0o644)
}

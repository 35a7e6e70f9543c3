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

	"slate/builder/debian"
	"slate/builder/initramfs"
	"slate/images"
	"slate/images/durable"
	"slate/images/store"
)

// cache remembers which tree a build made, under everything that went in.
type cache struct {
	dir string
	key images.Digest
}

// cached is one entry: what a version's record needs, and for people what went
// in.
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
	Inputs []input   `toml:"input"`
}

type input struct {
	Source    string        `toml:"source"`
	InRelease images.Digest `toml:"inrelease"`
}

// addModules makes the way modules are packed part of the key.
func (c *cache) addModules(o initramfs.ModulesOptions) {
	c.key = sha256.Sum256(fmt.Appendf(c.key[:], "modules %d %+v", initramfs.Format, o))
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

func (c *cache) save(rec images.Record, sources []debian.Source, in debian.Inputs) error {
	e := cached{Tree: rec.Tree, Arch: rec.Arch, Init: rec.Init, Kernel: rec.Kernel, Modules: rec.Modules, Tools: rec.Tools,
		Recipe: rec.Recipe, Time: time.Now().UTC().Truncate(time.Second), Epoch: in.Date}
	for _, s := range sources {
		e.Inputs = append(e.Inputs, input{s.String(), in.Release[s.String()]})
	}
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(e); err != nil {
		return err
	}
	if err := durable.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	return durable.WriteFile(c.path(), b.Bytes(), 0o644)
}

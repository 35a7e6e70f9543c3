// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"

	"slate/images"
	"slate/images/durable"
	"slate/images/store"
)

// BuildRecord says what a version was made from, and what is in it. It is this
// appliance's own: the version itself is the same whoever built it.
type BuildRecord struct {
	Version string           `toml:"version" json:"version"` // lab/3
	Tree    images.Digest    `toml:"tree" json:"tree"`
	Recipe  string           `toml:"recipe" json:"recipe"`
	Digest  images.Digest    `toml:"recipe-digest" json:"recipe-digest"` // comments apart
	Base    string           `toml:"base" json:"base"`
	Group   string           `toml:"group,omitempty" json:"group,omitempty"` // whose sources.conf counted
	Level   string           `toml:"level,omitempty" json:"level,omitempty"` // the processors it was compiled for
	Time    time.Time        `toml:"time" json:"time"`
	Epoch   time.Time        `toml:"epoch" json:"epoch"`     // no file's time is later
	Offline bool             `toml:"offline" json:"offline"` // nothing was asked of a server
	Saved   map[string]int64 `toml:"saved" json:"saved"`     // bytes that cleaning up removed
	Inputs  []Input          `toml:"input" json:"inputs"`
	Package []Package        `toml:"package" json:"packages"`
}

func recordPath(st *store.Store, rec images.Record) string {
	return filepath.Join(st.Dir(), "builds", "records", rec.Name, strconv.Itoa(rec.Number)+".toml")
}

// writeRecord notes how a version was made. b is nil if nothing was built: it
// came from the cache, whose tree another version's record tells of.
func (j *job) writeRecord(ctx context.Context, rec images.Record, b *Built) error {
	digest, err := j.o.Recipe.Digest()
	if err != nil {
		return err
	}
	r := BuildRecord{Version: rec.Ref(), Tree: rec.Tree, Recipe: rec.Recipe, Digest: digest, Base: j.o.Recipe.Base, Group: j.o.Group,
		Time: time.Now().UTC().Truncate(time.Second), Epoch: j.base.epoch, Offline: j.o.Offline, Inputs: j.base.inputs}
	if b != nil {
		r.Saved = b.Saved
	}
	if j.o.Recipe.Base == "gentoo" {
		r.Level = j.o.Sources.Target.Level
	}
	for _, u := range j.o.Remote {
		r.Inputs = append(r.Inputs, Input{"remote", u.Name + " " + u.URL, u.Version})
	}
	t, err := j.st.Tree(ctx, rec.Tree)
	if err != nil {
		return err
	}
	if r.Package, err = Packages(j.st.FS(t)); err != nil {
		return err
	}
	if len(r.Package) == 0 {
		r.Package = j.installed // the records were cleaned away
	}
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(r); err != nil {
		return err
	}
	p := recordPath(j.st, rec)
	if err := durable.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(p, text.Bytes(), 0o644)
}

// ReadBuildRecord returns how a version was made; nil if it was not made here.
func ReadBuildRecord(st *store.Store, rec images.Record) (*BuildRecord, error) {
	data, err := os.ReadFile(recordPath(st, rec))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r BuildRecord
	if _, err := toml.Decode(string(data), &r); err != nil {
		return nil, err
	}
	if r.Tree != rec.Tree {
		return nil, nil // of a version of that number that is gone
	}
	return &r, nil
}

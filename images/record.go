// SPDX-License-Identifier: GPL-2.0-or-later

package images

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"
)

// A Kernel is the kernel of a version, stored as a blob of its own.
type Kernel struct {
	Release string `toml:"release" json:"release"` // as in /lib/modules/<release>
	Path    string `toml:"path" json:"path"`       // where it lay in the tree
	Blob
}

// A Record describes one version. Its TOML text is kept as
// <data>/images/<name>/<number>.toml, the signature over that text in
// <number>.toml.sig.
type Record struct {
	Name    string    `toml:"name" json:"name"`
	Number  int       `toml:"number" json:"number"`
	Tree    Digest    `toml:"tree" json:"tree"` // of the tree list's text: the version's identity
	Entries int       `toml:"entries" json:"entries"`
	Size    int64     `toml:"size" json:"size"` // sum of the sizes of the files
	Arch    string    `toml:"arch,omitempty" json:"arch,omitempty"`
	Init    string    `toml:"init,omitempty" json:"init,omitempty"`     // systemd, openrc, sysvinit, other
	Parent  Digest    `toml:"parent" json:"parent,omitzero"`            // tree of the version committed before it
	Time    time.Time `toml:"time" json:"time"`                         // of the commit
	Recipe  string    `toml:"recipe,omitempty" json:"recipe,omitempty"` // what it was built or imported from
	Note    string    `toml:"note,omitempty" json:"note,omitempty"`
	Kernel  *Kernel   `toml:"kernel,omitempty" json:"kernel,omitempty"`   // nil: cannot be booted
	Modules *Blob     `toml:"modules,omitempty" json:"modules,omitempty"` // cpio with the modules of Kernel
	Tools   *Blob     `toml:"tools,omitempty" json:"tools,omitempty"`     // cpio with the programs that install the version; nil: it runs diskless only
}

// Ref returns the readable name, such as demo/3.
func (r Record) Ref() string { return r.Name + "/" + strconv.Itoa(r.Number) }

// Export returns the NFS export path of the version. It holds the digest and
// not the number, so it means the same on every server and for ever.
func (r Record) Export() string { return "/" + r.Name + "/" + r.Tree.String() }

// A Part is a blob that belongs to a version beside its tree.
type Part struct {
	Name string // kernel, modules, tools
	Blob
}

// Parts lists what a version has beside its tree.
func (r Record) Parts() []Part {
	var out []Part
	if r.Kernel != nil {
		out = append(out, Part{"kernel", r.Kernel.Blob})
	}
	if r.Modules != nil {
		out = append(out, Part{"modules", *r.Modules})
	}
	if r.Tools != nil {
		out = append(out, Part{"tools", *r.Tools})
	}
	return out
}

// Same reports whether a machine that boots o gets just what it gets from r:
// the same tree, kernel, modules and tools.
func (r Record) Same(o Record) bool {
	return r.Tree == o.Tree && r.Arch == o.Arch && r.Init == o.Init &&
		equal(r.Kernel, o.Kernel) && equal(r.Modules, o.Modules) && equal(r.Tools, o.Tools)
}

func equal[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// maxRecord bounds the text of a record; real ones have a few hundred bytes.
const maxRecord = 1 << 20

// MarshalRecord returns the record's text: the bytes that are stored and signed.
func MarshalRecord(r Record) ([]byte, error) {
	r.Time = r.Time.UTC().Truncate(time.Second)
	if err := r.check(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("record %s: %w", r.Ref(), err)
	}
	return b.Bytes(), nil
}

// ParseRecord reads what MarshalRecord wrote. Unknown keys are refused: they
// could change what the record means.
func ParseRecord(text []byte) (Record, error) {
	if len(text) > maxRecord {
		return Record{}, fmt.Errorf("record: %d bytes, at most %d are read", len(text), maxRecord)
	}
	var r Record
	md, err := toml.Decode(string(text), &r)
	if err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	if un := md.Undecoded(); len(un) > 0 {
		return Record{}, fmt.Errorf("record: unknown key %s; a newer slate may have written it", un[0])
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	r.Time = r.Time.UTC()
	return r, nil
}

func (r Record) check() error {
	if err := CheckName(r.Name); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	bad := func(what string) error { return fmt.Errorf("record %s: %s", r.Ref(), what) }
	switch {
	case r.Number < 1:
		return bad("version number is not positive")
	case r.Tree.IsZero():
		return bad("no tree digest")
	case r.Entries < 1 || r.Size < 0:
		return bad("entries or size out of range")
	case r.Kernel != nil && (r.Kernel.Digest.IsZero() || r.Kernel.Size <= 0):
		return bad("kernel without digest or size")
	case r.Modules != nil && (r.Modules.Digest.IsZero() || r.Modules.Size <= 0):
		return bad("modules without digest or size")
	case r.Tools != nil && (r.Tools.Digest.IsZero() || r.Tools.Size <= 0):
		return bad("tools without digest or size")
	}
	return nil
}

// Channels are the channels of one image, by name, with their whole history.
type Channels struct {
	Channel map[string]Channel `toml:"channel" json:"channel"`
	Change  []Change           `toml:"change" json:"change"` // oldest first
}

// A Channel points to a version.
type Channel struct {
	Version int    `toml:"version" json:"version"`
	Tree    Digest `toml:"tree" json:"tree"`
}

// A Change is one move of a channel.
type Change struct {
	Channel  string    `toml:"channel" json:"channel"`
	From     int       `toml:"from" json:"from"` // 0: the channel was new
	To       int       `toml:"to" json:"to"`     // 0: the channel was removed
	Who      string    `toml:"who" json:"who"`
	Time     time.Time `toml:"time" json:"time"`
	Rollback bool      `toml:"rollback,omitempty" json:"rollback,omitempty"`
}

// Previous returns the version that channel pointed to before its present one,
// 0 if there is none. Each roll back takes one earlier move back, so that
// rolling back twice goes back two versions and not to and fro.
func (c Channels) Previous(channel string) int {
	var past []int
	for _, ch := range c.Change {
		if ch.Channel != channel {
			continue
		}
		if ch.Rollback && len(past) > 0 {
			past = past[:len(past)-1]
			continue
		}
		past = append(past, ch.From)
	}
	if len(past) == 0 {
		return 0
	}
	return past[len(past)-1]
}

// MarshalChannels returns the text of channels.toml.
func MarshalChannels(c Channels) ([]byte, error) {
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("channels: %w", err)
	}
	return b.Bytes(), nil
}

// ParseChannels reads what MarshalChannels wrote.
func ParseChannels(text []byte) (Channels, error) {
	c := Channels{Channel: map[string]Channel{}}
	md, err := toml.Decode(string(text), &c)
	if err != nil {
		return Channels{}, fmt.Errorf("channels: %w", err)
	}
	if un := md.Undecoded(); len(un) > 0 {
		return Channels{}, fmt.Errorf("channels: unknown key %s; a newer slate may have written it", un[0])
	}
	var errs []error
	for name, ch := range c.Channel {
		if err := CheckChannel(name); err != nil {
			errs = append(errs, fmt.Errorf("channels: %w", err))
		} else if ch.Version < 1 || ch.Tree.IsZero() {
			errs = append(errs, fmt.Errorf("channels: %s points to no version", name))
		}
	}
	return c, errors.Join(errs...)
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package conf decides which configuration a node runs with: what the appliance
// sent, the copy kept from an earlier start, or the defaults. It knows how to
// verify a bundle and where the copy lies, and nothing of what is configured.
package conf

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slate/images"
	"slate/images/durable"
	"slate/netboot/config"
)

// Store is where the last good bundle is kept. Without a directory nothing is.
type Store struct{ Dir string }

// file is the bundle's name in the directory.
const file = "bundle"

// Load reads the kept bundle; nil if there is none.
func (s Store) Load() ([]byte, error) {
	if s.Dir == "" {
		return nil, nil
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Save keeps a bundle in the place of the one before: at no time is there none.
func (s Store) Save(data []byte) error {
	if s.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.Dir, file), data, 0o600)
}

// Where a configuration comes from.
const (
	FromAppliance = "the appliance"
	FromKept      = "the copy kept on this machine"
	FromDefaults  = "the defaults"
)

// Facts are what the choice is made from.
type Facts struct {
	Keys     []ed25519.PublicKey // of the site
	Node     string              // "": not known
	Fetched  []byte              // what the appliance sent
	FetchErr error               // why it sent nothing
	Kept     []byte              // nil: nothing is kept
}

// Choice is the configuration to run with, and why.
type Choice struct {
	Config   *config.Node
	From     string // one of the From constants
	Revision int64  // of the bundle; 0 for the defaults
	Keep     bool   // what was fetched is to be kept
	Refused  error  // why what the appliance sent does not count
	Unusable error  // why what was kept does not count
}

// RefusedError says why a bundle is not obeyed.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string {
	return "the configuration that the appliance sent is refused: " + e.Err.Error()
}
func (e *RefusedError) Unwrap() error { return e.Err }

// Hint says what it may mean.
func (e *RefusedError) Hint() string {
	return "Somebody between this machine and the appliance may have changed it, or this is another site's appliance. If the appliance was set back to an older state, change something in its config.d, even a comment."
}

// Choose decides. What was fetched counts if it is good and not older than what is
// kept; else what is kept; else the defaults.
func Choose(f Facts) Choice {
	kept, keptConf, err := open(f.Keys, f.Node, f.Kept)
	c := Choice{Config: config.Defaults(), From: FromDefaults}
	if err != nil {
		c.Unusable = err
	} else if f.Kept != nil {
		c.Config, c.From, c.Revision = keptConf, FromKept, kept.Revision
	}
	if f.FetchErr != nil {
		var forged *images.SignatureError
		if errors.As(f.FetchErr, &forged) || errors.Is(f.FetchErr, images.ErrUnsigned) {
			c.Refused = &RefusedError{f.FetchErr} // something answered, and is not this site's
		}
		return c
	}
	if f.Fetched == nil {
		return c // nobody was asked
	}
	fresh, freshConf, err := open(f.Keys, f.Node, f.Fetched)
	older := c.From == FromKept && fresh.Revision < kept.Revision
	switch {
	case err != nil:
		c.Refused = &RefusedError{err}
	case older && fresh.Digest() == kept.Digest():
		// Another appliance of the site, with the same to say.
	case older:
		c.Refused = &RefusedError{fmt.Errorf("its revision is %d, older than %d, which is kept here", fresh.Revision, kept.Revision)}
	case c.From == FromKept && fresh.Revision == kept.Revision && fresh.Digest() != kept.Digest():
		c.Refused = &RefusedError{fmt.Errorf("its revision is %d, as that of another one which is kept here", fresh.Revision)}
	default:
		c.Config, c.From, c.Revision = freshConf, FromAppliance, fresh.Revision
		c.Keep = !bytes.Equal(f.Fetched, f.Kept)
	}
	return c
}

// open verifies and merges a bundle.
func open(keys []ed25519.PublicKey, node string, data []byte) (config.Bundle, *config.Node, error) {
	if data == nil {
		return config.Bundle{}, nil, nil
	}
	b, err := config.OpenBundle(keys, data)
	if err != nil {
		return b, nil, err
	}
	if node != "" && b.Node != node {
		return b, nil, fmt.Errorf("it is for the node %q, and this is %q", b.Node, node)
	}
	n, err := b.Config()
	return b, n, err
}

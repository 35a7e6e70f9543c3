// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"slate/images"
)

// Bundle is the part of config.d that is for one node, in the layers that it is
// merged from, so that a node works with the same files, lines and code as slate
// config explain.
type Bundle struct {
	Format   int               `json:"format"`
	Node     string            `json:"node"`
	Revision int64             `json:"revision"` // grows whenever the content changes
	Groups   []string          `json:"groups,omitempty"`
	Set      Set               `json:"set"`
	Files    map[string][]byte `json:"files"` // by path below config.d
}

// bundleFormat is the form of bundles that this package writes and reads.
const bundleFormat = 1

// MaxBundle is the most bytes that a signed bundle may have.
const MaxBundle = 8 << 20

// Bundle gives what holds in a scope, without a revision.
func (s *Site) Bundle(scope Scope) Bundle {
	return Bundle{Format: bundleFormat, Node: scope.Node, Groups: scope.Groups, Set: scope.Set, Files: s.filesOf(scope)}
}

// Digest tells bundles of different content apart; the revision is not part of it.
func (b Bundle) Digest() images.Digest {
	b.Revision = 0
	return sha256.Sum256(b.encode())
}

// NextRevision is the revision of a content that follows on one with the revision
// last. It is made from the clock, so that it grows even if the state that holds
// the last one was lost, and over all appliances of a site.
func NextRevision(last int64, now time.Time) int64 { return max(last+1, now.Unix()) }

func (b Bundle) encode() []byte {
	text, err := json.Marshal(b) // maps are written in the order of their keys
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(text, '\n')
}

// Sign gives the bundle as it is sent and kept: a line with the signature, and
// then the text that it is over.
func (b Bundle) Sign(key ed25519.PrivateKey) []byte {
	text := b.encode()
	return append(images.Sign(key, images.PurposeBundle, text), text...)
}

// OpenBundle verifies a signed bundle by the site's keys and reads it.
func OpenBundle(keys []ed25519.PublicKey, data []byte) (Bundle, error) {
	sig, text, _ := bytes.Cut(data, []byte("\n"))
	if len(data) > MaxBundle {
		return Bundle{}, fmt.Errorf("bundle: %d bytes are more than %d", len(data), MaxBundle)
	}
	if bytes.HasPrefix(data, []byte("{")) {
		sig, text = nil, data
	}
	if err := images.Verify(keys, images.PurposeBundle, text, sig); err != nil {
		return Bundle{}, fmt.Errorf("bundle: %w", err)
	}
	var b Bundle
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return Bundle{}, fmt.Errorf("bundle: %w", err)
	}
	if b.Format != bundleFormat {
		return Bundle{}, fmt.Errorf("bundle: its form is %d, and this program knows %d", b.Format, bundleFormat)
	}
	return b, nil
}

// Config merges the bundle, as the appliance does for slate config explain.
func (b Bundle) Config() (*Node, error) {
	site := &Site{files: map[string][]byte{}, sources: map[string][]byte{}}
	var errs []error
	for name, data := range b.Files {
		if isSource(name) {
			site.sources[name] = data
			continue
		}
		if err := checkName(name); err != nil {
			errs = append(errs, err)
		}
		site.files[name] = data
	}
	if err := site.check(errs); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if err := b.Set.Check(); err != nil {
		return nil, errors.Join(errors.New("bundle"), err)
	}
	return site.merge(Scope{Node: b.Node, Groups: b.Groups, Set: b.Set}, false)
}

// Defaults is the configuration of a node that nothing is known of.
func Defaults() *Node { return (&Site{}).Node("") }

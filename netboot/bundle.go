// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"slate/images"
	"slate/netboot/config"
	"slate/netboot/state"
)

// bucketBundles has, by node, what its bundle of config.d was last.
const bucketBundles = "bundles"

// sentBundle is what is remembered of a node's bundle.
type sentBundle struct {
	Digest   images.Digest `json:"digest"`
	Revision int64         `json:"revision"`
}

// bundle gives the signed bundle for the node of a boot. fs.ErrNotExist: there is
// no such boot.
func (s *Server) bundle(ctx context.Context, boot string) ([]byte, error) {
	n, ok := s.nodes.ByBoot(boot)
	if !ok {
		return nil, fmt.Errorf("boot %s: %w", boot, fs.ErrNotExist)
	}
	if s.key == nil {
		return nil, errors.New("the appliance has no site key to sign with")
	}
	b := s.site.current().Bundle(s.scopeOf(n))
	var err error
	if b.Revision, err = s.revision(ctx, n.Name, b.Digest()); err != nil {
		return nil, err
	}
	data := b.Sign(s.key)
	if len(data) > config.MaxBundle {
		return nil, fmt.Errorf("the configuration of %s takes %d bytes, and %d is the most", n.Name, len(data), config.MaxBundle)
	}
	return data, nil
}

// revision numbers the contents of a node's bundle: the same content keeps its
// number, a new one gets a higher one, which is durable before anybody sees it.
func (s *Server) revision(ctx context.Context, node string, digest images.Digest) (int64, error) {
	var last sentBundle
	err := s.state.View(ctx, func(tx state.Tx) error { return readBundle(tx, node, &last) })
	if err != nil || last.Digest == digest && last.Revision > 0 {
		return last.Revision, err
	}
	err = s.state.Update(ctx, func(tx state.Tx) error {
		last = sentBundle{}
		if err := readBundle(tx, node, &last); err != nil || last.Digest == digest && last.Revision > 0 {
			return err
		}
		last = sentBundle{digest, config.NextRevision(last.Revision, time.Now())}
		value, err := json.Marshal(last)
		if err != nil {
			return err
		}
		return tx.Put(bucketBundles, node, value)
	})
	return last.Revision, err
}

func readBundle(tx state.Tx, node string, out *sentBundle) error {
	value, err := tx.Get(bucketBundles, node)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(value, out)
	}
	if err != nil {
		return fmt.Errorf("revision of the configuration of %s: %w", node, err)
	}
	return nil
}

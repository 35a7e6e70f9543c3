// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"slate/images"
	"slate/netboot/api"
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
	if b.Revision, err = s.revision(ctx, bucketBundles, n.Name, b.Digest()); err != nil {
		return nil, err
	}
	data := b.Sign(s.key)
	if len(data) > config.MaxBundle {
		return nil, fmt.Errorf("the configuration of %s takes %d bytes, and %d is the most", n.Name, len(data), config.MaxBundle)
	}
	return data, nil
}

// bucketAssigned has the same of what a node is to run.
const bucketAssigned = "assigned"

// assigned gives what the node of a boot is to run, signed; fs.ErrNotExist likewise.
func (s *Server) assigned(ctx context.Context, boot string) ([]byte, error) {
	n, ok := s.nodes.ByBoot(boot)
	if !ok {
		return nil, fmt.Errorf("boot %s: %w", boot, fs.ErrNotExist)
	}
	if s.key == nil {
		return nil, errors.New("the appliance has no site key to sign with")
	}
	published, err := s.published()
	if err != nil {
		return nil, err
	}
	rec, err := s.versionOf(n, published)
	if err != nil {
		return nil, err
	}
	a := api.Assigned{Node: n.Name, Version: rec.Ref(), Tree: rec.Tree, Controller: s.controllerDigest, Note: rec.Note}
	if a.Revision, err = s.revision(ctx, bucketAssigned, n.Name, sha256.Sum256(a.Content())); err != nil {
		return nil, err
	}
	return a.Sign(s.key), nil
}

// revision numbers the contents of what is signed for a node, of one kind: the same
// content keeps its number, a new one gets a higher one, which is durable before
// anybody sees it.
func (s *Server) revision(ctx context.Context, bucket, node string, digest images.Digest) (int64, error) {
	var last sentBundle
	err := s.state.View(ctx, func(tx state.Tx) error { return readBundle(tx, bucket, node, &last) })
	if err != nil || last.Digest == digest && last.Revision > 0 {
		return last.Revision, err
	}
	err = s.state.Update(ctx, func(tx state.Tx) error {
		last = sentBundle{}
		if err := readBundle(tx, bucket, node, &last); err != nil || last.Digest == digest && last.Revision > 0 {
			return err
		}
		last = sentBundle{digest, config.NextRevision(last.Revision, time.Now())}
		value, err := json.Marshal(last)
		if err != nil {
			return err
		}
		return tx.Put(bucket, node, value)
	})
	return last.Revision, err
}

func readBundle(tx state.Tx, bucket, node string, out *sentBundle) error {
	value, err := tx.Get(bucket, node)
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

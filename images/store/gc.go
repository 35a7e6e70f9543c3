// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slate/images"
	"slate/images/durable"
	"slate/images/tree"
)

// GCOptions say what GC may take.
type GCOptions struct {
	// Delete makes GC delete; else it only says what it would delete.
	Delete bool
	// Keep is how many of the newest versions of each image stay in any case;
	// 0: all versions stay, only what none of them uses goes.
	Keep int
	// InUse says why a version must stay, such as the node that runs it, or ""
	// if it may go. Nil: no version is in use.
	InUse func(images.Record) string
	// MinAge protects what was added or found again not longer ago, since its
	// version may not be committed yet. 0: a day. It must be well above an hour.
	MinAge time.Duration
}

// A GCReport is what GC deleted, or would delete.
type GCReport struct {
	Versions []string          `json:"versions"` // versions that go
	Kept     map[string]string `json:"kept"`     // versions beyond Keep that stay, and why
	Trees    int               `json:"trees"`
	Blobs    int               `json:"blobs"`
	Bytes    int64             `json:"bytes"` // of blobs and tree lists
	Young    int               `json:"young"` // unused blobs that are too young to go
	Deleted  bool              `json:"deleted"`
}

const defaultMinAge = 24 * time.Hour

// GC finds the versions that nobody needs any more, and the blobs and tree
// lists that no version uses, and deletes them if it is told to. Records go
// first, so that at no instant a version lacks anything.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	if o.MinAge == 0 {
		o.MinAge = defaultMinAge
	}
	unlock, err := s.lock(ctx, "staging", true)
	if err != nil {
		return GCReport{}, err
	}
	defer unlock()
	unlockImages, err := s.lock(ctx, "images", true)
	if err != nil {
		return GCReport{}, err
	}
	defer unlockImages()
	c := &collector{s: s, o: o, r: GCReport{Kept: map[string]string{}, Versions: []string{}, Deleted: o.Delete}, trees: map[images.Digest]bool{}, blobs: map[images.Digest]bool{}}
	if err := c.versions(ctx); err != nil {
		return c.r, err
	}
	if err := c.sweep(ctx); err != nil {
		return c.r, err
	}
	if o.Delete {
		// Nobody writes while this runs, so what is staged is from a crash.
		if err := s.clearStaging(); err != nil {
			return c.r, err
		}
	}
	return c.r, nil
}

type collector struct {
	s     *Store
	o     GCOptions
	r     GCReport
	trees map[images.Digest]bool // that stay
	blobs map[images.Digest]bool // that stay
}

// versions decides about the versions, deletes those that go, and marks what
// the others use. What cannot be read ends it: it might use anything.
func (c *collector) versions(ctx context.Context) error {
	names, err := c.s.Images()
	if err != nil {
		return err
	}
	for _, name := range names {
		recs, err := c.s.Versions(name)
		if err != nil {
			return fmt.Errorf("nothing is collected as long as a record cannot be read: %w", err)
		}
		ch, err := c.s.ChannelHistory(name)
		if err != nil {
			return fmt.Errorf("nothing is collected as long as channels cannot be read: %w", err)
		}
		for i, rec := range recs {
			if c.o.Keep > 0 && i < len(recs)-c.o.Keep {
				why := c.needed(rec, ch)
				if why == "" {
					if err := c.dropVersion(rec); err != nil {
						return err
					}
					continue
				}
				c.r.Kept[rec.Ref()] = why
			}
			if err := c.mark(ctx, rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// needed says why a version stays although it is old, or "".
func (c *collector) needed(rec images.Record, ch images.Channels) string {
	for _, name := range slices.Sorted(maps.Keys(ch.Channel)) {
		if ch.Channel[name].Version == rec.Number {
			return "channel " + name
		}
		if ch.Previous(name) == rec.Number {
			return "channel " + name + " would be rolled back to it"
		}
	}
	if c.o.InUse != nil {
		return c.o.InUse(rec)
	}
	return ""
}

func (c *collector) dropVersion(rec images.Record) error {
	c.r.Versions = append(c.r.Versions, rec.Ref())
	if !c.o.Delete {
		return nil
	}
	return c.s.deleteRecord(rec)
}

func (c *collector) mark(ctx context.Context, rec images.Record) error {
	for _, p := range rec.Parts() {
		c.blobs[p.Digest] = true
	}
	if c.trees[rec.Tree] {
		return ctx.Err()
	}
	c.trees[rec.Tree] = true
	t, err := c.s.Tree(ctx, rec.Tree)
	if err != nil {
		return fmt.Errorf("nothing is collected as long as a tree list cannot be read: %w", err)
	}
	c.markTree(t)
	return nil
}

func (c *collector) markTree(t *tree.Tree) {
	for b := range t.Blobs() {
		c.blobs[b.Digest] = true
	}
}

// sweep deletes the tree lists and then the blobs that are not marked. A tree
// list that is too young to go keeps its blobs.
func (c *collector) sweep(ctx context.Context) error {
	limit := c.s.now().Add(-c.o.MinAge)
	list, err := os.ReadDir(c.s.path("trees"))
	if err != nil {
		return err
	}
	for _, e := range list {
		hex, ok := strings.CutSuffix(e.Name(), ".mtree.zst")
		d, perr := images.ParseDigest(hex)
		if !ok || perr != nil {
			continue // not ours, or being written before a crash; see clearStaging
		}
		if c.trees[d] {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if fi.ModTime().After(limit) {
			t, err := c.s.readTree(d)
			if err != nil {
				c.s.log.Warn("unused tree list cannot be read", "err", err)
				continue
			}
			c.markTree(t)
			continue
		}
		c.r.Trees++
		if err := c.take(c.s.TreePath(d), fi.Size()); err != nil {
			return err
		}
	}
	paths, _, err := c.s.listBlobs()
	if err != nil {
		return err
	}
	for _, path := range paths {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d, err := images.ParseDigest(filepath.Base(path))
		if err != nil || c.blobs[d] {
			continue
		}
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		if fi.ModTime().After(limit) {
			c.r.Young++
			continue
		}
		c.r.Blobs++
		if err := c.take(path, fi.Size()); err != nil {
			return err
		}
		c.s.progress(Progress{Stage: "collecting", Name: d.Short(), Files: int64(c.r.Blobs), Bytes: c.r.Bytes})
	}
	return nil
}

func (c *collector) take(path string, size int64) error {
	c.r.Bytes += size
	if !c.o.Delete {
		return nil
	}
	return os.Remove(path)
}

// clearStaging removes what crashed writers left. The caller holds both
// locks alone.
func (s *Store) clearStaging() error {
	list, err := os.ReadDir(s.path("staging"))
	if err != nil {
		return err
	}
	names, err := s.Images()
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if e.Name() != ".lock" {
			errs = append(errs, os.RemoveAll(s.path("staging", e.Name())))
		}
	}
	errs = append(errs, s.forgetStats())
	for _, dir := range append(names, "../trees") {
		errs = append(errs, durable.RemoveTemps(s.path("images", dir)))
	}
	return errors.Join(errs...)
}

// statsFor is how long a directory's files are remembered if it does not come again.
const statsFor = 90 * 24 * time.Hour

// forgetStats removes what is known about directories that came long ago.
func (s *Store) forgetStats() error {
	list, err := os.ReadDir(s.path("cache", "stat"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range list {
		if fi, err := e.Info(); err == nil && s.now().Sub(fi.ModTime()) > statsFor {
			errs = append(errs, os.Remove(s.path("cache", "stat", e.Name())))
		}
	}
	return errors.Join(errs...)
}

// deleteRecord removes a version for good: its number is remembered first, then
// the record goes, which makes the version invisible, then the signature.
func (s *Store) deleteRecord(rec images.Record) error {
	last := max(s.lastNumber(rec.Name), rec.Number)
	if err := durable.WriteFile(s.path("images", rec.Name, lastFile), fmt.Appendf(nil, "%d\n", last), 0o644); err != nil {
		return err
	}
	path := s.recordPath(rec.Name, rec.Number)
	if err := durable.Remove(path); err != nil {
		return err
	}
	return durable.Remove(path + ".sig")
}

// An InUseError says why a version cannot be removed.
type InUseError struct {
	Ref string
	Why string
}

func (e *InUseError) Error() string { return fmt.Sprintf("%s is in use: %s", e.Ref, e.Why) }

// Remove takes a version away. Its blobs stay until gc. A version that a
// channel points to, or that inUse gives a reason for, is not removed.
func (s *Store) Remove(ctx context.Context, ref images.Ref, inUse func(images.Record) string) (images.Record, error) {
	unlock, err := s.lock(ctx, "images", true)
	if err != nil {
		return images.Record{}, err
	}
	defer unlock()
	rec, err := s.Resolve(ref)
	if err != nil {
		return rec, err
	}
	channels, err := s.Channels(rec.Name)
	if err != nil {
		return rec, err
	}
	for _, name := range slices.Sorted(maps.Keys(channels)) {
		if channels[name].Version == rec.Number {
			return rec, &InUseError{Ref: rec.Ref(), Why: "channel " + name + " points to it"}
		}
	}
	if inUse != nil {
		if why := inUse(rec); why != "" {
			return rec, &InUseError{Ref: rec.Ref(), Why: why}
		}
	}
	return rec, s.deleteRecord(rec)
}

// ErrNoKey says that the store was opened without a key to sign with.
var ErrNoKey = errors.New("there is no site key to sign with")

// Sign signs the record of a version anew, with the key of the store.
func (s *Store) Sign(ctx context.Context, ref images.Ref) (images.Record, error) {
	if s.o.Key == nil {
		return images.Record{}, ErrNoKey
	}
	unlock, err := s.lock(ctx, "images", true)
	if err != nil {
		return images.Record{}, err
	}
	defer unlock()
	rec, err := s.Resolve(ref)
	if err != nil {
		return rec, err
	}
	text, _, err := s.SignedRecord(rec.Name, rec.Number)
	if err != nil {
		return rec, err
	}
	sig := images.Sign(s.o.Key, images.PurposeRecord, text)
	return rec, durable.WriteFile(s.recordPath(rec.Name, rec.Number)+".sig", sig, 0o644)
}

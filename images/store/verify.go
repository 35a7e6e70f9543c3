// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"slate/images"
	"slate/images/durable"
	"slate/images/tree"
)

// VerifyOptions are what Verify looks at besides the contents.
type VerifyOptions struct {
	Keys []ed25519.PublicKey // records must be signed with one of them; none: signatures are not looked at
	// Quarantine moves damaged blobs out of the way, to <dir>/damaged. As long
	// as they are in place, importing the same file again does not heal the
	// store.
	Quarantine bool
}

// A Report is what Verify found.
type Report struct {
	Versions int      `json:"versions"`
	Trees    int      `json:"trees"`
	Blobs    int      `json:"blobs"`
	Bytes    int64    `json:"bytes"` // read
	Damage   []Damage `json:"damage"`
}

// Damage is one thing that is not what it must be.
type Damage struct {
	Path    string   `json:"path"`
	Reason  string   `json:"reason"`
	Touches []string `json:"touches"` // versions, with the first paths in them
}

// Verify reads everything in the store and checks it. What it finds wrong is
// in the report; the error is for what kept it from looking.
func (s *Store) Verify(ctx context.Context, o VerifyOptions) (Report, error) {
	v := &verifier{s: s, o: o, bad: map[images.Digest]*Damage{}, good: map[images.Digest]int64{}}
	unlock, err := s.lock(ctx, "staging", false) // gc would make everything look missing
	if err != nil {
		return v.r, err
	}
	defer unlock()
	if err := v.blobs(ctx); err != nil {
		return v.r, err
	}
	if err := v.versions(ctx); err != nil {
		return v.r, err
	}
	slices.SortFunc(v.r.Damage, func(a, b Damage) int { return strings.Compare(a.Path, b.Path) })
	return v.r, nil
}

type verifier struct {
	s *Store
	o VerifyOptions
	r Report

	mu   sync.Mutex
	good map[images.Digest]int64 // size
	bad  map[images.Digest]*Damage
}

func (v *verifier) damage(path, reason string, touches ...string) {
	v.r.Damage = append(v.r.Damage, Damage{Path: path, Reason: reason, Touches: touches})
}

// blobs reads every blob there is, whether or not a version uses it.
func (v *verifier) blobs(ctx context.Context) error {
	paths, total, err := v.s.listBlobs()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.s.o.Workers)
	for _, path := range paths {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return v.blob(ctx, path, total)
		})
	}
	return g.Wait()
}

// listBlobs returns the paths of all blob files, and their size in all.
func (s *Store) listBlobs() (paths []string, total int64, err error) {
	err = filepath.WalkDir(s.path("blobs", "sha256"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += fi.Size()
			paths = append(paths, path)
		}
		return err
	})
	return paths, total, err
}

func (v *verifier) blob(ctx context.Context, path string, total int64) error {
	d, err := images.ParseDigest(filepath.Base(path))
	if err != nil || v.s.BlobPath(d) != path {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.damage(path, "it is no blob")
		return nil
	}
	sum, n, readErr := hashFile(ctx, path)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	reason := ""
	if readErr != nil {
		reason = readErr.Error()
	} else if sum != d {
		reason = fmt.Sprintf("its content has the digest %s", sum)
	}
	if reason != "" && v.o.Quarantine {
		to := v.s.path("damaged", d.String())
		err := durable.MkdirAll(filepath.Dir(to), 0o700)
		if err == nil {
			err = os.Rename(path, to)
		}
		if err != nil {
			return err
		}
		reason += "; moved to " + to
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.r.Blobs++
	v.r.Bytes += n
	if reason != "" {
		v.bad[d] = &Damage{Path: path, Reason: reason}
	} else {
		v.good[d] = n
	}
	v.s.progress(Progress{Stage: "verifying", Name: d.Short(), Files: int64(v.r.Blobs), Bytes: v.r.Bytes, Total: total})
	return nil
}

func hashFile(ctx context.Context, path string) (d images.Digest, n int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, 0, err
	}
	defer f.Close()
	buf := getBuffer()
	defer putBuffer(buf)
	h := sha256.New()
	n, err = io.CopyBuffer(onlyWriter{h}, onlyReader{&ctxReader{ctx, f}}, *buf)
	h.Sum(d[:0])
	return d, n, err
}

// versions checks records, signatures, tree lists and channels, and finds out
// which versions the damaged and missing blobs touch.
func (v *verifier) versions(ctx context.Context) error {
	list, err := os.ReadDir(v.s.path("images"))
	if err != nil {
		return err
	}
	trees := map[images.Digest]bool{}
	for _, e := range list {
		if !e.IsDir() || images.CheckName(e.Name()) != nil {
			continue
		}
		numbers, err := v.s.numbers(e.Name())
		if err != nil {
			return err
		}
		for _, n := range numbers {
			if err := v.version(ctx, e.Name(), n, trees); err != nil {
				return err
			}
		}
		v.channels(e.Name(), numbers)
	}
	v.r.Trees = len(trees)
	for _, d := range v.bad {
		v.r.Damage = append(v.r.Damage, *d)
	}
	return nil
}

func (v *verifier) version(ctx context.Context, name string, number int, trees map[images.Digest]bool) error {
	v.r.Versions++
	ref := images.Ref{Name: name, Number: number}.String()
	path := v.s.recordPath(name, number)
	rec, err := v.s.record(name, number)
	if err != nil {
		v.damage(path, reasonOf(err), ref)
		return nil
	}
	if len(v.o.Keys) > 0 {
		text, sig, err := v.s.SignedRecord(name, number)
		if err == nil {
			err = images.Verify(v.o.Keys, images.PurposeRecord, text, sig)
		}
		if err != nil {
			v.damage(path+".sig", err.Error(), ref)
		}
	}
	// The cache may hold what is no longer on the disk.
	t, err := v.s.readTree(rec.Tree)
	if err != nil {
		v.damage(v.s.TreePath(rec.Tree), reasonOf(err), ref)
		return nil
	}
	trees[rec.Tree] = true
	v.touches(rec, t)
	return ctx.Err()
}

func reasonOf(err error) string {
	var de *DamageError
	if errors.As(err, &de) {
		return de.Reason
	}
	return err.Error()
}

// maxTouches is how many paths of a version are named for one damage.
const maxTouches = 3

func (v *verifier) touches(rec images.Record, t *tree.Tree) {
	named := map[images.Digest]int{}
	check := func(b images.Blob, what func() string) {
		size, ok := v.good[b.Digest]
		if ok && size == b.Size {
			return
		}
		d := v.bad[b.Digest]
		if d == nil {
			d = &Damage{Path: v.s.BlobPath(b.Digest), Reason: "it is missing"}
			if ok {
				d.Reason = fmt.Sprintf("it has %d bytes, but %s says %d", size, rec.Ref(), b.Size)
			}
			v.bad[b.Digest] = d
		}
		if named[b.Digest]++; named[b.Digest] <= maxTouches {
			d.Touches = append(d.Touches, rec.Ref()+": "+what())
		}
	}
	for i := range uint32(t.Len()) {
		if t.Type(i) == tree.File {
			check(t.Blob(i), func() string { return t.Path(i) })
		}
	}
	for _, p := range rec.Parts() {
		check(p.Blob, func() string { return "its " + p.Name })
	}
}

func (v *verifier) channels(name string, numbers []int) {
	c, err := v.s.ChannelHistory(name)
	if err != nil {
		v.damage(v.s.channelsPath(name), reasonOf(err), name)
		return
	}
	for ch, at := range c.Channel {
		switch rec, err := v.s.record(name, at.Version); {
		case !slices.Contains(numbers, at.Version):
			v.damage(v.s.channelsPath(name), fmt.Sprintf("channel %s points to version %d, which is not there", ch, at.Version), name+"@"+ch)
		case err == nil && rec.Tree != at.Tree:
			v.damage(v.s.channelsPath(name), fmt.Sprintf("channel %s says version %d has another tree than its record says", ch, at.Version), name+"@"+ch)
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package store_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/images"
	"slate/images/store"
)

// age makes everything in the store look as old as gc wants it.
func age(t *testing.T, s *store.Store) {
	t.Helper()
	old := time.Now().Add(-48 * time.Hour)
	for _, sub := range []string{"blobs", "trees"} {
		err := filepath.WalkDir(filepath.Join(s.Dir(), sub), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			return os.Chtimes(path, old, old)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func content(s string) images.Digest { return sha256.Sum256([]byte(s)) }

func hasBlob(s *store.Store, d images.Digest) bool {
	_, err := os.Stat(s.BlobPath(d))
	return err == nil
}

// sound fails the test for any damage in the store.
func sound(t *testing.T, s *store.Store) store.Report {
	t.Helper()
	r, err := s.Verify(t.Context(), store.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range r.Damage {
		t.Errorf("damage: %s: %s (%s)", d.Path, d.Reason, strings.Join(d.Touches, "; "))
	}
	return r
}

func TestGC(t *testing.T) {
	s := open(t, store.Options{})
	for _, seed := range []string{"one", "two", "three", "four", "five", "six"} {
		version(t, s, "demo", seed)
	}
	orphan, err := s.PutBlob(t.Context(), strings.NewReader("orphan"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 1} { // stable is 1, and would be rolled back to 2
		if err := s.Publish(t.Context(), images.Ref{Name: "demo", Number: n}, "stable"); err != nil {
			t.Fatal(err)
		}
	}
	o := store.GCOptions{Keep: 1, InUse: func(r images.Record) string {
		if r.Number == 4 {
			return "node lab-1 runs it"
		}
		return ""
	}}
	check := func(what string, r store.GCReport, err error, blobs, young int) {
		t.Helper()
		if err != nil || strings.Join(r.Versions, " ") != "demo/3 demo/5" || len(r.Kept) != 3 || r.Kept["demo/4"] != "node lab-1 runs it" || r.Blobs != blobs || r.Young != young {
			t.Errorf("%s: %+v, %v, want versions 3 and 5, %d blobs, %d young ones", what, r, err, blobs, young)
		}
	}
	r, err := s.GC(t.Context(), o)
	check("dry run on young blobs", r, err, 0, 1) // the young tree lists keep the versions' own
	age(t, s)
	r, err = s.GC(t.Context(), o)
	check("dry run", r, err, 3, 0)
	if recs, _ := s.Versions("demo"); len(recs) != 6 || !hasBlob(s, orphan.Digest) {
		t.Fatal("a dry run deleted something")
	}
	o.Delete = true
	os.MkdirAll(filepath.Join(s.Dir(), "staging/in-crashed"), 0o700)
	r, err = s.GC(t.Context(), o)
	check("real run", r, err, 3, 0)
	clean(t, s)
	if recs, _ := s.Versions("demo"); len(recs) != 4 {
		t.Errorf("%d versions left, want 4", len(recs))
	}
	for seed, want := range map[string]bool{"one": true, "two": true, "three": false, "four": true, "five": false, "six": true, "orphan": false, "node\n": true} {
		if hasBlob(s, content(seed)) != want {
			t.Errorf("blob %q there: %v, want %v", seed, !want, want)
		}
	}
	sound(t, s)
	if r, err := s.GC(t.Context(), o); err != nil || r.Blobs+r.Trees+len(r.Versions) != 0 {
		t.Errorf("second run: %+v, %v, want nothing to do", r, err)
	}
}

// What is found again while a blob is about to be collected stays.
func TestGCSparesWhatWasJustFoundAgain(t *testing.T) {
	s := open(t, store.Options{})
	blob, err := s.PutBlob(t.Context(), strings.NewReader("again"))
	if err != nil {
		t.Fatal(err)
	}
	age(t, s)
	if _, err := s.PutBlob(t.Context(), strings.NewReader("again")); err != nil {
		t.Fatal(err)
	}
	if r, err := s.GC(t.Context(), store.GCOptions{Delete: true}); err != nil || r.Young != 1 || !hasBlob(s, blob.Digest) {
		t.Errorf("GC = %+v, %v, want the blob kept as young", r, err)
	}
}

func TestGCStopsAtDamage(t *testing.T) {
	s := open(t, store.Options{})
	rec := version(t, s, "demo", "one")
	version(t, s, "demo", "two")
	age(t, s)
	path := filepath.Join(s.Dir(), "images/demo/1.toml")
	text := read(t, path)
	os.WriteFile(path, []byte("garbage"), 0o644)
	var de *store.DamageError
	if _, err := s.GC(t.Context(), store.GCOptions{Delete: true}); !errors.As(err, &de) || de.Path != path {
		t.Errorf("GC with a damaged record = %v, want a DamageError for %s", err, path)
	}
	os.WriteFile(path, text, 0o644)
	os.Remove(s.TreePath(rec.Tree))
	s = openAt(t, s.Dir(), store.Options{})
	var missing *store.MissingTreeError
	if _, err := s.GC(t.Context(), store.GCOptions{Delete: true}); !errors.As(err, &missing) {
		t.Errorf("GC with a missing tree list = %v, want a MissingTreeError", err)
	}
	if !hasBlob(s, content("one")) {
		t.Error("GC deleted a blob of a version whose tree list is missing")
	}
}

func TestRemove(t *testing.T) {
	s := open(t, store.Options{})
	version(t, s, "demo", "one")
	two := version(t, s, "demo", "two")
	ref := images.Ref{Name: "demo", Number: 2}
	if err := s.Publish(t.Context(), ref, "stable"); err != nil {
		t.Fatal(err)
	}
	var iu *store.InUseError
	if _, err := s.Remove(t.Context(), ref, nil); !errors.As(err, &iu) || !strings.Contains(err.Error(), "channel stable") {
		t.Errorf("Remove of a published version = %v", err)
	}
	if err := s.Publish(t.Context(), images.Ref{Name: "demo", Number: 1}, "stable"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), ref, func(images.Record) string { return "a node runs it" }); !errors.As(err, &iu) {
		t.Errorf("Remove of a version in use = %v", err)
	}
	if rec, err := s.Remove(t.Context(), ref, nil); err != nil || rec.Ref() != "demo/2" {
		t.Fatalf("Remove = %s, %v", rec.Ref(), err)
	}
	// The number is not given again, and the blobs are still there to be taken.
	rec, isNew, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: two.Tree})
	if err != nil || !isNew || rec.Number != 3 {
		t.Errorf("Commit after Remove = %s, %v, %v, want demo/3", rec.Ref(), isNew, err)
	}
}

func TestSign(t *testing.T) {
	dir := t.TempDir()
	plain := openAt(t, dir, store.Options{})
	rec := version(t, plain, "demo", "one")
	ref := images.Ref{Name: "demo", Number: 1}
	if _, err := plain.Sign(t.Context(), ref); !errors.Is(err, store.ErrNoKey) {
		t.Errorf("Sign without a key = %v", err)
	}
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	keys := []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}
	s := openAt(t, dir, store.Options{Key: key})
	r, err := s.Verify(t.Context(), store.VerifyOptions{Keys: keys})
	if err != nil || len(r.Damage) != 1 || !strings.Contains(r.Damage[0].Reason, "not signed") {
		t.Errorf("Verify of an unsigned version = %+v, %v", r, err)
	}
	if _, err := s.Sign(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Verify(t.Context(), store.VerifyOptions{Keys: keys}); err != nil || len(r.Damage) != 0 {
		t.Errorf("Verify after Sign = %+v, %v", r, err)
	}
	path := filepath.Join(dir, "images/demo/1.toml")
	os.WriteFile(path, []byte(strings.Replace(string(read(t, path)), "test one", "test 0ne", 1)), 0o644)
	r, err = s.Verify(t.Context(), store.VerifyOptions{Keys: keys})
	if err != nil || len(r.Damage) != 1 || !strings.Contains(r.Damage[0].Reason, "altered") || r.Damage[0].Touches[0] != rec.Ref() {
		t.Errorf("Verify of an altered record = %+v, %v", r, err)
	}
}

func TestVerifyNamesDamageAndWhatItTouches(t *testing.T) {
	s := open(t, store.Options{})
	one := version(t, s, "demo", "one")
	version(t, s, "demo", "two")
	gone, flipped := s.BlobPath(content("one")), s.BlobPath(content("#!/bin/sh\n"))
	for name, tt := range map[string]struct {
		harm   func()
		path   string
		reason string
		touch  []string
	}{
		"missing blob": {func() { os.Remove(gone) }, gone, "missing", []string{"demo/1: etc/seed", "demo/1: usr/share/one"}},
		"flipped bit": {func() { os.Chmod(flipped, 0o644); os.WriteFile(flipped, []byte("#!/bin/sl\n"), 0o644) }, flipped, "digest",
			[]string{"demo/1: usr/bin/tool", "demo/2: usr/bin/tool"}},
		"cut blob": {func() { os.Chmod(flipped, 0o644); os.WriteFile(flipped, []byte("#!/bin/s"), 0o644) }, flipped, "digest",
			[]string{"demo/1: usr/bin/tool", "demo/2: usr/bin/tool"}},
		"cut tree list": {func() { os.Chmod(s.TreePath(one.Tree), 0o644); os.Truncate(s.TreePath(one.Tree), 50) }, s.TreePath(one.Tree), "", []string{"demo/1"}},
		"record": {func() {
			os.WriteFile(filepath.Join(s.Dir(), "images/demo/2.toml"), read(t, filepath.Join(s.Dir(), "images/demo/1.toml")), 0o644)
		}, filepath.Join(s.Dir(), "images/demo/2.toml"), "the record of demo/1", []string{"demo/2"}},
		"foreign file": {func() { os.WriteFile(filepath.Join(s.Dir(), "blobs/sha256/README"), nil, 0o644) }, filepath.Join(s.Dir(), "blobs/sha256/README"), "no blob", nil},
		"channel": {func() {
			os.WriteFile(filepath.Join(s.Dir(), "images/demo/channels.toml"), fmt.Appendf(nil, "[channel.stable]\nversion = 7\ntree = %q\n", one.Tree), 0o644)
		}, filepath.Join(s.Dir(), "images/demo/channels.toml"), "version 7", []string{"demo@stable"}},
	} {
		t.Run(name, func(t *testing.T) {
			backup := t.TempDir()
			if err := os.CopyFS(backup, os.DirFS(s.Dir())); err != nil {
				t.Fatal(err)
			}
			tt.harm()
			r, err := s.Verify(t.Context(), store.VerifyOptions{})
			if err != nil || len(r.Damage) != 1 || r.Damage[0].Path != tt.path || !strings.Contains(r.Damage[0].Reason, tt.reason) ||
				strings.Join(r.Damage[0].Touches, ",") != strings.Join(tt.touch, ",") {
				t.Errorf("Verify = %+v, %v, want one damage of %s, %q, touching %v", r, err, tt.path, tt.reason, tt.touch)
			}
			for _, sub := range []string{"blobs", "trees", "images"} {
				os.RemoveAll(filepath.Join(s.Dir(), sub))
			}
			if err := os.CopyFS(s.Dir(), skipStaging{os.DirFS(backup)}); err != nil {
				t.Fatal(err)
			}
		})
	}
	sound(t, s)
}

// skipStaging hides what is not taken away before it is copied back.
type skipStaging struct{ fs.FS }

func (f skipStaging) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(f.FS, name)
	var kept []fs.DirEntry
	for _, e := range list {
		if e.Name() != "staging" {
			kept = append(kept, e)
		}
	}
	return kept, err
}

// A damaged blob is replaced by a good one once it is out of the way.
func TestQuarantineHeals(t *testing.T) {
	s := open(t, store.Options{})
	dir := t.TempDir()
	put(t, dir, "one")
	_, d, err := s.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: d}); err != nil {
		t.Fatal(err)
	}
	path := s.BlobPath(content("one"))
	os.Chmod(path, 0o644)
	os.WriteFile(path, []byte("0ne"), 0o444)
	if _, err := s.Verify(t.Context(), store.VerifyOptions{Quarantine: true}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(s.Dir(), "damaged", content("one").String())); string(got) != "0ne" {
		t.Errorf("quarantined blob reads %q", got)
	}
	if _, _, err := s.AddDir(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	sound(t, s)
}

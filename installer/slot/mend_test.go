// SPDX-License-Identifier: GPL-2.0-or-later

package slot_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/transfer"
	"slate/images/tree"
	"slate/installer/slot"
	"slate/testbed/labtest"
)

// fetch brings what the sink lacks, and counts it.
func (v version) fetch(fetched *int) func(context.Context, transfer.Sink) error {
	return func(ctx context.Context, s transfer.Sink) error {
		for b := range v.tree.Blobs() {
			if s.Has(b.Digest) {
				continue
			}
			*fetched++
			if err := s.Put(ctx, b, bytes.NewReader(v.blobs[b.Digest])); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestMend(t *testing.T) {
	labtest.NeedRoot(t)
	for _, c := range []struct {
		name    string
		spoil   func(dir string) error
		fetched int
	}{
		{"nothing", func(string) error { return nil }, 0},
		{"a content", func(dir string) error { return os.WriteFile(dir+"/etc/one", []byte("jello"), 0o644) }, 1},
		{"a mode", func(dir string) error { return unix.Chmod(dir+"/bin/setuid", 0o755) }, 1},
		{"an owner of a directory", func(dir string) error { return os.Chown(dir+"/etc", 0, 0) }, 0},
		{"something strange", func(dir string) error { return os.MkdirAll(dir+"/etc/new/deep", 0o755) }, 0},
		{"a link", func(dir string) error {
			return errors.Join(os.Remove(dir+"/bin/link"), os.Symlink("elsewhere", dir+"/bin/link"))
		}, 0},
		{"a device and a pipe", func(dir string) error { return errors.Join(os.Remove(dir+"/bin/null"), os.Remove(dir+"/bin/pipe")) }, 0},
		{"a directory gone", func(dir string) error { return os.RemoveAll(dir + "/bin") }, 3},
		{"a directory that is a link out of here", func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/etc"), os.Symlink("/tmp", dir+"/etc"))
		}, 1},
		{"an attribute", func(dir string) error { return unix.Setxattr(dir+"/bin/marked", "user.colour", []byte("red"), 0) }, 1},
		{"all of it", func(dir string) error { return errors.Join(os.RemoveAll(dir+"/etc"), os.RemoveAll(dir+"/bin")) }, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, dir, n := makeVersion(t), t.TempDir(), 0
			if err := v.fill(t.Context(), dir, -1, &n); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			faults, err := slot.Check(t.Context(), dir, v.tree, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if (len(faults) == 0) != (c.name == "nothing") {
				t.Errorf("Check finds %v", faults)
			}
			fetched := 0
			m := slot.Mend{Dir: dir, Tree: v.tree, Faults: faults, Note: t.Logf, Fetch: v.fetch(&fetched)}
			if err := m.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := slot.Read(dir, []ed25519.PublicKey{v.key}); err == nil {
				t.Error("the slot counts before its repair is ended")
			}
			if err := slot.EndMend(dir); err != nil {
				t.Fatal(err)
			}
			if fetched != c.fetched {
				t.Errorf("%d contents were fetched, want %d", fetched, c.fetched)
			}
			if err := slot.Verify(t.Context(), dir, v.tree, nil); err != nil {
				t.Error(err)
			}
			if _, err := slot.Read(dir, []ed25519.PublicKey{v.key}); err != nil {
				t.Error(err)
			}
			entries, err := os.ReadDir(filepath.Join(dir, slot.Dir))
			if err != nil || len(entries) != 4 {
				t.Errorf("beside the tree lie %v (%v)", entries, err)
			}
		})
	}
}

// A share of the files is read each time, and all of them in turn.
func TestCheckShare(t *testing.T) {
	labtest.NeedRoot(t)
	v, dir, n := makeVersion(t), t.TempDir(), 0
	if err := v.fill(t.Context(), dir, -1, &n); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir + "/etc/one")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/etc/one", []byte("jello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(dir+"/etc/one", info.ModTime(), info.ModTime()); err != nil { // only its content tells
		t.Fatal(err)
	}
	found := 0
	for part := range 3 {
		faults, err := slot.Check(t.Context(), dir, v.tree, slot.Share(part, 3), nil)
		if err != nil {
			t.Fatal(err)
		}
		found += len(faults)
	}
	if found != 1 {
		t.Errorf("the wrong file was found %d times, want once", found)
	}
}

// What a slot has is taken from it and not fetched; what is wrong in it is not taken.
func TestSource(t *testing.T) {
	labtest.NeedRoot(t)
	v, a, b, n := makeVersion(t), t.TempDir(), t.TempDir(), 0
	if err := v.fill(t.Context(), a, -1, &n); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a+"/bin/setuid", []byte("prograM"), 0o755); err != nil {
		t.Fatal(err)
	}
	src := slot.NewSource(a, v.tree)
	fetched, given := 0, 0
	f := slot.Fill{Dir: b, Signed: v.signed, Tree: v.tree, Note: t.Logf}
	f.Fetch = func(ctx context.Context, _ *tree.Tree, _ []images.Blob, s transfer.Sink) error {
		var err error
		if given, _, err = src.Give(ctx, v.tree.Blobs(), s); err != nil {
			return err
		}
		return v.fetch(&fetched)(ctx, s)
	}
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if given != 3 || fetched != 1 {
		t.Errorf("%d contents were taken from the other slot and %d fetched, want 3 and 1", given, fetched)
	}
	if err := slot.Verify(t.Context(), b, v.tree, nil); err != nil {
		t.Error(err)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package store_test

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"slate/images/store"
	"slate/images/tree"
)

// Whatever comes as an archive either makes a tree that is sound or an error.
func FuzzAddTar(f *testing.F) {
	f.Add(makeTar(f, reg("a", "hello"), special(tar.TypeSymlink, "l", "a"), special(tar.TypeLink, "h", "a"), special(tar.TypeDir, "d/", "")))
	f.Add(makeTar(f, reg("../a", "hello")))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	s := open(f, store.Options{})
	f.Fuzz(func(t *testing.T, data []byte) {
		tr, d, err := s.AddTar(t.Context(), bytes.NewReader(data), "fuzz")
		clean(t, s)
		if err != nil {
			return
		}
		again, err := tree.Parse(strings.NewReader(text(t, tr)))
		if err != nil || again.Digest() != d {
			t.Fatalf("the tree list does not parse: %v", err)
		}
		for b := range tr.Blobs() {
			if !hasBlob(s, b.Digest) {
				t.Fatalf("blob %s is missing", b.Digest)
			}
		}
	})
}

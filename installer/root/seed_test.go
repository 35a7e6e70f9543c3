// SPDX-License-Identifier: GPL-2.0-or-later

package root_test

import (
	"os"
	"path/filepath"
	"testing"

	"slate/installer/root"
)

// Each start leaves another seed, that only root can read.
func TestStirSeed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "persistent/.slate/random-seed")
	seen := map[string]bool{}
	for start := range 3 {
		if err := root.StirSeed(file); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil || len(b) != 64 || seen[string(b)] {
			t.Errorf("start %d leaves %d bytes (%v), or those of before", start, len(b), err)
		}
		seen[string(b)] = true
		if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("its mode is %v, %v", fi.Mode(), err)
		}
	}
	// What is there cannot be read: that is said, and nothing is lost by it.
	if err := root.StirSeed(filepath.Dir(file)); err == nil {
		t.Error("a directory is taken for a seed")
	}
}

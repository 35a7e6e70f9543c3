// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slate/images"
	"slate/images/store"
	"slate/nfs"
)

// A handle that nobody knows makes the appliance search its store, but not at each
// call; what came meanwhile is not denied.
func TestHandlesOfVersionsThatComeLater(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	commit := func(name string) [16]byte {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		made, d, err := st.AddDir(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := st.Commit(t.Context(), images.Record{Name: name, Tree: d, Entries: made.Len()}); err != nil {
			t.Fatal(err)
		}
		return [16]byte(d[:16])
	}
	one := commit("one")
	e := &exports{store: st}
	find := func(prefix [16]byte) error {
		_, err := e.ByPrefix(t.Context(), prefix)
		return err
	}
	if err := find(one); err != nil {
		t.Errorf("a version that is there: %v", err)
	}
	two := commit("two")
	if err := find(two); !errors.Is(err, nfs.ErrLater) {
		t.Errorf("a version that has just come: %v, want %v", err, nfs.ErrLater)
	}
	e.scanned = e.scanned.Add(-2 * rescanPause)
	if err := find(two); err != nil {
		t.Errorf("a version that came a while ago: %v", err)
	}
	e.scanned = time.Time{}
	if err := find([16]byte{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no version at all: %v, want %v", err, fs.ErrNotExist)
	}
}

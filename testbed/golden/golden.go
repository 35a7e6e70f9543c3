// SPDX-License-Identifier: GPL-2.0-or-later

// Package golden compares text that people or firmware read with a file kept
// beside the test.
//
// With SLATE_GOLDEN=write in the environment the file is rewritten, and the
// test fails all the same: a changed expectation is never silently green, and
// the run after it shows that the new file holds.
package golden

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Check fails t if got is not what the file path holds.
func Check(t testing.TB, path string, got []byte) {
	t.Helper()
	if os.Getenv("SLATE_GOLDEN") == "write" {
		write(t, path, got)
		return
	}
	want, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.Errorf("%s does not exist; run with SLATE_GOLDEN=write to make it. Got:\n%s", path, got)
	case err != nil:
		t.Error(err)
	case !bytes.Equal(got, want):
		t.Errorf("%s differs (- file, + got); SLATE_GOLDEN=write rewrites it:\n%s", path, cmp.Diff(string(want), string(got)))
	}
}

func write(t testing.TB, path string, got []byte) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, got) {
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Error(err)
		return
	}
	if err := os.WriteFile(path, got, 0o666); err != nil {
		t.Error(err)
		return
	}
	t.Errorf("%s rewritten: look at the difference, then run again without SLATE_GOLDEN", path)
}

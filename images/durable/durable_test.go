// SPDX-License-Identifier: GPL-2.0-or-later

package durable_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"slate/images/durable"
)

func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, want := range []string{"one", "a longer second", ""} {
		if err := durable.WriteFile(path, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("content = %q, %v, want %q", got, err, want)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("mode = %v, %v, want 0640", fi.Mode(), err)
	}
	only(t, dir, "f")
}

func TestWriteFailureKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := durable.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	err := durable.Write(path, 0o644, func(w io.Writer) error {
		io.WriteString(w, "half of the ne")
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("Write = %v, want %v", err, full)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("content after a failed write = %q, want the old", got)
	}
	only(t, dir, "f")
}

func TestMkdirAllRemoveAndTemps(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	for range 2 {
		if err := durable.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Remove(filepath.Join(deep, "absent")); err != nil {
		t.Errorf("Remove of an absent file: %v", err)
	}
	os.WriteFile(filepath.Join(deep, durable.TempPrefix+"1"), nil, 0o600)
	os.WriteFile(filepath.Join(deep, "kept"), nil, 0o600)
	if err := durable.RemoveTemps(deep); err != nil {
		t.Fatal(err)
	}
	only(t, deep, "kept")
	if err := durable.MkdirAll(filepath.Join(deep, "kept", "x"), 0o755); err == nil {
		t.Error("MkdirAll below a file: no error")
	}
}

func only(t *testing.T, dir, name string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 || list[0].Name() != name {
		t.Errorf("%s holds %v, %v, want only %s", dir, list, err, name)
	}
}

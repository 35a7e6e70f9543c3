// SPDX-License-Identifier: GPL-2.0-or-later

package store_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slate/images/store"
)

// onDisk returns a directory on a file system whose change times are believed.
func onDisk(t *testing.T) string {
	t.Helper()
	for _, at := range []string{os.TempDir(), "/var/tmp", "."} {
		dir, err := os.MkdirTemp(at, "slate-disk-*")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil && fs.Type != unix.TMPFS_MAGIC {
			return dir
		}
	}
	if os.Getenv("SLATE_TEST") == "all" {
		t.Fatal("no directory on a disk")
	}
	t.Skip("no directory on a disk")
	return ""
}

// unread adds dir and returns the tree list, and how many files were not read.
func unread(t *testing.T, s *store.Store, log *bytes.Buffer, dir string) (string, int) {
	t.Helper()
	log.Reset()
	tr, _, err := s.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	n := -1
	_, rest, _ := strings.Cut(log.String(), "unchanged=")
	fmt.Sscan(rest, &n)
	return text(t, tr), n
}

// An unchanged file is read once. Whatever changes it, in ways that leave
// size and modification time as they were, is seen.
func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	dir := onDisk(t)
	var log bytes.Buffer
	o := store.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	s := openAt(t, filepath.Join(t.TempDir(), "store"), o)
	put(t, dir, "seed") // 4 files
	seed := filepath.Join(dir, "etc/seed")
	stamp := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	os.Chtimes(seed, stamp, stamp)

	first, n := unread(t, s, &log, dir)
	if n != 0 {
		t.Errorf("first time: %d files not read", n)
	}
	if _, n := unread(t, s, &log, dir); n != 0 {
		t.Errorf("files of this very moment: %d were believed, their stamps may hide a change", n)
	}
	later := func() time.Time { return time.Now().Add(time.Minute) }
	s.SetNow(later)
	unread(t, s, &log, dir)
	if again, n := unread(t, s, &log, dir); n != 4 || again != first {
		t.Errorf("unchanged: %d of 4 files not read, same tree: %v", n, again == first)
	}
	s = openAt(t, s.Dir(), o)
	s.SetNow(later)
	for name, change := range map[string]func() error{
		"content": func() error {
			return os.WriteFile(seed, []byte("SEED"), 0o644)
		},
		"renamed over": func() error {
			tmp := filepath.Join(dir, "tmp")
			return os.WriteFile(tmp, []byte("dees"), 0o644)
		},
		"mode":      func() error { return os.Chmod(seed, 0o4755) },
		"attribute": func() error { return unix.Setxattr(seed, "user.x", []byte("y"), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := unread(t, s, &log, dir)
			if err := change(); err != nil {
				t.Fatal(err)
			}
			if name == "renamed over" {
				os.Rename(filepath.Join(dir, "tmp"), seed)
			}
			os.Chtimes(seed, stamp, stamp)
			after, n := unread(t, s, &log, dir)
			if after == before || n != 3 {
				t.Errorf("seen: %v, %d files not read, want 3", after != before, n)
			}
			tr, _, err := s.AddDirAfresh(t.Context(), dir)
			if err != nil || text(t, tr) != after {
				t.Errorf("reading all gives another tree (%v)", err)
			}
		})
	}
	t.Run("blob gone", func(t *testing.T) {
		unread(t, s, &log, dir)
		os.Remove(s.BlobPath(content("node\n")))
		if _, n := unread(t, s, &log, dir); n != 3 || !hasBlob(s, content("node\n")) {
			t.Errorf("%d files not read, want 3; blob there: %v", n, hasBlob(s, content("node\n")))
		}
	})
	t.Run("cache damaged", func(t *testing.T) {
		want, _ := unread(t, s, &log, dir)
		list, err := filepath.Glob(filepath.Join(s.Dir(), "cache/stat/*"))
		if err != nil || len(list) != 1 {
			t.Fatalf("%q, %v", list, err)
		}
		whole := read(t, list[0])
		for cut := 0; cut < len(whole); cut += 97 {
			damaged := bytes.Clone(whole)
			damaged[cut] ^= 1
			for _, b := range [][]byte{damaged, whole[:cut]} {
				os.WriteFile(list[0], b, 0o600)
				if got, n := unread(t, s, &log, dir); n != 0 || got != want {
					t.Fatalf("damage at %d: %d files believed, same tree: %v", cut, n, got == want)
				}
			}
		}
	})
	t.Run("forgotten", func(t *testing.T) {
		files := func() int {
			list, _ := filepath.Glob(filepath.Join(s.Dir(), "cache/stat/*"))
			return len(list)
		}
		unread(t, s, &log, dir)
		before := files()
		s.SetNow(func() time.Time { return time.Now().Add(100 * 24 * time.Hour) })
		if _, err := s.GC(t.Context(), store.GCOptions{Delete: true}); err != nil || before != 1 || files() != 0 {
			t.Errorf("after 100 days %d of %d files are kept (%v)", files(), before, err)
		}
	})
}

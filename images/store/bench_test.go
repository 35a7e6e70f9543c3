// SPDX-License-Identifier: GPL-2.0-or-later

package store_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"slate/images"
	"slate/images/store"
)

// cpu returns the CPU time of this process and of its children that have ended.
func cpu(b *testing.B) time.Duration {
	var self, kids syscall.Rusage
	for who, r := range map[int]*syscall.Rusage{syscall.RUSAGE_SELF: &self, syscall.RUSAGE_CHILDREN: &kids} {
		if err := syscall.Getrusage(who, r); err != nil {
			b.Fatal(err)
		}
	}
	return time.Duration(self.Utime.Nano() + self.Stime.Nano() + kids.Utime.Nano() + kids.Stime.Nano())
}

func commitDir(b *testing.B, s *store.Store, dir string) (images.Record, bool) {
	_, d, err := s.AddDir(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	rec, isNew, err := s.Commit(b.Context(), images.Record{Name: "demo", Tree: d})
	if err != nil {
		b.Fatal(err)
	}
	return rec, isNew
}

// BenchmarkCommit commits the tree that SLATE_BENCH_OLD names, and again without
// a change, and lets mksquashfs pack it, in turns.
func BenchmarkCommit(b *testing.B) {
	dir := os.Getenv("SLATE_BENCH_OLD")
	if dir == "" {
		b.Skip("SLATE_BENCH_OLD names no tree")
	}
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		b.Skip(err)
	}
	var first, again, squash time.Duration
	for b.Loop() {
		s, err := store.Open(b.TempDir(), store.Options{})
		if err != nil {
			b.Fatal(err)
		}
		start := cpu(b)
		commitDir(b, s, dir)
		first += cpu(b) - start
		if s, err = store.Open(s.Dir(), store.Options{}); err != nil { // as another process would
			b.Fatal(err)
		}
		start = cpu(b)
		if _, isNew := commitDir(b, s, dir); isNew {
			b.Fatal("the unchanged tree made a new version")
		}
		again += cpu(b) - start
		start = cpu(b)
		out, err := exec.Command("mksquashfs", dir, filepath.Join(b.TempDir(), "s"), "-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-quiet", "-no-progress").CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		squash += cpu(b) - start
	}
	n := float64(b.N)
	b.ReportMetric(first.Seconds()/n, "commit-cpu-s")
	b.ReportMetric(again.Seconds()/n, "unchanged-cpu-s")
	b.ReportMetric(squash.Seconds()/n, "mksquashfs-cpu-s")
	b.ReportMetric(float64(first)/float64(squash), "commit-ratio")
	b.ReportMetric(float64(again)/float64(squash), "unchanged-ratio")
}

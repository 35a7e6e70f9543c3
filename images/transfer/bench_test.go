// SPDX-License-Identifier: GPL-2.0-or-later

package transfer_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"slate/images"
)

// The benchmarks compare an update from one root tree to another with that of
// other programs, in one run. The trees are directories; SLATE_BENCH_OLD and
// SLATE_BENCH_NEW name them. They must be run as root.
func benchTrees(b *testing.B) (old, new string) {
	old, new = os.Getenv("SLATE_BENCH_OLD"), os.Getenv("SLATE_BENCH_NEW")
	if old == "" || new == "" {
		b.Skip("SLATE_BENCH_OLD and SLATE_BENCH_NEW name no trees")
	}
	return old, new
}

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

func (s *site) commitDir(b *testing.B, dir string) images.Record {
	_, d, err := s.AddDir(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	rec, _, err := s.Commit(b.Context(), images.Record{Name: "demo", Tree: d})
	if err != nil {
		b.Fatal(err)
	}
	return rec
}

// BenchmarkUpdate fetches the old tree, then the new one. The first of two
// receivers makes the server compress, the second gets its cache.
func BenchmarkUpdate(b *testing.B) {
	old, new := benchTrees(b)
	for b.Loop() {
		s := newSite(b, nil)
		start := cpu(b)
		rec1 := s.commitDir(b, old)
		b.ReportMetric((cpu(b) - start).Seconds(), "commit-cpu-s")
		first, second := open(b, nil), open(b, nil)
		start = cpu(b)
		c := s.client(b)
		if _, err := pull(b.Context(), c, first); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(c.Stats().Bytes)/1e6, "install-MB")
		b.ReportMetric(float64(c.Stats().Requests), "install-requests")
		b.ReportMetric((cpu(b) - start).Seconds(), "install-both-ends-cpu-s")
		if _, err := pull(b.Context(), s.client(b), second); err != nil {
			b.Fatal(err)
		}
		s.commitDir(b, new)
		start = cpu(b)
		c = s.client(b)
		if _, err := pull(b.Context(), c, first, rec1); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((cpu(b) - start).Seconds(), "update-both-ends-cpu-s")
		start = cpu(b)
		c = s.client(b)
		if _, err := pull(b.Context(), c, second, rec1); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((cpu(b) - start).Seconds(), "update-client-cpu-s")
		b.ReportMetric(float64(c.Stats().Bytes)/1e6, "update-MB")
		b.ReportMetric(float64(c.Stats().Requests), "update-requests")
	}
}

func run(b *testing.B, argv ...string) {
	b.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		b.Skip(err)
	}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// BenchmarkUpdateOstree does the same with ostree pull over HTTP.
func BenchmarkUpdateOstree(b *testing.B) {
	old, new := benchTrees(b)
	for b.Loop() {
		repo, to := filepath.Join(b.TempDir(), "repo"), filepath.Join(b.TempDir(), "to")
		var bytes, requests atomic.Int64
		files := http.FileServer(http.Dir(repo))
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			files.ServeHTTP(&countWriter{w, &bytes}, r)
		}))
		run(b, "ostree", "init", "--repo", repo, "--mode=archive")
		run(b, "ostree", "init", "--repo", to, "--mode=bare")
		run(b, "ostree", "remote", "add", "--repo", to, "--no-gpg-verify", "o", srv.URL)
		run(b, "ostree", "commit", "--repo", repo, "-b", "m", "--tree=dir="+old)
		run(b, "ostree", "pull", "--repo", to, "o", "m")
		start := cpu(b)
		run(b, "ostree", "commit", "--repo", repo, "-b", "m", "--tree=dir="+new)
		b.ReportMetric((cpu(b) - start).Seconds(), "commit-cpu-s")
		bytes.Store(0)
		requests.Store(0)
		run(b, "ostree", "pull", "--repo", to, "o", "m")
		b.ReportMetric(float64(bytes.Load())/1e6, "update-MB")
		b.ReportMetric(float64(requests.Load()), "update-requests")
		srv.Close()
	}
}

type countWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *countWriter) Write(p []byte) (int, error) {
	w.n.Add(int64(len(p)))
	return w.ResponseWriter.Write(p)
}

// BenchmarkUpdateCasync measures by how much casync's store grows, which is what
// a receiver that has the old tree must fetch, and the new index.
func BenchmarkUpdateCasync(b *testing.B) {
	old, new := benchTrees(b)
	for b.Loop() {
		dir := b.TempDir()
		store := filepath.Join(dir, "store")
		run(b, "casync", "make", "--store="+store, filepath.Join(dir, "old.caidx"), old)
		before, chunks := size(b, store)
		start := cpu(b)
		run(b, "casync", "make", "--store="+store, filepath.Join(dir, "new.caidx"), new)
		b.ReportMetric((cpu(b) - start).Seconds(), "commit-cpu-s")
		after, more := size(b, store)
		index, err := os.Stat(filepath.Join(dir, "new.caidx"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(after-before+index.Size())/1e6, "update-MB")
		b.ReportMetric(float64(more-chunks+1), "update-requests")
	}
}

func size(b *testing.B, dir string) (bytes int64, files int) {
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			bytes += fi.Size()
			files++
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return bytes, files
}

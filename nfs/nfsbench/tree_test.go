// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// makeTree makes a tree with about as many entries as a small Debian has, and
// files of similar sizes but fewer bytes.
func makeTree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	dirs := []string{root, filepath.Join(root, "etc")}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dirs[1], 0o755))
	for i := range 1800 {
		d := filepath.Join(dirs[r.IntN(len(dirs))], fmt.Sprintf("dir-%04d", i))
		must(os.Mkdir(d, 0o755))
		dirs = append(dirs, d)
	}
	content := make([]byte, 4<<20)
	for i := range 13000 {
		p := filepath.Join(dirs[r.IntN(len(dirs))], fmt.Sprintf("file-%05d", i))
		if i%8 == 0 {
			must(os.Symlink("../somewhere/else", p))
			continue
		}
		size := min(int(math.Exp(r.NormFloat64()*2+8)), len(content))
		must(os.WriteFile(p, content[:size], 0o644))
	}
	return root
}

func makeBig(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// warm reads everything once, so that no server finds it in the page cache
// only because the other one was first.
func warm(t testing.TB, dir string) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for _, f := range listFiles(t, dir) {
		if f.size == 0 {
			continue
		}
		in, err := os.Open(filepath.Join(dir, f.path))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, buf)
		in.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The load has to be right before its numbers mean anything.
func TestLoad(t *testing.T) {
	dir := makeTree(t)
	bigDir := t.TempDir()
	makeBig(t, filepath.Join(bigDir, "big"), 8<<20)
	tg := &target{server: startSlate(t, fmt.Sprintf("/root/1=%s,/big/1=%s", dir, bigDir))}
	files := listFiles(t, dir)
	text := likeABoot(files)
	if again := likeABoot(files); again != text {
		t.Error("the mix like that of a boot differs from run to run")
	}
	tg.prepare(t, "/root/1", "/big/1", text, text)
	if len(tg.handles) != len(files) {
		t.Errorf("the walk finds %d objects, there are %d", len(tg.handles), len(files))
	}
	if got, want := len(tg.boot), strings.Count(text, "\n")+1; got != want || want < 4000 {
		t.Errorf("%d calls of %d lines", got, want)
	}
	o := measure(t, tg, boots(3, 2, true))
	if want := int64(6 * len(tg.boot)); o.ops != want || o.errors != 0 || o.cpu <= 0 || o.rss <= 0 {
		t.Errorf("replay: %d operations with %d errors, want %d; CPU %v, memory %d", o.ops, o.errors, want, o.cpu, o.rss)
	}
	for _, c := range []cell{walks(true, ".", 1, 1), walks(true, ".", 16, 1), walks(false, "etc", 3, 1)} {
		if o := measure(t, tg, c); o.ops == 0 || o.errors != 0 {
			t.Errorf("%s: %d operations, %d errors", c.name, o.ops, o.errors)
		}
	}
	r, err := parallel(tg.nfs, 2, 3, func(int) source {
		n := 0
		return func() call {
			if n++; n > 8 {
				return nil
			}
			return readCall(tg.big, uint64(n-1)<<20, 1<<20)
		}
	})
	if err != nil || r.ops != 16 || r.errors != 0 || r.bytes < 16<<20 {
		t.Errorf("READ: %d operations, %d bytes, %d errors, %v", r.ops, r.bytes, r.errors, err)
	}
	// A stale handle must show, or errors never would.
	r, err = parallel(tg.nfs, 1, 1, func(int) source {
		left := 1
		return func() call {
			left--
			if left < 0 {
				return nil
			}
			return handleCall(procGetattr, make([]byte, 20))
		}
	})
	if err != nil || r.errors != 1 {
		t.Errorf("GETATTR of a stale handle: %d errors, %v", r.errors, err)
	}
}

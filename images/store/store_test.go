// SPDX-License-Identifier: GPL-2.0-or-later

package store_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/store"
	"slate/images/tree"
)

func open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	return openAt(t, t.TempDir(), o)
}

func openAt(t testing.TB, dir string, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put writes a small source tree that differs by its seed.
func put(t testing.TB, dir, seed string) {
	t.Helper()
	for path, content := range map[string]string{"etc/hostname": "node\n", "usr/bin/tool": "#!/bin/sh\n", "usr/share/" + seed: seed, "etc/seed": seed} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// version commits a tree made from seed.
func version(t testing.TB, s *store.Store, name, seed string) images.Record {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, seed)
	_, d, err := s.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err := s.Commit(t.Context(), images.Record{Name: name, Tree: d, Recipe: "test " + seed})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func text(t testing.TB, tr *tree.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := tr.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// blobs returns the blob files of a store, by digest, having checked their
// content, mode and place.
func blobs(t testing.TB, s *store.Store) map[images.Digest]int64 {
	t.Helper()
	found := map[images.Digest]int64{}
	root := filepath.Join(s.Dir(), "blobs")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		d := images.Digest(sha256.Sum256(data))
		if path != s.BlobPath(d) {
			t.Errorf("%s holds the content of %s", path, d)
		}
		if fi, err := e.Info(); err != nil || fi.Mode() != 0o444 {
			t.Errorf("%s: mode %v, %v, want 0444", path, fi.Mode(), err)
		}
		found[d] = int64(len(data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// clean checks that nothing was left half done.
func clean(t testing.TB, s *store.Store) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(s.Dir(), "staging"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name() != ".lock" {
			t.Errorf("left in staging: %s", e.Name())
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("SLATE_TEST") == "all" {
		t.Fatal("must run as root")
	}
	t.Skip("must run as root")
}

func TestAddDirEverything(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(p string) string { return filepath.Join(dir, p) }
	must(os.Mkdir(in("d"), 0o755))
	must(os.WriteFile(in("d/suid"), []byte("suid"), 0o755))
	must(os.Chown(in("d/suid"), 1234, 5678))
	must(unix.Chmod(in("d/suid"), 0o6755))
	must(os.Link(in("d/suid"), in("a-hard")))
	must(os.Link(in("d/suid"), in("z-hard")))
	must(os.Symlink("d/suid\nodd", in("sym")))
	must(os.Lchown(in("sym"), 7, 8))
	must(unix.Mkfifo(in("fifo"), 0o600))
	must(unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(in("loop"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 300))))
	must(os.WriteFile(in("\xff\x01 name"), nil, 0o400))
	must(os.WriteFile(in("cap"), []byte("cap"), 0o755))
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(unix.Setxattr(in("cap"), "security.capability", capability, 0))
	must(unix.Setxattr(in("cap"), "user.note", []byte("hi"), 0))
	must(unix.Setxattr(in("cap"), "trusted.private", []byte("no"), 0))
	must(os.WriteFile(in("big"), bytes.Repeat([]byte("0123456789abcdef"), 200_000), 0o644))
	sparse, err := os.Create(in("sparse"))
	must(err)
	_, err = sparse.WriteAt([]byte("end"), 64<<20)
	must(err)
	must(sparse.Close())
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(err)
	must(unix.Bind(fd, &unix.SockaddrUnix{Name: in("sock")}))
	must(unix.Close(fd))
	stamp := []unix.Timespec{{Sec: 1, Nsec: 2}, {Sec: 1_600_000_000, Nsec: 123_456_789}}
	must(unix.UtimesNanoAt(unix.AT_FDCWD, in("sym"), stamp, unix.AT_SYMLINK_NOFOLLOW))
	must(unix.UtimesNanoAt(unix.AT_FDCWD, in("d/suid"), stamp, 0))

	s := open(t, store.Options{})
	tr, d, err := s.AddDir(t.Context(), dir)
	must(err)
	clean(t, s)
	get := func(path string) tree.Entry {
		t.Helper()
		i, ok := tr.Find(path)
		if !ok {
			t.Fatalf("%q is not in the tree:\n%s", path, text(t, tr))
		}
		e := tr.Entry(i)
		if path != "d/suid" && path != "sym" && path != "a-hard" && path != "z-hard" {
			e.MtimeNs = 0
		}
		return e
	}
	const ns = 1_600_000_000_123_456_789
	sum := func(b []byte) images.Digest { return sha256.Sum256(b) }
	suid := tree.Entry{Type: tree.File, Mode: 0o6755, UID: 1234, GID: 5678, Size: 4, Digest: sum([]byte("suid")), Nlink: 3, MtimeNs: ns}
	for path, want := range map[string]tree.Entry{
		"d/suid": suid, "a-hard": suid, "z-hard": suid,
		"sym":           {Type: tree.Symlink, Mode: 0o777, UID: 7, GID: 8, Target: "d/suid\nodd", Size: 10, Nlink: 1, MtimeNs: ns},
		"fifo":          {Type: tree.Fifo, Mode: 0o600, Nlink: 1},
		"null":          {Type: tree.Char, Mode: 0o644, Nlink: 1, Major: 1, Minor: 3},
		"loop":          {Type: tree.Block, Mode: 0o640, Nlink: 1, Major: 7, Minor: 300},
		"\xff\x01 name": {Type: tree.File, Mode: 0o400, Digest: sum(nil), Nlink: 1},
		"cap": {Type: tree.File, Mode: 0o755, Size: 3, Digest: sum([]byte("cap")), Nlink: 1,
			Xattrs: []tree.Xattr{{Name: "security.capability", Value: capability}, {Name: "user.note", Value: []byte("hi")}}},
	} {
		if diff := cmp.Diff(want, get(path)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", path, diff)
		}
	}
	if _, ok := tr.Find("sock"); ok {
		t.Error("a socket is in the tree")
	}
	kept := blobs(t, s)
	big, sp := get("big"), get("sparse")
	if kept[big.Digest] != 3_200_000 || kept[sp.Digest] != 64<<20+3 {
		t.Errorf("blobs of large files: %d and %d bytes, want 3200000 and %d", kept[big.Digest], kept[sp.Digest], 64<<20+3)
	}
	var st syscall.Stat_t
	must(syscall.Stat(s.BlobPath(sp.Digest), &st))
	if st.Blocks*512 > 1<<20 {
		t.Errorf("the blob of a sparse file takes %d bytes on disk", st.Blocks*512)
	}
	again, err := openAt(t, s.Dir(), store.Options{}).Tree(t.Context(), d)
	must(err)
	if text(t, again) != text(t, tr) {
		t.Error("the tree list reads back differently")
	}
}

// Sizes beyond 32 bits survive, and what is not written takes no room.
func TestFileOverFourGiB(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds to hash")
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 4<<30 + 4096
	if _, err := f.WriteAt([]byte("end"), size-3); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := open(t, store.Options{})
	tr, d, err := s.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := openAt(t, s.Dir(), store.Options{}).Tree(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	i, _ := again.Find("huge")
	b := tr.Blob(i)
	if again.Blob(i) != b || b.Size != size {
		t.Errorf("the tree says %+v, read back %+v, want a size of %d", b, again.Blob(i), int64(size))
	}
	blob, err := s.OpenBlob(b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	end := make([]byte, 4)
	if _, err := blob.ReadAt(end, size-4); err != nil || string(end) != "\x00end" {
		t.Errorf("the blob ends in %q, %v", end, err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(s.BlobPath(b.Digest), &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("the blob has %d bytes and takes %d, %v", st.Size, st.Blocks*512, err)
	}
}

func TestAddDirDeepAndManyNames(t *testing.T) {
	dir := t.TempDir()
	// Deeper than PATH_MAX: made, as it is read, by descriptors.
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("n", 200)
	for range 40 {
		if err := unix.Mkdirat(at, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(at)
		at = next
	}
	fd, err := unix.Openat(at, "bottom", unix.O_CREAT|unix.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	unix.Close(at)
	wide := filepath.Join(dir, "wide")
	os.Mkdir(wide, 0o755)
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(wide, fmt.Sprint(i)), []byte(fmt.Sprint(i%1500)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, store.Options{Workers: 4})
	tr, _, err := s.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := tr.Find(strings.Repeat(name+"/", 40) + "bottom"); !ok || tr.Len() != 1+40+1+1+3000 {
		t.Errorf("tree of %d entries, bottom found: %v", tr.Len(), ok)
	}
	if n := len(blobs(t, s)); n != 1501 {
		t.Errorf("%d blobs, want 1501: one for each content", n)
	}
}

func TestAddDirErrors(t *testing.T) {
	s := open(t, store.Options{})
	file := filepath.Join(t.TempDir(), "f")
	os.WriteFile(file, nil, 0o644)
	for path, want := range map[string]error{"/does/not/exist": fs.ErrNotExist, file: syscall.ENOTDIR} {
		if _, _, err := s.AddDir(t.Context(), path); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("AddDir(%s) = %v, want %v with the path", path, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	put(t, dir, "x")
	if _, _, err := s.AddDir(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("AddDir with a cancelled context = %v", err)
	}
	clean(t, s)
}

func TestCommit(t *testing.T) {
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, store.Options{Key: key})
	one := version(t, s, "demo", "one")
	two := version(t, s, "demo", "two")
	if one.Ref() != "demo/1" || two.Ref() != "demo/2" || two.Parent != one.Tree || one.Size == 0 || one.Entries != 9 {
		t.Errorf("versions %+v and %+v", one, two)
	}
	// The directory of version() has other time stamps each time, so commit
	// the very tree again.
	same, isNew, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: two.Tree, Note: "again"})
	if err != nil || isNew || !cmp.Equal(same, two) {
		t.Errorf("Commit of the newest tree = %+v, %v, %v, want %+v and not new", same, isNew, err, two)
	}
	older, isNew, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: one.Tree})
	if err != nil || !isNew || older.Number != 3 {
		t.Errorf("Commit of an older tree = %+v, %v, %v, want demo/3", older, isNew, err)
	}
	body, sig, err := s.SignedRecord("demo", 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := images.Verify([]ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, images.PurposeRecord, body, sig); err != nil {
		t.Errorf("signature of demo/2: %v", err)
	}
	var missing *store.MissingTreeError
	if _, _, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: images.Digest{1}}); !errors.As(err, &missing) {
		t.Errorf("Commit of an unknown tree = %v", err)
	}
	var noBlob *store.MissingBlobError
	rec := images.Record{Name: "demo", Tree: one.Tree, Modules: &images.Blob{Digest: images.Digest{2}, Size: 1}}
	if _, _, err := s.Commit(t.Context(), rec); !errors.As(err, &noBlob) {
		t.Errorf("Commit with unknown modules = %v", err)
	}
	if _, _, err := s.Commit(t.Context(), images.Record{Name: "../demo", Tree: one.Tree}); err == nil {
		t.Error("Commit under the name ../demo: no error")
	}
}

func TestCommitRefusesATreeWithMissingBlobs(t *testing.T) {
	s := open(t, store.Options{})
	dir := t.TempDir()
	put(t, dir, "x")
	_, d, err := s.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(s.BlobPath(sha256.Sum256([]byte("x"))))
	var missing *store.MissingBlobError
	if _, _, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: d}); !errors.As(err, &missing) {
		t.Errorf("Commit = %v, want a MissingBlobError", err)
	}
	if names, _ := s.Images(); len(names) > 0 {
		t.Errorf("Images = %v, want none", names)
	}
}

func TestResolveAndChannels(t *testing.T) {
	s := open(t, store.Options{Who: "ann"})
	ref := func(r string) images.Ref {
		t.Helper()
		p, err := images.ParseRef(r)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	lookup := func(r string) string {
		rec, err := s.Resolve(ref(r))
		if err != nil {
			var nf *store.NotFoundError
			if !errors.As(err, &nf) || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Resolve(%s) = %v, want a NotFoundError", r, err)
				return err.Error()
			}
			return nf.Error() + "; " + nf.Hint()
		}
		return rec.Ref()
	}
	check := func(r, want string) {
		t.Helper()
		if got := lookup(r); got != want {
			t.Errorf("Resolve(%s) = %s, want %s", r, got, want)
		}
	}
	check("demo", `no image "demo"; the store is empty; slate build and slate image import make images`)
	one := version(t, s, "demo", "one")
	version(t, s, "demo", "two")
	version(t, s, "demo", "three")
	version(t, s, "lab", "other")
	check("demo", "demo/3")
	check("demo/1", "demo/1")
	check("demo/"+one.Tree.Short(), "demo/1")
	check("demo/"+one.Tree.String(), "demo/1")
	check("nope", `no image "nope"; there is demo, lab`)
	check("demo/4", `image demo has no version "4"; there is demo/3, demo/2, demo/1`)
	check("demo/abcdef0123", `image demo has no version "abcdef0123"; there is demo/3, demo/2, demo/1`)
	check("demo@stable", `image demo has no channel "stable"; no version of demo is published yet; slate image publish demo --channel CHANNEL does it`)

	for _, r := range []string{"demo/1", "demo/2", "demo/2", "demo"} {
		if err := s.Publish(t.Context(), ref(r), "stable"); err != nil {
			t.Fatal(err)
		}
	}
	check("demo@stable", "demo/3")
	check("demo@testing", `image demo has no channel "testing"; there is demo@stable`)
	for _, want := range []string{"demo/2", "demo/1"} {
		rec, err := s.Rollback(t.Context(), "demo", "stable")
		if err != nil || rec.Ref() != want {
			t.Errorf("Rollback = %s, %v, want %s", rec.Ref(), err, want)
		}
		check("demo@stable", want)
	}
	if _, err := s.Rollback(t.Context(), "demo", "stable"); !errors.Is(err, store.ErrNoEarlier) {
		t.Errorf("Rollback beyond the first = %v", err)
	}
	for _, bad := range [][2]string{{"demo", "nope"}, {"nope", "stable"}} {
		if _, err := s.Rollback(t.Context(), bad[0], bad[1]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Rollback(%s) = %v", bad, err)
		}
	}
	h, err := s.ChannelHistory("demo")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range h.Change {
		got = append(got, fmt.Sprintf("%s %d>%d %s %v", c.Channel, c.From, c.To, c.Who, c.Rollback))
	}
	want := []string{"stable 0>1 ann false", "stable 1>2 ann false", "stable 2>3 ann false", "stable 3>2 ann true", "stable 2>1 ann true"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("history (-want +got):\n%s", d)
	}
	if err := s.Publish(t.Context(), ref("demo/9"), "stable"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Publish of an unknown version = %v", err)
	}
	if err := s.Publish(t.Context(), ref("demo"), "a/b"); err == nil {
		t.Error("Publish on channel a/b: no error")
	}
}

func TestTwoStoresAtOnce(t *testing.T) {
	dir := t.TempDir()
	stores := []*store.Store{openAt(t, dir, store.Options{}), openAt(t, dir, store.Options{})}
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	for i := range 8 {
		src := t.TempDir()
		put(t, src, fmt.Sprint(i))
		wg.Go(func() {
			s := stores[i%2]
			_, d, err := s.AddDir(t.Context(), src)
			if err != nil {
				t.Error(err)
				return
			}
			rec, isNew, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: d})
			if err != nil || !isNew {
				t.Errorf("Commit = %v, %v", isNew, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[rec.Number] {
				t.Errorf("number %d was given twice", rec.Number)
			}
			seen[rec.Number] = true
		})
	}
	wg.Wait()
	if recs, err := stores[0].Versions("demo"); err != nil || len(recs) != 8 {
		t.Errorf("Versions = %d, %v, want 8", len(recs), err)
	}
	blobs(t, stores[0])
	clean(t, stores[0])
}

func TestPutBlob(t *testing.T) {
	s := open(t, store.Options{})
	for _, content := range []string{"", "hello", strings.Repeat("\x00", 10_000), "x" + strings.Repeat("\x00", 9000), "hello"} {
		b, err := s.PutBlob(t.Context(), strings.NewReader(content))
		if err != nil || b.Size != int64(len(content)) || b.Digest != sha256.Sum256([]byte(content)) {
			t.Errorf("PutBlob(%.10q…) = %+v, %v", content, b, err)
		}
		f, err := s.OpenBlob(b.Digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || string(got) != content {
			t.Errorf("blob of %.10q… reads %.10q…, %v", content, got, err)
		}
	}
	if n := len(blobs(t, s)); n != 4 {
		t.Errorf("%d blobs, want 4", n)
	}
	if _, err := s.OpenBlob(images.Digest{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenBlob of an unknown digest = %v", err)
	}
	broken := errors.New("broken")
	if _, err := s.PutBlob(t.Context(), io.MultiReader(strings.NewReader("half"), errReader{broken})); !errors.Is(err, broken) {
		t.Errorf("PutBlob of a broken stream = %v", err)
	}
	clean(t, s)
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestTreeDamageIsNamed(t *testing.T) {
	s := open(t, store.Options{})
	rec := version(t, s, "demo", "one")
	other := version(t, s, "demo", "two")
	path := s.TreePath(rec.Tree)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"cut": whole[:len(whole)/2], "flipped": flip(whole, len(whole)/2), "empty": nil, "foreign": read(t, s.TreePath(other.Tree)),
	} {
		os.Remove(path)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		var de *store.DamageError
		_, err := openAt(t, s.Dir(), store.Options{}).Tree(t.Context(), rec.Tree)
		if !errors.As(err, &de) || de.Path != path {
			t.Errorf("%s: Tree = %v, want a DamageError for %s", name, err, path)
		}
	}
	if _, err := openAt(t, s.Dir(), store.Options{}).Tree(t.Context(), other.Tree); err != nil {
		t.Errorf("Tree of the undamaged version: %v", err)
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

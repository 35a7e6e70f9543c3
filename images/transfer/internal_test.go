// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/images"
	"slate/images/repack"
	"slate/images/tree"
)

// contents is a set of blobs in memory.
type contents map[images.Digest][]byte

func (c contents) add(s string) images.Blob {
	d := images.Digest(sha256.Sum256([]byte(s)))
	c[d] = []byte(s)
	return images.Blob{Digest: d, Size: int64(len(s))}
}

func (c contents) read(d images.Digest) ([]byte, error) {
	if b, ok := c[d]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func treeOf(t *testing.T, c contents, files map[string]string) *tree.Tree {
	t.Helper()
	var b tree.Builder
	for path, s := range files {
		blob := c.add(s)
		if err := b.Add(path, tree.Entry{Type: tree.File, Digest: blob.Digest, Size: blob.Size}); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestPlanFindsBases(t *testing.T) {
	c := contents{}
	body := func(s string) string { return s + strings.Repeat(" body", 200) }
	old := treeOf(t, c, map[string]string{
		"same": body("same"), "moved/from": body("moved"), "edited": body("old"), "lib/libx.so.1.2": body("x12"), "lib/liby.so.1": body("y1"),
		"mod/6.1.0-55/a.ko": body("a55"), "mod/6.1.0-55/b.ko": body("b55"), "tiny": "t", "grown": "g",
	})
	new := treeOf(t, c, map[string]string{
		"same": body("same"), "moved/to": body("moved"), "edited": body("new"), "lib/libx.so.1.3": body("x13"), "lib/liby.so.1": body("y1"), "lib/liby.so.2": body("y2"),
		"mod/6.1.0-56/a.ko": body("a56"), "mod/6.1.0-56/b.ko": body("b56"), "fresh": body("fresh"), "fresh2": body("fresh"), "tiny": "u", "grown": body("grown"),
	})
	p := makePlan(new, old)
	if len(p.packs) != 1 || len(p.large) != 0 {
		t.Fatalf("plan has %d packs and %d large items, want 1 and 0", len(p.packs), len(p.large))
	}
	first := func(d images.Digest) string {
		word, _, _ := strings.Cut(string(c[d]), " ")
		return word
	}
	got := map[string]string{}
	for _, it := range p.packs[0] {
		got[first(it.Digest)] = first(it.base.Digest)
	}
	want := map[string]string{"new": "old", "x13": "x12", "y2": "", "a56": "a55", "b56": "b55", "fresh": "", "u": "", "grown": ""}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("contents and their bases (-want +got):\n%s", d)
	}
	if p := makePlan(old, old); len(p.packs)+len(p.large) != 0 {
		t.Errorf("plan from a tree to itself: %+v", p)
	}
}

// Packs have the size that both ends agree on, and what is too large is in none.
func TestPlanCutsPacks(t *testing.T) {
	var b tree.Builder
	for i, size := range []int64{packBytes / 2, packBytes / 2, 1, maxItem, maxItem + 1, packBytes - 1, 0, 1, 1} {
		if err := b.Add(string(rune('a'+i)), tree.Entry{Type: tree.File, Digest: images.Digest{byte(i + 1)}, Size: size}); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	p := makePlan(tr, nil)
	for _, pack := range p.packs {
		var ids []byte
		for _, it := range pack {
			ids = append(ids, it.Digest[0])
		}
		got = append(got, ids)
	}
	if d := cmp.Diff([][]byte{{1, 2}, {3}, {4}, {6, 7, 8}, {9}}, got); d != "" || len(p.large) != 1 {
		t.Errorf("packs (-want +got), %d large:\n%s", len(p.large), d)
	}
}

// gzipped packs as Debian's packages do.
func gzipped(t testing.TB, s string) string {
	cmd := exec.Command("gzip", "-n9")
	cmd.Stdin = strings.NewReader(s)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestPackRoundTrip(t *testing.T) {
	c := contents{}
	base := strings.Repeat("the old content of a file, ", 100)
	doc := gzipped(t, numbers(400))
	items := []item{
		{Blob: c.add(gzipped(t, "more at the front "+numbers(400))), base: c.add(doc)}, {Blob: c.add(gzipped(t, numbers(300)))},
		{Blob: c.add(gzipped(t, "and "+numbers(400))), base: c.add("no gzip file, but a base" + numbers(400))},
		{Blob: c.add("one")}, {Blob: c.add(""), base: images.Blob{}}, {Blob: c.add(base + "and more"), base: c.add(base)}, {Blob: c.add("two")}}
	for _, e := range []effort{quick, thorough} {
		pack, err := encodePack(items, c.read, e)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = decodePack(pack, items, c.read, func(item) bool { return true }, func(it item, data []byte) error {
			n++
			if !bytes.Equal(data, c[it.Digest]) {
				t.Errorf("item %d came out as %q", n, data)
			}
			return nil
		})
		if err != nil || n != len(items) {
			t.Errorf("decodePack = %v, %d of %d items", err, n, len(items))
		}
		for cut := 0; cut < len(pack); cut += 7 {
			err := decodePack(pack[:cut], items, c.read, func(item) bool { return true }, func(item, []byte) error { return nil })
			if !errors.Is(err, errPack) {
				t.Errorf("decodePack of the first %d of %d bytes = %v, want errPack", cut, len(pack), err)
			}
		}
	}
}

// numbers is text that compresses, and has no great repetitions.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i*i*7919%1000003)
	}
	return b.String()
}

// What differs inside of a gzip file costs little in a pack.
func TestPackLooksIntoGzip(t *testing.T) {
	c := contents{}
	old, new := gzipped(t, numbers(20_000)), gzipped(t, "more at the front "+numbers(20_000))
	pack, err := encodePack([]item{{Blob: c.add(new), base: c.add(old)}}, c.read, thorough)
	if err != nil || len(pack) > len(new)/50 {
		t.Errorf("a change in a gzip file of %d bytes makes a pack of %d, %v", len(new), len(pack), err)
	}
}

func FuzzApplyDelta(f *testing.F) {
	old, new := gzipped(f, numbers(9000)), gzipped(f, "x"+numbers(9000))
	dir := f.TempDir()
	for name, s := range map[string]string{"old": old, "new": new} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	c := contents{}
	h := Handler{Source: fileSource{c.add(old).Digest: filepath.Join(dir, "old"), c.add(new).Digest: filepath.Join(dir, "new")}}
	delta, err := h.delta(f.Context(), c.add(new).Digest, c.add(old).Digest)
	if err != nil {
		f.Fatal(err)
	}
	var was, is bytes.Buffer
	if err := repack.Plain(strings.NewReader(old), int64(len(old)), &was); err != nil {
		f.Fatal(err)
	}
	if err := applyDelta(delta, bytes.NewReader(was.Bytes()), &is); err != nil || is.String() != new {
		f.Fatalf("the delta leads elsewhere: %v", err)
	}
	f.Add(delta)
	f.Fuzz(func(t *testing.T, delta []byte) {
		applyDelta(delta, bytes.NewReader(was.Bytes()), &limitedWriter{io.Discard, 1 << 20})
	})
}

// fileSource serves files, and nothing else.
type fileSource map[images.Digest]string

func (s fileSource) OpenBlob(d images.Digest) (*os.File, error)    { return os.Open(s[d]) }
func (fileSource) Signed(images.Ref) (text, sig []byte, err error) { return nil, nil, fs.ErrNotExist }
func (fileSource) Tree(context.Context, images.Digest) (*tree.Tree, error) {
	return nil, fs.ErrNotExist
}

func FuzzDecodePack(f *testing.F) {
	c := contents{}
	base := strings.Repeat("the old content of a file, ", 30)
	items := []item{{Blob: c.add("one")}, {Blob: c.add(base + "and more"), base: c.add(base)}, {Blob: c.add("two")},
		{Blob: c.add(gzipped(f, "x"+numbers(300))), base: c.add(gzipped(f, numbers(300)))}, {Blob: c.add(gzipped(f, numbers(200)))}}
	pack, err := encodePack(items, c.read, thorough)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pack)
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		decodePack(data, items, c.read, func(item) bool { return true }, func(it item, data []byte) error {
			n++
			if int64(len(data)) != it.Size {
				t.Fatalf("an item of %d bytes came out with %d", it.Size, len(data))
			}
			return nil
		})
		if n > len(items) {
			t.Fatalf("%d items came out of %d", n, len(items))
		}
	})
}

func FuzzDecodeChunks(f *testing.F) {
	text, err := encodeChunks(f.Context(), bytes.NewReader(make([]byte, 600_000)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, int64(600_000))
	f.Fuzz(func(t *testing.T, text []byte, size int64) {
		list, err := decodeChunks(text, size)
		if err != nil {
			return
		}
		off := int64(0)
		for _, c := range list {
			if c.Offset != off || c.Size <= 0 {
				t.Fatalf("chunk %+v after %d", c, off)
			}
			off += int64(c.Size)
		}
		if off != size {
			t.Fatalf("chunks end at %d of %d", off, size)
		}
	})
}

func FuzzParseRange(f *testing.F) {
	f.Add("0-10")
	f.Fuzz(func(t *testing.T, s string) {
		from, to, err := parseRange(s)
		if err == nil && (formatRange(from, to) != s || from < 0 || to < from || to-from > rangeBytes) {
			t.Fatalf("parseRange(%q) = %d, %d", s, from, to)
		}
	})
}

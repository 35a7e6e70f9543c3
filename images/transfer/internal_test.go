// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/images"
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

func TestPackRoundTrip(t *testing.T) {
	c := contents{}
	base := strings.Repeat("the old content of a file, ", 100)
	items := []item{{Blob: c.add("one")}, {Blob: c.add(""), base: images.Blob{}}, {Blob: c.add(base + "and more"), base: c.add(base)}, {Blob: c.add("two")}}
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
		for cut := range pack {
			err := decodePack(pack[:cut], items, c.read, func(item) bool { return true }, func(item, []byte) error { return nil })
			if !errors.Is(err, errPack) {
				t.Errorf("decodePack of the first %d of %d bytes = %v, want errPack", cut, len(pack), err)
			}
		}
	}
}

func FuzzDecodePack(f *testing.F) {
	c := contents{}
	base := strings.Repeat("the old content of a file, ", 30)
	items := []item{{Blob: c.add("one")}, {Blob: c.add(base + "and more"), base: c.add(base)}, {Blob: c.add("two")}}
	pack, err := encodePack(items, c.read, quick)
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

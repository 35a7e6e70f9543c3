// SPDX-License-Identifier: GPL-2.0-or-later

package chunk_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"slate/images/chunk"
)

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func all(t testing.TB, p chunk.Params, r io.Reader) (list []chunk.Chunk) {
	t.Helper()
	for c, err := range p.All(r) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// Both ends of a transfer must cut alike, in every version of slate.
func TestCutsNeverChange(t *testing.T) {
	var sizes []int
	for _, c := range all(t, chunk.Default, bytes.NewReader(random(1, 1<<20))) {
		sizes = append(sizes, c.Size)
	}
	want := []int{79418, 19899, 75979, 71084, 71384, 90741, 69771, 72163, 76789, 72385, 93398, 84585, 71246, 91191, 8543}
	if !slices.Equal(sizes, want) {
		t.Errorf("sizes of chunks = %#v, want %#v", sizes, want)
	}
}

func TestChunksCoverTheStream(t *testing.T) {
	p := chunk.Default
	for _, n := range []int{0, 1, p.Min - 1, p.Min, p.Min + 1, p.Max, p.Max + 1, 5*p.Max + 17, 3 << 20} {
		data := random(2, n)
		list := all(t, p, iotest.OneByteReader(bytes.NewReader(data[:min(n, 300_000)])))
		whole := all(t, p, bytes.NewReader(data))
		if n <= 300_000 && !slices.Equal(list, whole) {
			t.Errorf("%d bytes: cuts depend on how the stream is read", n)
		}
		off := int64(0)
		for i, c := range whole {
			if c.Offset != off || c.Size > p.Max || c.Size <= 0 || c.Size < p.Min && i < len(whole)-1 {
				t.Errorf("%d bytes: chunk %d is %+v after offset %d", n, i, c, off)
			}
			if c.Digest != sha256.Sum256(data[c.Offset:c.Offset+int64(c.Size)]) {
				t.Errorf("%d bytes: chunk %d has a wrong digest", n, i)
			}
			off += int64(c.Size)
		}
		if off != int64(n) {
			t.Errorf("%d bytes: chunks end at %d", n, off)
		}
	}
}

func TestSmallChangesChangeFewChunks(t *testing.T) {
	data := random(3, 16<<20)
	have := map[[32]byte]bool{}
	before := all(t, chunk.Default, bytes.NewReader(data))
	for _, c := range before {
		have[c.Digest] = true
	}
	edited := slices.Concat(data[:1<<20], []byte("inserted"), data[1<<20:7<<20], data[7<<20+1000:])
	fresh := 0
	for _, c := range all(t, chunk.Default, bytes.NewReader(edited)) {
		if !have[c.Digest] {
			fresh++
		}
	}
	if fresh == 0 || fresh > 8 {
		t.Errorf("%d of %d chunks changed after one insertion and one deletion, want a few", fresh, len(before))
	}
	if avg := len(data) / len(before); avg < 48<<10 || avg > 96<<10 {
		t.Errorf("chunks have %d bytes on average, want about %d", avg, chunk.Default.Avg)
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	var got error
	for _, err := range chunk.Default.All(io.MultiReader(bytes.NewReader(random(4, 1<<20)), iotest.ErrReader(broken))) {
		got = err
	}
	if !errors.Is(got, broken) {
		t.Errorf("All of a broken reader ends with %v", got)
	}
	for _, p := range []chunk.Params{{}, {10, 100, 1000}, {64, 64, 128}, {1, 2, 4}} {
		for _, err := range p.All(bytes.NewReader(nil)) {
			got = err
		}
		if got == nil {
			t.Errorf("All with %+v: no error", p)
		}
		got = nil
	}
}

func FuzzCut(f *testing.F) {
	f.Add([]byte("hello"))
	f.Add(random(5, 100_000))
	p := chunk.Params{Min: 64, Avg: 256, Max: 1024}
	f.Fuzz(func(t *testing.T, data []byte) {
		var back []byte
		for c, err := range p.All(bytes.NewReader(data)) {
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, data[c.Offset:c.Offset+int64(c.Size)]...)
		}
		if !bytes.Equal(back, data) {
			t.Fatal("the chunks do not make up the data")
		}
	})
}

func BenchmarkAll(b *testing.B) {
	data := random(6, 64<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		all(b, chunk.Default, bytes.NewReader(data))
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package chunk cuts data at places that its content decides, so that a small
// change in a large file changes few of its chunks wherever it is. The cuts
// are those of FastCDC (Xia et al., 2016 and 2020) with normalized chunking:
// both ends of a transfer must find the same ones, so they never change; the
// test pins them.
package chunk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
)

// Params bound the sizes of chunks. Avg must be a power of two.
type Params struct{ Min, Avg, Max int }

// Default suits files of many megabytes, of which a few places change.
var Default = Params{Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10}

// normalization is by how many bits cutting gets harder before the average
// size and easier after it, which keeps sizes close to the average.
const normalization = 2

// gear gives each byte a fixed random number, by the generator SplitMix64.
var gear = func() (g [256]uint64) {
	x := uint64(0x534c415445) // "SLATE"
	for i := range g {
		x += 0x9e3779b97f4a7c15
		z := x
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		g[i] = z ^ z>>31
	}
	return g
}()

// mask returns n bits that depend on as many of the last bytes as possible: the
// highest.
func mask(n int) uint64 { return (1<<n - 1) << (64 - n) }

// Cut returns the length of the first chunk of data. Unless data is the end of
// the stream, it must have at least p.Max bytes.
func (p Params) Cut(data []byte) int {
	n := min(len(data), p.Max)
	if n <= p.Min {
		return n
	}
	level := bits.TrailingZeros(uint(p.Avg))
	hard, easy := mask(level+normalization), mask(level-normalization)
	var h uint64
	i := p.Min
	for ; i < min(p.Avg, n); i++ {
		h = h<<1 + gear[data[i]]
		if h&hard == 0 {
			return i + 1
		}
	}
	for ; i < n; i++ {
		h = h<<1 + gear[data[i]]
		if h&easy == 0 {
			return i + 1
		}
	}
	return n
}

// A Chunk is a piece of a stream.
type Chunk struct {
	Offset int64
	Size   int
	Digest [sha256.Size]byte
}

// All iterates over the chunks of r. It holds no more than a few chunks in
// memory. An error ends it.
func (p Params) All(r io.Reader) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		if p.Min < 1 || p.Min >= p.Avg || p.Avg >= p.Max || bits.OnesCount(uint(p.Avg)) != 1 || bits.TrailingZeros(uint(p.Avg)) <= normalization {
			yield(Chunk{}, fmt.Errorf("chunk sizes %+v make no sense", p))
			return
		}
		buf := make([]byte, 4*p.Max)
		have, ended, off := 0, false, int64(0)
		for {
			for !ended && have < len(buf) {
				n, err := r.Read(buf[have:])
				have += n
				if errors.Is(err, io.EOF) {
					ended = true
				} else if err != nil {
					yield(Chunk{}, err)
					return
				}
			}
			used := 0
			for have-used >= p.Max || ended && used < have {
				n := p.Cut(buf[used:have])
				if !yield(Chunk{Offset: off, Size: n, Digest: sha256.Sum256(buf[used : used+n])}, nil) {
					return
				}
				used += n
				off += int64(n)
			}
			have = copy(buf, buf[used:have])
			if ended && have == 0 {
				return
			}
		}
	}
}

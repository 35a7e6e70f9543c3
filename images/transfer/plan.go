// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"strings"

	"slate/images"
	"slate/images/tree"
)

// Sizes of a plan. Both ends must agree on them: they are part of what "v1" in
// the addresses means.
const (
	packBytes = 8 << 20  // of contents in a pack, unless one alone is larger
	maxItem   = 16 << 20 // larger contents are fetched by chunks
	minDelta  = 512      // smaller contents are not worth a base
)

// A plan says how to get from one tree to another.
type plan struct {
	packs [][]item
	large []item
}

// An item is one content that the new tree has and the old one has not.
type item struct {
	images.Blob
	base images.Blob // content of a file like it in the old tree; Digest zero: none
}

func (it item) hasBase() bool { return !it.base.Digest.IsZero() }

// makePlan finds what is new in the order of the new tree. Old may be nil.
func makePlan(new, old *tree.Tree) *plan {
	p := &plan{}
	seen := map[images.Digest]bool{}
	var bases *baseFinder
	if old != nil {
		for b := range old.Blobs() {
			seen[b.Digest] = true
		}
		bases = newBaseFinder(new, old)
	}
	var pack []item
	size := int64(0)
	for i := range uint32(new.Len()) {
		if new.Type(i) != tree.File {
			continue
		}
		it := item{Blob: new.Blob(i)}
		if seen[it.Digest] {
			continue
		}
		seen[it.Digest] = true
		if bases != nil && it.Size >= minDelta {
			it.base = bases.find(new.Path(i))
		}
		if it.Size > maxItem {
			p.large = append(p.large, it)
			continue
		}
		if it.base.Size > maxItem {
			it.base = images.Blob{}
		}
		if len(pack) > 0 && size+it.Size > packBytes {
			p.packs = append(p.packs, pack)
			pack, size = nil, 0
		}
		pack = append(pack, it)
		size += it.Size
	}
	if len(pack) > 0 {
		p.packs = append(p.packs, pack)
	}
	return p
}

// A baseFinder finds the file of the old tree from which a new one most likely
// came: the one at the same path, else one whose path differs in digits only
// and is gone, as with libraries and kernel modules of another version.
type baseFinder struct {
	old  *tree.Tree
	gone map[string][]uint32 // by path without its digits, in the order of the tree
}

func newBaseFinder(new, old *tree.Tree) *baseFinder {
	f := &baseFinder{old: old, gone: map[string][]uint32{}}
	for i := range uint32(old.Len()) {
		if old.Type(i) != tree.File || old.Blob(i).Size < minDelta {
			continue
		}
		path := old.Path(i)
		if !strings.ContainsAny(path, "0123456789") {
			continue
		}
		if j, ok := new.Find(path); ok && new.Type(j) == tree.File {
			continue
		}
		key := withoutDigits(path)
		f.gone[key] = append(f.gone[key], i)
	}
	return f
}

// find takes a base out, so that the next file like it gets the next.
func (f *baseFinder) find(path string) images.Blob {
	if i, ok := f.old.Find(path); ok && f.old.Type(i) == tree.File {
		if b := f.old.Blob(i); b.Size >= minDelta {
			return b
		}
		return images.Blob{}
	}
	key := withoutDigits(path)
	list := f.gone[key]
	if len(list) == 0 {
		return images.Blob{}
	}
	f.gone[key] = list[1:]
	return f.old.Blob(list[0])
}

// withoutDigits writes every run of digits as one 0.
func withoutDigits(path string) string {
	b := make([]byte, 0, len(path))
	for i := range len(path) {
		c := path[i]
		if c < '0' || c > '9' {
			b = append(b, c)
		} else if len(b) == 0 || b[len(b)-1] != '0' {
			b = append(b, '0')
		}
	}
	return string(b)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"encoding/binary"
	"math"

	"slate/images"
	"slate/images/tree"
)

// A file handle is the first 16 bytes of the tree digest and the number of the
// entry in the tree list, so that it means the same on every server that has
// the version, now and after any restart.
const (
	prefixLen = 16
	handleLen = prefixLen + 4
)

type prefix [prefixLen]byte

func appendHandle(b []byte, p *prefix, entry uint32) []byte {
	b = append(b, 0, 0, 0, handleLen)
	b = append(b, p[:]...)
	return binary.BigEndian.AppendUint32(b, entry)
}

// attrLen is the length of fattr3 on the wire; the other constants are where
// its fields are.
const (
	attrLen  = 84
	attrType = 0
	attrMode = 4
	attrUID  = 12
	attrGID  = 16
	attrSize = 20
	attrFile = 52
)

// view is a tree made ready to be served: the attributes as they go over the
// wire. The rest is asked of the tree, whose answers cost as little.
type view struct {
	tree   *tree.Tree
	digest images.Digest
	prefix prefix
	verf   uint64 // cookie verifier, the same wherever the version is served
	attrs  []byte // attrLen bytes for each entry
}

func newView(d images.Digest, t *tree.Tree) *view {
	v := &view{tree: t, digest: d, prefix: prefix(d[:prefixLen]), verf: binary.BigEndian.Uint64(d[8:])}
	n := uint32(t.Len())
	v.attrs = make([]byte, 0, int(n)*attrLen)
	fsid := binary.BigEndian.Uint64(d[:8])
	for i := range n {
		if c := t.Canonical(i); c < i {
			v.attrs = append(v.attrs, v.attr(c)...)
			continue
		}
		e := t.Entry(i)
		v.attrs = appendAttr(v.attrs, &e, fsid, i)
	}
	return v
}

// blockSize is what space is counted in, and the size of every directory.
const blockSize = 4096

func appendAttr(b []byte, e *tree.Entry, fsid uint64, entry uint32) []byte {
	var kind, major, minor uint32
	size := uint64(e.Size)
	switch e.Type {
	case tree.File:
		kind = typeReg
	case tree.Dir:
		kind, size = typeDir, blockSize
	case tree.Symlink:
		kind = typeLnk
	case tree.Block:
		kind, major, minor = typeBlk, e.Major, e.Minor
	case tree.Char:
		kind, major, minor = typeChr, e.Major, e.Minor
	case tree.Fifo:
		kind = typeFifo
	case tree.Socket:
		kind = typeSock
	}
	used := (size + blockSize - 1) / blockSize * blockSize
	sec, nsec := splitTime(e.MtimeNs)
	for _, x := range [...]uint32{kind, e.Mode & 07777, e.Nlink, e.UID, e.GID} {
		b = binary.BigEndian.AppendUint32(b, x)
	}
	b = binary.BigEndian.AppendUint64(b, size)
	b = binary.BigEndian.AppendUint64(b, used)
	b = binary.BigEndian.AppendUint32(b, major)
	b = binary.BigEndian.AppendUint32(b, minor)
	b = binary.BigEndian.AppendUint64(b, fsid)
	b = binary.BigEndian.AppendUint64(b, uint64(entry)+1) // 0 is no inode number
	for range 3 {
		b = binary.BigEndian.AppendUint32(b, sec)
		b = binary.BigEndian.AppendUint32(b, nsec)
	}
	return b
}

// splitTime turns a time into nfstime3, which knows no year before 1970 and
// none after 2106: those become the nearest it knows.
func splitTime(ns int64) (sec, nsec uint32) {
	switch s := ns / 1e9; {
	case ns < 0:
		return 0, 0
	case s > math.MaxUint32:
		return math.MaxUint32, 0
	default:
		return uint32(s), uint32(ns % 1e9)
	}
}

func (v *view) len() uint32 { return uint32(v.tree.Len()) }

// attr is the fattr3 of an entry.
func (v *view) attr(i uint32) []byte { return v.attrs[int(i)*attrLen:][:attrLen:attrLen] }

func (v *view) attr32(i uint32, field int) uint32 {
	return binary.BigEndian.Uint32(v.attrs[int(i)*attrLen+field:])
}

func (v *view) attr64(i uint32, field int) uint64 {
	return binary.BigEndian.Uint64(v.attrs[int(i)*attrLen+field:])
}

func (v *view) kind(i uint32) uint32 { return v.attr32(i, attrType) }

func (v *view) size(i uint32) uint64 { return v.attr64(i, attrSize) }

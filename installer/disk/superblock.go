// SPDX-License-Identifier: GPL-2.0-or-later

package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// The superblock of btrfs: struct btrfs_super_block of the kernel's
// include/uapi/linux/btrfs_tree.h, of which there are copies at fixed places.
const (
	superSize     = 4096
	superAt       = 64 << 10
	superSums     = 0x20 // where what the checksum covers begins, with the file system's UUID
	superOffset   = 0x30 // where the superblock says that it lies
	superMagic    = 0x40
	superVersion  = 0x48 // generation
	superSumType  = 0xc4
	superSumCRC32 = 0 // what mkfs.btrfs chooses
)

var superCopies = []int64{64 << 20, 256 << 30}

var errNoCopy = errors.New("its first superblock is damaged, and so are the copies")

// MendSuperblock writes the first superblock of a btrfs file system anew from its newest
// copy, if the first one is damaged and a copy is not: the kernel mounts by the first only.
// It has 4 KB, and a drive writes 512 bytes at a time, so a power cut can leave half of it
// (btrfs-rescue(8), super-recover). Each half says of which file system it is; anything else
// is left alone.
func MendSuperblock(device string) (mended bool, err error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	first, err := readSuper(f, superAt)
	if err != nil || !first.known() || first.whole(superAt) {
		return false, err
	}
	var newest super
	for _, at := range superCopies {
		s, err := readSuper(f, at)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, err
		}
		if s.whole(at) && bytes.Equal(s[superSums:superOffset], first[superSums:superOffset]) && (newest == nil || s.number(superVersion) > newest.number(superVersion)) {
			newest = s
		}
	}
	if newest == nil {
		return false, errNoCopy
	}
	newest.set(superOffset, superAt)
	binary.LittleEndian.PutUint32(newest, newest.sum())
	if _, err := f.WriteAt(newest, superAt); err != nil {
		return false, fmt.Errorf("write the superblock: %w", err)
	}
	return true, f.Sync()
}

// super is a superblock as it lies on the drive.
type super []byte

func readSuper(f io.ReaderAt, at int64) (super, error) {
	s := make(super, superSize)
	if _, err := f.ReadAt(s, at); err != nil {
		return nil, fmt.Errorf("read the superblock at %d: %w", at, err)
	}
	return s, nil
}

func (s super) number(at int) uint64      { return binary.LittleEndian.Uint64(s[at:]) }
func (s super) set(at int, number uint64) { binary.LittleEndian.PutUint64(s[at:], number) }
func (s super) known() bool               { return bytes.Equal(s[superMagic:superMagic+8], []byte("_BHRfS_M")) }

func (s super) sum() uint32 {
	return crc32.Checksum(s[superSums:], crc32.MakeTable(crc32.Castagnoli))
}

// whole tells whether it is the superblock of this place. One with a checksum of
// another kind is taken for whole: it is not ours.
func (s super) whole(at int64) bool {
	if !s.known() || s.number(superOffset) != uint64(at) {
		return false
	}
	return binary.LittleEndian.Uint16(s[superSumType:]) != superSumCRC32 || binary.LittleEndian.Uint32(s) == s.sum()
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// nowait says how to read from a file only what is in memory already.
type nowait uint8

const (
	nowaitNever  nowait = iota // cannot be told: a read may wait for the disk
	nowaitFlag                 // by RWF_NOWAIT
	nowaitAlways               // the filesystem lives in memory
)

// probeNowait finds out which of them holds for a file. Not every filesystem
// knows RWF_NOWAIT; those in memory, which never make anybody wait, are among
// the ones that did not know it for long.
func probeNowait(f *os.File) nowait {
	var one [1]byte
	_, err := unix.Preadv2(int(f.Fd()), [][]byte{one[:]}, 0, unix.RWF_NOWAIT)
	if err == nil || err == unix.EAGAIN {
		return nowaitFlag
	}
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC) {
		return nowaitAlways
	}
	return nowaitNever
}

// readCached fills p from offset off and reports whether it could without
// waiting for the disk.
func (b *blob) readCached(p []byte, off int64) bool {
	var n int
	var err error
	switch b.nowait {
	case nowaitFlag:
		n, err = preadNowait(b.fd, p, off)
	case nowaitAlways:
		n, err = unix.Pread(b.fd, p, off)
	}
	return err == nil && n == len(p)
}

// read fills p from offset off, waiting if it must.
func (b *blob) read(p []byte, off int64) error {
	n, err := b.file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// stride is how far apart pages are looked at to judge a range where the
// kernel has no cachestat: it reads ahead, and drops, in pieces of about this size.
const stride = 128 << 10

// inMemory reports whether a range of at least one byte is in memory, as far
// as can be told without waiting. Being wrong costs time only.
func (b *blob) inMemory(off int64, n int) bool {
	switch b.nowait {
	case nowaitAlways:
		return true
	case nowaitNever:
		return false
	}
	end := off + int64(n) - 1
	if pages, err := cachedPages(b.fd, off, n); err == nil {
		// The last page may still be on its way: pages count from the
		// moment they are asked for.
		return pages == end/pageSize-off/pageSize+1 && b.pageInMemory(end)
	}
	for at := off; at < end; at += stride {
		if !b.pageInMemory(at) {
			return false
		}
	}
	return b.pageInMemory(end)
}

// pageInMemory is inMemory for the page of one byte.
func (b *blob) pageInMemory(off int64) bool {
	var one [1]byte
	n, err := preadNowait(b.fd, one[:], off)
	return n == 1 && err == nil
}

// fetch waits until a range is in memory, without copying it. It touches every page: the
// kernel does not read ahead for a cgroup whose disk is congested.
func (b *blob) fetch(off int64, n int) error {
	_ = unix.Fadvise(b.fd, off, int64(n), unix.FADV_WILLNEED) // a hint: the reads below decide
	var one [1]byte
	end := off + int64(n) - 1
	for at := off; at < end; at += pageSize {
		if err := b.read(one[:], at); err != nil {
			return err
		}
	}
	return b.read(one[:], end)
}

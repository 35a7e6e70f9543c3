// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the hot path. They never wait, so the scheduler needs no word
// of them, and they take one slice, which saves building lists.

func preadNowait(fd int, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	iov := unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), 0, unix.RWF_NOWAIT)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

var pageSize = int64(os.Getpagesize())

// cachedPages is how many pages of a range are in the page cache, by
// cachestat(2), which Linux has from 6.5 on, for files of our own.
func cachedPages(fd int, off int64, n int) (int64, error) {
	in := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}
	var out unix.Cachestat_t
	_, _, errno := unix.RawSyscall6(unix.SYS_CACHESTAT, uintptr(fd), uintptr(unsafe.Pointer(&in)),
		uintptr(unsafe.Pointer(&out)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int64(out.Cache), nil
}

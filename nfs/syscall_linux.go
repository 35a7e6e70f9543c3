// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
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

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// send writes as much as the socket takes without waiting. Blocked says that
// it has to go on when there is room; otherwise all is sent or broken.
func (o *output) send(fd int) (blocked bool, err error) {
	for {
		end, flags := len(o.buf), unix.MSG_NOSIGNAL
		if o.part < len(o.files) {
			// The header waits in the socket for the data, so that both
			// travel in one segment.
			end, flags = o.files[o.part].at, unix.MSG_NOSIGNAL|unix.MSG_MORE
		}
		if o.pos < end {
			n, errno := sendNowait(fd, o.buf[o.pos:end], flags)
			switch errno {
			case 0:
				o.pos += n
			case unix.EAGAIN:
				return true, nil
			case unix.EINTR:
			default:
				return false, errno
			}
			continue
		}
		if o.part == len(o.files) {
			return false, nil
		}
		f := &o.files[o.part]
		off := f.off
		n, err := unix.Sendfile(fd, f.blob.fd, &off, f.n)
		switch {
		case err == unix.EAGAIN:
			return true, nil
		case err == unix.EINTR:
		case err != nil:
			return false, err
		case n == 0:
			// The blob is shorter than when it was opened. The length is
			// on the wire already: only the connection can be given up.
			return false, io.ErrUnexpectedEOF
		default:
			f.off += int64(n)
			if f.n -= n; f.n == 0 {
				f.blob.release()
				f.blob = nil
				o.part++
			}
		}
	}
}

func sendNowait(fd int, p []byte, flags int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), uintptr(flags), 0, 0)
	return int(n), errno
}

// receiveNowait reads what has arrived; 0 bytes without an error are the end.
func receiveNowait(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

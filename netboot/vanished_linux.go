// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// vanished is for how long a machine may leave unacknowledged what it was sent by
// HTTP. By default the kernel tries for a quarter of an hour, in which the timeline
// would not say that the download of a machine's kernel broke off.
const vanished = time.Minute

// httpListener makes listeners whose connections end when the other side is gone.
var httpListener = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	var serr error
	err := c.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(vanished.Milliseconds()))
	})
	return errors.Join(err, serr)
}}

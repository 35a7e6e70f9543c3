// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadAfter is how long a server that has lost its power, or its network, is
// taken for one that is just slow.
const deadAfter = 15 * time.Second

// dialer makes connections that notice: by probes while they wait for an answer,
// and by TCP_USER_TIMEOUT while what they have sent is not acknowledged (tcp(7)).
func dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadAfter / 3, Interval: deadAfter / 3, Count: 2},
		Control: func(_, _ string, c syscall.RawConn) error {
			var serr error
			err := c.Control(func(fd uintptr) {
				serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
			})
			if err != nil {
				return err
			}
			return serr
		},
	}
}

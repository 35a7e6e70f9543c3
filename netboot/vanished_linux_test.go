// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Connections inherit from their listener that they end with a machine that is gone.
func TestVanishedMachinesAreForgotten(t *testing.T) {
	l, err := httpListener.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if cerr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	if time.Duration(got)*time.Millisecond != vanished {
		t.Errorf("TCP_USER_TIMEOUT of a connection = %d ms, want %v", got, vanished)
	}
}

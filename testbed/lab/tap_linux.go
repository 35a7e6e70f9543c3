// SPDX-License-Identifier: GPL-2.0-or-later

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"slate/testbed/netns"
)

const tunDevice = "/dev/net/tun"

// checkTun finds out early, and in plain words, whether machines can be plugged
// into a network.
func checkTun() error {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		return unix.Close(fd)
	}
	advice := "load the kernel's driver: modprobe tun"
	if errors.Is(err, fs.ErrPermission) {
		advice = fmt.Sprintf("run as root, or let users open the device, as most distributions do: chmod 666 %s", tunDevice)
	}
	return &Error{fmt.Errorf("lab: virtual network cards: open %s: %w", tunDevice, err), advice}
}

// openTap makes a tap interface in ns, up. It vanishes when the file is closed by
// all who have it. With offload, frames carry a header that lets big ones and
// those without checksum pass, which is what QEMU likes best.
func openTap(ns *netns.NS, name string, offload bool) (*os.File, error) {
	var f *os.File
	// A tap belongs to the namespace of the thread that opens the device.
	err := ns.Do(func() error {
		fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
			if offload {
				flags |= unix.IFF_VNET_HDR
			}
			req.SetUint16(flags)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err == nil {
		err = ns.Up(name)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, fmt.Errorf("tap %s: %w", name, err)
	}
	return f, nil
}

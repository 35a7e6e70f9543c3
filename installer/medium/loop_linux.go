// SPDX-License-Identifier: GPL-2.0-or-later

package medium

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Loop makes a read-only block device of a file (loop(4)). The kernel keeps the
// file; the device goes away with its last mount.
func Loop(file string) (device string, err error) {
	back, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer back.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("loop devices: %w", err)
	}
	defer ctl.Close()
	for range 8 { // another may take the one that was free
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("loop devices: %w", err)
		}
		device = fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(device, os.O_RDONLY, 0)
		if err != nil {
			return "", err
		}
		c := unix.LoopConfig{Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &c)
		if err == nil {
			// It must stay open until it is mounted, or it would be cleared at once.
			return device, keepOpen(dev)
		}
		dev.Close()
		if err != unix.EBUSY {
			return "", fmt.Errorf("loop device of %s: %w", file, err)
		}
	}
	return "", fmt.Errorf("loop device of %s: none is free", file)
}

// keepOpen leaves a descriptor to this process, without a finalizer that closes it.
func keepOpen(f *os.File) error {
	_, err := unix.Dup(int(f.Fd()))
	f.Close()
	return err
}

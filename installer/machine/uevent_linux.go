// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Uevent is the kernel's news about a device.
type Uevent struct {
	Action, Path, Subsystem, Modalias string
}

// ParseUevent reads one message of the kernel's uevent socket: a header
// "action@path", then KEY=value, all ended by zero bytes.
func ParseUevent(b []byte) (Uevent, bool) {
	var u Uevent
	parts := strings.Split(string(b), "\x00")
	action, path, ok := strings.Cut(parts[0], "@")
	if !ok || !strings.HasPrefix(path, "/") {
		return u, false // udevd's own messages start with "libudev"
	}
	u.Action, u.Path = action, path
	for _, p := range parts[1:] {
		switch k, v, _ := strings.Cut(p, "="); k {
		case "SUBSYSTEM":
			u.Subsystem = v
		case "MODALIAS":
			u.Modalias = v
		}
	}
	return u, true
}

// Watch delivers the kernel's uevents until ctx ends; then it closes the channel.
func Watch(ctx context.Context) (<-chan Uevent, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	// A machine with many devices sends thousands of messages while we load modules.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	f := os.NewFile(uintptr(fd), "uevents")
	stop := context.AfterFunc(ctx, func() { f.Close() })
	ch := make(chan Uevent, 256)
	go func() {
		defer close(ch)
		defer stop()
		defer f.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if err != nil && !strings.Contains(err.Error(), unix.ENOBUFS.Error()) {
				return
			}
			u, ok := ParseUevent(buf[:max(n, 0)])
			if !ok {
				continue
			}
			select {
			case ch <- u:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// Settle loads drivers until neither a new look at the devices nor the kernel's
// news bring anything more: a bus driver such as virtio_pci creates devices that
// want drivers of their own. It gives up the wait, not the boot, when ctx ends.
func (l *Loader) Settle(ctx context.Context, news <-chan Uevent, quiet time.Duration) (total int, err error) {
	var last error
	for {
		n, err := l.Coldplug(ctx)
		total += n
		if err != nil {
			last = err
		}
		more := n > 0
		timer := time.NewTimer(quiet)
	wait:
		for {
			select {
			case u, ok := <-news:
				if !ok {
					news = nil
				} else if u.Action == "add" && u.Modalias != "" {
					more = true
				}
				timer.Reset(quiet)
			case <-timer.C:
				break wait
			case <-ctx.Done():
				timer.Stop()
				return total, ctx.Err()
			}
		}
		if !more {
			return total, last
		}
	}
}

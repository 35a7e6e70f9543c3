// SPDX-License-Identifier: GPL-2.0-or-later

// Package netns gives tests networks of their own: it runs a test binary in
// fresh namespaces (Main), and makes further network namespaces with veth pairs
// and bridges between them, to run programs and open sockets in.
//
// It knows namespaces, links and addresses, nothing of what travels over them.
// See namespaces(7), network_namespaces(7), veth(4).
package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace. It lives as long as it is open here or a process
// or socket is in it; nothing of it is left in the file system.
type NS struct {
	file   *os.File
	handle *netlink.Handle
}

// New makes an empty network namespace with lo up.
func New() (*NS, error) {
	var ns *NS
	err := onThread(func(home int) error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		defer mustReturn(home)
		var err error
		ns, err = open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := ns.Up("lo"); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// Current returns the namespace the process is in.
func Current() (*NS, error) { return open("/proc/self/ns/net") }

// OfProcess returns the namespace that process pid is in.
func OfProcess(pid int) (*NS, error) { return open(fmt.Sprintf("/proc/%d/ns/net", pid)) }

func open(path string) (*NS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandleAt(vnetns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("netlink in %s: %w", path, err)
	}
	return &NS{file: f, handle: h}, nil
}

// Close lets go of the namespace.
func (n *NS) Close() error {
	n.handle.Close()
	return n.file.Close()
}

// Fd is a descriptor of the namespace, for setns(2) and /proc/…/fd paths.
func (n *NS) Fd() int { return int(n.file.Fd()) }

// Do calls f on a thread that is in the namespace. Sockets opened by f belong to
// the namespace for ever; goroutines that f starts are not in it.
func (n *NS) Do(f func() error) error {
	return onThread(func(home int) error {
		if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		defer mustReturn(home)
		return f()
	})
}

// Start starts cmd in the namespace; Wait for it as usual. A Pdeathsig in
// cmd.SysProcAttr means the death of this process: the forking thread is kept
// until the program ends.
func (n *NS) Start(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		// The caller's Start has its own error channel, so this one is for
		// what happens before it.
		err := n.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				WaitNoReap(cmd.Process.Pid)
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	return <-started
}

// WaitNoReap blocks until child process pid has ended, leaving its status to be
// collected by another call.
func WaitNoReap(pid int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// Listen is net.Listen in the namespace.
func (n *NS) Listen(network, address string) (ln net.Listener, err error) {
	err = n.Do(func() error {
		ln, err = net.Listen(network, address)
		return err
	})
	return ln, err
}

// ListenPacket is net.ListenPacket in the namespace.
func (n *NS) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = n.Do(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// DialContext connects from the namespace; it fits http.Transport. The address
// must be numeric: resolvers run on other threads.
func (n *NS) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil && network != "unix" {
		return nil, fmt.Errorf("dial %s in a namespace: not a numeric address", address)
	}
	err = n.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// onThread calls f with the goroutine locked to its thread and a descriptor of
// the namespace that the thread is in.
func onThread(f func(home int) error) error {
	errc := make(chan error, 1)
	go func() {
		// The thread goes back to the runtime with its namespace restored. It
		// must not end instead: it may be the one that once forked a process
		// with a death signal.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			errc <- fmt.Errorf("own network namespace: %w", err)
			return
		}
		defer unix.Close(home)
		errc <- f(home)
	}()
	return <-errc
}

// mustReturn brings the thread back to its namespace.
func mustReturn(home int) {
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		// Going on would run other goroutines in the wrong network.
		panic(fmt.Sprintf("BUG: leave network namespace: %v", err))
	}
}

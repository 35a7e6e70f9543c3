// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	errNoInterface   = errors.New("no such interface")
	errInterfaceDown = errors.New("the interface is down")
	errPortTaken     = errors.New("another program has it")
)

// cause is the system's error without the address and call that net puts around it.
func cause(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return errPortTaken
	}
	var op *net.OpError
	for errors.As(err, &op) {
		err = op.Err
		op = nil
	}
	return err
}

func listenHint(iface string, port int, err error) string {
	switch {
	case errors.Is(err, errNoInterface):
		return "there are: " + strings.Join(interfaceNames(), ", ")
	case errors.Is(err, errInterfaceDown):
		return fmt.Sprintf("bring it up with an address first: ip link set %s up", iface)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "this needs root, or the capabilities CAP_NET_RAW and CAP_NET_BIND_SERVICE"
	case errors.Is(err, errPortTaken):
		if who := portHolders("/proc", port); len(who) > 0 {
			return fmt.Sprintf("the port is held by %s: stop it, or choose another interface", strings.Join(who, " and "))
		}
		return fmt.Sprintf("find out who with: ss -ulpn 'sport = :%d'", port)
	}
	return ""
}

func interfaceNames() []string {
	var names []string
	ifis, _ := net.Interfaces()
	for _, i := range ifis {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names
}

// portHolders names the processes that have the UDP port open, as far as this
// process may see them.
func portHolders(proc string, port int) []string {
	inodes := udpInodes(proc, port)
	if len(inodes) == 0 {
		return nil
	}
	var who []string
	links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	named := map[string]bool{}
	for _, l := range links {
		target, err := os.Readlink(l)
		if err != nil || !inodes[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(l))
		if named[dir] {
			continue
		}
		named[dir] = true
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		who = append(who, fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(dir)))
	}
	return who
}

// udpInodes are the inodes of the sockets bound to the UDP port, from net/udp:
// "sl local_address rem_address st queues tr retrnsmt uid timeout inode …".
func udpInodes(proc string, port int) map[string]bool {
	b, err := os.ReadFile(filepath.Join(proc, "net/udp"))
	if err != nil {
		return nil
	}
	inodes := map[string]bool{}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && int(n) == port {
			inodes[f[9]] = true
		}
	}
	return inodes
}

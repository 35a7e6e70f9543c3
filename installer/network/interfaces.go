// SPDX-License-Identifier: GPL-2.0-or-later

// Package network brings up the interface a machine boots through: which one,
// when its link is there, which address DHCP gives it, and how long that address
// holds. It knows DHCP (RFC 2131, 2132, 3442) and rtnetlink, and nothing of
// servers or images.
package network

import (
	"cmp"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Interface is a wired interface as /sys/class/net shows it.
type Interface struct {
	Index   int
	Name    string
	MAC     net.HardwareAddr
	Driver  string
	Carrier bool
}

// String gives the name and the address that stands on the machine's label.
func (i Interface) String() string { return i.Name + " (" + i.MAC.String() + ")" }

// arphrdEther is ARPHRD_ETHER of if_arp.h.
const arphrdEther = "1"

// List gives the wired interfaces below root: Ethernet, backed by a device, not
// wireless. Bridges, bonds, tunnels and loopback have no device.
func List(root string) []Interface {
	dir := filepath.Join(root, "/sys/class/net")
	entries, _ := os.ReadDir(dir)
	var out []Interface
	for _, e := range entries {
		read := func(name string) string {
			b, _ := os.ReadFile(filepath.Join(dir, e.Name(), name))
			return strings.TrimSpace(string(b))
		}
		exists := func(name string) bool {
			_, err := os.Stat(filepath.Join(dir, e.Name(), name))
			return err == nil
		}
		if read("type") != arphrdEther || !exists("device") || exists("wireless") || exists("phy80211") {
			continue
		}
		mac, err := net.ParseMAC(read("address"))
		if err != nil || len(mac) != 6 {
			continue
		}
		i := Interface{Name: e.Name(), MAC: mac, Carrier: read("carrier") == "1"}
		i.Index, _ = strconv.Atoi(read("ifindex"))
		if l, err := os.Readlink(filepath.Join(dir, e.Name(), "device/driver")); err == nil {
			i.Driver = filepath.Base(l)
		}
		out = append(out, i)
	}
	return out
}

// Order puts the interface the firmware booted from first, then those with a
// link, then the rest; among equals in the order of their names, eth2 before eth10.
func Order(all []Interface, boot net.HardwareAddr) []Interface {
	rank := func(i Interface) int {
		switch {
		case len(boot) > 0 && i.MAC.String() == boot.String():
			return 0
		case i.Carrier:
			return 1
		}
		return 2
	}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b Interface) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), natural(a.Name, b.Name))
	})
	return out
}

// natural compares names with numbers at their end by the number.
func natural(a, b string) int {
	ha, na := splitNumber(a)
	hb, nb := splitNumber(b)
	return cmp.Or(cmp.Compare(ha, hb), cmp.Compare(na, nb), cmp.Compare(a, b))
}

func splitNumber(s string) (string, int) {
	head := strings.TrimRight(s, "0123456789")
	n, _ := strconv.Atoi(s[len(head):])
	return head, n
}

// Patience says how long each part of coming up may take.
type Patience struct {
	Appear time.Duration // for a first interface to exist at all: USB adapters take seconds
	Link   time.Duration // for the interface booted from; it had a link in the firmware moments ago
	Other  time.Duration // for a link on any other
	DHCP   time.Duration // for an address where there is a link: a switch with spanning tree forwards nothing for 30 s
	Rounds int
}

// DefaultPatience lets a machine behind a spanning-tree switch come up and ends
// within five minutes.
func DefaultPatience() Patience {
	return Patience{Appear: 20 * time.Second, Link: 20 * time.Second, Other: 4 * time.Second, DHCP: 45 * time.Second, Rounds: 2}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"bufio"
	"net/netip"
	"os"
	"strings"
)

// macOf looks up the MAC address of a neighbour in the kernel's ARP table
// (proc(5), /proc/net/arp), "" if it is not there. Beside another DHCP server
// this is the only way to know whose loader request came in.
func macOf(addr netip.Addr) string {
	f, err := os.Open("/proc/net/arp")
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// IP address, HW type, Flags, HW address, Mask, Device
		w := strings.Fields(sc.Text())
		if len(w) >= 4 && w[0] == addr.String() && w[3] != "00:00:00:00:00:00" {
			return w[3]
		}
	}
	return ""
}

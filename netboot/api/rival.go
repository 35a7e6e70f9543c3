// SPDX-License-Identifier: GPL-2.0-or-later

package api

import "time"

// Rival is another DHCP server on the nodes' network.
type Rival struct {
	Address string    `json:"address"`
	MAC     string    `json:"mac,omitempty"`
	Offers  string    `json:"offers"`         // in words, e.g. offers 10.77.0.9, boot file "pxelinux.0"
	Gives   bool      `json:"gives"`          // it gives addresses; false: it only says what to boot
	Next    string    `json:"next,omitempty"` // the server to boot from that it names (siaddr)
	Seen    time.Time `json:"seen"`           // last
}

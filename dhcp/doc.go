// SPDX-License-Identifier: GPL-2.0-or-later

// Package dhcp answers DHCPv4 for a room of machines that boot over the
// network. It has two engines: Server hands out addresses (RFC 2131, 2132, 3046,
// 3396) and tells a machine what to boot (RFC 4578, the PXE specification 2.1
// and UEFI HTTP boot); Proxy only tells what to boot, beside a DHCP server that
// is already there, and never gives an address.
//
// What a machine boots is not decided here: the caller's Booter gets the facts
// of the request (Client) and returns names; the package puts them where each
// kind of firmware looks for them. Package leases keeps the addresses.
//
// Listen opens the sockets, Probe looks for other servers on a wire.
package dhcp

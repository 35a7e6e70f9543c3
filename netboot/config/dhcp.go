// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is done with a machine that is no node (DHCP.Unknown).
const (
	UnknownServe  = "serve"  // it becomes a node, and boots
	UnknownIgnore = "ignore" // it gets no answer, by DHCP or from the boot script
)

// DHCP is system/dhcp.conf: what the appliance's DHCP server tells nodes, and how
// a node with files of its own is recognized. Empty: as slate.toml says for the
// subnet.
type DHCP struct {
	Unknown string `toml:"unknown"` // one of the Unknown constants; only for the whole site

	// Only for one node: a machine that has one of these is this node, and the
	// address is its own.
	MAC      []string   `toml:"mac"`
	UUID     string     `toml:"uuid"`
	ClientID string     `toml:"client-id"` // option 61 in hex
	Address  netip.Addr `toml:"address"`

	Lease   string            `toml:"lease"` // "12h"
	Gateway netip.Addr        `toml:"gateway"`
	DNS     []netip.Addr      `toml:"dns"`
	Domain  string            `toml:"domain"`
	NTP     []netip.Addr      `toml:"ntp"`
	Options map[string]string `toml:"options"` // see ParseOptions
}

// dhcpFile is where DHCP lies.
const dhcpFile = "system/dhcp.conf"

func defaultDHCP() DHCP {
	return DHCP{Unknown: UnknownServe, MAC: []string{}, DNS: []netip.Addr{}, NTP: []netip.Addr{}}
}

// ParseLease reads for how long an address is lent; "" is 0.
func ParseLease(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time: write for instance 12h or 30m", text)
	}
	if d < time.Minute || d > 365*24*time.Hour {
		return 0, fmt.Errorf("%s is not between a minute and a year", d)
	}
	return d, nil
}

var (
	uuidPattern   = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	domainPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)
)

func (c *DHCP) check(d *Doc) []error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, d.Errorf(key, format, args...)) }
	errs = append(errs, c.checkPlace(d)...)
	if c.Unknown != UnknownServe && c.Unknown != UnknownIgnore {
		bad("unknown", "%q is not one of %s, %s", c.Unknown, UnknownServe, UnknownIgnore)
	}
	for _, m := range c.MAC {
		if hw, err := net.ParseMAC(m); err != nil || len(hw) != 6 {
			bad("mac", "%q is not a MAC address", m)
		}
	}
	if c.UUID != "" && !uuidPattern.MatchString(c.UUID) {
		bad("uuid", "%q is not a UUID as dmidecode -s system-uuid prints it", c.UUID)
	}
	if b, err := hex.DecodeString(plainHex(c.ClientID)); c.ClientID != "" && (err != nil || len(b) < 2) {
		bad("client-id", "%q is not a client identifier (option 61) in hex", c.ClientID)
	}
	if c.Address.IsValid() && !c.Address.Is4() {
		bad("address", "%s is not an IPv4 address", c.Address)
	}
	if c.Gateway.IsValid() && !c.Gateway.Is4() {
		bad("gateway", "%s is not an IPv4 address", c.Gateway)
	}
	for key, list := range map[string][]netip.Addr{"dns": c.DNS, "ntp": c.NTP} {
		for _, a := range list {
			if !a.Is4() {
				bad(key, "%q is not an IPv4 address", a)
			}
		}
	}
	if c.Domain != "" && !domainPattern.MatchString(c.Domain) {
		bad("domain", "%q is not a domain name", c.Domain)
	}
	if _, err := ParseLease(c.Lease); err != nil {
		bad("lease", "%v", err)
	}
	for name, value := range c.Options {
		if _, _, err := parseOption(name, value); err != nil {
			bad("options."+name, "%v", err)
		}
	}
	return errs
}

// checkPlace refuses what makes no sense for as many nodes as the file is for.
func (c *DHCP) checkPlace(d *Doc) []error {
	var errs []error
	own := strings.HasPrefix(d.Name, nodesDir)
	for key, set := range map[string]bool{"mac": len(c.MAC) > 0, "uuid": c.UUID != "", "client-id": c.ClientID != "", "address": c.Address.IsValid()} {
		if set && !own && slices.Contains(d.Keys(), key) {
			err := d.Errorf(key, "only one node can have it")
			err.Help = "set it in " + nodesDir + "<node>/" + dhcpFile
			errs = append(errs, err)
		}
	}
	if (own || strings.HasPrefix(d.Name, groupsDir)) && slices.Contains(d.Keys(), "unknown") {
		err := d.Errorf("unknown", "it is about machines that are no nodes, so it cannot be set for some")
		err.Help = "set it in " + dhcpFile
		errs = append(errs, err)
	}
	return errs
}

func plainHex(s string) string {
	return strings.ToLower(strings.NewReplacer(":", "", "-", "").Replace(s))
}

// Identity is by what a DHCP request or a boot script's question can be told to
// come from a certain machine. Empty fields say nothing.
type Identity struct {
	MAC      string // aa:bb:cc:dd:ee:ff
	UUID     string
	ClientID string // in hex
}

// identities are what the nodes' own dhcp.conf say: who is who, and whose address
// is whose. Keys of nodes are "mac …", "uuid …" and "id …".
type identities struct {
	nodes map[string]string
	fixed map[netip.Addr]string
}

// NodeOf is the node that config.d says the machine is; "" if it says nothing.
func (s *Site) NodeOf(i Identity) string {
	for _, key := range i.keys() {
		if name := s.ids.nodes[key]; name != "" {
			return name
		}
	}
	return ""
}

// FixedTo is the node whose own the address is; "" if it is nobody's.
func (s *Site) FixedTo(a netip.Addr) string { return s.ids.fixed[a] }

func (i Identity) keys() []string {
	var keys []string
	if i.MAC != "" {
		keys = append(keys, "mac "+plainHex(i.MAC))
	}
	if i.UUID != "" {
		keys = append(keys, "uuid "+strings.ToLower(i.UUID))
	}
	if i.ClientID != "" {
		keys = append(keys, "id "+plainHex(i.ClientID))
	}
	return keys
}

// identify collects the identities of all nodes. What two of them claim is an error.
func (s *Site) identify() error {
	s.ids = identities{nodes: map[string]string{}, fixed: map[netip.Addr]string{}}
	var errs []error
	for _, name := range s.Nodes() {
		n := s.Node(name)
		claim := func(key, value, owner string) {
			if owner != "" && owner != name {
				file, line, _ := strings.Cut(n.Origin(dhcpFile, key), ":")
				at, _ := strconv.Atoi(line)
				errs = append(errs, &Error{File: file, Line: at, Key: key, Text: fmt.Sprintf("%s belongs to node %s already", value, owner)})
			}
		}
		ids := map[string]Identity{"uuid": {UUID: n.DHCP.UUID}, "client-id": {ClientID: n.DHCP.ClientID}}
		for _, mac := range n.DHCP.MAC {
			ids["mac "+mac] = Identity{MAC: mac}
		}
		for key, id := range ids {
			for _, k := range id.keys() {
				key, _, _ = strings.Cut(key, " ")
				claim(key, id.MAC+id.UUID+id.ClientID, s.ids.nodes[k])
				s.ids.nodes[k] = name
			}
		}
		if a := n.DHCP.Address; a.IsValid() {
			claim("address", a.String(), s.ids.fixed[a])
			s.ids.fixed[a] = name
		}
	}
	return errors.Join(errs...)
}

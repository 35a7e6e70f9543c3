// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"regexp"
	"strings"
)

// Etc is system/etc.conf: what goes into a node's /etc.
type Etc struct {
	// Hostname is the pattern of node names: {mac6} is the last six hex digits
	// of the node's MAC address, {mac} all twelve, {serial} the machine's serial number.
	Hostname string `toml:"hostname"`
}

func defaultEtc() Etc { return Etc{Hostname: "node-{mac6}"} }

var hostnamePattern = regexp.MustCompile(`^(?:[a-zA-Z0-9-]|\{mac6\}|\{mac\}|\{serial\})+$`)

func (e *Etc) check(d *Doc) []error {
	if !hostnamePattern.MatchString(e.Hostname) {
		err := d.Errorf("hostname", "%q is not a host name pattern", e.Hostname)
		err.Help = "use letters, digits, '-' and {mac6}, {mac}, {serial}"
		return []error{err}
	}
	return nil
}

// NodeName fills in the pattern for a machine. What cannot stand in a host name
// (RFC 1123, section 2.1) becomes '-', and the result has at most 63 characters.
func (e Etc) NodeName(mac, serial string) string {
	hex := strings.ToLower(strings.NewReplacer(":", "", "-", "").Replace(mac))
	if strings.TrimSpace(serial) == "" {
		serial = hex
	}
	name := strings.NewReplacer("{mac6}", hex[max(0, len(hex)-6):], "{mac}", hex, "{serial}", serial).Replace(e.Hostname)
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, name)
	return strings.Trim(name[:min(len(name), 63)], "-")
}

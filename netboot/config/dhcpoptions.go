// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// optionKind is how the value of a DHCP option is written and sent.
type optionKind int

const (
	optionGuess  optionKind = iota // addresses if it looks like them, else text
	optionText                     // as it is
	optionAddrs                    // IPv4 addresses
	optionU8                       // numbers
	optionU16                      //
	optionU32                      //
	optionBool                     // true or false
	optionSearch                   // domain names (RFC 3397)
	optionRoutes                   // "10.1.0.0/16 10.0.0.254" (RFC 3442)
)

type option struct {
	code uint8
	name string
	kind optionKind
}

// optionNames are the options that may be named, and all whose values are more
// than text or addresses. Any other code but the refused ones may be set too.
var optionNames = []option{
	{2, "time-offset", optionU32}, {4, "time-servers", optionAddrs}, {7, "log-servers", optionAddrs}, {9, "lpr-servers", optionAddrs},
	{13, "boot-size", optionU16}, {17, "root-path", optionText}, {19, "ip-forwarding", optionBool}, {23, "default-ttl", optionU8},
	{26, "interface-mtu", optionU16}, {40, "nis-domain", optionText}, {41, "nis-servers", optionAddrs},
	{43, "vendor-specific", optionGuess}, {44, "netbios-name-servers", optionAddrs}, {46, "netbios-node-type", optionU8},
	{58, "renewal-time", optionU32}, {59, "rebinding-time", optionU32}, {66, "tftp-server-name", optionText},
	{69, "smtp-servers", optionAddrs}, {100, "posix-timezone", optionText}, {101, "timezone", optionText},
	{108, "ipv6-only-preferred", optionU32}, {119, "domain-search", optionSearch}, {121, "classless-routes", optionRoutes},
	{150, "tftp-servers", optionAddrs}, {252, "wpad", optionText},
}

// optionsRefused are the options that have a key of their own, or are the DHCP
// server's alone.
var optionsRefused = map[uint8]string{
	0: "it is padding", 1: "it follows from the subnet", 3: "set gateway", 6: "set dns", 12: "the host name is the node's name", 15: "set domain",
	42: "set ntp", 50: "only clients send it", 51: "set lease", 52: "the server sets it", 53: "the server sets it", 54: "the server sets it",
	55: "only clients send it", 56: "the server sets it", 57: "only clients send it", 60: "the boot answer sets it", 61: "it is the client's",
	67: "set loader in system/boot.conf", 82: "it is the relay's", 97: "it is the client's", 255: "it is the end mark",
}

// ParseOptions turns DHCP options, by code or name, into what goes over the wire.
// A value is text, IPv4 addresses with commas between them, or "hex:" and bytes;
// some options have a form of their own: numbers, true and false, domain names,
// routes.
func ParseOptions(options map[string]string) (map[uint8][]byte, error) {
	out := map[uint8][]byte{}
	var errs []error
	for name, value := range options {
		code, b, err := parseOption(name, value)
		if err == nil && out[code] != nil {
			err = fmt.Errorf("option %d is set twice, by code and by name", code)
		}
		errs = append(errs, err)
		out[code] = b
	}
	return out, errors.Join(errs...)
}

func parseOption(name, value string) (uint8, []byte, error) {
	i := slices.IndexFunc(optionNames, func(o option) bool { return o.name == name || strconv.Itoa(int(o.code)) == name })
	var code uint8
	var kind optionKind
	if i >= 0 {
		code, kind = optionNames[i].code, optionNames[i].kind
	} else {
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil {
			return 0, nil, fmt.Errorf("no option has this name: write its code, 1 to 254, or one of %s", strings.Join(knownOptions(), ", "))
		}
		code = uint8(n)
	}
	if why := optionsRefused[code]; why != "" {
		return 0, nil, fmt.Errorf("option %d cannot be set here: %s", code, why)
	}
	b, err := kind.encode(value)
	if err == nil && len(b) == 0 {
		err = errors.New("it is empty")
	}
	return code, b, err
}

func knownOptions() []string {
	var names []string
	for _, o := range optionNames {
		names = append(names, o.name)
	}
	slices.Sort(names)
	return names
}

func (k optionKind) encode(value string) ([]byte, error) {
	if digits, ok := strings.CutPrefix(value, "hex:"); ok {
		b, err := hex.DecodeString(plainHex(strings.ReplaceAll(digits, " ", "")))
		if err != nil {
			return nil, fmt.Errorf("%q: hex: takes an even number of hex digits", value)
		}
		return b, nil
	}
	switch k {
	case optionAddrs:
		return encodeAddrs(value)
	case optionGuess:
		if b, err := encodeAddrs(value); err == nil {
			return b, nil
		}
	case optionU8, optionU16, optionU32:
		return encodeNumber(value, map[optionKind]int{optionU8: 8, optionU16: 16, optionU32: 32}[k])
	case optionBool:
		if value != "true" && value != "false" {
			return nil, fmt.Errorf("%q is neither true nor false", value)
		}
		if value == "true" {
			return []byte{1}, nil
		}
		return []byte{0}, nil
	case optionSearch:
		return encodeNames(value)
	case optionRoutes:
		return encodeRoutes(value)
	}
	return []byte(value), nil
}

// list cuts a value at its commas.
func list(value string) []string {
	parts := strings.Split(value, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

func encodeAddrs(value string) ([]byte, error) {
	var b []byte
	for _, s := range list(value) {
		a, err := netip.ParseAddr(s)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("%q is not an IPv4 address", s)
		}
		b = append(b, a.AsSlice()...)
	}
	return b, nil
}

func encodeNumber(value string, bits int) ([]byte, error) {
	// A negative one, such as a time offset, is sent as its two's complement.
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n >= 1<<bits || n < -(1<<(bits-1)) {
		return nil, fmt.Errorf("%q is not a number of %d bits", value, bits)
	}
	return binary.BigEndian.AppendUint64(nil, uint64(n))[8-bits/8:], nil
}

// encodeNames writes domain names as RFC 1035 has them, without the compression,
// which RFC 3397 leaves to the server.
func encodeNames(value string) ([]byte, error) {
	var b []byte
	for _, name := range list(value) {
		if !domainPattern.MatchString(name) {
			return nil, fmt.Errorf("%q is not a domain name", name)
		}
		for _, label := range strings.Split(name, ".") {
			if len(label) > 63 {
				return nil, fmt.Errorf("%q is longer than 63 characters", label)
			}
			b = append(append(b, byte(len(label))), label...)
		}
		b = append(b, 0)
	}
	return b, nil
}

func encodeRoutes(value string) ([]byte, error) {
	var b []byte
	for _, s := range list(value) {
		dst, via, _ := strings.Cut(s, " ")
		p, err1 := netip.ParsePrefix(dst)
		a, err2 := netip.ParseAddr(strings.TrimSpace(via))
		if err1 != nil || err2 != nil || !p.Addr().Is4() || !a.Is4() {
			return nil, fmt.Errorf("%q is not a route: write for instance 10.1.0.0/16 10.0.0.254", s)
		}
		net := p.Masked().Addr().AsSlice()
		b = append(append(append(b, byte(p.Bits())), net[:(p.Bits()+7)/8]...), a.AsSlice()...)
	}
	return b, nil
}

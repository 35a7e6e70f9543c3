// SPDX-License-Identifier: GPL-2.0-or-later

// Package netboot is the appliance: it wires the DHCP, TFTP, HTTP and NFS
// engines to the image store, the nodes and config.d, and owns their life.
// It knows how they fit together; what each does is its own package's business.
package netboot

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slate/netboot/config"
)

// DHCPMode is how the appliance takes part in giving addresses.
type DHCPMode string

// The modes: give addresses and boot answers; boot answers only, beside another
// DHCP server; neither (machines start from a medium that names the appliance).
const (
	DHCPServer DHCPMode = "server"
	DHCPProxy  DHCPMode = "proxy"
	DHCPOff    DHCPMode = "off"
)

// PublicKeySuffix is added to the site key's file name for its public half.
const PublicKeySuffix = ".pub"

// Settings are the appliance's own, from slate.toml. Paths are absolute once read.
type Settings struct {
	Data    string `toml:"data"`   // images, state and leases
	ConfigD string `toml:"config"` // the config.d directory
	Key     string `toml:"key"`    // the site key

	Network NetworkSettings `toml:"network"`
	DHCP    DHCPSettings    `toml:"dhcp"`
	HTTP    PortSettings    `toml:"http"`
	HTTPS   PortSettings    `toml:"https"`
	TFTP    PortSettings    `toml:"tftp"`
	NFS     NFSSettings     `toml:"nfs"`
	Queue   QueueSettings   `toml:"queue"`
}

// NetworkSettings say where the nodes are.
type NetworkSettings struct {
	Interface string     `toml:"interface"`
	Address   netip.Addr `toml:"address"` // zero: the interface's first IPv4 address
}

// DHCPSettings are those of DHCP. All but Mode and the interfaces of Subnets count
// for DHCPServer only.
type DHCPSettings struct {
	Mode DHCPMode `toml:"mode"`
	PoolSettings
	Subnets []SubnetSettings `toml:"subnet"`
}

// PoolSettings are the addresses of a subnet and what goes with them.
type PoolSettings struct {
	Range   Range             `toml:"range"`
	Gateway netip.Addr        `toml:"gateway"` // zero: nodes get no default route
	DNS     []netip.Addr      `toml:"dns"`
	Domain  string            `toml:"domain"`
	NTP     []netip.Addr      `toml:"ntp"`
	Lease   Duration          `toml:"lease"`
	Options map[string]string `toml:"options"` // see config.ParseOptions
}

// SubnetSettings are one more network with nodes: on another interface, or behind
// a relay. What it leaves out, but for range and gateway, is as in DHCPSettings.
type SubnetSettings struct {
	Interface string       `toml:"interface"` // empty: behind a relay
	Subnet    netip.Prefix `toml:"subnet"`    // zero: that of the interface's first IPv4 address
	PoolSettings
}

// PortSettings is the port that a service listens on.
type PortSettings struct {
	Port int `toml:"port"`
}

// NFSSettings are those of the NFS server.
type NFSSettings struct {
	Port   int `toml:"port"`
	Memory int `toml:"memory"` // MiB for the calls of all machines that are being answered
}

// QueueSettings are for when many machines want the same at once: how many may, of
// each kind. 0: no limit.
type QueueSettings struct {
	Boots   int `toml:"boots"`   // load their kernel
	Fetches int `toml:"fetches"` // fetch the contents of a version
}

// Range is a span of addresses, both ends included, written "10.0.0.100-10.0.0.199".
type Range struct{ First, Last netip.Addr }

// UnmarshalText parses "first-last".
func (r *Range) UnmarshalText(text []byte) error {
	first, last, ok := strings.Cut(string(text), "-")
	if !ok {
		return fmt.Errorf("%q is not a range: write first-last", text)
	}
	var err1, err2 error
	r.First, err1 = netip.ParseAddr(strings.TrimSpace(first))
	r.Last, err2 = netip.ParseAddr(strings.TrimSpace(last))
	if err := errors.Join(err1, err2); err != nil || !r.First.Is4() || !r.Last.Is4() {
		return fmt.Errorf("%q is not a range of IPv4 addresses", text)
	}
	if r.Last.Less(r.First) {
		return fmt.Errorf("%q ends before it starts", text)
	}
	return nil
}

// String returns "first-last", or "" for the zero Range.
func (r Range) String() string {
	if !r.First.IsValid() {
		return ""
	}
	return r.First.String() + "-" + r.Last.String()
}

// Duration is a time.Duration written as "12h" or "30m".
type Duration time.Duration

// UnmarshalText parses what time.ParseDuration takes.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Ports that the services listen on unless the settings say otherwise.
const (
	DefaultHTTPPort = 8070
	DefaultTLSPort  = 8443
	DefaultTFTPPort = 69
	DefaultNFSPort  = 2049
	DefaultNFSMem   = 64
	DefaultData     = "/var/lib/slate"
	DefaultLease    = 12 * time.Hour
)

// ReadSettings reads the settings file. The error joins all that is wrong with
// it, each with file, line and key.
func ReadSettings(file string) (Settings, error) {
	s := Settings{
		Data: DefaultData, ConfigD: "config.d", Key: "site.key",
		DHCP: DHCPSettings{Mode: DHCPServer, PoolSettings: PoolSettings{Lease: Duration(DefaultLease)}},
		HTTP: PortSettings{DefaultHTTPPort}, HTTPS: PortSettings{DefaultTLSPort}, TFTP: PortSettings{DefaultTFTPPort}, NFS: NFSSettings{DefaultNFSPort, DefaultNFSMem},
		Queue: QueueSettings{DefaultBoots, DefaultFetches},
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return s, &settingsError{err, "write one with: slate init"}
	}
	doc, err := config.Decode(file, data, &s)
	if doc == nil {
		return s, err
	}
	dir := filepath.Dir(file)
	for _, p := range []*string{&s.Data, &s.ConfigD, &s.Key} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return s, errors.Join(append([]error{err}, s.check(doc)...)...)
}

// maxNFSMemory is more than any room of machines can make use of.
const maxNFSMemory = 64 << 10

func (s *Settings) check(doc *config.Doc) []error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, doc.Errorf(key, format, args...)) }
	for key, value := range map[string]string{"data": s.Data, "config": s.ConfigD, "key": s.Key, "network.interface": s.Network.Interface} {
		if value == "" {
			bad(key, "is empty")
		}
	}
	for key, port := range map[string]int{"http.port": s.HTTP.Port, "https.port": s.HTTPS.Port, "tftp.port": s.TFTP.Port, "nfs.port": s.NFS.Port} {
		if port < 1 || port > 65535 {
			bad(key, "%d is not a port", port)
		}
	}
	if m := s.NFS.Memory; m < 1 || m > maxNFSMemory {
		bad("nfs.memory", "%d is not between 1 and %d MiB", m, maxNFSMemory)
	}
	if a := s.Network.Address; a.IsValid() && !a.Is4() {
		bad("network.address", "%s is not an IPv4 address", a)
	}
	for key, n := range map[string]int{"queue.boots": s.Queue.Boots, "queue.fetches": s.Queue.Fetches} {
		if n < 0 {
			bad(key, "%d is less than none", n)
		}
	}
	switch s.DHCP.Mode {
	case DHCPServer, DHCPProxy, DHCPOff:
	default:
		bad("dhcp.mode", "%q is not one of server, proxy, off", s.DHCP.Mode)
	}
	if s.DHCP.Mode == DHCPServer && !s.DHCP.Range.First.IsValid() {
		bad("dhcp.range", "is missing: mode %q gives addresses and needs a range", s.DHCP.Mode)
	}
	errs = append(errs, s.DHCP.PoolSettings.check(doc, "dhcp.")...)
	return append(errs, s.checkSubnets(doc)...)
}

func (p *PoolSettings) check(doc *config.Doc, table string) []error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, doc.Errorf(table+key, format, args...)) }
	if l := time.Duration(p.Lease); l < time.Minute || l > 365*24*time.Hour {
		bad("lease", "%s is not between a minute and a year", l)
	}
	if p.Gateway.IsValid() && !p.Gateway.Is4() {
		bad("gateway", "%s is not an IPv4 address", p.Gateway)
	}
	if _, err := config.ParseOptions(p.Options); err != nil {
		bad("options", "%v", err)
	}
	return errs
}

// checkSubnets checks the further subnets, and fills in what they leave out.
func (s *Settings) checkSubnets(doc *config.Doc) []error {
	var errs []error
	used := map[string]bool{s.Network.Interface: true}
	for i := range s.DHCP.Subnets {
		n := &s.DHCP.Subnets[i]
		bad := func(key, format string, args ...any) {
			errs = append(errs, doc.Errorf("dhcp.subnet", "number %d: %s", i+1, strings.TrimSpace(key+" "+fmt.Sprintf(format, args...))))
		}
		n.inherit(s.DHCP.PoolSettings)
		switch {
		case n.Interface == "" && !n.Subnet.IsValid():
			bad("interface", "is missing; for machines behind a relay, name their subnet")
		case n.Interface == "" && s.DHCP.Mode == DHCPProxy:
			bad("interface", "is missing: mode proxy is for networks that have another DHCP server")
		case used[n.Interface] && n.Interface != "":
			bad("interface", "%s has a subnet already", n.Interface)
		}
		used[n.Interface] = true
		if n.Subnet.IsValid() {
			n.Subnet = n.Subnet.Masked()
			if err := n.checkInside(); err != nil {
				bad("", "%v", err)
			}
		}
		errs = append(errs, n.PoolSettings.check(doc, "dhcp.subnet.")...)
	}
	return errs
}

func (n *SubnetSettings) inherit(from PoolSettings) {
	if n.DNS == nil {
		n.DNS = from.DNS
	}
	if n.NTP == nil {
		n.NTP = from.NTP
	}
	n.Domain, n.Lease = cmp.Or(n.Domain, from.Domain), cmp.Or(n.Lease, from.Lease)
	options := maps.Clone(from.Options)
	if options == nil {
		options = map[string]string{}
	}
	maps.Copy(options, n.Options)
	n.Options = options
}

// checkInside reports addresses that are not of the subnet.
func (n *SubnetSettings) checkInside() error {
	switch r := n.Range; {
	case r.First.IsValid() && (!n.Subnet.Contains(r.First) || !n.Subnet.Contains(r.Last)):
		return fmt.Errorf("range: %s is not inside the subnet %s", r, n.Subnet)
	case n.Gateway.IsValid() && !n.Subnet.Contains(n.Gateway):
		return fmt.Errorf("gateway: %s is not inside the subnet %s", n.Gateway, n.Subnet)
	}
	return nil
}

type settingsError struct {
	error
	hint string
}

func (e *settingsError) Hint() string  { return e.hint }
func (e *settingsError) Unwrap() error { return e.error }

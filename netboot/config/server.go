// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"slate/images"
)

// When a running node may go to another server (ServerInfo.Running.Move).
const (
	MoveOnFailure = "failure" // when its own does not answer
	MoveNever     = "never"
)

// ServerInfo is controller/server/server.info.conf: the appliances of the site,
// and how a node chooses among them.
type ServerInfo struct {
	Servers []Server `toml:"server"` // empty: only the appliance that the node booted from
	Measure Measure  `toml:"measure"`
	Running Running  `toml:"running"`
}

// Server is one appliance.
type Server struct {
	URL     string `toml:"url"`     // e.g. http://10.77.0.1:8070
	Key     string `toml:"key"`     // public key it must prove to have; empty: the site's
	Weight  int    `toml:"weight"`  // one of weight 2 takes twice the nodes of one of weight 1; 0: 1
	Standby bool   `toml:"standby"` // only when no other answers
}

// Measure is how a node looks at the servers before it chooses.
type Measure struct {
	Timeout int `toml:"timeout"` // seconds that a server has to answer
	Samples int `toml:"samples"` // questions to each server
}

// Running is for nodes that run.
type Running struct {
	Move string `toml:"move"` // one of the Move constants
}

func defaultServerInfo() ServerInfo {
	return ServerInfo{Measure: Measure{Timeout: 2, Samples: 3}, Running: Running{Move: MoveOnFailure}}
}

// Bounds of a list of servers: it has to fit into the kernel's command line.
const (
	MaxServers = 8
	maxWeight  = 1000
)

func (s *ServerInfo) check(d *Doc) []error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, d.Errorf(key, format, args...)) }
	if len(s.Servers) > MaxServers {
		bad("server", "%d servers are more than the kernel command line has room for: %d is the most", len(s.Servers), MaxServers)
	}
	seen := map[string]bool{}
	for i, v := range s.Servers {
		where := fmt.Sprintf("server %d: ", i+1)
		if err := CheckServerURL(v.URL); err != nil {
			bad("server.url", "%s%v", where, err)
		}
		if seen[v.URL] {
			bad("server.url", "%s%s is listed twice", where, v.URL)
		}
		seen[v.URL] = true
		if v.Key != "" {
			if _, err := images.ParsePublicKeys([]byte(v.Key)); err != nil || len(strings.Fields(v.Key)) != 1 {
				bad("server.key", "%s%q is not a public key: it is the line in the other site's site.key.pub", where, v.Key)
			}
		}
		if v.Weight < 0 || v.Weight > maxWeight {
			bad("server.weight", "%sweight %d is not between 1 and %d", where, v.Weight, maxWeight)
		}
		if v.Weight == 0 {
			s.Servers[i].Weight = 1
		}
	}
	if t := s.Measure.Timeout; t < 1 || t > 30 {
		bad("measure.timeout", "%d seconds is not between 1 and 30", t)
	}
	if n := s.Measure.Samples; n < 1 || n > 20 {
		bad("measure.samples", "%d is not between 1 and 20", n)
	}
	if m := s.Running.Move; m != MoveOnFailure && m != MoveNever {
		bad("running.move", "%q is not one of %s, %s", m, MoveOnFailure, MoveNever)
	}
	return errs
}

// CheckServerURL reports what is wrong with the URL of an appliance. It names the
// appliance by its address, for a node asks for servers before it can look up names.
func CheckServerURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" || strings.ContainsAny(text, ", \t") {
		return fmt.Errorf("%q is not the URL of an appliance: write http://ADDRESS:8070", text)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err != nil || !a.Is4() {
		return fmt.Errorf("%q does not name the appliance by its IPv4 address: write http://ADDRESS:8070", text)
	}
	return nil
}

// Word is the value of the word of the kernel command line that names the server.
func (s Server) Word() string {
	w := s.URL
	if s.Weight > 1 {
		w += fmt.Sprintf(",weight=%d", s.Weight)
	}
	if s.Standby {
		w += ",standby"
	}
	if s.Key != "" {
		w += ",key=" + s.Key
	}
	return w
}

// ServerFile is where ServerInfo lies.
const ServerFile = "controller/server/server.info.conf"

// ReadServerInfo reads one such file, without those of groups and nodes.
func ReadServerInfo(text []byte) (ServerInfo, error) {
	s := defaultServerInfo()
	d, err := Decode(ServerFile, text, &s)
	if d != nil {
		err = errors.Join(append(s.check(d), err)...)
	}
	return s, err
}

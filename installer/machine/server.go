// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Server is an appliance that the command line names.
type Server struct {
	URL     *url.URL
	Weight  int               // 1 or more
	Standby bool              // only when no other answers
	Key     ed25519.PublicKey // it must prove to have; nil: the site's
}

// String is the value of the command line's word, which ParseServer reads.
func (s Server) String() string {
	w := s.URL.String()
	if s.Weight > 1 {
		w += fmt.Sprintf(",weight=%d", s.Weight)
	}
	if s.Standby {
		w += ",standby"
	}
	if s.Key != nil {
		w += ",key=" + base64.StdEncoding.EncodeToString(s.Key)
	}
	return w
}

// Measure is how the servers are looked at before one is chosen.
type Measure struct {
	Timeout time.Duration // for an answer
	Samples int
}

// maxServers bounds the list, whoever wrote it.
const maxServers = 32

// ParseServer reads URL[,weight=N][,standby][,key=BASE64].
func ParseServer(v string) (Server, error) {
	parts := strings.Split(v, ",")
	s := Server{Weight: 1}
	var err error
	if s.URL, err = parseServer(parts[0]); err != nil {
		return s, err
	}
	for _, p := range parts[1:] {
		key, value, _ := strings.Cut(p, "=")
		switch key {
		case "weight":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > 1000 {
				return s, fmt.Errorf("%q is not a weight between 1 and 1000", value)
			}
			s.Weight = n
		case "standby":
			s.Standby = true
		case "key":
			raw, err := base64.StdEncoding.Strict().DecodeString(value)
			if err != nil || len(raw) != ed25519.PublicKeySize {
				return s, fmt.Errorf("%q is not a public key", value)
			}
			s.Key = raw
		default:
			return s, fmt.Errorf("%q is none of weight=, standby, key=", p)
		}
	}
	return s, nil
}

// addServer adds a server, or puts it in the place of the one with its URL.
func (s *Settings) addServer(v string) error {
	one, err := ParseServer(v)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Servers, func(o Server) bool { return o.URL.String() == one.URL.String() })
	switch {
	case i >= 0:
		s.Servers[i] = one
	case len(s.Servers) == maxServers:
		return fmt.Errorf("more than %d servers, the others are ignored", maxServers)
	default:
		s.Servers = append(s.Servers, one)
	}
	s.Server = s.Servers[0].URL
	return nil
}

// parseMeasure reads SECONDS,SAMPLES.
func parseMeasure(v string, old Measure) (Measure, error) {
	seconds, samples, _ := strings.Cut(v, ",")
	t, err := strconv.Atoi(seconds)
	n, err2 := strconv.Atoi(samples)
	if err != nil || err2 != nil || t < 1 || t > 30 || n < 1 || n > 20 {
		return old, fmt.Errorf("%q: want seconds,samples up to 30,20, taking %d,%d", v, int(old.Timeout.Seconds()), old.Samples)
	}
	return Measure{time.Duration(t) * time.Second, n}, nil
}

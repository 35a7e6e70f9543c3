// SPDX-License-Identifier: GPL-2.0-or-later

// Package leases keeps who has which address until when: the pools of addresses,
// the rules by which one is chosen (Pool), and the file that survives a restart
// (Store). It knows nothing of packets.
package leases

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// State is what a lease is at.
type State uint8

// The states of a lease. An offer is kept in memory only; the others are in the
// file.
const (
	Offered  State = iota + 1 // held for a client that has not taken it yet
	Bound                     // given; after Expires it is the client's only if nobody else needs it
	Released                  // given back; kept so that the client can have it again
	Declined                  // in use by somebody unknown: not given to anyone before Expires
)

var stateNames = map[State]string{Offered: "offered", Bound: "bound", Released: "released", Declined: "declined"}

func (s State) String() string {
	if n, ok := stateNames[s]; ok {
		return n
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the state's name.
func (s *State) UnmarshalText(b []byte) error {
	for state, name := range stateNames {
		if name == string(b) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("lease state %q: want offered, bound, released or declined", b)
}

// Lease is one address and who has it.
type Lease struct {
	Addr    netip.Addr
	Client  string // who, in the words of the caller: a MAC or a client identifier
	MAC     string `json:",omitempty"` // of the machine, for people
	Name    string `json:",omitempty"` // host name it was given or calls itself
	State   State
	Fixed   bool      `json:",omitempty"` // the caller reserved the address for this client
	Start   time.Time // when this client got it
	Expires time.Time
}

// Active reports whether the address is somebody's at t.
func (l Lease) Active(t time.Time) bool {
	return (l.State == Bound || l.State == Offered) && t.Before(l.Expires)
}

// free reports whether the address can go to another client at t.
func (l Lease) free(t time.Time) bool {
	return l.State == Released || !t.Before(l.Expires)
}

// encode is the lease as it stands in the file: JSON, so that a person can read
// it out of a broken one, and a new field does no harm to an old program.
func (l Lease) encode() ([]byte, error) { return json.Marshal(l) }

func decode(b []byte) (Lease, error) {
	var l Lease
	if err := json.Unmarshal(b, &l); err != nil {
		return l, err
	}
	if !l.Addr.Is4() || l.Client == "" || l.State < Bound || l.State > Declined {
		return l, fmt.Errorf("lease of %v for %q in state %v makes no sense", l.Addr, l.Client, l.State)
	}
	return l, nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

package dhcp

import (
	"net/netip"
	"time"
)

// Kind is what happened in an Event.
type Kind string

// The kinds of events. What a client sent and what it was answered are events of
// their own; EventSilence says why there was no answer.
const (
	EventDiscover Kind = "discover"
	EventOffer    Kind = "offer"
	EventRequest  Kind = "request"
	EventAck      Kind = "ack"
	EventNak      Kind = "nak"
	EventDecline  Kind = "decline"
	EventRelease  Kind = "release"
	EventInform   Kind = "inform"
	EventProxy    Kind = "proxy"    // a proxyDHCP answer was given
	EventSilence  Kind = "silence"  // a request was left without an answer: Reason
	EventConflict Kind = "conflict" // an address is in use by another machine: Addr, Reason
	EventRival    Kind = "rival"    // another server was seen on the wire: Rival
)

// Event is one step of a client's conversation, for its timeline.
type Event struct {
	Time      time.Time
	Kind      Kind
	Interface string
	Client    Client
	Addr      netip.Addr // given, asked for or refused
	Boot      Boot       // in offer, ack and proxy, if the client boots
	Reason    string     // of nak, silence, conflict
	Rival     *Rival     // of rival
}

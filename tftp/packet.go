// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Opcodes, RFC 1350 section 5 and RFC 2347.
const (
	opRRQ   = 1
	opWRQ   = 2
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6
)

// Error codes, RFC 1350 and RFC 2347.
const (
	codeUndefined   = 0
	codeNotFound    = 1
	codeAccess      = 2
	codeIllegal     = 4
	codeUnsupported = 8 // a client ends an option negotiation it dislikes with it
)

const (
	headerLen = 4 // of DATA, ACK and the fixed part of ERROR

	// RFC 2347 says 512 octets for a request. UEFI file names in a DHCP option
	// have been seen to make it longer, so the limit here is one Ethernet frame.
	maxRequest = 1500
	maxOptions = 16
)

// option is one name and value of RFC 2347, spelled as the sender spelled them.
type option struct{ name, value string }

func (o option) is(name string) bool { return strings.EqualFold(o.name, name) }

// request is a read or write request.
type request struct {
	write   bool
	name    string
	mode    string // lower case
	options []option
}

var errNotRequest = errors.New("not a read or write request")

// parseRequest reads a RRQ or WRQ. It takes nothing on trust: the packet may be
// anything that reached the port.
func parseRequest(b []byte) (request, error) {
	if len(b) < 2 {
		return request{}, fmt.Errorf("packet of %d bytes: %w", len(b), errNotRequest)
	}
	op := binary.BigEndian.Uint16(b)
	if op != opRRQ && op != opWRQ {
		return request{}, fmt.Errorf("opcode %d: %w", op, errNotRequest)
	}
	if len(b) > maxRequest {
		return request{}, fmt.Errorf("request of %d bytes, longer than %d", len(b), maxRequest)
	}
	r := request{write: op == opWRQ}
	rest := b[2:]
	var ok bool
	if r.name, rest, ok = cutString(rest); !ok || r.name == "" {
		return request{}, errors.New("request without a file name")
	}
	if r.mode, rest, ok = cutString(rest); !ok || r.mode == "" {
		return request{}, errors.New("request without a mode")
	}
	r.mode = strings.ToLower(r.mode)
	for len(rest) > 0 {
		var o option
		if o.name, rest, ok = cutString(rest); !ok {
			return request{}, errors.New("request with an unfinished option")
		}
		if o.name == "" { // padding: some ROMs send a buffer of fixed size
			break
		}
		if o.value, rest, ok = cutString(rest); !ok {
			return request{}, fmt.Errorf("option %q without a value", o.name)
		}
		if len(r.options) == maxOptions {
			return request{}, fmt.Errorf("more than %d options", maxOptions)
		}
		r.options = append(r.options, o)
	}
	return r, nil
}

// encode is the inverse of parseRequest.
func (r request) encode() []byte {
	op := uint16(opRRQ)
	if r.write {
		op = opWRQ
	}
	b := binary.BigEndian.AppendUint16(nil, op)
	b = appendString(appendString(b, r.name), r.mode)
	for _, o := range r.options {
		b = appendString(appendString(b, o.name), o.value)
	}
	return b
}

func encodeOACK(options []option) []byte {
	b := binary.BigEndian.AppendUint16(nil, opOACK)
	for _, o := range options {
		b = appendString(appendString(b, o.name), o.value)
	}
	return b
}

func encodeERROR(code uint16, text string) []byte {
	b := binary.BigEndian.AppendUint16(nil, opERROR)
	b = binary.BigEndian.AppendUint16(b, code)
	return appendString(b, text)
}

// putDATA writes the header of a DATA packet in front of its payload.
func putDATA(b []byte, block uint16) {
	binary.BigEndian.PutUint16(b, opDATA)
	binary.BigEndian.PutUint16(b[2:], block)
}

// reply is what a client sends during a transfer: an ACK, or an ERROR.
type reply struct {
	op    uint16
	block uint16 // of an ACK
	code  uint16 // of an ERROR
	text  string // of an ERROR
}

// parseReply reads an ACK or ERROR; ok is false for everything else, which a
// transfer has no use for.
func parseReply(b []byte) (r reply, ok bool) {
	if len(b) < headerLen {
		return reply{}, false
	}
	r.op = binary.BigEndian.Uint16(b)
	n := binary.BigEndian.Uint16(b[2:])
	switch r.op {
	case opACK:
		r.block = n
	case opERROR:
		r.code = n
		// The text is for people and often not terminated.
		text, _, _ := bytes.Cut(b[headerLen:], []byte{0})
		r.text = printable(string(text))
	default:
		return reply{}, false
	}
	return r, true
}

// printable makes text from a client fit for a log line and a status page.
func printable(s string) string {
	const limit = 120
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	head, rest, ok := bytes.Cut(b, []byte{0})
	return string(head), rest, ok
}

func appendString(b []byte, s string) []byte { return append(append(b, s...), 0) }

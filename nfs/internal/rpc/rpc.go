// SPDX-License-Identifier: GPL-2.0-or-later

// Package rpc speaks the server's side of ONC RPC version 2 (RFC 5531) over
// TCP: it cuts records, reads call headers and credentials, and writes reply
// headers, on plain byte slices and without allocating. It knows no program.
package rpc

import (
	"encoding/binary"

	"slate/nfs/internal/xdr"
)

// Version is the only version of RPC there is.
const Version = 2

// Message types.
const (
	call  = 0
	reply = 1
)

// Authentication flavours that are understood.
const (
	AuthNone = 0
	AuthUnix = 1
)

// MaxAuth is the longest credential or verifier.
const MaxAuth = 400

// Accept is the outcome of a call that was understood.
type Accept uint32

// The outcomes, RFC 5531, section 9.
const (
	Success Accept = iota
	ProgUnavail
	ProgMismatch
	ProcUnavail
	GarbageArgs
	SystemErr
)

// AuthStat says what is wrong with a credential.
type AuthStat uint32

// Causes of a refused credential, RFC 5531, section 9.
const (
	AuthOK      AuthStat = 0
	AuthBadCred AuthStat = 1
	AuthBadVerf AuthStat = 3
)

// Call is the header of a call and where its arguments are.
type Call struct {
	XID        uint32
	RPCVersion uint32
	Prog       uint32
	Vers       uint32
	Proc       uint32
	Flavor     uint32
	Cred       []byte // body of the credential
	Args       []byte
}

// Problem says what to do with a message that is no proper call.
type Problem uint8

// The problems ParseCall finds.
const (
	None       Problem = iota
	Garbage            // no call, and not to be answered: close the connection
	BadVersion         // answer with AppendMismatch
	BadVerf            // answer with AppendAuthError
)

// ParseCall reads the header of the message in record.
func ParseCall(record []byte, c *Call) Problem {
	d := xdr.NewDecoder(record)
	c.XID = d.Uint32()
	kind := d.Uint32()
	c.RPCVersion = d.Uint32()
	if !d.Ok() || kind != call {
		return Garbage
	}
	if c.RPCVersion != Version {
		return BadVersion
	}
	c.Prog, c.Vers, c.Proc = d.Uint32(), d.Uint32(), d.Uint32()
	c.Flavor = d.Uint32()
	c.Cred = d.Opaque(MaxAuth)
	if !d.Ok() {
		return Garbage
	}
	d.Uint32()
	d.Opaque(MaxAuth)
	if !d.Ok() {
		return BadVerf
	}
	c.Args = d.Rest()
	return None
}

// Cred is who a call says it is from.
type Cred struct {
	UID, GID uint32
	GIDs     [16]uint32
	NGIDs    int
	Machine  []byte // host name, a slice of the message
}

// Nobody is the user of calls without credentials.
const Nobody = 65534

// ParseCred reads the credential of a call.
func ParseCred(c *Call, cred *Cred) AuthStat {
	switch c.Flavor {
	case AuthNone:
		cred.UID, cred.GID, cred.NGIDs, cred.Machine = Nobody, Nobody, 0, nil
		return AuthOK
	case AuthUnix:
		d := xdr.NewDecoder(c.Cred)
		d.Uint32() // stamp
		cred.Machine = d.Opaque(255)
		cred.UID, cred.GID = d.Uint32(), d.Uint32()
		n := d.Uint32()
		if n > uint32(len(cred.GIDs)) {
			return AuthBadCred
		}
		cred.NGIDs = int(n)
		for i := range cred.NGIDs {
			cred.GIDs[i] = d.Uint32()
		}
		if !d.Ok() {
			return AuthBadCred
		}
		return AuthOK
	}
	return AuthBadCred
}

// In reports whether the user belongs to the group.
func (c *Cred) In(gid uint32) bool {
	if c.GID == gid {
		return true
	}
	for _, g := range c.GIDs[:c.NGIDs] {
		if g == gid {
			return true
		}
	}
	return false
}

// HeaderLen is the length of what Begin writes: record mark and header of an
// accepted reply.
const HeaderLen = 28

// Begin appends the header of an accepted reply, with room for the record
// mark. The results follow; End, given the same start, completes it.
func Begin(b []byte, xid uint32, a Accept) []byte {
	var h [HeaderLen]byte
	binary.BigEndian.PutUint32(h[4:], xid)
	h[11] = reply
	binary.BigEndian.PutUint32(h[24:], uint32(a))
	return append(b, h[:]...)
}

// End writes the record mark of the reply that starts at start. Extra is what
// will follow on the wire without being in b.
func End(b []byte, start, extra int) {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4+extra)|lastFragment)
}

// AppendAccept appends a whole reply without results.
func AppendAccept(b []byte, xid uint32, a Accept) []byte {
	start := len(b)
	b = Begin(b, xid, a)
	End(b, start, 0)
	return b
}

// AppendProgMismatch appends the reply to a call for a version of the program
// that is not served, naming those that are.
func AppendProgMismatch(b []byte, xid, low, high uint32) []byte {
	start := len(b)
	b = Begin(b, xid, ProgMismatch)
	b = xdr.AppendUint32(b, low)
	b = xdr.AppendUint32(b, high)
	End(b, start, 0)
	return b
}

// AppendMismatch appends the denial of a call in another version of RPC.
func AppendMismatch(b []byte, xid uint32) []byte {
	return appendDenied(b, xid, 0, Version, Version)
}

// AppendAuthError appends the denial of a call with a bad credential.
func AppendAuthError(b []byte, xid uint32, why AuthStat) []byte {
	return appendDenied(b, xid, 1, uint32(why))
}

func appendDenied(b []byte, xid, stat uint32, body ...uint32) []byte {
	const denied = 1
	start := len(b)
	b = xdr.AppendUint32(b, 0)
	b = xdr.AppendUint32(b, xid)
	b = xdr.AppendUint32(b, reply)
	b = xdr.AppendUint32(b, denied)
	b = xdr.AppendUint32(b, stat)
	for _, v := range body {
		b = xdr.AppendUint32(b, v)
	}
	End(b, start, 0)
	return b
}

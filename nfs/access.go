// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import "slate/nfs/internal/rpc"

// Permission bits of one class of users.
const (
	permR = 4
	permW = 2
	permX = 1
)

// perms returns what the caller may do with an entry, as the kernel would
// decide for a local file.
func perms(v *view, entry uint32, who *rpc.Cred) uint32 {
	mode := v.attr32(entry, attrMode)
	switch {
	case who.UID == 0:
		p := uint32(permR | permW)
		if mode&0111 != 0 || v.kind(entry) == typeDir {
			p |= permX
		}
		return p
	case who.UID == v.attr32(entry, attrUID):
		return mode >> 6 & 7
	case who.In(v.attr32(entry, attrGID)):
		return mode >> 3 & 7
	}
	return mode & 7
}

// accessBits answers ACCESS. What would change the export is never granted, but
// writing to a device node, pipe or socket does not: without those bits a client
// could not even open the /dev/null of its root.
func accessBits(v *view, entry uint32, who *rpc.Cred) uint32 {
	p := perms(v, entry, who)
	var bits uint32
	if p&permR != 0 {
		bits |= accessRead
	}
	if p&permW != 0 {
		switch v.kind(entry) {
		case typeBlk, typeChr, typeSock, typeFifo:
			bits |= accessModify | accessExtend
		}
	}
	if p&permX != 0 {
		if v.kind(entry) == typeDir {
			bits |= accessLookup
		} else {
			bits |= accessExecute
		}
	}
	return bits
}

// mayRead decides READ. Who may only execute a file may read it, because a
// client has no other way to load it; and the owner may always, because he may
// have lost the permission after opening it (RFC 1813, section 4.4).
func mayRead(v *view, entry uint32, who *rpc.Cred) bool {
	return perms(v, entry, who)&(permR|permX) != 0 || who.UID == v.attr32(entry, attrUID)
}

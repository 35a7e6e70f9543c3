// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

// Programs and their versions.
const (
	progNFS    = 100003
	progMount  = 100005
	nfsVersion = 3
	mntVersion = 3
)

// Procedures of NFS version 3, RFC 1813, section 3.
const (
	procNull = iota
	procGetattr
	procSetattr
	procLookup
	procAccess
	procReadlink
	procRead
	procWrite
	procCreate
	procMkdir
	procSymlink
	procMknod
	procRemove
	procRmdir
	procRename
	procLink
	procReaddir
	procReaddirplus
	procFsstat
	procFsinfo
	procPathconf
	procCommit
	procCount
)

// Procedures of MOUNT version 3, RFC 1813, appendix I.
const (
	mntNull = iota
	mntMnt
	mntDump
	mntUmnt
	mntUmntall
	mntExport
	mntCount
)

// status is nfsstat3.
type status uint32

// The values of nfsstat3 that are ever answered, RFC 1813, section 2.6.
const (
	statusOK          status = 0
	statusNoEnt       status = 2
	statusIO          status = 5
	statusAcces       status = 13
	statusNotDir      status = 20
	statusIsDir       status = 21
	statusInval       status = 22
	statusROFS        status = 30
	statusNameTooLong status = 63
	statusStale       status = 70
	statusBadHandle   status = 10001
	statusBadCookie   status = 10003
	statusTooSmall    status = 10005
	statusJukebox     status = 10008
)

// File types, ftype3.
const (
	typeReg  = 1
	typeDir  = 2
	typeBlk  = 3
	typeChr  = 4
	typeLnk  = 5
	typeSock = 6
	typeFifo = 7
)

// Bits of ACCESS.
const (
	accessRead    = 0x01
	accessLookup  = 0x02
	accessModify  = 0x04
	accessExtend  = 0x08
	accessExecute = 0x20
)

// Limits told to clients and kept.
const (
	maxName  = 255
	maxFH    = 64      // longest handle the protocol allows
	maxPath  = 1024    // longest export path, MNTPATHLEN
	maxRead  = 1 << 20 // rtmax
	maxDir   = 64 << 10
	maxWrite = 32 << 10 // for the calls that are refused: they must still fit a record
)

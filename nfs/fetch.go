// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"slate/nfs/internal/rpc"
	"slate/nfs/internal/xdr"
)

// Fetched is what Fetch saw on its way.
type Fetched struct {
	Size    uint64 // of the file, by its attributes
	Content []byte // its beginning
}

// Fetch mounts an export and reads the beginning of a file, at most limit bytes,
// the way a kernel's client does: MNT, GETATTR, LOOKUP for each part of the path,
// READ. It is for trying a server out; it follows no symbolic links.
func Fetch(ctx context.Context, addr, export, path string, limit int) (Fetched, error) {
	f, err := fetchFile(ctx, addr, export, path, limit)
	if err != nil {
		err = fmt.Errorf("nfs: %s:%s: %w", addr, export, err)
	}
	return f, err
}

func fetchFile(ctx context.Context, addr, export, path string, limit int) (f Fetched, err error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return f, err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	c := &caller{nc: nc}

	r, err := c.call(progMount, mntVersion, mntMnt, xdr.AppendOpaque(nil, export))
	if err != nil {
		return f, fmt.Errorf("MOUNT: %w", err)
	}
	fh := append([]byte(nil), r.Opaque(maxFH)...)
	if r, err = c.call(progNFS, nfsVersion, procGetattr, xdr.AppendOpaque(nil, fh)); err == nil && r.Uint32() != typeDir {
		err = errors.New("the export's root is no directory")
	}
	if err != nil {
		return f, fmt.Errorf("GETATTR: %w", err)
	}
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if r, err = c.call(progNFS, nfsVersion, procLookup, xdr.AppendOpaque(xdr.AppendOpaque(nil, fh), name)); err != nil {
			return f, fmt.Errorf("LOOKUP %q: %w", name, err)
		}
		fh = append([]byte(nil), r.Opaque(maxFH)...)
	}
	args := xdr.AppendUint64(xdr.AppendOpaque(nil, fh), 0)
	if r, err = c.call(progNFS, nfsVersion, procRead, xdr.AppendUint32(args, uint32(limit))); err != nil {
		return f, fmt.Errorf("READ: %w", err)
	}
	if r.Bool() { // attributes: type, mode, links, owner and group, then the size
		r.Fixed(5 * 4)
		f.Size = r.Uint64()
		r.Fixed(56)
	}
	count, _ := r.Uint32(), r.Bool()
	f.Content = append([]byte(nil), r.Opaque(limit)...)
	if !r.Ok() || int(count) != len(f.Content) {
		return f, errors.New("READ: the answer is garbled")
	}
	return f, nil
}

// caller makes one call after the other.
type caller struct {
	nc  net.Conn
	xid uint32
}

// authSysRoot is the credential AUTH_SYS, which is followed by the length of its
// body, five words (stamp, no machine name, user and group 0, no more groups), and
// by an empty verifier.
const authSysRoot = 1

// maxAnswer bounds an answer that a server makes us hold.
const maxAnswer = maxRead + 4<<10

// call returns the decoder behind the status of the reply, which was 0.
func (c *caller) call(prog, vers, proc uint32, args []byte) (*xdr.Decoder, error) {
	c.xid++
	b := make([]byte, 4, 64+len(args))
	for _, v := range []uint32{c.xid, 0, rpc.Version, prog, vers, proc, authSysRoot, 20, 0, 0, 0, 0, 0, 0, 0} {
		b = xdr.AppendUint32(b, v)
	}
	b = append(b, args...)
	binary.BigEndian.PutUint32(b, 1<<31|uint32(len(b)-4)) // the last fragment
	if _, err := c.nc.Write(b); err != nil {
		return nil, err
	}
	var mark [4]byte
	if _, err := io.ReadFull(c.nc, mark[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(mark[:])
	if n>>31 == 0 || n&^(1<<31) > maxAnswer {
		return nil, fmt.Errorf("record mark %#x", n)
	}
	body := make([]byte, n&^(1<<31))
	if _, err := io.ReadFull(c.nc, body); err != nil {
		return nil, err
	}
	d := xdr.NewDecoder(body)
	xid, kind, denied := d.Uint32(), d.Uint32(), d.Uint32()
	_, _ = d.Uint32(), d.Opaque(rpc.MaxAuth)
	accepted, stat := d.Uint32(), d.Uint32()
	switch {
	case !d.Ok() || xid != c.xid || kind != 1:
		return nil, errors.New("the answer is no reply to the call")
	case denied != 0 || accepted != 0:
		return nil, fmt.Errorf("the call is not accepted (%d, %d)", denied, accepted)
	case stat != 0:
		return nil, fmt.Errorf("status %d", stat)
	}
	return &d, nil
}

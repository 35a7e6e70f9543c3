// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"

	gonfs "github.com/willscott/go-nfs"

	"slate/images/tree"
	"slate/nfs/internal/rpc"
	"slate/nfs/internal/xdr"
)

// mount answers the MOUNT program, RFC 1813, appendix I.
func (q *request) mount() outcome {
	d := xdr.NewDecoder(q.call.Args)
	switch q.call.Proc {
	case mntNull:
		start := len(q.out.buf)
		return q.finish(start, rpc.Begin(q.out.buf, q.call.XID, rpc.Success))
	case mntMnt, mntUmnt:
		path := d.Opaque(maxPath)
		if !d.Ok() {
			return malformed
		}
		if len(path) == 0 && q.call.Proc == mntMnt {
			start, b := q.reply(statusNoEnt) // go-nfs takes it for the end of the connection
			return q.finish(start, b)
		}
		if !q.mayWait {
			return mustWait
		}
		o := q.passOn()
		if q.call.Proc == mntUmnt {
			q.unmounted(func(p string) bool { return p == cleanPath(string(path)) })
		}
		return o
	case mntUmntall:
		if !q.mayWait {
			return mustWait
		}
		q.unmounted(func(string) bool { return true })
		start := len(q.out.buf)
		return q.finish(start, rpc.Begin(q.out.buf, q.call.XID, rpc.Success))
	case mntDump:
		return q.dump()
	case mntExport:
		if !q.mayWait {
			return mustWait
		}
		return q.exports()
	}
	return unknown
}

// dump answers DUMP with what is mounted, as far as it is known and fits.
func (q *request) dump() outcome {
	start := len(q.out.buf)
	b := rpc.Begin(q.out.buf, q.call.XID, rpc.Success)
	for _, m := range q.c.s.mounts.list() {
		host := m.client.String()
		if cap(b)-len(b) < len(host)+len(m.path)+64 {
			break
		}
		b = append(b, 0, 0, 0, 1)
		b = xdr.AppendOpaque(b, host)
		b = xdr.AppendOpaque(b, m.path)
	}
	return q.finish(start, append(b, 0, 0, 0, 0))
}

// exports answers EXPORT, each open to everybody. Clients such as libnfs ask
// before they mount, and fail without an answer.
func (q *request) exports() outcome {
	var paths []string
	if list := q.c.s.List; list != nil {
		var err error
		if paths, err = list(q.c.ctx); err != nil {
			q.c.s.log.Error("exports cannot be listed", "addr", q.c.remote, "err", err)
		}
	}
	start := len(q.out.buf)
	b := rpc.Begin(q.out.buf, q.call.XID, rpc.Success)
	for _, p := range paths {
		if cap(b)-len(b) < len(p)+64 {
			break
		}
		b = append(b, 0, 0, 0, 1)
		b = xdr.AppendOpaque(b, p)
		b = append(b, 0, 0, 0, 0) // no groups
	}
	return q.finish(start, append(b, 0, 0, 0, 0))
}

func cleanPath(p string) string {
	if p = strings.TrimRight(p, "/"); p == "" {
		return "/"
	}
	return p
}

var errNotDir = errors.New("not a directory")

// resolve finds the version and the directory in it that an export path names.
// The longest beginning that is an export counts; the rest is looked up inside
// the version and may lead through its symbolic links.
func (s *Server) resolve(ctx context.Context, path string) (*view, uint32, error) {
	path = cleanPath(path)
	var first error
	for export := path; ; {
		d, t, err := s.Exports.Export(ctx, export)
		if err == nil {
			v, err := s.views.put(ctx, d, t)
			if err != nil {
				return nil, 0, err
			}
			dir, err := t.Resolve(path[len(export):])
			if err == nil && t.Type(dir) != tree.Dir {
				err = errNotDir
			}
			return v, dir, err
		}
		if first == nil {
			first = err
		}
		i := strings.LastIndexByte(export, '/')
		if i <= 0 || !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, first
		}
		export = export[:i]
	}
}

func mountStatus(err error) gonfs.MountStatus {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gonfs.MountStatusErrNoEnt
	case errors.Is(err, fs.ErrPermission):
		return gonfs.MountStatusErrAcces
	case errors.Is(err, errNotDir), errors.Is(err, syscall.ENOTDIR):
		return gonfs.MountStatusErrNotDir
	}
	return gonfs.MountStatusErrIO
}

// mounted records the outcome of MNT.
func (q *request) mounted(path string, v *view, err error) {
	path = cleanPath(path)
	e := q.event(Mount, path)
	e.Err = err
	if err == nil {
		e.Tree = v.digest
		q.c.s.mounts.add(mountEntry{q.c.remote.Addr(), path})
	}
	q.c.s.emit(e)
}

func (q *request) unmounted(match func(path string) bool) {
	for _, m := range q.c.s.mounts.remove(q.c.remote.Addr(), match) {
		q.c.s.emit(q.event(Unmount, m.path))
	}
}

func (q *request) event(k EventKind, path string) Event {
	return Event{Kind: k, Client: q.c.remote, Path: path, UID: q.cred.UID, GID: q.cred.GID, Machine: string(q.cred.Machine)}
}

// mountTable knows who has mounted what, for DUMP. It is only ever as true as
// what clients tell, so it is bounded and may be forgotten.
type mountTable struct {
	mu      sync.Mutex
	entries []mountEntry // oldest first
}

type mountEntry struct {
	client netip.Addr
	path   string
}

const maxMounts = 4096

func (t *mountTable) add(e mountEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.entries, e) {
		return
	}
	if len(t.entries) == maxMounts {
		t.entries = slices.Delete(t.entries, 0, 1)
	}
	t.entries = append(t.entries, e)
}

func (t *mountTable) remove(client netip.Addr, match func(string) bool) (gone []mountEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = slices.DeleteFunc(t.entries, func(e mountEntry) bool {
		if e.client != client || !match(e.path) {
			return false
		}
		gone = append(gone, e)
		return true
	})
	return gone
}

func (t *mountTable) list() []mountEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.entries)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/go-git/go-billy/v5"
	gonfs "github.com/willscott/go-nfs"

	"slate/nfs/internal/rpc"
)

// passOn has go-nfs answer the call. It gets a connection of its own, which
// carries this one call, so that nothing of it stays behind for a client that
// is idle, and the handler knows who is asking.
func (q *request) passOn() outcome {
	ctx, cancel := context.WithTimeout(q.c.ctx, goTimeout)
	defer cancel()
	conn := newCallConn(q.record, q.c.nc)
	server := gonfs.Server{Handler: goHandler{q}, ID: [8]byte{'s', 'l', 'a', 't', 'e'}, Context: ctx}
	_ = server.Serve(&oneConn{conn: conn}) // ends when there is no second connection
	reply := conn.wait(ctx)
	conn.Close()
	if reply == nil || len(reply) > q.out.room() {
		q.out.buf = rpc.AppendAccept(q.out.buf, q.call.XID, rpc.SystemErr)
		return answered
	}
	q.out.buf = append(q.out.buf, reply...)
	return answered
}

// goTimeout bounds a call to go-nfs, which may read a tree list from the disk.
const goTimeout = time.Minute

// oneConn is a listener with one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	c := l.conn
	l.conn = nil
	return c, nil
}

func (l *oneConn) Close() error { return nil }

func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "slate", Net: "unix"} }

// callConn is a connection in memory that brings one call and takes one reply.
// The addresses are those of the client's connection.
type callConn struct {
	net.Conn
	call *bytes.Reader // framed
	once sync.Once
	done chan struct{} // closed with the reply, or without

	mu    sync.Mutex
	reply []byte
}

func newCallConn(record []byte, client net.Conn) *callConn {
	framed := binary.BigEndian.AppendUint32(make([]byte, 0, len(record)+4), uint32(len(record))|1<<31)
	return &callConn{Conn: client, call: bytes.NewReader(append(framed, record...)), done: make(chan struct{})}
}

// Read gives the call, and the end of the connection only after the reply:
// go-nfs drops what it has not written when it sees the end.
func (c *callConn) Read(p []byte) (int, error) {
	if n, err := c.call.Read(p); err == nil {
		return n, nil
	}
	<-c.done
	return 0, io.EOF
}

func (c *callConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reply = append(c.reply, p...)
	if len(c.reply) >= 4 && len(c.reply)-4 >= int(binary.BigEndian.Uint32(c.reply)&^(1<<31)) {
		c.once.Do(func() { close(c.done) })
	}
	return len(p), nil
}

// Close ends this connection and leaves the client's alone.
func (c *callConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// wait returns the framed reply, nil if there is none.
func (c *callConn) wait(ctx context.Context) []byte {
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.reply) == 0 {
		return nil
	}
	return c.reply
}

// goHandler is what go-nfs asks during one call.
type goHandler struct{ q *request }

func (h goHandler) Mount(ctx context.Context, _ net.Conn, r gonfs.MountRequest) (gonfs.MountStatus, billy.Filesystem, []gonfs.AuthFlavor) {
	v, dir, err := h.q.c.s.resolve(ctx, string(r.Dirpath))
	h.q.mounted(string(r.Dirpath), v, err)
	if err != nil {
		return mountStatus(err), nil, nil
	}
	return gonfs.MountStatusOk, roFS{v: v, root: dir}, []gonfs.AuthFlavor{gonfs.AuthFlavorUnix, gonfs.AuthFlavorNull}
}

func (h goHandler) Change(billy.Filesystem) billy.Change { return nil }

func (h goHandler) FSStat(context.Context, billy.Filesystem, *gonfs.FSStat) error { return nil }

func (h goHandler) ToHandle(f billy.Filesystem, path []string) []byte {
	ro, ok := f.(roFS)
	if !ok {
		return nil // go-nfs asks also after a mount was refused
	}
	entry, ok := ro.find(path)
	if !ok {
		return nil
	}
	return appendHandle(nil, &ro.v.prefix, ro.v.tree.Canonical(entry))[4:]
}

func (h goHandler) FromHandle(fh []byte) (billy.Filesystem, []string, error) {
	v, entry, st, _ := h.q.object(fh)
	if st != statusOK {
		return nil, nil, &gonfs.NFSStatusError{NFSStatus: gonfs.NFSStatus(st)}
	}
	return roFS{v: v}, pathOf(v.tree, entry), nil
}

func (h goHandler) InvalidateHandle(billy.Filesystem, []byte) error { return nil }

// HandleLimit is about handles in memory, of which there are none.
func (h goHandler) HandleLimit() int { return 1 << 30 }

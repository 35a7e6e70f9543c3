// SPDX-License-Identifier: GPL-2.0-or-later

// Package nfs serves versions of images read-only by NFSv3 (RFC 1813) over
// TCP, the MOUNT protocol on the same port, so that no portmapper is needed.
//
// A file handle is the first 16 bytes of the version's tree digest and the
// number of the entry in its tree list. Nothing is remembered about clients:
// handles, directory cookies and verifiers mean the same after a restart and
// on every server that has the version.
//
// The procedures that clients call all the time are answered here, from the
// tree in memory and from blobs. The rest is passed to go-nfs over a
// connection in memory. The package knows nothing of how images are kept or
// named: its caller says which tree an export path means.
package nfs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"slate/images"
	"slate/images/tree"
)

// Exports says what is served.
type Exports interface {
	// Export returns the tree that an export path names. An error that is
	// fs.ErrNotExist or fs.ErrPermission is told to the client as such. The
	// path begins with a slash and does not end with one; of a longer path
	// that leads into the tree, it is asked for the beginnings too.
	Export(ctx context.Context, path string) (images.Digest, *tree.Tree, error)
	// ByPrefix returns the tree whose digest begins with these 16 bytes; an
	// error that is fs.ErrNotExist makes the client's file handle stale, one
	// that is ErrLater makes the client ask again some seconds later.
	ByPrefix(ctx context.Context, prefix [16]byte) (*tree.Tree, error)
}

// ErrLater says that it cannot be told yet whether a version is there.
var ErrLater = errors.New("not known yet")

// Blobs gives the contents of files.
type Blobs interface {
	OpenBlob(images.Digest) (*os.File, error)
}

// EventKind says what an Event is about.
type EventKind uint8

// The events.
const (
	Mount   EventKind = iota + 1 // a client asked to mount an export
	Unmount                      // a client says that it has unmounted it
)

// String returns the word for logs.
func (k EventKind) String() string {
	switch k {
	case Mount:
		return "mount"
	case Unmount:
		return "unmount"
	}
	return "unknown"
}

// Event is something that a client did and people want to know.
type Event struct {
	Kind     EventKind
	Client   netip.AddrPort
	Path     string
	Tree     images.Digest // the version mounted
	UID, GID uint32        // as the client says
	Machine  string        // host name, as the client says
	Err      error         // why a mount was refused
}

// Server serves exports. Set the fields before the first Serve and leave them
// alone then.
type Server struct {
	Exports Exports // required
	Blobs   Blobs   // required
	Log     *slog.Logger
	// Events, if set, is called for each event, by several goroutines at
	// once; the client waits for it.
	Events func(Event)
	// List, if set, returns the export paths that are shown to those who ask
	// for a list. They are for people: what it leaves out can be mounted.
	List func(ctx context.Context) ([]string, error)

	// Port is the port of NFS as told to those who take this server for a
	// portmapper, which it is too; 0: the port that they have asked on.
	Port uint16
	// Trace, if set, gets a line for each call that reads something, to be
	// replayed by nfsbench. It makes everything slower.
	Trace io.Writer

	MaxConns    int           // connections at a time; 0: 16384
	MaxFiles    int           // blobs kept open; 0: 4096
	ReplyMemory int64         // bytes for calls being answered, of all clients; 0: 64 MiB, at least 1 MiB
	IdleTimeout time.Duration // a connection without calls is closed; 0: 10 minutes
	// A connection is closed too that takes no reply or leaves a call half sent
	// for so long, or for a tenth of it while ReplyMemory is used up and it has
	// part of it; 0: 1 minute.
	SlowTimeout time.Duration

	once   sync.Once
	log    *slog.Logger
	views  viewCache
	blobs  blobCache
	pools  pools
	work   slots // connections with buffers
	slow   slots // calls that wait
	mounts mountTable
	clock  atomic.Int64

	traceMu sync.Mutex
	epoch   time.Time

	mu      sync.Mutex
	conns   map[*conn]struct{}
	serving int // calls of Serve
}

func (s *Server) init() {
	s.log = s.Log
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.MaxConns = orDefault(s.MaxConns, 16384)
	s.IdleTimeout = orDefault(s.IdleTimeout, 10*time.Minute)
	s.SlowTimeout = orDefault(s.SlowTimeout, time.Minute)
	memory := max(orDefault(s.ReplyMemory, 64<<20), 1<<20)
	s.work = make(slots, memory/2/workMem)
	s.slow = make(slots, memory/2/workMem)
	s.views = viewCache{exports: s.Exports, max: 64}
	s.blobs = blobCache{open: s.Blobs.OpenBlob, max: orDefault(s.MaxFiles, 4096)}
	s.conns = make(map[*conn]struct{})
	s.epoch = time.Now()
	s.clock.Store(1)
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

func (s *Server) emit(e Event) {
	if s.Events != nil {
		s.Events(e)
	}
}

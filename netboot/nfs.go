// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slate/images"
	"slate/images/store"
	"slate/images/tree"
	"slate/netboot/api"
	"slate/nfs"
)

// newExport makes the NFS server; its listeners are open.
func (s *Server) newExport() *nfs.Server {
	return &nfs.Server{Exports: s.exports, Blobs: s.store, List: s.exports.list, Events: s.nfsEvent, Log: s.Log,
		ReplyMemory: int64(s.Settings.NFS.Memory) << 20}
}

// mounts lists who is connected to the NFS server, and to which tree.
func (s *Server) mounts() []api.Mount {
	list := []api.Mount{}
	for _, u := range s.export.InUse() {
		list = append(list, api.Mount{Address: u.Client.Addr().Unmap().String(), Tree: u.Tree})
	}
	slices.SortFunc(list, func(a, b api.Mount) int {
		return cmp.Or(strings.Compare(a.Address, b.Address), slices.Compare(a.Tree[:], b.Tree[:]))
	})
	return slices.Compact(list)
}

func (s *Server) serveNFS(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range s.nfs {
		g.Go(func() error { return s.export.Serve(ctx, l) })
	}
	return g.Wait()
}

// nfsEvent puts a machine's mount into its timeline, above all a refused one:
// the machine can only say that it did not work.
func (s *Server) nfsEvent(ev nfs.Event) {
	if ev.Kind != nfs.Mount {
		return
	}
	e := api.Event{Step: api.StepRoot, State: api.StateNote, Text: "NFS mount of " + ev.Path}
	if ev.Err != nil {
		e.State, e.Text = api.StateFailed, fmt.Sprintf("NFS mount of %s refused: %v", ev.Path, ev.Err)
	}
	s.nodes.ByAddress(ev.Client.Addr().Unmap().String(), e)
}

// exports finds the trees of the NFS server in the store. The path of an export
// is a reference to a version: /demo/<tree digest>, /demo/3, /demo@stable.
type exports struct {
	store *store.Store

	mu       sync.Mutex
	prefixes map[[16]byte]images.Digest
	scanned  time.Time // when the store was last searched for all of them
}

// Export implements nfs.Exports.
func (e *exports) Export(ctx context.Context, path string) (images.Digest, *tree.Tree, error) {
	ref, err := images.ParseRef(strings.Trim(path, "/"))
	if err != nil {
		return images.Digest{}, nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	rec, err := e.store.Resolve(ref)
	if err != nil {
		return images.Digest{}, nil, err
	}
	t, err := e.store.Tree(ctx, rec.Tree)
	if err != nil {
		return rec.Tree, nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.prefixes == nil {
		e.prefixes = map[[16]byte]images.Digest{}
	}
	e.prefixes[[16]byte(rec.Tree[:16])] = rec.Tree
	return rec.Tree, t, nil
}

// ByPrefix implements nfs.Exports.
func (e *exports) ByPrefix(ctx context.Context, prefix [16]byte) (*tree.Tree, error) {
	d, err := e.find(prefix)
	if err != nil {
		return nil, err
	}
	return e.store.Tree(ctx, d)
}

// rescanPause bounds how often the store is searched for handles that nobody
// knows, which any machine can send as many of as it likes.
const rescanPause = time.Second

func (e *exports) find(prefix [16]byte) (images.Digest, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d, ok := e.prefixes[prefix]
	if ok {
		return d, nil
	}
	if time.Since(e.scanned) <= rescanPause {
		// The version may have come since, and with it the machines of another server.
		return d, nfs.ErrLater
	}
	all, err := e.allTrees()
	if err != nil {
		return d, err
	}
	e.prefixes, e.scanned = all, time.Now()
	if d, ok = all[prefix]; !ok {
		return d, fmt.Errorf("no version has a tree that starts with %x: %w", prefix, fs.ErrNotExist)
	}
	return d, nil
}

// allTrees maps the beginnings of the digests of all trees that versions have.
func (e *exports) allTrees() (map[[16]byte]images.Digest, error) {
	names, err := e.store.Images()
	if err != nil {
		return nil, err
	}
	all := map[[16]byte]images.Digest{}
	for _, name := range names {
		versions, err := e.store.Versions(name)
		if err != nil {
			return nil, err
		}
		for _, rec := range versions {
			all[[16]byte(rec.Tree[:16])] = rec.Tree
		}
	}
	return all, nil
}

// list names the exports that people may want to see: the channels.
func (e *exports) list(context.Context) ([]string, error) {
	names, err := e.store.Images()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		channels, err := e.store.Channels(name)
		if err != nil {
			return nil, err
		}
		for c := range channels {
			out = append(out, "/"+name+"@"+c)
		}
	}
	slices.Sort(out)
	return out, nil
}

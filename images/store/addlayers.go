// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"context"
	"io"
	"path"
	"strings"

	"slate/images"
	"slate/images/tree"
)

// A Layer is one layer of a container image: a tar archive, compressed or not.
type Layer struct {
	Name string // for messages
	Open func() (io.ReadCloser, error)
}

// Names by which a layer takes away what lies in the layers below it; see the
// OCI image specification, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// AddLayers stores the tree that the layers, lowest first, make when they are
// laid over each other.
func (s *Store) AddLayers(ctx context.Context, layers []Layer) (*tree.Tree, images.Digest, error) {
	g, err := s.newGatherer(ctx, "reading")
	if err != nil {
		return nil, images.Digest{}, err
	}
	t := &tarSource{g: g, layered: true}
	for _, l := range layers {
		if err = t.layer(l); err != nil {
			break
		}
	}
	return g.finish(err)
}

func (t *tarSource) layer(l Layer) error {
	r, err := l.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	t.archive, t.offset = l.Name, 0
	start := len(t.g.steps)
	t.whiteouts = nil
	if err := t.run(&ctxReader{t.g.ctx, r}); err != nil {
		return err
	}
	// Whiteouts are about the layers below only, wherever in their own layer
	// they stand: they go first.
	for _, st := range t.g.steps[start:] {
		st.over = true
	}
	own := append(t.whiteouts, t.g.steps[start:]...)
	t.g.steps = append(t.g.steps[:start:start], own...)
	return nil
}

// whiteout notes what a layer takes away and reports whether the name was such
// a note.
func (t *tarSource) whiteout(name string) bool {
	dir, base := path.Split(strings.TrimRight(name, "/"))
	switch {
	case base == whiteoutOpaque:
		t.whiteouts = append(t.whiteouts, &step{path: dir, undo: undoChildren})
	case strings.HasPrefix(base, whiteoutMeta): // aufs's own notes
	case strings.HasPrefix(base, whiteoutPrefix):
		t.whiteouts = append(t.whiteouts, &step{path: dir + strings.TrimPrefix(base, whiteoutPrefix), undo: undoEntry})
	default:
		return false
	}
	return true
}

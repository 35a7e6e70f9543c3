// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/zstd"

	"slate/images"
	"slate/images/tree"
)

// storeSite is what the server under test serves: tree lists and blobs, as the
// appliance's store has them, but with the blobs as links to the files where they
// lie. So both servers read the same files and find both in the page cache, and
// a server just started has to load what an appliance has to load.
type storeSite struct {
	dir     string
	exports map[string]images.Digest

	mu    sync.Mutex
	trees map[images.Digest]*tree.Tree
}

const exportsFile = "exports.json"

// write makes a storeSite of a dirSite.
func (s *dirSite) write(dir string) error {
	exports := map[string]string{}
	for path, t := range s.trees {
		exports[path] = t.Digest().String()
		f, err := os.Create(filepath.Join(dir, t.Digest().String()+".mtree.zst"))
		if err != nil {
			return err
		}
		z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		if _, err := t.WriteTo(z); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	for d, path := range s.paths {
		blob := filepath.Join(dir, d.String()[:2], d.String())
		if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(path, blob); err != nil {
			return err
		}
	}
	data, err := json.Marshal(exports)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, exportsFile), data, 0o644)
}

func openStoreSite(dir string) (*storeSite, error) {
	data, err := os.ReadFile(filepath.Join(dir, exportsFile))
	if err != nil {
		return nil, err
	}
	s := &storeSite{dir: dir, exports: map[string]images.Digest{}, trees: map[images.Digest]*tree.Tree{}}
	var exports map[string]string
	if err := json.Unmarshal(data, &exports); err != nil {
		return nil, err
	}
	for path, text := range exports {
		if s.exports[path], err = images.ParseDigest(text); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// load reads a tree list when it is first asked for, and checks it, as the store does.
func (s *storeSite) load(d images.Digest) (*tree.Tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.trees[d]; t != nil {
		return t, nil
	}
	f, err := os.Open(filepath.Join(s.dir, d.String()+".mtree.zst"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	t, err := tree.Parse(z)
	if err != nil {
		return nil, err
	}
	if t.Digest() != d {
		return nil, fs.ErrInvalid
	}
	s.trees[d] = t
	return t, nil
}

func (s *storeSite) Export(_ context.Context, path string) (images.Digest, *tree.Tree, error) {
	d, ok := s.exports[path]
	if !ok {
		return d, nil, fs.ErrNotExist
	}
	t, err := s.load(d)
	return d, t, err
}

func (s *storeSite) ByPrefix(_ context.Context, p [16]byte) (*tree.Tree, error) {
	for _, d := range s.exports {
		if p == [16]byte(d[:]) {
			return s.load(d)
		}
	}
	return nil, fs.ErrNotExist
}

func (s *storeSite) OpenBlob(d images.Digest) (*os.File, error) {
	return os.Open(filepath.Join(s.dir, d.String()[:2], d.String()))
}

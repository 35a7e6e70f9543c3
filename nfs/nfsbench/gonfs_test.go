// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5"
	gonfs "github.com/willscott/go-nfs"
	gofile "github.com/willscott/go-nfs/file"

	"slate/images/tree"
)

// goServer is go-nfs alone, on the same tree, with handles that cost nothing:
// its own caching handler walks all known handles at each call, and would only
// show that.
type goServer struct {
	*dirSite
	roots map[string]string // export path to directory
}

func serveGoNFS(ln net.Listener, site *dirSite, dirs map[string]string) error {
	return gonfs.Serve(ln, &goServer{dirSite: site, roots: dirs})
}

func (g *goServer) Mount(_ context.Context, _ net.Conn, r gonfs.MountRequest) (gonfs.MountStatus, billy.Filesystem, []gonfs.AuthFlavor) {
	t := g.trees[string(r.Dirpath)]
	if t == nil {
		return gonfs.MountStatusErrNoEnt, nil, nil
	}
	return gonfs.MountStatusOk, g.fs(t), []gonfs.AuthFlavor{gonfs.AuthFlavorUnix}
}

func (g *goServer) fs(t *tree.Tree) goFS {
	for export, tt := range g.trees {
		if tt == t {
			return goFS{t: t, root: g.roots[export]}
		}
	}
	return goFS{}
}

func (g *goServer) Change(billy.Filesystem) billy.Change                          { return nil }
func (g *goServer) FSStat(context.Context, billy.Filesystem, *gonfs.FSStat) error { return nil }
func (g *goServer) InvalidateHandle(billy.Filesystem, []byte) error               { return nil }
func (g *goServer) HandleLimit() int                                              { return 1 << 30 }
func (g *goServer) VerifierFor(string, []fs.FileInfo) uint64                      { return 1 }
func (g *goServer) DataForVerifier(string, uint64) []fs.FileInfo                  { return nil }

func (g *goServer) ToHandle(f billy.Filesystem, path []string) []byte {
	ro, ok := f.(goFS)
	if !ok {
		return nil
	}
	i, _ := ro.t.Find(strings.Join(path, "/"))
	d := ro.t.Digest()
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, 20), d[:16]...), i)
}

func (g *goServer) FromHandle(fh []byte) (billy.Filesystem, []string, error) {
	if len(fh) != 20 {
		return nil, nil, errors.New("bad handle")
	}
	t, err := g.ByPrefix(context.Background(), [16]byte(fh))
	if err != nil {
		return nil, nil, err
	}
	i := binary.BigEndian.Uint32(fh[16:])
	if int(i) >= t.Len() {
		return nil, nil, errors.New("bad handle")
	}
	if i == 0 {
		return g.fs(t), nil, nil
	}
	names := strings.Split(t.Path(i), "/")
	return g.fs(t), names[:len(names):len(names)], nil
}

// goFS reads metadata from the tree and contents from the directory.
type goFS struct {
	billy.Filesystem // what is not here is not used
	t                *tree.Tree
	root             string
}

func (f goFS) Capabilities() billy.Capability        { return billy.ReadCapability | billy.SeekCapability }
func (f goFS) Join(e ...string) string               { return strings.Join(e, "/") }
func (f goFS) Stat(name string) (os.FileInfo, error) { return f.Lstat(name) }
func (f goFS) Readlink(name string) (string, error)  { return os.Readlink(filepath.Join(f.root, name)) }

func (f goFS) Lstat(name string) (os.FileInfo, error) {
	i, ok := f.t.Find(name)
	if !ok {
		return nil, fs.ErrNotExist
	}
	return goInfo{f.t.Entry(i), f.t.Name(i), uint64(i) + 1}, nil
}

func (f goFS) ReadDir(name string) (all []os.FileInfo, err error) {
	i, ok := f.t.Find(name)
	if !ok {
		return nil, fs.ErrNotExist
	}
	for k := range f.t.Children(i) {
		all = append(all, goInfo{f.t.Entry(k), f.t.Name(k), uint64(k) + 1})
	}
	return all, nil
}

func (f goFS) Open(name string) (billy.File, error) {
	file, err := os.Open(filepath.Join(f.root, name))
	if err != nil {
		return nil, err
	}
	return goFile{file}, nil
}

func (f goFS) OpenFile(name string, _ int, _ os.FileMode) (billy.File, error) { return f.Open(name) }

type goFile struct{ *os.File }

func (goFile) Lock() error   { return nil }
func (goFile) Unlock() error { return nil }

type goInfo struct {
	e    tree.Entry
	name string
	id   uint64
}

func (i goInfo) Name() string       { return i.name }
func (i goInfo) Size() int64        { return i.e.Size }
func (i goInfo) IsDir() bool        { return i.e.Type == tree.Dir }
func (i goInfo) Mode() os.FileMode  { return os.FileMode(i.e.Mode) }
func (i goInfo) ModTime() time.Time { return time.Unix(0, i.e.MtimeNs) }
func (i goInfo) Sys() any {
	return &gofile.FileInfo{Nlink: i.e.Nlink, UID: i.e.UID, GID: i.e.GID, Fileid: i.id}
}

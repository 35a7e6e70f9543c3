// SPDX-License-Identifier: GPL-2.0-or-later

// Package archive brings versions out of the store in the forms that other
// programs read (tar, a plain directory, an OCI image), and container images
// into it. It knows formats; what is in the store and what it means it leaves
// to others.
package archive

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"slate/images"
	"slate/images/tree"
)

// Blobs is where contents come from.
type Blobs interface {
	OpenBlob(images.Digest) (*os.File, error)
}

// Tar writes a tree as a tar archive in PAX format. The same tree always gives
// the same bytes. Sockets are left out: tar knows none.
func Tar(ctx context.Context, blobs Blobs, t *tree.Tree, w io.Writer) error {
	tw := tar.NewWriter(w)
	buf := make([]byte, 1<<18)
	for i := range uint32(t.Len()) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if t.Type(i) == tree.Socket {
			continue
		}
		if err := tarEntry(blobs, t, i, tw, buf); err != nil {
			return fmt.Errorf("%s: %w", t.Path(i), err)
		}
	}
	return tw.Close()
}

// TarZstd writes Tar's archive compressed by zstd: a stage4.
func TarZstd(ctx context.Context, blobs Blobs, t *tree.Tree, w io.Writer) error {
	enc, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return err
	}
	if err := Tar(ctx, blobs, t, enc); err != nil {
		enc.Close()
		return err
	}
	return enc.Close()
}

var tarTypes = map[tree.Type]byte{
	tree.File: tar.TypeReg, tree.Dir: tar.TypeDir, tree.Symlink: tar.TypeSymlink,
	tree.Block: tar.TypeBlock, tree.Char: tar.TypeChar, tree.Fifo: tar.TypeFifo,
}

func tarEntry(blobs Blobs, t *tree.Tree, i uint32, tw *tar.Writer, buf []byte) error {
	e := t.Entry(i)
	hdr := &tar.Header{
		Format: tar.FormatPAX, Typeflag: tarTypes[e.Type], Name: tarName(t, i), Mode: int64(e.Mode),
		Uid: int(e.UID), Gid: int(e.GID), ModTime: time.Unix(0, e.MtimeNs),
		Linkname: e.Target, Devmajor: int64(e.Major), Devminor: int64(e.Minor),
	}
	if e.Type == tree.Dir {
		hdr.Name += "/"
	}
	if first := t.Canonical(i); first != i {
		hdr.Typeflag, hdr.Linkname, hdr.Devmajor, hdr.Devminor = tar.TypeLink, tarName(t, first), 0, 0
		return tw.WriteHeader(hdr)
	}
	for _, x := range e.Xattrs {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords["SCHILY.xattr."+x.Name] = string(x.Value)
	}
	if e.Type == tree.File {
		hdr.Size = e.Size
	}
	if err := tw.WriteHeader(hdr); err != nil || e.Type != tree.File {
		return err
	}
	return copyBlob(blobs, e, tw, buf)
}

func tarName(t *tree.Tree, i uint32) string {
	if i == 0 {
		return "."
	}
	return "./" + t.Path(i)
}

// copyBlob writes a file's content to w.
func copyBlob(blobs Blobs, e tree.Entry, w io.Writer, buf []byte) error {
	f, err := blobs.OpenBlob(e.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(f, math.MaxInt64)}, buf)
	if err == nil && n != e.Size {
		err = fmt.Errorf("blob %s has %d bytes, want %d", e.Digest, n, e.Size)
	}
	return err
}

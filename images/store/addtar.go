// SPDX-License-Identifier: GPL-2.0-or-later

package store

import (
	"archive/tar"
	"bufio"
	"compress/bzip2"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"slate/images"
	"slate/images/tree"
)

// An ArchiveError says what is wrong with an archive, and at which entry.
type ArchiveError struct {
	Archive string
	Entry   string // "" if it is about the whole
	Err     error
}

func (e *ArchiveError) Error() string {
	if e.Entry == "" {
		return fmt.Sprintf("%s: %v", e.Archive, e.Err)
	}
	return fmt.Sprintf("%s: entry %q: %v", e.Archive, e.Entry, e.Err)
}

func (e *ArchiveError) Unwrap() error { return e.Err }

// ErrTruncated says that an archive ends before its end.
var ErrTruncated = errors.New("the archive is cut off")

// AddTar stores the files of a tar archive, plain or compressed by gzip, xz,
// zstd or bzip2, and their tree list. Name is what messages call the archive.
//
// The archive is taken as tar takes it: a later entry replaces an earlier one
// of the same name, and a leading slash means the root of the tree. Names that
// contain ".." are refused, and so is what lies below a symbolic link.
func (s *Store) AddTar(ctx context.Context, r io.Reader, name string) (*tree.Tree, images.Digest, error) {
	g, err := s.newGatherer(ctx, "reading")
	if err != nil {
		return nil, images.Digest{}, err
	}
	t := &tarSource{g: g, archive: name}
	return g.finish(t.run(&ctxReader{g.ctx, r}))
}

type tarSource struct {
	g       *gatherer
	archive string
	offset  int64 // bytes read of the uncompressed archive
	src     io.Reader
	names   tree.Builder // the shape so far, to refuse at once what cannot be

	layered   bool    // this is one of several layers; names are checked when all are known
	whiteouts []*step // what the layer at hand takes away from those below
}

// Read counts, so that the end of the archive can be told from a cut.
func (t *tarSource) Read(p []byte) (int, error) {
	n, err := t.src.Read(p)
	t.offset += int64(n)
	return n, err
}

func (t *tarSource) run(r io.Reader) error {
	plain, closer, err := decompress(r)
	if err != nil {
		return &ArchiveError{Archive: t.archive, Err: err}
	}
	defer closer()
	t.src = plain
	tr := tar.NewReader(t)
	entry, entries := "", 0
	for {
		end := (t.offset + 511) &^ 511 // where the next header must start
		hdr, err := tr.Next()
		if err == io.EOF {
			// Go takes the mere end of the data for the end of the archive, too.
			if t.offset-end < 512 {
				err = ErrTruncated
			} else if entries == 0 && !t.layered {
				err = errors.New("the archive is empty")
			} else {
				// Reading on makes the decompressor check its sums.
				_, err = io.Copy(io.Discard, plain)
			}
			return t.wrap(entry, err)
		}
		if err == nil {
			entry = hdr.Name
			entries++
			err = t.entry(hdr, tr)
		}
		if err != nil {
			return t.wrap(entry, err)
		}
	}
}

func (t *tarSource) wrap(entry string, err error) error {
	if err == nil {
		return nil
	}
	if cerr := context.Cause(t.g.ctx); cerr != nil {
		return cerr
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = ErrTruncated
	}
	return &ArchiveError{Archive: t.archive, Entry: entry, Err: err}
}

func (t *tarSource) entry(hdr *tar.Header, content io.Reader) error {
	path, err := cleanTarName(hdr.Name)
	if err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if t.layered && t.whiteout(path) {
		return nil
	}
	if hdr.Typeflag != tar.TypeDir && t.g.s.leavesOut(path, hdr.Size) {
		return nil
	}
	if hdr.Typeflag == tar.TypeLink {
		target, err := cleanTarName(hdr.Linkname)
		if err != nil {
			return fmt.Errorf("hard link to %q: %w", hdr.Linkname, err)
		}
		if path == target {
			return nil // tar --append makes such
		}
		if err := t.shapeLink(path, target); err != nil {
			return err
		}
		t.g.link(path, target)
		return nil
	}
	e, err := tarEntry(hdr)
	if err != nil {
		return err
	}
	if err := t.shape(path, e); err != nil {
		return err
	}
	st := t.g.add(path, e)
	if e.Type == tree.File {
		return t.file(st, hdr.Size, content)
	}
	return nil
}

// shape and shapeLink check an entry against what came before it. The same is
// done when the tree is built, but by then the whole archive has been read.
func (t *tarSource) shape(path string, e tree.Entry) error {
	if t.layered {
		return nil
	}
	if e.Type == tree.File {
		e.Digest[0] = 1 // not known yet; any but none
	}
	return t.names.Add(path, e)
}

func (t *tarSource) shapeLink(path, target string) error {
	if t.layered {
		return nil
	}
	return t.names.Link(path, target)
}

// file reads a file's content. What is small is hashed by the workers while
// the next entries are read.
func (t *tarSource) file(st *step, size int64, content io.Reader) error {
	if size > bufferSize {
		b, err := t.g.in.stream(content)
		if err != nil {
			return err
		}
		st.e.Size, st.e.Digest = b.Size, b.Digest
		t.g.done(st)
		return nil
	}
	if err := t.g.mem.Acquire(t.g.ctx, size); err != nil {
		return err
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(content, data); err != nil {
		t.g.mem.Release(size)
		return err
	}
	t.g.content(st, data, func() { t.g.mem.Release(size) })
	return nil
}

// cleanTarName refuses names that lead out of the tree.
func cleanTarName(name string) (string, error) {
	if name == "" {
		return "", errors.New("it has no name")
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == ".." {
			return "", errors.New(`the name contains ".." and could lead out of the tree`)
		}
	}
	return name, nil
}

var tarTypes = map[byte]tree.Type{
	tar.TypeReg: tree.File, tar.TypeCont: tree.File, tar.TypeGNUSparse: tree.File,
	tar.TypeDir: tree.Dir, tar.TypeSymlink: tree.Symlink, tar.TypeBlock: tree.Block, tar.TypeChar: tree.Char, tar.TypeFifo: tree.Fifo,
}

func tarEntry(hdr *tar.Header) (tree.Entry, error) {
	e := tree.Entry{Type: tarTypes[hdr.Typeflag], Mode: uint32(hdr.Mode) & 0o7777, MtimeNs: nanoseconds(hdr.ModTime)}
	if e.Type == 0 {
		return e, fmt.Errorf("entries of type %q are not understood", hdr.Typeflag)
	}
	if uint64(hdr.Uid) > math.MaxUint32 || uint64(hdr.Gid) > math.MaxUint32 {
		return e, fmt.Errorf("owner %d:%d is out of range", hdr.Uid, hdr.Gid)
	}
	e.UID, e.GID = uint32(hdr.Uid), uint32(hdr.Gid)
	switch e.Type {
	case tree.File:
		e.Size = hdr.Size
	case tree.Symlink:
		e.Target = hdr.Linkname
	case tree.Block, tree.Char:
		if uint64(hdr.Devmajor) > math.MaxUint32 || uint64(hdr.Devminor) > math.MaxUint32 {
			return e, fmt.Errorf("device number %d,%d is out of range", hdr.Devmajor, hdr.Devminor)
		}
		e.Major, e.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
	}
	if e.Type == tree.Symlink { // Linux knows no other mode for them, and none of our attributes
		e.Mode = 0o777
		return e, nil
	}
	var err error
	e.Xattrs, err = tarXattrs(hdr.PAXRecords)
	return e, err
}

// tarXattrs finds extended attributes in the form of GNU tar and star, and in
// that of libarchive, which writes both.
func tarXattrs(pax map[string]string) ([]tree.Xattr, error) {
	found := map[string][]byte{}
	for key, value := range pax {
		if name, ok := strings.CutPrefix(key, "LIBARCHIVE.xattr."); ok {
			name, err := url.PathUnescape(name)
			if err != nil {
				return nil, fmt.Errorf("extended attribute %q: %w", key, err)
			}
			raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
			if err != nil {
				return nil, fmt.Errorf("extended attribute %q: %w", key, err)
			}
			found[name] = raw
		}
	}
	for key, value := range pax {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			found[name] = []byte(value)
		}
	}
	var xs []tree.Xattr
	for name, value := range found {
		if keepXattr(name) {
			xs = append(xs, tree.Xattr{Name: name, Value: value})
		}
	}
	return xs, nil
}

// decompress undoes the compression that r starts with, if it is one we know.
func decompress(r io.Reader) (io.Reader, func(), error) {
	br := bufio.NewReaderSize(r, 1<<18)
	magic, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	none := func() {}
	switch m := string(magic); {
	case len(magic) == 0:
		return nil, nil, errors.New("the archive is empty")
	case strings.HasPrefix(m, "\x1f\x8b"):
		zr, err := gzip.NewReader(br)
		return zr, none, err
	case strings.HasPrefix(m, "\x28\xb5\x2f\xfd"):
		zr, err := zstd.NewReader(br)
		if err != nil {
			return nil, nil, err
		}
		return zr, zr.Close, nil
	case strings.HasPrefix(m, "\xfd7zXZ\x00"):
		zr, err := xz.NewReader(br)
		return zr, none, err
	case strings.HasPrefix(m, "BZh"):
		return bzip2.NewReader(br), none, nil
	}
	return br, none, nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"slate/images"
	"slate/images/chunk"
)

// pieceBytes is how much of a large content is fetched by one request.
const pieceBytes = 4 << 20

// large fetches a content by chunks into a file in the work directory. A file
// that a broken transfer left there is gone on with: every chunk that is right
// in it stays.
func (f *fetch) large(ctx context.Context, it item) error {
	chunks, err := f.chunks(ctx, it.Blob)
	if err != nil {
		return err
	}
	part, err := os.OpenFile(f.workFile(it.Digest, ".part"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer part.Close()
	left, err := f.reuse(ctx, part, it, chunks)
	if err != nil {
		return err
	}
	if err := f.pieces(ctx, part, it.Digest, left); err != nil {
		return err
	}
	if err := part.Truncate(it.Size); err != nil {
		return err
	}
	err = f.putFile(ctx, it.Blob, part)
	var ce *ContentError
	if err == nil || errors.As(err, &ce) {
		err = errors.Join(err, os.Remove(part.Name()))
	}
	return err
}

// workFile is where a large content is kept while it is made.
func (f *fetch) workFile(d images.Digest, suffix string) string {
	dir := f.c.Work
	if dir == "" {
		dir = os.TempDir()
	}
	return filepath.Join(dir, d.String()+suffix)
}

// putFile hands on what should be the content: so far that is the server's word only.
func (f *fetch) putFile(ctx context.Context, b images.Blob, file *os.File) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.put(ctx, b, &verifyReader{r: file, h: sha256.New(), blob: b, base: f.c.Server()})
}

func (f *fetch) chunks(ctx context.Context, b images.Blob) ([]chunk.Chunk, error) {
	most := (b.Size/int64(chunk.Default.Min) + 2) * (4 + sha256.Size)
	text, err := f.c.get(ctx, "chunks/"+b.Digest.String(), most)
	if err != nil {
		return nil, err
	}
	return decodeChunks(text, b.Size)
}

// reuse fills part with the chunks that are there already, in part itself or in
// the base, and returns the others.
func (f *fetch) reuse(ctx context.Context, part *os.File, it item, chunks []chunk.Chunk) (left []chunk.Chunk, err error) {
	buf := make([]byte, chunk.Default.Max)
	base, where := f.openBase(ctx, it)
	if base != nil {
		defer base.Close()
	}
	for _, c := range chunks {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		data := buf[:c.Size]
		if _, err := part.ReadAt(data, c.Offset); err == nil && sha256.Sum256(data) == c.Digest {
			f.c.stats.reused.Add(int64(c.Size))
			continue
		}
		off, ok := where[c.Digest]
		if !ok {
			left = append(left, c)
			continue
		}
		if _, err := base.ReadAt(data, off); err != nil || sha256.Sum256(data) != c.Digest {
			left = append(left, c)
			continue
		}
		if _, err := part.WriteAt(data, c.Offset); err != nil {
			return nil, err
		}
		f.c.stats.reused.Add(int64(c.Size))
	}
	return left, nil
}

// openBase cuts the old file that is like the new one. Without one, or if it
// cannot be read, everything is fetched.
func (f *fetch) openBase(ctx context.Context, it item) (*os.File, map[[sha256.Size]byte]int64) {
	if !it.hasBase() {
		return nil, nil
	}
	base, err := f.sink.OpenBlob(it.base.Digest)
	if err != nil {
		return nil, nil
	}
	where := map[[sha256.Size]byte]int64{}
	for c, err := range chunk.Default.All(base) {
		if err != nil || ctx.Err() != nil {
			break
		}
		where[c.Digest] = c.Offset
	}
	return base, where
}

// pieces fetches chunks, neighbours together, and writes each where it belongs.
func (f *fetch) pieces(ctx context.Context, part *os.File, d images.Digest, left []chunk.Chunk) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.c.Connections)
	for len(left) > 0 {
		n, end := 0, left[0].Offset
		for n < len(left) && left[n].Offset == end && end-left[0].Offset+int64(left[n].Size) <= pieceBytes {
			end += int64(left[n].Size)
			n++
		}
		piece := left[:n]
		left = left[n:]
		g.Go(func() error {
			from := piece[0].Offset
			data, err := f.c.getRange(ctx, d, from, end)
			if err != nil {
				return err
			}
			for _, c := range piece {
				if sha256.Sum256(data[c.Offset-from:c.Offset-from+int64(c.Size)]) != c.Digest {
					return fmt.Errorf("chunk at %d is not what the list of chunks says", c.Offset)
				}
			}
			_, err = part.WriteAt(data, from)
			return err
		})
	}
	return g.Wait()
}

// verifyReader ends with a ContentError instead of io.EOF if what was read is
// not the content.
type verifyReader struct {
	r    io.Reader
	h    hash.Hash
	n    int64
	blob images.Blob
	base string
}

func (v *verifyReader) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.h.Write(p[:n])
	v.n += int64(n)
	if err == io.EOF && (v.n != v.blob.Size || images.Digest(v.h.Sum(nil)) != v.blob.Digest) {
		err = &ContentError{Blob: v.blob, Base: v.base}
	}
	return n, err
}

// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"

	"slate/images"
	"slate/images/chunk"
	"slate/images/durable"
	"slate/images/repack"
)

// A delta leads from one large gzip file to another like it, by what is inside
// them. It starts with deltaMagic. Then come the lengths of the new file's
// recipe, of a zstd frame with it, and the frame; then steps until the end:
// opCopy with where and how much is taken from the inside of the old file;
// opData with the length of new data, where and how much of the old file was the
// dictionary for it, the length of a zstd frame, and the frame.
const deltaMagic = "slatedl1"

const (
	opCopy = 0
	opData = 1
)

const (
	deltaData = 8 << 20 // new data in one frame
	deltaDict = 8 << 20 // old data that is the dictionary for it
	maxInside = 2 << 30 // of a file
)

// delta makes one. That it cannot be made, or would not be worth it, is an
// fs.ErrNotExist.
func (h *Handler) delta(ctx context.Context, new, old images.Digest) ([]byte, error) {
	file, err := h.Source.OpenBlob(new)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	none := fmt.Errorf("no delta for %s: %w", new.Short(), fs.ErrNotExist)
	base, err := h.Source.OpenBlob(old)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	if !looks(file) || !looks(base) {
		return nil, none
	}
	if h.Cache != "" {
		if err := durable.MkdirAll(h.Cache, 0o700); err != nil {
			return nil, err
		}
	}
	was, err := inside(base, h.Cache)
	if err != nil {
		return nil, none
	}
	defer was.Close()
	is, err := tempFile(h.Cache)
	if err != nil {
		return nil, err
	}
	defer is.Close()
	recipe, err := repack.Unpack(file, fi.Size(), &limitedWriter{is, maxInside}, int(fi.Size()/maxRecipe))
	if err != nil {
		return nil, none
	}
	// Whether the very same bytes come out is found out by making them.
	sum := sha256.New()
	if err := repack.Repack(recipe, io.NewSectionReader(is, 0, maxInside), sum); err != nil || images.Digest(sum.Sum(nil)) != new {
		return nil, none
	}
	frame, err := compress(recipe, nil, thorough)
	if err != nil {
		return nil, err
	}
	out := binary.AppendUvarint([]byte(deltaMagic), uint64(len(recipe)))
	out = append(binary.AppendUvarint(out, uint64(len(frame))), frame...)
	d := &deltaMaker{out: out, was: was, is: is, most: fi.Size() / 4 * 3}
	if err := d.run(ctx); err != nil || int64(len(d.out)) > d.most {
		return nil, none
	}
	return d.out, nil
}

// looks reports whether it may be worth to take a file apart.
func looks(f *os.File) bool {
	head := make([]byte, repack.HeadSize)
	n, _ := f.ReadAt(head, 0)
	return repack.Looks(head[:n])
}

// inside unpacks a file into one without a name, in a directory.
func inside(f *os.File, dir string) (*os.File, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	out, err := tempFile(dir)
	if err != nil {
		return nil, err
	}
	if err := repack.Plain(f, fi.Size(), &limitedWriter{out, maxInside}); err != nil {
		out.Close()
		return nil, err
	}
	return out, nil
}

// tempFile makes a file that is gone once it is closed, or we are.
func tempFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "inside-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// A limitedWriter fails when more comes than n.
type limitedWriter struct {
	w io.Writer
	n int64
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.n -= int64(len(p)); l.n < 0 {
		return 0, errTooLarge
	}
	return l.w.Write(p)
}

// A deltaMaker compares the insides of two files.
type deltaMaker struct {
	out     []byte
	was, is *os.File
	most    int64 // bytes that are still worth it
}

// A span is a piece of the new inside, and where the same is in the old one.
type span struct {
	off, n, was int64
	same        bool
}

func (d *deltaMaker) run(ctx context.Context) error {
	fi, err := d.was.Stat()
	if err != nil {
		return err
	}
	spans, err := d.spans(ctx)
	if err != nil {
		return err
	}
	from := int64(0) // behind what was copied last
	for i, s := range spans {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.same {
			d.number(opCopy, s.was, s.n)
			from = s.was + s.n
			continue
		}
		// What was there before the piece is what the piece is most like.
		to := fi.Size()
		if i+1 < len(spans) {
			to = spans[i+1].was
		}
		if to <= from { // it has moved
			to = min(from+s.n+deltaDict/8, fi.Size())
		}
		if err := d.data(s, from, to); err != nil {
			return err
		}
		if int64(len(d.out)) > d.most {
			return errTooLarge
		}
	}
	return nil
}

// spans cuts the new inside into what is in the old one, and what is not.
func (d *deltaMaker) spans(ctx context.Context) ([]span, error) {
	where := map[[sha256.Size]byte]int64{}
	for c, err := range chunk.Default.All(io.NewSectionReader(d.was, 0, maxInside)) {
		if err != nil {
			return nil, err
		}
		where[c.Digest] = c.Offset
	}
	var spans []span
	for c, err := range chunk.Default.All(io.NewSectionReader(d.is, 0, maxInside)) {
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		was, same := where[c.Digest]
		if last := len(spans) - 1; last >= 0 && spans[last].same == same && (!same || spans[last].was+spans[last].n == was) {
			spans[last].n += int64(c.Size)
			continue
		}
		spans = append(spans, span{c.Offset, int64(c.Size), was, same})
	}
	return spans, nil
}

// data appends a piece that is new, with old[from:to] to learn from.
func (d *deltaMaker) data(s span, from, to int64) error {
	for done := int64(0); done < s.n; {
		n := min(s.n-done, deltaData)
		a, b := from, to
		if b-a > deltaDict { // the part that lies where this piece does
			a = max(from, min(from+(to-from)*done/s.n-deltaDict/4, to-deltaDict))
			b = a + deltaDict
		}
		data, dict := make([]byte, n), make([]byte, b-a)
		if _, err := d.is.ReadAt(data, s.off+done); err != nil {
			return err
		}
		if _, err := d.was.ReadAt(dict, a); err != nil {
			return err
		}
		frame, err := compress(data, dict, thorough)
		if err != nil {
			return err
		}
		d.number(opData, n, a, b-a, int64(len(frame)))
		d.out = append(d.out, frame...)
		done += n
	}
	return nil
}

func (d *deltaMaker) number(list ...int64) {
	for _, v := range list {
		d.out = binary.AppendUvarint(d.out, uint64(v))
	}
}

// delta fetches a large content by what is inside it, and reports whether that
// went well. If not there is another way.
func (f *fetch) delta(ctx context.Context, it item) bool {
	if !it.hasBase() {
		return false
	}
	base, err := f.sink.OpenBlob(it.base.Digest)
	if err != nil {
		return false
	}
	defer base.Close()
	if !looks(base) {
		return false
	}
	most := min(it.Size, f.c.Memory/2)
	if f.mem.Acquire(ctx, most) != nil {
		return false
	}
	defer f.mem.Release(most)
	text, err := f.c.get(ctx, "delta/"+it.Digest.String()+"/"+it.base.Digest.String(), most)
	if err != nil {
		return false
	}
	was, err := inside(base, f.c.Work)
	if err != nil {
		return false
	}
	defer was.Close()
	file, err := tempFile(f.c.Work)
	if err != nil {
		return false
	}
	defer file.Close()
	if applyDelta(text, was, &limitedWriter{file, it.Size}) != nil {
		return false
	}
	if f.putFile(ctx, it.Blob, file) != nil {
		return false
	}
	f.c.stats.reused.Add(max(it.Size-int64(len(text)), 0))
	return true
}

// applyDelta makes the new file.
func applyDelta(delta []byte, was io.ReaderAt, out io.Writer) error {
	rest, ok := bytes.CutPrefix(delta, []byte(deltaMagic))
	if !ok {
		return errPack
	}
	r := &packReader{rest}
	size, err := r.uvarint(maxInside / maxRecipe)
	if err != nil {
		return err
	}
	frame, err := r.frame()
	if err != nil {
		return err
	}
	recipe, err := decompress(frame, nil, int64(size))
	if err != nil {
		return err
	}
	content, to := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		to.CloseWithError(applySteps(r, was, &limitedWriter{to, maxInside}))
	}()
	err = repack.Repack(recipe, content, out)
	content.CloseWithError(errPack)
	<-done
	return err
}

// applySteps makes what is inside the new file.
func applySteps(r *packReader, was io.ReaderAt, out io.Writer) error {
	for len(r.rest) > 0 {
		op, err := r.uvarint(opData)
		if err != nil {
			return err
		}
		if op == opCopy {
			off, err := r.uvarint(maxInside)
			if err != nil {
				return err
			}
			n, err := r.uvarint(maxInside)
			if err != nil {
				return err
			}
			if _, err := io.CopyN(out, io.NewSectionReader(was, int64(off), int64(n)), int64(n)); err != nil {
				return err
			}
			continue
		}
		if err := applyData(r, was, out); err != nil {
			return err
		}
	}
	return nil
}

func applyData(r *packReader, was io.ReaderAt, out io.Writer) error {
	var v [3]int
	for i, most := range []int64{deltaData, maxInside, deltaDict} {
		var err error
		if v[i], err = r.uvarint(most); err != nil {
			return err
		}
	}
	frame, err := r.frame()
	if err != nil {
		return err
	}
	dict := make([]byte, v[2])
	if _, err := was.ReadAt(dict, int64(v[1])); err != nil {
		return err
	}
	data, err := decompress(frame, dict, int64(v[0]))
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	return err
}

// SPDX-License-Identifier: GPL-2.0-or-later

package transfer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"slate/images"
	"slate/images/repack"
)

// A pack starts with packMagic. Then comes something for each item: how its
// content is written; for one with a base also the length of a zstd frame and the
// frame, made with the base as dictionary. At the end come the length of one frame,
// and the frame, with all other contents behind each other: small files
// compress far better together.
const packMagic = "slatepk2"

// How a content is written: as it is; or taken apart by package repack, with the
// lengths of recipe and content in front, if that makes a smaller frame.
const (
	asItIs     = 0
	takenApart = 1
)

// maxWindow is what a zstd frame of ours may ask a receiver to hold.
const maxWindow = 64 << 20

// minWindow is the smallest window of our frames.
const minWindow = 1 << 16

// readBlobs is where contents come from, at either end.
type readBlobs func(images.Digest) ([]byte, error)

// encodePack makes the pack of the items.
func encodePack(items []item, read readBlobs, e effort) ([]byte, error) {
	out := []byte(packMagic)
	var solid []byte
	for _, it := range items {
		data, err := read(it.Digest)
		if err != nil {
			return nil, err
		}
		if int64(len(data)) != it.Size {
			return nil, fmt.Errorf("blob %s has %d bytes, want %d", it.Digest, len(data), it.Size)
		}
		if it.hasBase() {
			base, err := read(it.base.Digest)
			if err == nil {
				out, err = appendItem(out, data, base, e)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		if p, ok := takeApart(data, e); ok && len(solid)+len(p.recipe)+len(p.plain) <= maxSolid-maxItem {
			out = p.appendSizes(out)
			solid = append(append(solid, p.recipe...), p.plain...)
			continue
		}
		out = append(out, asItIs)
		solid = append(solid, data...)
	}
	frame, err := compress(solid, nil, e)
	if err != nil {
		return nil, err
	}
	return append(binary.AppendUvarint(out, uint64(len(frame))), frame...), nil
}

// appendItem appends what a pack has about a content with a base: that of two
// forms which is shorter.
func appendItem(out, data, base []byte, e effort) ([]byte, error) {
	frame, err := compress(data, base, e)
	if err != nil {
		return nil, err
	}
	form := []byte{asItIs}
	if p, ok := takeApart(data, e); ok {
		other, err := compress(append(p.recipe, p.plain...), plainBase(base), e)
		if err != nil {
			return nil, err
		}
		if f := p.appendSizes(nil); len(f)+len(other) < len(form)+len(frame) {
			form, frame = f, other
		}
	}
	out = append(out, form...)
	return append(binary.AppendUvarint(out, uint64(len(frame))), frame...), nil
}

// parts are what a content was taken apart into.
type parts struct{ recipe, plain []byte }

func (p parts) appendSizes(out []byte) []byte {
	out = append(out, takenApart)
	return binary.AppendUvarint(binary.AppendUvarint(out, uint64(len(p.recipe))), uint64(len(p.plain)))
}

// maxRecipe is which part of a content its recipe may have: more would not be
// worth it, and an answer must not get longer than a receiver reckons with.
const maxRecipe = 8

// takeApart does so if the content can be put together again, bit for bit, and
// whoever installs a machine is not kept waiting for it.
func takeApart(data []byte, e effort) (parts, bool) {
	if e == quick || !repack.Looks(data) {
		return parts{}, false
	}
	var plain limitedBuffer
	recipe, err := repack.Unpack(bytes.NewReader(data), int64(len(data)), &plain, len(data)/maxRecipe)
	if err != nil {
		return parts{}, false
	}
	p := parts{recipe, plain.b}
	again, err := p.together()
	return p, err == nil && bytes.Equal(again, data)
}

func (p parts) together() ([]byte, error) {
	var out bytes.Buffer
	err := repack.Repack(p.recipe, bytes.NewReader(p.plain), &out)
	return out.Bytes(), err
}

// plainBase is the base for a content that is taken apart: taken apart too, if
// it can be.
func plainBase(base []byte) []byte {
	var plain limitedBuffer
	if err := repack.Plain(bytes.NewReader(base), int64(len(base)), &plain); err != nil {
		return base
	}
	return plain.b
}

// A limitedBuffer holds no more than a content in a pack may have.
type limitedBuffer struct{ b []byte }

var errTooLarge = errors.New("too large for a pack")

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > maxItem {
		return 0, errTooLarge
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

// errPack says that a pack is not one; the sender or the line is at fault.
var errPack = errors.New("pack is malformed")

// decodePack calls got with each content of the pack that wanted asks for. A
// content whose base the receiver cannot read is left out. Got must not keep
// the bytes. Whether they are the right ones is for got to find out.
func decodePack(pack []byte, items []item, read readBlobs, wanted func(item) bool, got func(item, []byte) error) error {
	rest, ok := bytes.CutPrefix(pack, []byte(packMagic))
	if !ok {
		return errPack
	}
	r := packReader{rest}
	total := int64(0)
	forms := make([]form, len(items))
	for i, it := range items {
		f, err := r.form(it.Size)
		if err != nil {
			return err
		}
		if forms[i] = f; !it.hasBase() {
			total += f.size()
			continue
		}
		frame, err := r.frame()
		if err != nil {
			return err
		}
		if !wanted(it) {
			continue
		}
		base, err := read(it.base.Digest)
		if err != nil {
			continue
		}
		if f.apart {
			base = plainBase(base)
		}
		data, err := decompress(frame, base, f.size())
		if err != nil {
			return err
		}
		if err := f.hand(it, data, got); err != nil {
			return err
		}
	}
	frame, err := r.frame()
	if err != nil {
		return err
	}
	if len(r.rest) > 0 || total > maxSolid {
		return errPack
	}
	solid, err := decompress(frame, nil, total)
	if err != nil {
		return err
	}
	for i, it := range items {
		if it.hasBase() {
			continue
		}
		data := solid[:forms[i].size()]
		solid = solid[len(data):]
		if !wanted(it) {
			continue
		}
		if err := forms[i].hand(it, data, got); err != nil {
			return err
		}
	}
	return nil
}

// maxSolid bounds the frame with all contents that have no base.
const maxSolid = 4 * packBytes

// A packReader reads a pack.
type packReader struct{ rest []byte }

func (r *packReader) uvarint(most int64) (int, error) {
	n, used := binary.Uvarint(r.rest)
	if used <= 0 || n > uint64(most) {
		return 0, errPack
	}
	r.rest = r.rest[used:]
	return int(n), nil
}

func (r *packReader) frame() ([]byte, error) {
	n, err := r.uvarint(int64(len(r.rest)))
	if err != nil || n > len(r.rest) {
		return nil, errPack
	}
	frame := r.rest[:n]
	r.rest = r.rest[n:]
	return frame, nil
}

// A form says how a content is written.
type form struct {
	apart         bool
	recipe, plain int // sizes; of one that is not taken apart, plain alone
}

func (f form) size() int64 { return int64(f.recipe) + int64(f.plain) }

func (r *packReader) form(size int64) (f form, err error) {
	how, err := r.uvarint(takenApart)
	if err != nil || how == asItIs {
		return form{plain: int(size)}, err
	}
	f.apart = true
	if f.recipe, err = r.uvarint(maxItem); err == nil {
		f.plain, err = r.uvarint(maxItem)
	}
	return f, err
}

// hand puts a content together, if need be, and hands it on. One that cannot be
// put together is left out: another way to fetch it remains.
func (f form) hand(it item, data []byte, got func(item, []byte) error) error {
	if f.apart {
		var err error
		if data, err = (parts{data[:f.recipe], data[f.recipe:]}).together(); err != nil || int64(len(data)) != it.Size {
			return nil
		}
	}
	return got(it, data)
}

// dictID marks frames that need a dictionary; the frame does not say which.
const dictID = 1

// effort is how much time compression may take for what it saves.
type effort bool

const (
	quick    effort = false // made for one who asks, much of it: installations, ranges
	thorough effort = true  // made once for many who update
)

// Below smallDelta the strongest compression takes forty milliseconds to set up
// its tables and gains nothing; above largeDelta it takes seconds.
const (
	smallDelta = 1 << 20
	largeDelta = 16 << 20
)

func (e effort) level(n int) zstd.EncoderLevel {
	switch {
	case e == quick:
		return zstd.SpeedDefault
	case n < smallDelta || n > largeDelta:
		return zstd.SpeedBetterCompression
	}
	return zstd.SpeedBestCompression
}

// compress makes one zstd frame. What is likely to be in dict is found there.
func compress(data, dict []byte, e effort) ([]byte, error) {
	window := minWindow
	for window < len(data)+len(dict) && window < maxWindow {
		window *= 2
	}
	o := []zstd.EOption{zstd.WithEncoderLevel(e.level(len(data) + len(dict))), zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false)}
	if len(dict) > 0 {
		o = append(o, zstd.WithEncoderDictRaw(dictID, dict))
	}
	enc, err := zstd.NewWriter(nil, o...)
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	return enc.EncodeAll(data, nil), nil
}

// decompress undoes compress. It gives just size bytes or an error.
func decompress(frame, dict []byte, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	data, err := decompressUpTo(frame, dict, size)
	if err == nil && int64(len(data)) != size {
		err = fmt.Errorf("%w: %d bytes, want %d", errPack, len(data), size)
	}
	return data, err
}

// decompressUpTo is decompress where only the most that may come is known.
func decompressUpTo(frame, dict []byte, size int64) ([]byte, error) {
	// The window may be up to twice what it must span; see compress.
	most := max(2*(uint64(size)+uint64(len(dict))), minWindow)
	o := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(most)}
	if len(dict) > 0 {
		o = append(o, zstd.WithDecoderDictRaw(dictID, dict))
	}
	dec, err := zstd.NewReader(nil, o...)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	data, err := dec.DecodeAll(frame, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPack, err)
	}
	if int64(len(data)) > size {
		return nil, fmt.Errorf("%w: more than %d bytes", errPack, size)
	}
	return data, nil
}

// newStreamDecoder decompresses what may be too long for the memory.
func newStreamDecoder(frame []byte) (*zstd.Decoder, error) {
	return zstd.NewReader(bytes.NewReader(frame), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
}

// readAll reads a blob that must not be larger than an item.
func readAll(f *os.File) ([]byte, error) {
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxItem {
		return nil, fmt.Errorf("%s: %d bytes are too many for a pack", f.Name(), fi.Size())
	}
	data := make([]byte, fi.Size())
	_, err = io.ReadFull(f, data)
	return data, err
}

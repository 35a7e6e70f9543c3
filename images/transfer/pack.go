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
)

// A pack starts with packMagic. Then come, for each item with a base, the length
// of a zstd frame and the frame, made with the base as dictionary; and then the
// length of one frame, and the frame, with all other contents behind each other:
// small files compress far better together.
const packMagic = "slatepk1"

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
		if !it.hasBase() {
			solid = append(solid, data...)
			continue
		}
		base, err := read(it.base.Digest)
		if err != nil {
			return nil, err
		}
		frame, err := compress(data, base, e)
		if err != nil {
			return nil, err
		}
		out = append(binary.AppendUvarint(out, uint64(len(frame))), frame...)
	}
	frame, err := compress(solid, nil, e)
	if err != nil {
		return nil, err
	}
	return append(binary.AppendUvarint(out, uint64(len(frame))), frame...), nil
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
	next := func() ([]byte, error) {
		n, used := binary.Uvarint(rest)
		if used <= 0 || n > uint64(len(rest)-used) {
			return nil, errPack
		}
		frame := rest[used : used+int(n)]
		rest = rest[used+int(n):]
		return frame, nil
	}
	total := int64(0)
	for _, it := range items {
		if !it.hasBase() {
			total += it.Size
			continue
		}
		frame, err := next()
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
		data, err := decompress(frame, base, it.Size)
		if err != nil {
			return err
		}
		if err := got(it, data); err != nil {
			return err
		}
	}
	frame, err := next()
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errPack
	}
	solid, err := decompress(frame, nil, total)
	if err != nil {
		return err
	}
	for _, it := range items {
		if it.hasBase() {
			continue
		}
		if wanted(it) {
			if err := got(it, solid[:it.Size]); err != nil {
				return err
			}
		}
		solid = solid[it.Size:]
	}
	return nil
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

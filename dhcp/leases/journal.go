// SPDX-License-Identifier: GPL-2.0-or-later

package leases

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"syscall"
)

// journal makes changes durable at the price of one write: a bbolt commit writes
// several pages and syncs twice, which costs a batch of leases a millisecond and
// more CPU than all the rest of a lease. The changes go to the database when the
// journal is full, and it starts over at its beginning.
//
// It is a file of fixed size, filled with zeros when it is made, so that a write
// changes nothing that the file system would have to note. It holds frames, each
// of whole sectors, so that none shares one with a frame before it:
//
//	magic u32, generation u64, length of payload u32, CRC-32C of generation, length and payload u32, payload
//
// and the payload is changes: address 4 bytes, length u16, value. Frames count
// from the start of the file as long as they are whole and of the first one's
// generation, a random number made anew each time the journal starts over.
type journal struct {
	f    *os.File
	gen  uint64
	off  int64
	buf  []byte
	size int64
}

const (
	journalMagic = 0x534c4a31 // "SLJ1"
	journalSize  = 1 << 20
	frameHeader  = 4 + 8 + 4 + 4
	sector       = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal opens or makes the journal and returns the changes in it, oldest
// first. The caller puts them into the database and then calls reset.
func openJournal(path string, size int64) (*journal, []change, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_DSYNC, 0o600)
	if err != nil {
		return nil, nil, err
	}
	j := &journal{f: f, size: size}
	changes, err := j.load()
	if err == nil {
		err = j.reset()
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return j, changes, nil
}

func (j *journal) load() ([]change, error) {
	b, err := io.ReadAll(j.f)
	if err != nil {
		return nil, err
	}
	if pad := j.size - int64(len(b)); pad > 0 {
		if _, err := j.f.WriteAt(make([]byte, pad), int64(len(b))); err != nil {
			return nil, err
		}
	}
	var changes []change
	for gen, first := uint64(0), true; ; first = false {
		payload, g, n := parseFrame(b)
		if n == 0 || !first && g != gen {
			return changes, nil
		}
		gen = g
		changes = parseChanges(payload, changes)
		b = b[n:]
	}
}

// parseFrame reads the frame at the start of b; n is its size, 0 if there is none.
func parseFrame(b []byte) (payload []byte, gen uint64, n int) {
	if len(b) < frameHeader || binary.BigEndian.Uint32(b) != journalMagic {
		return nil, 0, 0
	}
	length := int(binary.BigEndian.Uint32(b[12:]))
	if length > len(b)-frameHeader {
		return nil, 0, 0
	}
	payload = b[frameHeader : frameHeader+length]
	if frameSum(b[4:16], payload) != binary.BigEndian.Uint32(b[16:]) {
		return nil, 0, 0
	}
	return payload, binary.BigEndian.Uint64(b[4:]), min(roundUp(frameHeader+length), len(b))
}

func frameSum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

func roundUp(n int) int { return (n + sector - 1) / sector * sector }

func parseChanges(b []byte, list []change) []change {
	for len(b) >= 6 {
		n := int(binary.BigEndian.Uint16(b[4:]))
		if n > len(b)-6 {
			break
		}
		list = append(list, change{b[:4], b[6 : 6+n]})
		b = b[6+n:]
	}
	return list
}

// errFull says that the journal must be emptied into the database first.
var errFull = errors.New("journal is full")

// append writes the changes and returns when they are on disk. After an error
// nothing of them counts.
func (j *journal) append(changes []change) error {
	b := append(j.buf[:0], make([]byte, frameHeader)...)
	for _, c := range changes {
		if len(c.key) != 4 || len(c.value) > 0xffff {
			return fmt.Errorf("lease of %d bytes is too large", len(c.value))
		}
		b = append(b, c.key...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(c.value)))
		b = append(b, c.value...)
	}
	payload := b[frameHeader:]
	binary.BigEndian.PutUint32(b[0:], journalMagic)
	binary.BigEndian.PutUint64(b[4:], j.gen)
	binary.BigEndian.PutUint32(b[12:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[16:], frameSum(b[4:16], payload))
	b = append(b, make([]byte, roundUp(len(b))-len(b))...)
	j.buf = b
	if j.off+int64(len(b)) > j.size {
		return errFull
	}
	if _, err := j.f.WriteAt(b, j.off); err != nil {
		return err
	}
	j.off += int64(len(b))
	return nil
}

// reset starts over. All changes must be in the database.
func (j *journal) reset() error {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return err
	}
	j.gen, j.off = binary.BigEndian.Uint64(b[:]), 0
	return nil
}

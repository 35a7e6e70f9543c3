// SPDX-License-Identifier: GPL-2.0-or-later

package leases

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"syscall"
	"time"
)

// journal makes changes durable at the price of one write: a bbolt commit writes
// several pages and syncs twice, which costs a batch of leases a millisecond and
// more CPU than all the rest of a lease.
//
// It is a file of fixed size, filled with zeros when it is made, so that a write
// changes nothing that the file system would have to note. It holds frames, each
// of whole sectors, so that none shares one with a frame before it:
//
//	magic u32, generation u64, length of payload u32, CRC-32C of generation, length and payload u32, payload
//
// and the payload is changes: address 4 bytes, length u16, value. Frames count
// from the start of the file as long as they are whole and of the first one's
// generation, a number that grows each time the journal starts over.
type journal struct {
	f    file
	gen  uint64
	off  int64
	buf  []byte
	size int64

	// unsaved is what is in the journal and not in the database yet.
	unsaved map[[4]byte][]byte
}

// file is a file in which a write that has returned is on disk.
type file interface {
	io.Reader
	io.WriterAt
	io.Closer
}

const (
	journalMagic = 0x534c4a31 // "SLJ1"
	journalSize  = 1 << 20
	frameHeader  = 4 + 8 + 4 + 4
	sector       = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal opens or makes the journal and reads what is in it into unsaved.
// The caller puts that into the database and then calls reset.
func openJournal(path string, size int64) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_DSYNC, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, size: size, unsaved: map[[4]byte][]byte{}}
	if err := j.load(); err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) load() error {
	b, err := io.ReadAll(j.f)
	if err != nil {
		return err
	}
	if pad := j.size - int64(len(b)); pad > 0 {
		if _, err := j.f.WriteAt(make([]byte, pad), int64(len(b))); err != nil {
			return err
		}
	}
	for first := true; ; first = false {
		payload, gen, n := parseFrame(b)
		if n == 0 || !first && gen != j.gen {
			return nil
		}
		j.gen = gen
		j.note(parseChanges(payload, nil))
		b = b[n:]
	}
}

func (j *journal) note(changes []change) {
	for _, c := range changes {
		j.unsaved[[4]byte(c.key)] = c.value
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
	j.note(changes)
	return nil
}

// reset starts over. All that is unsaved must be in the database; frames left
// from before do not count from here on.
func (j *journal) reset() error {
	if _, err := j.f.WriteAt(make([]byte, sector), 0); err != nil {
		return err
	}
	clear(j.unsaved)
	j.gen, j.off = max(j.gen+1, uint64(time.Now().UnixNano())), 0
	return nil
}

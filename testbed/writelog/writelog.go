// SPDX-License-Identifier: GPL-2.0-or-later

// Package writelog reads the record of all that was written to a disk, as QEMU's
// blklogwrites makes it, and makes disks as they are when the power fails in between.
// The format is that of Linux's dm-log-writes (Documentation/admin-guide/
// device-mapper/log-writes.rst).
package writelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

const (
	magic     = 0x6a736677736872
	version   = 1
	entryHead = 32
	unit      = 512 // of sectors in an entry where the log does not say another
)

// Flags of an entry.
const (
	flagFlush   = 1 << iota // all that was written before is on the disk
	flagFUA                 // this write is on the disk when it is done
	flagDiscard             // nothing is written: the sectors are given up
	flagMark
)

// Log is a record that is open.
type Log struct {
	f       *os.File
	sector  int64
	entries []entry
}

type entry struct {
	flags    uint64
	at, size int64 // on the disk
	data     int64 // where in the log
}

// Open reads the list of what was written.
func Open(name string) (*Log, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	l := &Log{f: f}
	if err := l.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("write log %s: %w", name, err), f.Close())
	}
	return l, nil
}

// Close closes the record.
func (l *Log) Close() error { return l.f.Close() }

func (l *Log) read() error {
	fi, err := l.f.Stat()
	if err != nil {
		return err
	}
	var head [entryHead]byte
	if _, err := l.f.ReadAt(head[:], 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	if le.Uint64(head[:]) != magic || le.Uint64(head[8:]) != version {
		return errors.New("not one")
	}
	count := le.Uint64(head[16:])
	l.sector = int64(le.Uint32(head[24:]))
	if l.sector < unit || l.sector > 1<<16 {
		return fmt.Errorf("sectors of %d bytes", l.sector)
	}
	at := l.sector
	for i := range count {
		if _, err := l.f.ReadAt(head[:], at); err != nil {
			return fmt.Errorf("entry %d of %d: %w", i+1, count, err)
		}
		at += l.sector
		sector, n := le.Uint64(head[:]), le.Uint64(head[8:])
		if sector > 1<<50 || n > 1<<40 {
			return fmt.Errorf("entry %d of %d: %d sectors at %d", i+1, count, n, sector)
		}
		e := entry{flags: le.Uint64(head[16:]), at: int64(sector) * l.sector, size: int64(n) * l.sector, data: at}
		if e.flags&flagDiscard == 0 {
			at += e.size
		}
		if at > fi.Size() {
			return fmt.Errorf("entry %d of %d: its %d bytes are not there", i+1, count, e.size)
		}
		l.entries = append(l.entries, e)
	}
	return nil
}

// Len is the number of entries.
func (l *Log) Len() int { return len(l.entries) }

// Bytes is how much the first n entries write.
func (l *Log) Bytes(n int) (sum int64) {
	for _, e := range l.entries[:n] {
		if e.flags&flagDiscard == 0 {
			sum += e.size
		}
	}
	return sum
}

// Moment chooses an entry: each time between two flushes is as likely, however much
// was written in it.
func (l *Log) Moment(rng *rand.Rand) int {
	starts := []int{0}
	for i, e := range l.entries {
		if e.flags&flagFlush != 0 && i+1 < len(l.entries) && i+1 > starts[len(starts)-1]+1 {
			starts = append(starts, i+1)
		}
	}
	k := rng.IntN(len(starts))
	end := len(l.entries)
	if k+1 < len(starts) {
		end = starts[k+1]
	}
	return starts[k] + rng.IntN(end-starts[k])
}

// Sure is up to where all is on the disk when the power fails before entry n: up to
// the last flush.
func (l *Log) Sure(n int) int {
	for i := n - 1; i >= 0; i-- {
		if l.entries[i].flags&flagFlush != 0 {
			return i + 1
		}
	}
	return 0
}

// Apply writes the entries from to to-1 to a disk.
func (l *Log) Apply(disk *os.File, from, to int) error {
	for i := from; i < to; i++ {
		if err := l.apply(disk, l.entries[i], l.entries[i].size); err != nil {
			return fmt.Errorf("write log: entry %d: %w", i, err)
		}
	}
	return nil
}

// Lose writes of the entries from to to-1 what a drive may have managed to keep when
// its power failed: each whole, or not, or its first sectors.
func (l *Log) Lose(disk *os.File, from, to int, rng *rand.Rand) error {
	for i := from; i < to; i++ {
		e := l.entries[i]
		size := e.size
		switch n := rng.IntN(8); {
		case e.flags&flagFUA != 0 || n < 4:
		case n < 7:
			continue
		case size > 0:
			size = rng.Int64N(size/l.sector) * l.sector
		}
		if err := l.apply(disk, e, size); err != nil {
			return fmt.Errorf("write log: entry %d: %w", i, err)
		}
	}
	return nil
}

func (l *Log) apply(disk *os.File, e entry, size int64) error {
	if size == 0 || e.flags&flagMark != 0 {
		return nil
	}
	if e.flags&flagDiscard != 0 {
		return unix.Fallocate(int(disk.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.at, size)
	}
	_, err := io.Copy(io.NewOffsetWriter(disk, e.at), io.NewSectionReader(l.f, e.data, size))
	return err
}

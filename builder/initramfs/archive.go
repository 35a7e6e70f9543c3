// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// Compression is how an archive is packed. The kernel has to be built with it.
type Compression uint8

const (
	Zstd  Compression = iota // since Linux 5.9
	Gzip                     // any kernel that distributions ship
	Plain                    // not compressed
)

func (c Compression) String() string { return [...]string{"zstd", "gzip", "plain"}[c] }

// blockSize is what an archive is padded to with zeros, so that iPXE, loaders
// and the kernel's EFI stub can put several after one another: the kernel skips
// zeros between archives and wants an uncompressed one aligned to four bytes.
const blockSize = 512

// window is the zstd window. The kernel allocates it while memory is tight.
const window = 8 << 20

// archive writes one cpio archive in the kernel's format. Names, order, owners
// and times depend only on what is put in, so the same input makes the same
// bytes.
type archive struct {
	out    bytes.Buffer
	pack   io.WriteCloser
	rec    cpio.RecordWriter
	ino    uint64
	dirs   map[string]bool
	digest map[string][sha256.Size]byte // of each file, by its absolute path
	size   int64                        // sum of the sizes of the files
}

func newArchive(c Compression) (*archive, error) {
	a := &archive{dirs: map[string]bool{".": true}, digest: map[string][sha256.Size]byte{}}
	switch c {
	case Zstd:
		// One goroutine: the bytes must not depend on the number of processors.
		enc, err := zstd.NewWriter(&a.out, zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
			zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		a.pack = enc
	case Gzip:
		a.pack = gzip.NewWriter(&a.out)
	case Plain:
		a.pack = nopCloser{&a.out}
	default:
		return nil, fmt.Errorf("BUG: compression %d", c)
	}
	a.rec = cpio.Newc.Writer(a.pack)
	return a, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// put writes one record, after the directories it lies in: the kernel ignores
// a file whose directory it has not seen.
func (a *archive) put(r cpio.Record) error {
	r.Name = cpio.Normalize(r.Name)
	if err := a.dir(path.Dir(r.Name), 0o755); err != nil {
		return err
	}
	a.ino++
	r.Ino = a.ino
	if r.NLink == 0 {
		r.NLink = 1
	}
	if r.FileSize > math.MaxUint32 {
		return fmt.Errorf("%s: too large for a cpio archive", r.Name)
	}
	return a.rec.WriteRecord(cpio.MakeReproducible(r))
}

// dir adds a directory once; the mode of the first call counts.
func (a *archive) dir(name string, mode uint64) error {
	name = cpio.Normalize(name)
	if a.dirs[name] {
		return nil
	}
	a.dirs[name] = true
	r := cpio.Directory(name, mode)
	r.NLink = 2
	return a.put(r)
}

func (a *archive) file(name string, mode uint64, data []byte) error {
	name = cpio.Normalize(name)
	a.digest["/"+name] = sha256.Sum256(data)
	a.size += int64(len(data))
	return a.put(cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | mode}))
}

func (a *archive) symlink(name, target string) error { return a.put(cpio.Symlink(name, target)) }

func (a *archive) char(name string, mode, major, minor uint64) error {
	return a.put(cpio.CharDev(name, mode, major, minor))
}

// digests lists what is in the archive the way sha256sum -c reads it.
func (a *archive) digests() []byte {
	names := make([]string, 0, len(a.digest))
	for n := range a.digest {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%x  %s\n", a.digest[n], n)
	}
	return []byte(b.String())
}

// finish ends the archive and returns its bytes.
func (a *archive) finish() ([]byte, error) {
	if err := cpio.WriteTrailer(a.rec); err != nil {
		return nil, err
	}
	if err := a.pack.Close(); err != nil {
		return nil, err
	}
	if over := a.out.Len() % blockSize; over != 0 {
		a.out.Write(make([]byte, blockSize-over))
	}
	return a.out.Bytes(), nil
}

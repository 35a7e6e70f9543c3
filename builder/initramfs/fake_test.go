// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"
)

// module makes the smallest ELF file that has a .modinfo section.
func module(info ...string) []byte {
	modinfo := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	const head, section = 64, 64
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	le := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	le(uint16(1))  // ET_REL
	le(uint16(62)) // EM_X86_64
	le(uint32(1))
	le(uint64(0))
	le(uint64(0))
	le(uint64(head + len(modinfo) + len(names)))
	le(uint32(0))
	le([]uint16{head, 0, 0, section, 3, 2})
	b.Write(modinfo)
	b.Write(names)
	sh := func(name, typ uint32, off, size int) {
		le([]uint32{name, typ})
		le([]uint64{0, 0, uint64(off), uint64(size)})
		le([]uint32{0, 0})
		le([]uint64{1, 0})
	}
	sh(0, 0, 0, 0)
	sh(1, 1, head, len(modinfo))
	sh(10, 3, head+len(modinfo), len(names))
	return b.Bytes()
}

func packed(t *testing.T, how string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case ".xz":
		w, err = xz.WriterConfig{CheckSum: xz.CRC32}.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	case ".gz":
		w = gzip.NewWriter(&b)
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bzImage makes the head of an x86 kernel that calls itself release.
func bzImage(release string) []byte {
	b := make([]byte, 0x1000)
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x400)
	binary.LittleEndian.PutUint16(b[0x236:], 1)
	copy(b[0x600:], release+" (builder@example) #1 SMP\x00")
	return b
}

// entry is a file of an archive.
type entry struct {
	mode uint64
	data string
}

// unpackArchive reads an archive as the kernel would: the compression by its
// first bytes, then the records.
func unpackArchive(t *testing.T, b []byte) map[string]entry {
	t.Helper()
	if len(b)%512 != 0 {
		t.Errorf("archive of %d bytes, want a multiple of 512", len(b))
	}
	switch {
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		// The frame may end in zeros of its own, before those of the padding.
		var plain []byte
		for n := len(bytes.TrimRight(b, "\x00")); ; n++ {
			if plain, err = z.DecodeAll(b[:n], nil); err == nil || n == len(b) {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		b = plain
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		g, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		g.Multistream(false)
		if b, err = io.ReadAll(g); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]entry{}
	seen := map[string]bool{".": true}
	err := cpio.ForEachRecord(cpio.Newc.Reader(bytes.NewReader(b)), func(r cpio.Record) error {
		if dir := parent(r.Name); !seen[dir] {
			t.Errorf("%s comes before its directory", r.Name)
		}
		if seen[r.Name] {
			t.Errorf("%s is there twice", r.Name)
		}
		seen[r.Name] = true
		data, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
		out[r.Name] = entry{r.Mode, string(data)}
		if r.MTime != 0 || r.UID != 0 || r.GID != 0 {
			t.Errorf("%s: time %d, owner %d:%d; want zeros", r.Name, r.MTime, r.UID, r.GID)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parent(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
}

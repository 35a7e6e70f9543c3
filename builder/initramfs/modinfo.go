// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxModule bounds one unpacked module. The largest in the kernel's tree has
// some ten megabytes without its debugging data.
const maxModule = 128 << 20

// packings are the ways module files are compressed.
var packings = []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"}

// unpacked is the name of a module file without its compression.
func unpacked(p string) string {
	if i := strings.LastIndex(p, ".ko."); i >= 0 {
		return p[:i+3]
	}
	return p
}

func isModule(name string) bool {
	for _, s := range packings {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}

// readModule returns the module's ELF bytes, whatever it is packed with.
func readModule(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := unpack(f, name)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	return b, nil
}

func unpack(r io.Reader, name string) ([]byte, error) {
	switch {
	case strings.HasSuffix(name, ".xz"):
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = x
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	case strings.HasSuffix(name, ".gz"):
		g, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = g
	}
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxModule {
		return nil, fmt.Errorf("more than %d MiB unpacked", maxModule>>20)
	}
	return b, nil
}

// modinfo is what a module says about itself, in the words of modinfo(8).
type modinfo struct {
	depends, aliases, softdeps, weakdeps, firmware []string
}

var errNoModinfo = errors.New("no .modinfo section: not a kernel module")

// readModinfo reads the .modinfo section of a module: "key=value" strings with
// a zero byte after each.
func readModinfo(module []byte) (modinfo, error) {
	var m modinfo
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return m, err
	}
	s := f.Section(".modinfo")
	if s == nil || s.Type != elf.SHT_PROGBITS {
		return m, errNoModinfo
	}
	data, err := s.Data()
	if err != nil {
		return m, err
	}
	for field := range bytes.SplitSeq(data, []byte{0}) {
		key, value, ok := strings.Cut(string(field), "=")
		if !ok || strings.ContainsAny(value, "\n\r") {
			continue
		}
		switch key {
		case "depends":
			m.depends = append(m.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })...)
		case "alias":
			m.aliases = append(m.aliases, value)
		case "softdep":
			m.softdeps = append(m.softdeps, value)
		case "weakdep":
			m.weakdeps = append(m.weakdeps, value)
		case "firmware":
			m.firmware = append(m.firmware, value)
		}
	}
	return m, nil
}

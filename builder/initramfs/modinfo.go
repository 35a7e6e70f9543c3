// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"slate/builder/command"
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
func readModule(ctx context.Context, fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := unpack(ctx, f, name)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	return b, nil
}

func unpack(ctx context.Context, r io.Reader, name string) ([]byte, error) {
	out := bounded{left: maxModule}
	switch {
	case strings.HasSuffix(name, ".xz"):
		if err := unxz(ctx, &out, r); err != nil {
			return nil, err
		}
		return out.Bytes(), nil
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
	if _, err := io.Copy(&out, r); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unxz undoes xz with the program of that name where there is one: it takes a
// fifth of the time of the library, and a kernel has hundreds of modules.
func unxz(ctx context.Context, w io.Writer, r io.Reader) error {
	if _, err := exec.LookPath("xz"); err == nil {
		return command.Run(ctx, command.Cmd{Args: []string{"xz", "-dc"}, Stdin: r, Stdout: w})
	}
	x, err := xz.NewReader(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, x)
	return err
}

// bounded is a buffer that refuses to grow without end.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("more than %d MiB unpacked", maxModule>>20)
	}
	return b.Buffer.Write(p)
}

// ReadFrom keeps io.Copy from going round Write.
func (b *bounded) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{b}, r)
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

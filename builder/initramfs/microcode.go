// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

// microcodeSources are where packages put updates for processors, and the file
// in which the kernel looks for them all in a row
// (Documentation/arch/x86/microcode.rst).
var microcodeSources = []struct{ dir, to string }{
	{"intel-ucode", "kernel/x86/microcode/GenuineIntel.bin"},
	{"amd-ucode", "kernel/x86/microcode/AuthenticAMD.bin"},
}

// microcode makes the archive that goes in front of all others, not compressed:
// the kernel reads it before it can unpack anything. It is nil if the tree has no
// microcode.
func microcode(fsys fs.FS, release string) (archive []byte, size int64, err error) {
	a, err := newArchive(Plain)
	if err != nil {
		return nil, 0, err
	}
	for _, s := range microcodeSources {
		var all []byte
		for _, root := range firmwareDirs(release) {
			if all, err = concatenated(fsys, path.Join(root, s.dir)); err != nil {
				return nil, 0, err
			}
			if len(all) > 0 {
				break
			}
		}
		if len(all) == 0 {
			continue
		}
		size += int64(len(all))
		if err := a.file(s.to, 0o644, all); err != nil {
			return nil, 0, err
		}
	}
	if size == 0 {
		return nil, 0, nil
	}
	archive, err = a.finish()
	return archive, size, err
}

// concatenated returns all updates of a directory; signatures and licences lie
// beside AMD's, and copies with a suffix beside Intel's.
func concatenated(fsys fs.FS, dir string) ([]byte, error) {
	list, err := fs.ReadDir(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, e := range list {
		if suffix := path.Ext(e.Name()); e.IsDir() || suffix != "" && suffix != ".bin" || strings.HasPrefix(e.Name(), "README") || strings.HasPrefix(e.Name(), "LICEN") {
			continue
		}
		data, err := fs.ReadFile(fsys, path.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	return all, nil
}

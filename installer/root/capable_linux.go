// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"slate/images/tree"
	"slate/installer/machine"
)

// CapableList is the tree list of the files of the image that have capabilities;
// it comes with the modules. NFS does not carry capabilities (RFC 1813 has no
// extended attributes), so these files are copied into memory, with all that
// they have, and the copies bound over them.
const CapableList = "/etc/slate/capable.mtree"

// capableCopies is where the copies are.
const capableCopies = Upper + "/capable"

// CapableFile is a file that gets its capabilities back.
type CapableFile struct {
	Path  string // in the image, with a leading slash
	Entry tree.Entry
}

// ReadCapable reads the list; without one there are none.
func ReadCapable(list string) ([]CapableFile, error) {
	f, err := os.Open(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := tree.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", list, err)
	}
	var out []CapableFile
	for i := range uint32(t.Len()) {
		if t.Type(i) == tree.File {
			out = append(out, CapableFile{filepath.Join("/", t.Path(i)), t.Entry(i)})
		}
	}
	return out, nil
}

// Capable gives the mounts that put the copies in their places.
func Capable(files []CapableFile) []machine.Mount {
	var out []machine.Mount
	for _, f := range files {
		out = append(out, machine.Mount{What: capableCopies + f.Path, Where: Sysroot + f.Path, Flags: unix.MS_BIND})
	}
	return out
}

// MountCapable copies the files from the tree at lower and mounts the copies.
func MountCapable(files []CapableFile, lower string) error {
	for _, f := range files {
		if err := f.copy(lower+f.Path, capableCopies+f.Path); err != nil {
			return fmt.Errorf("capabilities of %s: %w", f.Path, err)
		}
	}
	for _, m := range Capable(files) {
		if err := unix.Mount(m.What, m.Where, "", m.Flags, ""); err != nil {
			return fmt.Errorf("capabilities of %s: mount: %w", m.Where, err)
		}
	}
	return nil
}

// copy makes dst a copy of src with the owner, mode, time and attributes of the
// tree list. Attributes come last: a change of owner takes capabilities away.
func (f CapableFile) copy(src, dst string) error {
	in, err := os.OpenFile(src, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Close())
	if err != nil {
		return err
	}
	e := f.Entry
	for _, step := range []error{
		os.Chown(dst, int(e.UID), int(e.GID)),
		unix.Chmod(dst, e.Mode),
		os.Chtimes(dst, time.Time{}, time.Unix(0, e.MtimeNs)),
	} {
		if step != nil {
			return step
		}
	}
	for _, x := range e.Xattrs {
		if err := unix.Setxattr(dst, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("attribute %s: %w", x.Name, err)
		}
	}
	return nil
}

// SPDX-License-Identifier: GPL-2.0-or-later

package bootpart

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// ControllerCPIO packs the controller that runs, with its key and the digests of its
// files, as the archive that it came in: an installed machine starts with what it was
// installed by, whoever can be reached then. root is where the files are; list is the
// list of digests, which names them all.
func ControllerCPIO(root, list string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, list))
	if err != nil {
		return nil, err
	}
	a := &archive{dirs: map[string]bool{}}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "root", "etc", "lib/modules", "lib/firmware", "mnt", "sysroot", "var"} {
		a.dir(d)
	}
	// The kernel opens the first for process 1 before anything is mounted.
	a.device("dev/console", 0o600, 5, 1)
	a.device("dev/null", 0o666, 1, 3)
	a.device("dev/kmsg", 0o644, 1, 11)
	a.device("dev/tty", 0o666, 5, 0)
	for line := range strings.Lines(string(text)) {
		_, name, ok := strings.Cut(strings.TrimSpace(line), "  /")
		if !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		mode := uint32(0o644)
		if name == "init" {
			mode = 0o755
		}
		a.file(name, mode, data)
	}
	a.file(strings.TrimPrefix(list, "/"), 0o644, text)
	a.record("TRAILER!!!", 0, nil, 0, 0)
	for a.out.Len()%512 != 0 {
		a.out.WriteByte(0)
	}
	return a.out.Bytes(), nil
}

// archive writes the newc format that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	out  bytes.Buffer
	ino  int
	dirs map[string]bool
}

func (a *archive) record(name string, mode uint32, data []byte, major, minor int) {
	a.ino++
	fmt.Fprintf(&a.out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", a.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	a.out.WriteString(name + "\x00")
	a.pad()
	a.out.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.out.Len()%4 != 0 {
		a.out.WriteByte(0)
	}
}

func (a *archive) dir(name string) {
	if name == "." || a.dirs[name] {
		return
	}
	a.dir(path.Dir(name))
	a.dirs[name] = true
	mode := uint32(0o755)
	if name == "tmp" {
		mode = 0o1777
	}
	a.record(name, 0o040000|mode, nil, 0, 0)
}

func (a *archive) file(name string, mode uint32, data []byte) {
	a.dir(path.Dir(name))
	a.record(name, 0o100000|mode, data, 0, 0)
}

func (a *archive) device(name string, mode uint32, major, minor int) {
	a.dir(path.Dir(name))
	a.record(name, 0o020000|mode, nil, major, minor)
}

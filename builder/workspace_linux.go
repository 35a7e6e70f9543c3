// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"slate/images/durable"
)

// workspace is a directory that one build has for itself. It is locked as long
// as the build lives, so that the next build can tell what a killed one left
// behind from what is in use.
type workspace struct {
	dir  string
	lock *os.File
}

// newWorkspace removes what dead builds left below root and makes a directory
// there.
func newWorkspace(root string) (*workspace, error) {
	// The trees of builds are for root alone: set-id files lie in them.
	if err := durable.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	if err := sweep(root); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(root, "build-")
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &workspace{dir: dir, lock: lock}, nil
}

// lockDir takes the lock of a directory, or says that somebody has it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// Close removes the directory with all that is in it.
func (w *workspace) Close() error {
	err := removeTree(w.dir)
	return errors.Join(err, w.lock.Close())
}

// sweep removes the directories of builds that are no longer alive.
func sweep(root string) error {
	list, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range list {
		dir := filepath.Join(root, e.Name())
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "build-") {
			continue
		}
		lock, err := lockDir(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = removeTree(dir)
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes a directory, unless anything is mounted below it: a
// forgotten bind mount of /dev has cost more than one machine its devices.
func removeTree(dir string) error {
	mounts, err := mountsBelow("/proc/self/mountinfo", dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return &mountedError{dir, mounts}
	}
	return os.RemoveAll(dir)
}

// mountedError says what is mounted where nothing should be.
type mountedError struct {
	dir    string
	mounts []string
}

func (e *mountedError) Error() string {
	return fmt.Sprintf("%s is not removed: %s is mounted in it", e.dir, strings.Join(e.mounts, ", "))
}

// Hint says how to get rid of it.
func (e *mountedError) Hint() string {
	return fmt.Sprintf("unmount it (umount -R %s), then start again", e.mounts[0])
}

// mountsBelow lists the mount points in dir that a mountinfo file names (see
// proc(5)).
func mountsBelow(mountinfo, dir string) ([]string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(mountinfo)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) < 5 {
			continue
		}
		// Space, tab, line break and backslash are octal there.
		p := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if p == dir || strings.HasPrefix(p, dir+"/") {
			out = append(out, p)
		}
	}
	return out, sc.Err()
}

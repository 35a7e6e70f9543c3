// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"slate/installer/machine"

	"golang.org/x/sys/unix"
)

// Reach waits until the server accepts connections, with growing jittered pauses:
// mount(2) itself would sleep for minutes where nothing can wake it.
func Reach(ctx context.Context, server string, note func(string, ...any)) error {
	for try := 0; ; try++ {
		d := net.Dialer{Timeout: 5 * time.Second}
		conn, err := d.DialContext(ctx, "tcp", server)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the NFS server %s cannot be reached: %w", server, err)
		}
		note("the NFS server %s cannot be reached, trying again: %v", server, errors.Unwrap(err))
		pause := time.Second<<min(try, 3)*3/4 + rand.N(time.Second<<min(try, 3)/2)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("the NFS server %s cannot be reached: %w", server, err)
		}
	}
}

// MountError says in words why the kernel did not mount the tree.
type MountError struct {
	Lower Lower
	Err   error
}

func (e *MountError) Error() string {
	return fmt.Sprintf("mount %s: %v", e.Lower, e.Err)
}
func (e *MountError) Unwrap() error { return e.Err }

// Hint explains the kernel's errors.
func (e *MountError) Hint() string {
	switch {
	case e.Lower.Local():
		return "The kernel's words are above, or in the log (shell, command log)."
	case errors.Is(e.Err, unix.ENOENT), errors.Is(e.Err, unix.EACCES):
		return "The server does not export this version: was the image removed from it?"
	case errors.Is(e.Err, unix.ENODEV):
		return "This kernel has no NFS client (module nfs); build the image with one that has."
	case errors.Is(e.Err, unix.EPROTONOSUPPORT):
		return "NFS version 3 is missing from this kernel (module nfsv3)."
	case errors.Is(e.Err, unix.ECONNREFUSED), errors.Is(e.Err, unix.ETIMEDOUT), errors.Is(e.Err, context.DeadlineExceeded):
		return "The server did not answer: is slate serve running there?"
	}
	return ""
}

// MountBase mounts the tree and the memory. A previous try's mounts are taken down first.
func MountBase(ctx context.Context, in Input) error {
	Unmount()
	for i, m := range Base(in) {
		if strings.HasPrefix(m.What, Upper+"/") {
			if err := os.MkdirAll(m.What, 0o755); err != nil {
				return err
			}
		}
		if i > 0 { // all but the tree itself
			if err := m.Do(); err != nil {
				return err
			}
			continue
		}
		// mount(2) cannot be interrupted: leave it behind when time is up.
		done := make(chan error, 1)
		go func() { done <- m.Do() }()
		select {
		case err := <-done:
			if err != nil {
				return &MountError{in.Lower, cause(err)}
			}
		case <-ctx.Done():
			return &MountError{in.Lower, ctx.Err()}
		}
	}
	return nil
}

func cause(err error) error {
	var n syscall.Errno
	if errors.As(err, &n) {
		return n
	}
	return err
}

// Unmount takes everything off that MountBase and MountWritable put up.
func Unmount() {
	for range 32 {
		mounts, _ := os.ReadFile("/proc/self/mounts")
		last := ""
		for line := range strings.Lines(string(mounts)) {
			f := strings.Fields(line)
			if len(f) > 1 && (f[1] == Sysroot || strings.HasPrefix(f[1], Sysroot+"/") || f[1] == Bare || f[1] == Upper || f[1] == UserData) {
				last = f[1]
			}
		}
		if last == "" || unix.Unmount(last, unix.MNT_DETACH) != nil {
			return
		}
	}
}

// MountWritable puts the writable layers on the tree.
func MountWritable(w Writable) error {
	if err := leaveCommands(); err != nil {
		return err
	}
	for _, d := range []string{"local", "rmount", "var", "etc", "logs", "config.d"} {
		if err := os.MkdirAll(UserData+"/persistent/"+d, 0o755); err != nil {
			return err
		}
	}
	// Room in memory for whoever looks for it beside what is kept.
	for d, mode := range map[string]uint32{"tmp": 0o1777, "var": 0o755, "etc": 0o755} {
		at := UserData + "/tmpfs/" + d
		if err := errors.Join(os.MkdirAll(at, 0o755), unix.Chmod(at, mode)); err != nil {
			return err
		}
	}
	for _, m := range w.Mounts {
		if m.Type == "overlay" {
			if err := layers(m, w.Absent); err != nil {
				return err
			}
		}
		if err := m.Do(); err != nil {
			return err
		}
		if m.Type == "tmpfs" && strings.HasPrefix(m.Where, Sysroot) {
			if err := ownLike(Bare+strings.TrimPrefix(m.Where, Sysroot), m.Where); err != nil {
				return err
			}
		}
	}
	for _, c := range w.Copies {
		if err := copyTree(c.From, c.To); err != nil {
			return fmt.Errorf("copy %s into memory: %w", strings.TrimPrefix(c.From, Bare), err)
		}
	}
	return nil
}

// leaveCommands makes the names by which people call our program.
func leaveCommands() error {
	if err := os.MkdirAll(Commands, 0o755); err != nil {
		return err
	}
	err := os.Symlink(Program, Commands+"/slate-agent")
	if errors.Is(err, fs.ErrExist) {
		return nil // of an earlier try
	}
	return err
}

// layers makes the directories of an overlay. A new upper one has owner and mode of
// the tree's: the overlay's top directory shows the upper one's. It hides what is
// absent, so that nobody looks further down.
func layers(m machine.Mount, absent []string) error {
	dirs := map[string]string{}
	for _, o := range strings.Split(m.Data, ",") {
		k, v, _ := strings.Cut(o, "=")
		dirs[k] = v
	}
	if dirs["upperdir"] == "" {
		return nil // nothing is written to it
	}
	if err := os.MkdirAll(dirs["workdir"], 0o755); err != nil {
		return err
	}
	upper, lower := dirs["upperdir"], dirs["lowerdir"]
	if _, err := os.Stat(upper); err == nil {
		return nil // kept from an earlier start
	}
	if err := os.MkdirAll(upper, 0o755); err != nil {
		return err
	}
	if err := ownLike(lower, upper); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return fmt.Errorf("%s: %w", lower, err)
	}
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return err
	}
	for _, name := range absent {
		if path.Dir(name) != strings.TrimPrefix(m.Where, Sysroot) {
			continue
		}
		// A whiteout (Documentation/filesystems/overlayfs.rst).
		if err := unix.Mknod(path.Join(upper, path.Base(name)), unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("hide %s: %w", name, err)
		}
	}
	return os.Chtimes(upper, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

// ownLike gives dir the owner of another.
func ownLike(like, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(like, &st); err != nil {
		return fmt.Errorf("%s: %w", like, err)
	}
	return os.Chown(dir, int(st.Uid), int(st.Gid))
}

// copyTree copies a file, or a directory with all below it, with owners, modes and times.
func copyTree(from, to string) error {
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil // this image has none
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return copyOne(p, filepath.Join(to, rel))
	})
}

func copyOne(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
		return os.Lchown(to, int(st.Uid), int(st.Gid))
	case unix.S_IFREG:
		if err := copyContent(from, to); err != nil {
			return err
		}
	default:
		return nil // sockets and the like belong to programs that do not run yet
	}
	if err := os.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return os.Chtimes(to, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

func copyContent(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Apply makes the changes below a directory. Links in the image are never
// followed out of it: os.Root sees to that.
func Apply(dir string, changes []Change) error {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	var errs []error
	for _, c := range changes {
		if err := applyOne(r, c); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Path, err))
		}
	}
	return errors.Join(errs...)
}

func applyOne(r *os.Root, c Change) error {
	name := strings.TrimPrefix(filepath.Clean(c.Path), "/")
	if c.Dir && strings.HasPrefix(c.Path, UserData+"/") {
		return os.MkdirAll(filepath.Clean(c.Path), 0o755) // not below the root yet
	}
	if c.Dir {
		return makeDir(r, name, c)
	}
	if c.Remove {
		if err := r.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := r.Lstat(name); err == nil && c.IfNew {
		return nil
	}
	if err := r.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	mode := c.Mode
	if mode == 0 {
		mode = 0o644
	}
	text := c.Text
	if c.Append {
		old, err := r.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		text = string(old) + text
	}
	// A link of that name is replaced, not written through: it may lead to /run or nowhere.
	if fi, err := r.Lstat(name); err == nil && !fi.IsDir() {
		if err := r.Remove(name); err != nil {
			return err
		}
	}
	if c.Link != "" {
		return r.Symlink(c.Link, name)
	}
	if err := r.WriteFile(name, []byte(text), mode); err != nil {
		return err
	}
	if err := c.own(r, name); err != nil {
		return err
	}
	return r.Chmod(name, mode) // whatever the umask was
}

// own gives what was made to somebody else than root.
func (c Change) own(r *os.Root, name string) error {
	if c.UID == 0 && c.GID == 0 {
		return nil
	}
	return r.Chown(name, c.UID, c.GID)
}

// makeDir makes a directory; one that is there stays as it is.
func makeDir(r *os.Root, name string, c Change) error {
	if _, err := r.Stat(name); err == nil {
		return nil
	}
	if err := r.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	mode := c.Mode
	if mode == 0 {
		mode = 0o755
	}
	if err := r.Mkdir(name, mode); err != nil {
		return err
	}
	if err := c.own(r, name); err != nil {
		return err
	}
	return r.Chmod(name, mode)
}

// Stamp tells systemd that /etc and /var fit /usr (ConditionNeedsUpdate), so that
// ldconfig, hwdb and sysusers do not run at each start.
func Stamp(dir string) error {
	fi, err := os.Stat(filepath.Join(dir, "usr"))
	if err != nil {
		return err
	}
	t := fi.ModTime()
	text := "# Made by slate: this directory fits /usr.\nTIMESTAMP_NSEC=" + strconv.FormatInt(t.UnixNano(), 10) + "\n"
	for _, d := range []string{"etc", "var"} {
		name := filepath.Join(dir, d, ".updated")
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(name, t, t); err != nil {
			return err
		}
	}
	return nil
}

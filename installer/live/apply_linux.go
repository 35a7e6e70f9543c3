// SPDX-License-Identifier: GPL-2.0-or-later

package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slate/builder/command"
	"slate/installer/root"
	"slate/netboot/config"
)

// Input is what Serve is asked: the bundles of a plan's configurations; nil stands
// for the defaults. Whoever asks has verified them.
type Input struct{ Boot, Last, Next *config.Bundle }

// Result is what came of a plan.
type Result struct {
	Done   []string `json:"done,omitempty"`
	Failed []Failed `json:"failed,omitempty"` // waits for the next start
	Waits  []string `json:"waits,omitempty"`
}

// Failed is something that could not be done to the running system.
type Failed struct {
	What string `json:"what"` // by which it is known again
	Why  string `json:"why"`
}

// System is the running system as Apply works on it.
type System struct {
	Root string // "/" on a real machine
	Run  func(ctx context.Context, args ...string) error
	// Mounted tells whether something is mounted at a directory.
	Mounted func(where string) bool
	// Remount gives a file system in memory another size.
	Remount func(where, size string) error
}

// stepLimit bounds a program that may wait for another machine.
const stepLimit = 20 * time.Second

// Here is the system that this process runs in.
func Here() System {
	return System{Root: "/",
		Run: func(ctx context.Context, args ...string) error {
			ctx, cancel := context.WithTimeoutCause(ctx, stepLimit, fmt.Errorf("not done within %v", stepLimit))
			defer cancel()
			return command.Run(ctx, command.Cmd{Args: args, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}})
		},
		Mounted: func(where string) bool {
			mounts, _ := os.ReadFile("/proc/self/mounts")
			for line := range strings.Lines(string(mounts)) {
				if f := strings.Fields(line); len(f) > 1 && f[1] == where {
					return true
				}
			}
			return false
		},
		Remount: func(where, size string) error {
			flags := uintptr(unix.MS_NOATIME)
			if !strings.HasPrefix(where, root.Upper) {
				flags = unix.MS_NOSUID | unix.MS_NODEV
			}
			return unix.Mount("", where, "", unix.MS_REMOUNT|flags, "size="+size)
		},
	}
}

// Serve reads an Input, makes the plan, applies it, and writes the Result, all as
// JSON: it runs as a process of its own, inside the system.
func Serve(ctx context.Context, s System, in io.Reader, out io.Writer) error {
	var i Input
	if err := json.NewDecoder(in).Decode(&i); err != nil {
		return fmt.Errorf("what to change: %w", err)
	}
	f := Facts{Tree: os.DirFS(path.Join(s.Root, root.Bare)), System: os.DirFS(s.Root)}
	for _, c := range []struct {
		from *config.Bundle
		to   **config.Node
	}{{i.Boot, &f.Boot}, {i.Last, &f.Last}, {i.Next, &f.Next}} {
		if *c.to = config.Defaults(); c.from != nil {
			var err error
			if *c.to, err = c.from.Config(); err != nil {
				return err
			}
		}
	}
	return json.NewEncoder(out).Encode(s.Apply(ctx, Make(f)))
}

// Apply does what a plan says. What cannot be done is left as it is.
func (s System) Apply(ctx context.Context, p Plan) Result {
	r := Result{Waits: p.Waits}
	say := func(what string, err error) {
		if err != nil {
			r.Failed = append(r.Failed, Failed{what, strings.Join(strings.Fields(err.Error()), " ")})
			return
		}
		r.Done = append(r.Done, what)
	}
	if p.Fstab != "" {
		s.applyMounts(ctx, p, say)
	}
	for _, m := range p.Remount {
		say(fmt.Sprintf("%s: %s", m.What, m.Size), s.Remount(m.Where, m.Size))
	}
	if len(p.Users) > 0 {
		err := s.write(p.Changes)
		if err == nil && p.SSH {
			s.reloadSSH(ctx)
		}
		say("users "+strings.Join(p.Users, ", "), err)
	}
	return r
}

func (s System) applyMounts(ctx context.Context, p Plan, say func(string, error)) {
	r, err := os.OpenRoot(s.Root)
	if err == nil {
		err = replace(r, root.Change{Path: "/etc/fstab", Text: p.Fstab})
		r.Close()
	}
	if err != nil {
		say("/etc/fstab", err)
		return
	}
	if _, err := os.Stat(path.Join(s.Root, "run/systemd/system")); err == nil {
		// systemd makes its units of the fstab; that they are old is no reason to stop.
		_ = s.Run(ctx, "systemctl", "daemon-reload")
	}
	kept := map[string]bool{}
	for _, where := range p.Unmount {
		if !s.Mounted(where) {
			continue
		}
		if err := s.Run(ctx, "umount", where); err != nil {
			kept[where] = true // it is in use
			say("mount "+where, err)
			continue
		}
		say("unmount "+where, nil)
	}
	for _, where := range p.Mount {
		switch {
		case kept[where]:
			continue
		case s.Mounted(where):
			say("mount "+where, errors.New("something else is mounted there"))
			continue
		}
		err := os.MkdirAll(path.Join(s.Root, where), 0o755)
		if err == nil {
			err = s.Run(ctx, "mount", where)
		}
		say("mount "+where, err)
	}
}

// reloadSSH makes the ssh server read its settings anew; sessions go on.
func (s System) reloadSSH(ctx context.Context) {
	for _, args := range [][]string{{"systemctl", "try-reload-or-restart", "ssh.service", "sshd.service"}, {"rc-service", "--ifstarted", "sshd", "reload"}, {"rc-service", "--ifstarted", "ssh", "reload"}} {
		_ = s.Run(ctx, args...) // one of them is there
	}
}

// write makes the changes of the accounts, with the lock of those who change them by hand.
func (s System) write(changes []root.Change) error {
	r, err := os.OpenRoot(s.Root)
	if err != nil {
		return err
	}
	defer r.Close()
	lock, err := r.OpenFile("etc/.pwd.lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and with it the lock
	for try := 0; ; try++ {
		err := unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			break
		}
		if try >= 50 {
			return fmt.Errorf("somebody else changes the accounts: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	var errs []error
	for _, c := range changes {
		if err := one(r, c); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Path, err))
		}
	}
	return errors.Join(errs...)
}

func one(r *os.Root, c root.Change) error {
	name := strings.TrimPrefix(path.Clean(c.Path), "/")
	_, err := r.Lstat(name)
	switch there := err == nil; {
	case c.Remove && !there, c.IfNew && there, c.Dir && there:
		return nil
	case c.Remove:
		return r.Remove(name)
	case c.Dir:
		if err := r.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := r.Mkdir(name, 0o700); err != nil {
			return err
		}
		return errors.Join(r.Chown(name, c.UID, c.GID), r.Chmod(name, c.Mode))
	}
	return replace(r, c)
}

// replace puts a whole new file in the place of another: at no moment is there none.
func replace(r *os.Root, c root.Change) error {
	name := strings.TrimPrefix(path.Clean(c.Path), "/")
	if err := r.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	mode := c.Mode
	if mode == 0 {
		mode = 0o644
	}
	fresh := path.Join(path.Dir(name), ".slate-"+path.Base(name))
	if err := r.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := r.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, c.Text)
	err = errors.Join(err, f.Chown(c.UID, c.GID), f.Chmod(mode), f.Close())
	if err == nil {
		err = r.Rename(fresh, name)
	}
	if err != nil {
		_ = r.Remove(fresh)
	}
	return err
}

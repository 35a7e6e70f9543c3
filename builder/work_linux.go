// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slate/builder/command"
	"slate/builder/customize"
	"slate/builder/gentoo"
	"slate/builder/sandbox"
	"slate/images"
	"slate/images/archive"
)

// layOut writes a tree of the store into the workspace, unless that is done.
func (j *job) layOut(ctx context.Context, digest images.Digest) error {
	if j.laid {
		return nil
	}
	t, err := j.st.Tree(ctx, digest)
	if err != nil {
		return err
	}
	j.meta.step("laying out the tree", "%d entries, %.0f MB", t.Len(), float64(t.Size())/1e6)
	if err := archive.Dir(ctx, j.st, t, j.root); err != nil {
		return err
	}
	j.laid = true
	return nil
}

// run runs one script inside the tree.
func (j *job) run(ctx context.Context, a customize.Action) error {
	if a.Step != "" {
		j.meta.step(a.Step, "")
	}
	fmt.Fprintf(j.log, "=== %s\n", a.Step)
	var stdin io.Reader
	if a.Stdin != nil {
		stdin = bytes.NewReader(a.Stdin)
	}
	args := append([]string{"/bin/sh", "-euc", a.Script, "sh"}, a.Args...)
	env := append([]string{"SOURCE_DATE_EPOCH=" + strconv.FormatInt(j.base.epoch.Unix(), 10), "TZ=UTC"}, j.base.env...)
	if a.Network {
		env = append(env, proxies()...)
	}
	// Caches are shared with this machine for packages only: cleaning up would
	// empty them.
	var bind []sandbox.Bind
	if j.packing {
		bind = j.base.bind
	}
	err := sandbox.Run(ctx, sandbox.Options{
		Root: j.root, Args: args, Env: env, Network: a.Network && !j.o.Offline, Bind: bind, Stdin: stdin, Log: j.log,
		Line: func(line string) { j.line(a.Step, line) },
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	return stepError(a, err)
}

// line passes on what matters of a program's output.
func (j *job) line(step, line string) {
	if rest, ok := strings.CutPrefix(line, customize.SavedPrefix); ok {
		what, n := customize.ParseSaved(rest)
		j.saved[what] += n
		return
	}
	if rest, ok := strings.CutPrefix(line, gentoo.WarningPrefix); ok {
		j.meta.warn("%s", rest)
		return
	}
	if j.base.detail != nil {
		if line = j.base.detail(line); line == "" {
			return
		}
	}
	j.meta.step(step, "%s", line)
}

// stepError says which step failed, in the words of its program. The script
// itself, which may be long and hold what is secret, stands in nobody's way.
func stepError(a customize.Action, err error) error {
	what := a.Step
	if what == "" {
		what = "a step"
	}
	return fmt.Errorf("%s: %w", what, err)
}

// proxies is how this machine reaches others, which is its own business.
func proxies() []string {
	var out []string
	for _, k := range []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if v := os.Getenv(k); v != "" {
			out = append(out, k+"="+v)
		}
	}
	return out
}

// clampTimes sets back what is later than the epoch: when a file was written
// during the build must not make another tree of it.
func clampTimes(ctx context.Context, root string, epoch time.Time) error {
	return filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fi, err := e.Info()
		if err != nil || !fi.ModTime().After(epoch) {
			return err
		}
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(epoch.UnixNano())}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "set time", Path: p, Err: err}
		}
		return nil
	})
}

// openTar opens a tar archive for reading. Archives of xz, which Gentoo's are, go
// through the program if there is one: it uses all processors.
func openTar(ctx context.Context, file string, log io.Writer) (io.ReadCloser, error) {
	if !strings.HasSuffix(file, ".xz") {
		return os.Open(file)
	}
	if _, err := os.Stat("/usr/bin/xz"); err != nil {
		return os.Open(file)
	}
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(command.Run(ctx, command.Cmd{Args: []string{"/usr/bin/xz", "--decompress", "--stdout", "--threads=0", file}, Stdout: w, Log: log}))
	}()
	return &pipedTar{r, func() { cancel(); r.Close(); <-done }}, nil
}

type pipedTar struct {
	io.Reader
	stop func()
}

func (p *pipedTar) Close() error {
	p.stop()
	return nil
}

// changeTime is when a directory was last changed, its name included.
func changeTime(fi fs.FileInfo) time.Time {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Sec, st.Ctim.Nsec)
	}
	return fi.ModTime()
}

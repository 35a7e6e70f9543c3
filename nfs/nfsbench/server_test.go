// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/tree"
	"slate/nfs"
)

// dirSite serves a directory where it lies.
type dirSite struct {
	trees map[string]*tree.Tree // by export path
	paths map[images.Digest]string
}

func newDirSite(dirs map[string]string) (*dirSite, error) {
	s := &dirSite{trees: map[string]*tree.Tree{}, paths: map[images.Digest]string{}}
	for export, dir := range dirs {
		t, err := s.scan(dir)
		if err != nil {
			return nil, err
		}
		s.trees[export] = t
	}
	return s, nil
}

func (s *dirSite) scan(root string) (*tree.Tree, error) {
	var b tree.Builder
	first := map[[2]uint64]string{} // inode to path, for hard links
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if old, ok := first[id]; ok && !d.IsDir() {
			return b.Link(rel, old)
		}
		first[id] = rel
		e := tree.Entry{Mode: st.Mode & 07777, UID: st.Uid, GID: st.Gid, MtimeNs: st.Mtim.Nano()}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			// Which blob it is, is all that matters here: the path says so.
			e.Type, e.Size, e.Digest = tree.File, st.Size, images.Digest(sha256.Sum256([]byte(path)))
			s.paths[e.Digest] = path
		case unix.S_IFDIR:
			e.Type = tree.Dir
		case unix.S_IFLNK:
			e.Type = tree.Symlink
			if e.Target, err = os.Readlink(path); err != nil {
				return err
			}
		case unix.S_IFCHR:
			e.Type, e.Major, e.Minor = tree.Char, unix.Major(st.Rdev), unix.Minor(st.Rdev)
		case unix.S_IFBLK:
			e.Type, e.Major, e.Minor = tree.Block, unix.Major(st.Rdev), unix.Minor(st.Rdev)
		case unix.S_IFIFO:
			e.Type = tree.Fifo
		case unix.S_IFSOCK:
			e.Type = tree.Socket
		}
		return b.Add(rel, e)
	})
	if err != nil {
		return nil, err
	}
	return b.Build()
}

func (s *dirSite) Export(_ context.Context, path string) (images.Digest, *tree.Tree, error) {
	t := s.trees[path]
	if t == nil {
		return images.Digest{}, nil, fs.ErrNotExist
	}
	return t.Digest(), t, nil
}

func (s *dirSite) ByPrefix(_ context.Context, p [16]byte) (*tree.Tree, error) {
	for _, t := range s.trees {
		if d := t.Digest(); p == [16]byte(d[:]) {
			return t, nil
		}
	}
	return nil, fs.ErrNotExist
}

func (s *dirSite) OpenBlob(d images.Digest) (*os.File, error) { return os.Open(s.paths[d]) }

// serveEnv tells a copy of this program to be the server, and where its site is:
// a storeSite, or with goEnv the directories to serve, path=directory, by commas.
const (
	serveEnv = "SLATE_NFSBENCH_SERVE"
	goEnv    = "SLATE_NFSBENCH_GO"
)

// The server's ReplyMemory in bytes, and its SlowTimeout.
const (
	memoryEnv = "SLATE_NFSBENCH_MEMORY"
	slowEnv   = "SLATE_NFSBENCH_SLOW"
)

// serveMain is the server under test, in a process of its own.
func serveMain(site string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	serve := serveSlate
	if os.Getenv(goEnv) != "" {
		serve = serveGo
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	profile, err := startProfile(os.Getenv(profileEnv))
	if err != nil {
		return err
	}
	defer profile()
	return serve(ctx, ln, site)
}

func serveSlate(ctx context.Context, ln net.Listener, dir string) error {
	site, err := openStoreSite(dir)
	if err != nil {
		return err
	}
	memory, _ := strconv.ParseInt(os.Getenv(memoryEnv), 10, 64)
	slow, _ := time.ParseDuration(os.Getenv(slowEnv))
	fmt.Println(ln.Addr())
	return (&nfs.Server{Exports: site, Blobs: site, ReplyMemory: memory, SlowTimeout: slow}).Serve(ctx, ln)
}

// serveGo is go-nfs alone.
func serveGo(ctx context.Context, ln net.Listener, exports string) error {
	dirs := parseExports(exports)
	site, err := newDirSite(dirs)
	if err != nil {
		return err
	}
	runtime.GC() // what building the tree has left
	fmt.Println(ln.Addr())
	context.AfterFunc(ctx, func() { ln.Close() })
	if err := serveGoNFS(ln, site, dirs); ctx.Err() == nil {
		return err
	}
	return nil
}

func parseExports(exports string) map[string]string {
	dirs := map[string]string{}
	for e := range strings.SplitSeq(exports, ",") {
		path, dir, _ := strings.Cut(e, "=")
		dirs[path] = dir
	}
	return dirs
}

// server is a running server and how to reach it.
type server struct {
	name       string
	nfs, mount string // addresses
	pid        int
	cmd        *exec.Cmd
	stop       func()
	// again starts one more of its kind that has loaded nothing yet; nil if that cannot be.
	again func(testing.TB) (*server, func())
}

// startSlate makes a site of the exports, path=directory, and serves it.
func startSlate(t testing.TB, exports string, env ...string) *server {
	t.Helper()
	site, err := newDirSite(parseExports(exports))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := site.write(dir); err != nil {
		t.Fatal(err)
	}
	env = append(env, serveEnv+"="+dir)
	s := startSelf(t, "slate", env...)
	s.again = func(t testing.TB) (*server, func()) {
		fresh := startSelf(t, "slate", append(env, profileEnv+"=")...)
		return fresh, fresh.stop
	}
	return s
}

// startSelf runs a copy of this program as a server.
func startSelf(t testing.TB, name string, env ...string) *server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), env...)
	if name == "slate" {
		cmd.Stderr = os.Stderr // go-nfs logs each call that it does not know
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{name: name, cmd: cmd}
	s.start(t)
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatalf("the server did not start: %v", err)
	}
	s.nfs = strings.TrimSpace(string(line[:n]))
	s.mount = s.nfs
	return s
}

const ganeshaConf = `NFS_CORE_PARAM { Protocols = 3; NFS_Port = 2049; MNT_Port = 20048; Enable_NLM = false; Enable_RQUOTA = false; }
LOG { Default_Log_Level = EVENT; }
`

const ganeshaExport = `EXPORT { Export_Id = %d; Path = %q; Pseudo = "/e%[1]d"; Access_Type = RO; Squash = No_Root_Squash;
Protocols = 3; Transports = TCP; SecType = sys; FSAL { Name = VFS; } }
`

// startGanesha runs nfs-ganesha as Debian ships it, which wants rpcbind. The
// namespaces of this process keep both from the rest of the machine.
func startGanesha(t testing.TB, dirs ...string) *server {
	t.Helper()
	work := t.TempDir()
	for _, dir := range []string{"/run", "/var/lib/nfs"} {
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	}
	for _, dir := range []string{"/run/rpcbind", "/run/ganesha", "/run/sendsigs.omit.d", "/var/lib/nfs/ganesha"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	rpcbind := &server{name: "rpcbind", cmd: exec.Command("rpcbind", "-f", "-w")}
	rpcbind.start(t)
	waitFor(t, "127.0.0.1:111")

	conf := ganeshaConf
	for i, d := range dirs {
		conf += fmt.Sprintf(ganeshaExport, i+1, d)
	}
	path := filepath.Join(work, "ganesha.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &server{name: "ganesha", nfs: "127.0.0.1:2049", mount: "127.0.0.1:20048"}
	s.cmd = exec.Command("ganesha.nfsd", "-F", "-L", filepath.Join(work, "log"), "-f", path, "-p", filepath.Join(work, "pid"))
	s.start(t)
	waitFor(t, s.mount)
	waitFor(t, s.nfs)
	return s
}

func (s *server) start(t testing.TB) {
	t.Helper()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pid = s.cmd.Process.Pid
	s.stop = sync.OnceFunc(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { s.cmd.Process.Kill() })
		s.cmd.Wait()
		kill.Stop()
	})
	t.Cleanup(s.stop)
}

// waitFor waits until something listens.
func waitFor(t testing.TB, addr string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 400 {
		if nc, err := net.Dial("tcp", addr); err == nil {
			nc.Close()
			return
		}
		<-tick.C
	}
	t.Fatalf("nothing listens on %s", addr)
}

// cpu is the time all threads of the server have run, in user space and in the
// kernel for them. The clock of a process is exact to far less than a tick.
func (s *server) cpu(t testing.TB) time.Duration {
	t.Helper()
	clock := int32(^uint32(s.pid)<<3 | 2)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		t.Fatalf("CPU clock of %s: %v", s.name, err)
	}
	return time.Duration(ts.Nano())
}

// rss is the resident memory in bytes, now and at most.
func (s *server) rss() (now, most int64) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			now = kb << 10
		case "VmHWM:":
			most = kb << 10
		}
	}
	return now, most
}

// resetPeak starts a new measurement of the most memory used.
func (s *server) resetPeak() {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slate/builder/command"
	"slate/builder/sandbox"
	"slate/testbed/labtest"
	"slate/testbed/smallroot"
)

// busybox makes a tree with a shell and the small tools.
func busybox(t *testing.T) string {
	t.Helper()
	labtest.NeedRoot(t)
	dir := t.TempDir()
	for p, data := range smallroot.Files(t) {
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(data, "->"); ok {
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(data), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func run(t *testing.T, o sandbox.Options, script string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	o.Args = []string{"/bin/sh", "-euc", script}
	o.Stdout = &out
	err := sandbox.Run(t.Context(), o)
	return out.String(), err
}

func TestInside(t *testing.T) {
	root := busybox(t)
	t.Setenv("SECRET_OF_THE_ADMIN", "x")
	out, err := run(t, sandbox.Options{Root: root, Env: []string{"EXTRA=1"}}, `
echo "pid $$"
ls /dev
echo x > /dev/null
cat /proc/1/comm
hostname
env
ls /sys/class/net 2>/dev/null || :
touch /made
echo 1 > /run/x; echo 2 > /tmp/x
ls /`)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pid 1\n", "null\n", "slate-build\n", "EXTRA=1", "LANG=C.UTF-8", "HOME=/root"} {
		if !strings.Contains(out, want) {
			t.Errorf("inside lacks %q:\n%s", want, out)
		}
	}
	for _, bad := range []string{"SECRET_OF_THE_ADMIN", "sda", "vda", "mem\n", "kmsg", "eth0"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q is visible inside:\n%s", bad, out)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "made")); err != nil {
		t.Error("what is written to the tree does not stay")
	}
	for _, gone := range []string{"run/x", "tmp/x", "dev/null", "proc/1"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); err == nil {
			t.Errorf("/%s is left in the tree", gone)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), root) {
		t.Errorf("mounts are left: %v", err)
	}
}

func TestNetwork(t *testing.T) {
	root := busybox(t)
	before := `# the image's own` + "\n"
	conf := filepath.Join(root, "etc/resolv.conf")
	if err := os.WriteFile(conf, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip("this machine has no resolv.conf")
	}
	out, err := run(t, sandbox.Options{Root: root, Network: true}, `cat /etc/resolv.conf`)
	if err != nil || out != string(host) {
		t.Errorf("resolv.conf inside = %q, %v; want this machine's", out, err)
	}
	if got, err := os.ReadFile(conf); err != nil || string(got) != before {
		t.Errorf("resolv.conf afterwards = %q, %v; want the image's own", got, err)
	}
	// Without the network there is not even a loopback that is up.
	out, err = run(t, sandbox.Options{Root: root}, `cat /proc/net/route /proc/net/dev; cat /etc/resolv.conf`)
	if err != nil || !strings.Contains(out, before) || strings.Contains(out, "eth0") || strings.Contains(out, "veth") {
		t.Errorf("without network: %v\n%s", err, out)
	}
}

func TestBind(t *testing.T) {
	root, outside := busybox(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("shared\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, sandbox.Options{Root: root, Bind: []sandbox.Bind{{Outside: outside, Inside: "var/db/repos"}}},
		`cat /var/db/repos/file; touch /var/db/repos/new 2>/dev/null && echo written || echo refused`)
	if err != nil || out != "shared\nrefused\n" {
		t.Errorf("bind: %q, %v", out, err)
	}
	_, err = run(t, sandbox.Options{Root: root, Bind: []sandbox.Bind{{Outside: outside, Inside: "var/cache", Write: true}}}, `echo made > /var/cache/new`)
	if b, rerr := os.ReadFile(filepath.Join(outside, "new")); err != nil || rerr != nil || string(b) != "made\n" {
		t.Errorf("bind for writing: %v, %q, %v", err, b, rerr)
	}
}

func TestFailure(t *testing.T) {
	root := busybox(t)
	_, err := run(t, sandbox.Options{Root: root}, `echo "it broke" >&2; exit 7`)
	var ce *command.Error
	if !errors.As(err, &ce) || !strings.Contains(err.Error(), "it broke") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("Run = %v, want the program's words and status", err)
	}
}

// Nothing of a program outlives it: not a daemon, and not when it is cancelled.
func TestNothingSurvives(t *testing.T) {
	root := busybox(t)
	fifo := filepath.Join(root, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const daemon = `(exec 9>/fifo; touch /open; while :; do sleep 1; done) & until [ -e /open ]; do :; done; `
	if _, err := run(t, sandbox.Options{Root: root}, daemon); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = sandbox.Run(ctx, sandbox.Options{Root: root, Args: []string{"/bin/sh", "-c", daemon + "echo up; while :; do sleep 1; done"}, Line: func(string) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want context.Canceled", err)
	}
	// All writers are gone, or this would say "try again".
	if n, err := r.Read(make([]byte, 1)); n != 0 || errors.Is(err, syscall.EAGAIN) || err == nil {
		t.Errorf("a process survived: read %d, %v", n, err)
	}
}

// A tree whose /dev or /proc leads out of it is not entered.
func TestHostileTree(t *testing.T) {
	for _, change := range []func(root, outside string) error{
		func(root, outside string) error { return os.Symlink(outside, filepath.Join(root, "dev")) },
		func(root, outside string) error { return os.Symlink("/", filepath.Join(root, "proc")) },
		func(root, outside string) error { return os.WriteFile(filepath.Join(root, "run"), nil, 0o644) },
	} {
		root, outside := busybox(t), t.TempDir()
		if err := change(root, outside); err != nil {
			t.Fatal(err)
		}
		if out, err := run(t, sandbox.Options{Root: root}, "echo entered"); err == nil {
			t.Errorf("a hostile tree was entered: %q", out)
		}
		if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
			t.Errorf("outside holds %v, %v", list, err)
		}
	}
	// etc as a link outside must not be written through.
	root, outside := busybox(t), t.TempDir()
	if err := os.Remove(filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, sandbox.Options{Root: root, Network: true}, "echo entered"); err == nil {
		t.Error("resolv.conf was written through a link")
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
		t.Errorf("outside holds %v, %v", list, err)
	}
	if out, err := run(t, sandbox.Options{Root: root, Bind: []sandbox.Bind{{Outside: outside, Inside: "../x"}}}, "echo entered"); err == nil {
		t.Errorf("a bind outside: %q", out)
	}
}

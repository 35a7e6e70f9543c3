// SPDX-License-Identifier: GPL-2.0-or-later

package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv names, in the environment of a re-executed process, the network
// namespace it came from. Whoever is still in that one has inherited the variable
// without the namespace; whoever is in another one (a fuzz worker, say) shares it.
const insideEnv = "SLATE_NETNS"

// Main runs the tests of a package in network and mount namespaces of their own:
//
//	func TestMain(m *testing.M) { netns.Main(m) }
//
// The test binary is executed again inside; there lo is up, nothing else exists,
// any port is free and the process is root, of a user namespace if the caller is
// an ordinary user. Where no namespace can be had, the package's tests are
// skipped with the reason, or fail if SLATE_TEST=all. Main does not return.
func Main(m interface{ Run() int }) {
	if inside() {
		if err := Enter(); err != nil {
			fmt.Fprintf(os.Stderr, "netns: %v\n", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	status, err := Reexec(os.Args[1:]...)
	if err == nil {
		os.Exit(status)
	}
	fmt.Fprintf(os.Stderr, "netns: %v\n", err)
	if os.Getenv("SLATE_TEST") == "all" {
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "netns: all tests of this package skipped")
	os.Exit(0)
}

// Reexec runs this program again, with args, in namespaces of its own, waits for
// it and returns its exit status. An error means that it could not be started.
// SIGINT, SIGTERM and SIGQUIT are passed on; the child dies with its parent.
func Reexec(args ...string) (int, error) {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	Isolate(cmd)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL

	// The death signal fires when the thread that forked ends, so keep it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, Explain(err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended just now
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// Isolate makes cmd start in new network and mount namespaces, and in a user
// namespace where it is root if the caller is not. The program calls Enter first
// thing.
func Isolate(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	a := cmd.SysProcAttr
	a.Cloneflags |= unix.CLONE_NEWNET | unix.CLONE_NEWNS
	if os.Geteuid() != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, insideEnv+"="+strconv.FormatUint(inode(), 10))
}

// inside tells whether this process was started by Isolate and still is in
// another network namespace than the one it was started from.
func inside() bool {
	v := os.Getenv(insideEnv)
	return v != "" && v != strconv.FormatUint(inode(), 10)
}

// inode identifies the network namespace the process is in now.
func inode() uint64 {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return 0
	}
	return st.Ino
}

// Enter furnishes the namespaces that Isolate gave to this process. It does
// nothing in a process that was started otherwise.
func Enter() error {
	if !inside() {
		return nil
	}
	// Without this, mounts made here would appear outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// /sys shows the network devices of the namespace it was mounted in. Some
	// containers forbid a new one; then only who reads /sys/class/net suffers.
	_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	ns, err := Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Up("lo")
}

// Explain says what a person can do about a program that Isolate prepared and
// that could not be started.
func Explain(err error) error {
	if os.Geteuid() == 0 {
		return fmt.Errorf("new network namespace: %w (in a container, root needs CAP_SYS_ADMIN)", err)
	}
	reason := "this kernel or container allows no user namespaces"
	if b, e := os.ReadFile("/proc/sys/user/max_user_namespaces"); e == nil && strings.TrimSpace(string(b)) == "0" {
		reason = "sysctl user.max_user_namespaces is 0"
	}
	for _, knob := range []string{"kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns"} {
		b, e := os.ReadFile("/proc/sys/" + knob)
		v := strings.TrimSpace(string(b))
		if e == nil && (v == "0") == strings.HasSuffix(knob, "_clone") {
			reason = fmt.Sprintf("sysctl %s is %s", strings.ReplaceAll(knob, "/", "."), v)
		}
	}
	return fmt.Errorf("new user namespace: %w (%s; run as root instead)", err, reason)
}

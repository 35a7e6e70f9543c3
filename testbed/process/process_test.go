// SPDX-License-Identifier: GPL-2.0-or-later

package process_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"slate/testbed/labtest"
	"slate/testbed/netns"
	"slate/testbed/process"
)

func TestMain(m *testing.M) { netns.Main(m) }

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestExitStatusAndLog(t *testing.T) {
	var log bytes.Buffer
	p, err := process.Start(t.Context(), process.Spec{Name: "talker", Argv: sh("echo out; echo err >&2; printf unfinished; exit 3"), Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Wait(t.Context())
	if err == nil || !strings.Contains(err.Error(), "talker: exit status 3") || !strings.Contains(err.Error(), "unfinished") {
		t.Errorf("Wait() = %v, want the status and the last lines", err)
	}
	if got, want := log.String(), "out\nerr\nunfinished"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

func TestReady(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "n")
	for _, c := range []struct {
		name, script, err string
		ready             process.Ready
	}{
		{"line", "echo loading; echo serving on 1; read x", "", process.Ready{Line: regexp.MustCompile("^serving")}},
		{"notify", `test "$NOTIFY_SOCKET" = ` + sock + ` && echo 'READY=1' | socat - UNIX-SENDTO:$NOTIFY_SOCKET; read x`, "", process.Ready{Notify: sock}},
		{"ends first", "echo cannot bind; exit 1", "ended before it was ready: exit status 1; its last lines:\n  cannot bind", process.Ready{Line: regexp.MustCompile("^serving")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.script, "socat") {
				labtest.Need(t, "socat")
			}
			r, w, err := os.Pipe() // keeps "read x" waiting
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			p, err := process.Start(t.Context(), process.Spec{Name: "server", Argv: sh(c.script), Stdin: r, Ready: &c.ready})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("Start() = %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A program and what it started end when the context does, or when it is killed.
func TestNothingSurvives(t *testing.T) {
	for _, how := range []string{"cancel", "kill", "leader ends"} {
		t.Run(how, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			script := "sleep 1000 & echo child $!; wait"
			if how == "leader ends" {
				script = "sleep 1000 & echo child $!"
			}
			p, err := process.Start(ctx, process.Spec{Argv: sh(script)})
			if err != nil {
				t.Fatal(err)
			}
			line, err := p.WaitLine(t.Context(), regexp.MustCompile(`^child \d+`))
			if err != nil {
				t.Fatal(err)
			}
			switch how {
			case "cancel":
				cancel()
				<-p.Done()
			case "kill":
				p.Kill()
			case "leader ends":
				<-p.Done()
			}
			pid, _ := strconv.Atoi(strings.TrimPrefix(line, "child "))
			waitGone(t, pid)
		})
	}
}

// waitGone waits until pid is no running process any more.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("process %d still runs: %s", pid, stat)
		}
	}
}

func TestStopKillsTheDeaf(t *testing.T) {
	p, err := process.Start(t.Context(), process.Spec{Name: "deaf", Argv: sh("trap '' TERM; echo up; while :; do read x; done"), Ready: &process.Ready{Line: regexp.MustCompile("up")}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no grace
	if err := p.Stop(ctx); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Stop() = %v, want that it was killed", err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestRunsInNamespace(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Bridge("marker"); err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(t.Context(), process.Spec{Argv: []string{"cat", "/proc/net/dev"}, NS: ns})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := strings.Join(p.Tail(), "\n"); !strings.Contains(out, "marker:") {
		t.Errorf("not in the namespace:\n%s", out)
	}
}

func TestMissingProgram(t *testing.T) {
	_, err := process.Start(t.Context(), process.Spec{Argv: []string{"/no/such/program"}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start() = %v, want that it does not exist", err)
	}
}

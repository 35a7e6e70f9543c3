// SPDX-License-Identifier: GPL-2.0-or-later

package health_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"slate/installer/health"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

var errFailed = errors.New("exit status 3")

// answers gives what each command line prints and how it ends.
type answers map[string]struct {
	out string
	err error
}

func (a answers) run(t *testing.T) func(context.Context, ...string) (string, error) {
	return func(ctx context.Context, args ...string) (string, error) {
		line := strings.Join(args, " ")
		if line == "hangs" {
			<-ctx.Done()
			return "", errors.New("signal: terminated")
		}
		r, ok := a[line]
		if !ok {
			t.Errorf("asked for %q", line)
		}
		return r.out, r.err
	}
}

func TestProbe(t *testing.T) {
	systemd := fstest.MapFS{"run/systemd/system": {Mode: fs.ModeDir}}
	openrc := fstest.MapFS{"run/openrc/softlevel": file("default\n")}
	other := fstest.MapFS{"proc/7/comm": file("agetty\n")}
	good := health.Check{Name: "disk", Run: []string{"test-disk"}}
	for _, c := range []struct {
		name    string
		root    fs.FS
		spec    health.Spec
		says    answers
		healthy bool
		text    string
	}{
		{"systemd, up", systemd, health.Spec{Services: []string{"ssh", "cron.service"}, Checks: []health.Check{good}},
			answers{"systemctl is-active default.target ssh.service cron.service": {out: "active\nactive\nactive\n"}, "test-disk": {}},
			true, "default.target; ssh.service; cron.service; check disk"},
		{"systemd, still starting: no check yet", systemd, health.Spec{Checks: []health.Check{good}},
			answers{"systemctl is-active default.target": {out: "inactive\n", err: errFailed}, "systemctl is-system-running": {out: "starting\n", err: errFailed}},
			false, "default.target is inactive"},
		{"systemd, a service died", systemd, health.Spec{Services: []string{"ssh"}},
			answers{"systemctl is-active default.target ssh.service": {out: "active\nfailed\n", err: errFailed}, "systemctl is-system-running": {out: "degraded\n", err: errFailed}},
			false, "ssh.service is failed"},
		{"systemd does not answer", systemd, health.Spec{},
			answers{"systemctl is-active default.target": {err: errors.New("systemctl: no such\nfile")}},
			false, "systemd does not say what runs: systemctl: no such file"},
		{"a check fails", systemd, health.Spec{Checks: []health.Check{good}},
			answers{"systemctl is-active default.target": {out: "active\n"}, "test-disk": {err: errors.New("exit status 1:\n  full")}},
			false, "check disk: exit status 1: full"},
		{"a check hangs", systemd, health.Spec{Checks: []health.Check{{Name: "slow", Run: []string{"hangs"}, Limit: time.Millisecond}}},
			answers{"systemctl is-active default.target": {out: "active\n"}},
			false, "check slow: not done within 1ms"},
		{"openrc, up", openrc, health.Spec{Services: []string{"sshd"}},
			answers{"rc-service sshd status": {out: " * status: started\n"}},
			true, "runlevel default; sshd"},
		{"openrc, a crash", openrc, health.Spec{Services: []string{"sshd"}},
			answers{"rc-service sshd status": {out: " * status: crashed\n", err: errFailed}},
			false, "sshd is not running: crashed"},
		{"openrc, no such service", openrc, health.Spec{Services: []string{"sshd"}},
			answers{"rc-service sshd status": {err: errors.New("does not exist")}},
			false, "sshd is not running: does not exist"},
		{"openrc, starting", fstest.MapFS{"run/openrc/softlevel": file("default\n"), "run/openrc/rc.starting": file("")}, health.Spec{}, nil,
			false, "runlevel default is being entered"},
		{"openrc, before it", fstest.MapFS{"run/openrc/softlevel": file("boot\n")}, health.Spec{}, nil,
			false, "the default runlevel is not reached"},
		{"another init, or none yet", fstest.MapFS{"proc/1/comm": file("init\n")}, health.Spec{}, nil, false, "no login prompt yet"},
		{"another init, nothing asked", other, health.Spec{}, nil, true, "a login prompt"},
		{"another init", other, health.Spec{Services: []string{"ssh"}}, nil, false, "ssh: this init system cannot be asked for services"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := health.System{Root: c.root, Run: c.says.run(t)}.Probe(t.Context(), c.spec)
			if r.Healthy() != c.healthy || r.String() != c.text {
				t.Errorf("Probe = %v %q, want %v %q", r.Healthy(), r, c.healthy, c.text)
			}
		})
	}
}

// A system that shuts down is not ill.
func TestProbeOfAStoppingSystem(t *testing.T) {
	for name, s := range map[string]health.System{
		"systemd": {Root: fstest.MapFS{"run/systemd/system": {Mode: fs.ModeDir}}, Run: answers{
			"systemctl is-active default.target": {out: "inactive\n", err: errFailed}, "systemctl is-system-running": {out: "stopping\n", err: errFailed}}.run(t)},
		"openrc": {Root: fstest.MapFS{"run/openrc/softlevel": file("shutdown\n")}, Run: answers{}.run(t)},
	} {
		if r := s.Probe(t.Context(), health.Spec{}); !r.Stopping {
			t.Errorf("%s: Probe = %+v, want it stopping", name, r)
		}
	}
}

func TestServe(t *testing.T) {
	sys := health.System{Root: fstest.MapFS{"proc/7/comm": file("agetty\n")}, Run: answers{"ok": {}}.run(t)}
	in, _ := json.Marshal(health.Spec{Checks: []health.Check{{Name: "one", Run: []string{"ok"}}}})
	var out bytes.Buffer
	if err := health.Serve(t.Context(), sys, bytes.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	var r health.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || !r.Healthy() || r.String() != "a login prompt; check one" {
		t.Errorf("Serve wrote %s (%v), want a healthy result", &out, err)
	}
	if err := health.Serve(t.Context(), sys, strings.NewReader("nonsense"), &out); err == nil {
		t.Error("nonsense was accepted")
	}
}

// The real system of the test: a program that is there, one that fails, one that is not.
func TestHere(t *testing.T) {
	run := health.Here().Run
	if out, err := run(t.Context(), "echo", "hello"); err != nil || strings.TrimSpace(out) != "hello" {
		t.Errorf("echo hello = %q, %v", out, err)
	}
	if _, err := run(t.Context(), "false"); err == nil {
		t.Error("false succeeded")
	}
	if _, err := run(t.Context(), "no-such-program"); err == nil {
		t.Error("no-such-program ran")
	}
}

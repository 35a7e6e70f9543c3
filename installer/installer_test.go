// SPDX-License-Identifier: GPL-2.0-or-later

package installer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"slate/installer/machine"
	"slate/installer/screen"
	"slate/installer/servers"
	"slate/netboot/api"
	"slate/testbed/golden"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The plan that people read, with a command line as the appliance makes it.
func TestPlanIsPrinted(t *testing.T) {
	golden.Check(t, "testdata/plan.golden", []byte(Plan("slate.nfs=10.77.0.1:2049:/demo/"+strings.Repeat("ab", 32)+" slate.tpyo=1")))
}

func TestStagesAreTheDesignsSteps(t *testing.T) {
	want := []api.Step{api.StepEarly, api.StepSelfCheck, api.StepHardware, api.StepNetwork, api.StepServer, api.StepConfig,
		api.StepSystem, api.StepVersion, api.StepRoot, api.StepHandover}
	var got []api.Step
	for i, s := range Stages() {
		got = append(got, s.Name)
		switch {
		case s.When == nil || s.What == "":
			t.Errorf("%s: no condition or no description", s.Name)
		case s.Run != nil && s.Limit == 0 && s.Name != api.StepSystem && s.Name != api.StepVersion: // there a person is asked
			t.Errorf("%s may take for ever", s.Name)
		case s.OnFail.Then != Ask && s.OnFail.Then != MoveOn:
			t.Errorf("%s: nothing follows a failure", s.Name)
		case s.OnFail.Retries > 3:
			t.Errorf("%s is tried %d times", s.Name, s.OnFail.Retries)
		}
		if a := s.OnFail.Again; a != "" {
			found := false
			for _, before := range Stages()[:i] {
				found = found || before.Name == a
			}
			if !found {
				t.Errorf("%s goes back to %s, which is not before it", s.Name, a)
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// script is a runner over made-up stages whose runs and failures are written down.
type script struct {
	did     []string
	fails   map[api.Step]int // how many runs of a stage fail
	answers []Decision
}

func (s *script) stage(name api.Step, f OnFail) Stage {
	return Stage{Name: name, When: always, Limit: time.Minute, OnFail: f, Run: func(context.Context, *Boot) error {
		s.did = append(s.did, string(name))
		if s.fails[name] > 0 {
			s.fails[name]--
			return errors.New("no luck")
		}
		return nil
	}}
}

func (s *script) fail(_ context.Context, f Failure) Decision {
	s.did = append(s.did, fmt.Sprintf("ask about %s (%s): %v", f.Stage.Name, f.Position, f.Err))
	if len(s.answers) == 0 {
		return GiveUp
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return a
}

func TestRunnerFollowsEveryEdge(t *testing.T) {
	for _, tt := range []struct {
		name    string
		b       OnFail
		fails   int
		answers []Decision
		want    []string
		err     bool
	}{
		{"all well", OnFail{Then: Ask}, 0, nil, []string{"a", "b", "c"}, false},
		{"again by itself", OnFail{Retries: 2, Then: Ask}, 2, nil, []string{"a", "b", "b", "b", "c"}, false},
		{"asks when the tries are used up", OnFail{Retries: 1, Then: Ask}, 3, []Decision{TryAgain}, []string{"a", "b", "b", "ask about b (2/3): no luck", "b", "b", "c"}, false},
		{"goes on without", OnFail{Retries: 1, Then: MoveOn}, 9, nil, []string{"a", "b", "b", "c"}, false},
		{"a person goes on without", OnFail{Then: Ask, MayMoveOn: true}, 1, []Decision{GoOn}, []string{"a", "b", "ask about b (2/3): no luck", "c"}, false},
		{"again from an earlier stage", OnFail{Then: Ask, Again: "a"}, 1, []Decision{TryAgain}, []string{"a", "b", "ask about b (2/3): no luck", "a", "b", "c"}, false},
		{"nobody wants to go on", OnFail{Then: Ask}, 1, nil, []string{"a", "b", "ask about b (2/3): no luck"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{fails: map[api.Step]int{"b": tt.fails}, answers: tt.answers}
			r := Runner{Stages: []Stage{s.stage("a", OnFail{Then: Ask}), s.stage("b", tt.b), s.stage("c", OnFail{Then: Ask})}, Fail: s.fail}
			if err := r.Run(t.Context(), &Boot{}); (err != nil) != tt.err {
				t.Errorf("Run() = %v", err)
			}
			if d := cmp.Diff(tt.want, s.did); d != "" {
				t.Errorf("what happened (- want, + got):\n%s", d)
			}
		})
	}
}

func TestRunnerSaysWhatHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := servers.NewReporter()
		b := &Boot{Reporter: rep}
		stages := []Stage{
			{Name: "network", When: always, Limit: time.Minute, Run: func(_ context.Context, b *Boot) error {
				b.Note("waiting for the link of %s", "eth0")
				time.Sleep(12 * time.Second) // the bubble's own time
				b.Note("waiting for the link of %s", "eth0")
				return nil
			}},
			{Name: "config", When: never("there is none")},
			{Name: "server", When: always, Limit: 2 * time.Second, OnFail: OnFail{Then: MoveOn}, Run: func(ctx context.Context, b *Boot) error {
				<-ctx.Done()
				return ctx.Err()
			}},
		}
		if err := (&Runner{Stages: stages}).Run(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		for line := range strings.Lines(b.Log()) {
			_, text, _ := strings.Cut(line, "] ")
			log.WriteString(text)
		}
		golden.Check(t, "testdata/markers.golden", []byte(log.String()))
		var events []string
		for _, e := range rep.Stop(0) {
			events = append(events, fmt.Sprintf("%s %s %s", e.Step, e.State, e.Text))
		}
		want := []string{"network start ", "network note waiting for the link of eth0", "network done 12.00 s", "server start ",
			"server failed not done within 2s (context deadline exceeded)"}
		if d := cmp.Diff(want, events); d != "" {
			t.Errorf("events (- want, + got):\n%s", d)
		}
	})
}

func TestRunnerCatchesPanics(t *testing.T) {
	var got Failure
	r := Runner{Stages: []Stage{{Name: "root", When: always, Limit: time.Minute, OnFail: OnFail{Then: Ask}, Run: func(context.Context, *Boot) error {
		panic("out of range")
	}}}, Fail: func(_ context.Context, f Failure) Decision { got = f; return GiveUp }}
	_ = r.Run(t.Context(), &Boot{})
	var p *PanicError
	if !errors.As(got.Err, &p) || !strings.Contains(p.Error(), "BUG: ") || !strings.Contains(p.Stack, "installer_test.go") || p.Hint() == "" {
		t.Errorf("a panic became %v", got.Err)
	}
}

func TestRunnerLeavesStuckStagesBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		var got Failure
		r := Runner{Stages: []Stage{{Name: "root", When: always, Limit: time.Minute, Run: func(context.Context, *Boot) error { <-release; return nil }}},
			Fail: func(_ context.Context, f Failure) Decision { got = f; return GiveUp }}
		start := time.Now()
		_ = r.Run(t.Context(), &Boot{})
		if took := time.Since(start); !errors.Is(got.Err, errStuck) || took > 66*time.Second {
			t.Errorf("after %v: %v", took, got.Err)
		}
	})
}

// On a busy machine the timer of the stage's context may come after the runner's own.
func TestStuckStageSaysItsLimit(t *testing.T) {
	limit := make(chan time.Time, 1)
	limit <- time.Now()
	err := new(Runner).wait(t.Context(), &Boot{}, Stage{Name: "root", Limit: time.Minute}, nil, limit, nil)
	if want := "not done within 1m0s, and it does not stop: left behind"; err == nil || err.Error() != want {
		t.Errorf("wait() = %v, want %s", err, want)
	}
}

// pty gives both ends of a pseudo-terminal.
func pty(t *testing.T) (master *os.File, slave string) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	rc, err := m.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var cerr error
	if err := rc.Control(func(fd uintptr) {
		if cerr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); cerr == nil {
			n, cerr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	return m, fmt.Sprintf("/dev/pts/%d", n)
}

func TestCtrlCInterruptsAStage(t *testing.T) {
	m, slave := pty(t)
	c := screen.NewConsole(slave)
	defer c.Close()
	var got Failure
	r := Runner{Stages: []Stage{{Name: "network", When: always, Limit: time.Minute, OnFail: OnFail{Retries: 3, Then: MoveOn}, Run: func(ctx context.Context, _ *Boot) error {
		if _, err := m.WriteString("x\x03"); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}}}, Fail: func(_ context.Context, f Failure) Decision { got = f; return GiveUp }}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_ = r.Run(ctx, &Boot{Console: c})
	if !errors.Is(got.Err, errInterrupted) {
		t.Errorf("after Ctrl-C: %v, want a question at once", got.Err)
	}
}

// The whole conversation of a failure: look around in the shell, then go on.
func TestFailureScreenAndShellOnATerminal(t *testing.T) {
	m, slave := pty(t)
	b := boot()
	b.Console = screen.NewConsole(slave)
	defer b.Console.Close()
	got := make(chan Decision, 1)
	go func() {
		got <- b.failed(t.Context(), Failure{Stage: Stages()[3], Position: "4/10", Err: errors.New("no luck")})
	}()
	var seen strings.Builder
	expect := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		for !strings.Contains(seen.String(), want) {
			if err := m.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, err := m.Read(buf)
			if err != nil {
				t.Fatalf("did not see %q but %q: %v", want, seen.String(), err)
			}
			seen.Write(buf[:n])
		}
		_, rest, _ := strings.Cut(seen.String(), want)
		seen.Reset()
		seen.WriteString(rest)
	}
	press := func(keys string) {
		t.Helper()
		if _, err := m.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	expect("The start stopped at step 4/10, network.")
	expect("Restarting in ")
	press("2")
	expect("slate# ")
	press("nonsense\r")
	expect("nonsense: no such command")
	press("steps\r")
	expect("more lines; any key goes on, q ends --")
	press("q")
	expect("slate# ")
	press("exit\r")
	expect("Waiting for your choice.")
	press("1")
	if d := <-got; d != TryAgain {
		t.Errorf("decision %v, want TryAgain", d)
	}
}

func boot() *Boot {
	return &Boot{Reporter: servers.NewReporter(), Settings: machine.ParseCmdline(
		"slate.server=http://10.77.0.1:8070 slate.node=lab-0a1b2c slate.boot=b1 slate.image=demo/1 slate.tree=" + strings.Repeat("ab", 32) +
			" slate.nfs=10.77.0.1:2049:/demo/x slate.timeout=5 BOOTIF=01-52-54-00-12-34-56"),
		Identity: machine.Identity{Vendor: "ACME", Product: "Box 1", Serial: "SN1"}}
}

func screenText(m *screen.Menu, now time.Time) []byte {
	return []byte(strings.ReplaceAll(strings.Join(m.Lines(now), "\n"), "\x00", ">") + "\n")
}

func TestChooserShowsWhatItKnows(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	golden.Check(t, "testdata/chooser.golden", screenText(boot().chooser(now), now))
}

func TestChooserFollowsThePolicy(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for cmdline, want := range map[string]struct {
		def  string
		wait time.Duration
	}{
		"":                                      {"diskless", 10 * time.Second},
		"slate.choice=poweroff slate.timeout=3": {"poweroff", 3 * time.Second},
		"slate.choice=shell":                    {"shell", 10 * time.Second},
		"slate.choice=reboot slate.timeout=0":   {"reboot", 0},
	} {
		b := &Boot{Settings: machine.ParseCmdline(cmdline)}
		m := b.chooser(now)
		if m.Items[m.Default].ID != want.def || m.Selected != m.Default {
			t.Errorf("%q: default %q, selected %d", cmdline, m.Items[m.Default].ID, m.Selected)
		}
		if wait := m.Deadline.Sub(now); want.wait == 0 && !m.Deadline.IsZero() || want.wait > 0 && wait != want.wait {
			t.Errorf("%q: waits %v, want %v", cmdline, wait, want.wait)
		}
	}
}

func TestCannotStart(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	b := boot()
	b.Fleet = &servers.Fleet{}
	m := b.chooser(now)
	b.cannotStart(m, "system B: its boot flag is missing", now)
	golden.Check(t, "testdata/cannot-start.golden", screenText(m, now))
	m.Deadline = time.Time{}
	if b.cannotStart(m, "x", now); !m.Deadline.IsZero() {
		t.Error("a machine whose chooser waits starts over")
	}
}

func TestFailMenu(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for name, f := range map[string]Failure{
		"network": {Stage: Stages()[3], Position: "4/10", Err: &noModulesError{"6.1.0", []string{"6.2.0"}, nil}},
		"early":   {Stage: Stages()[0], Position: "1/10", Err: errors.New("mount proc at /proc: no such device\nmount sysfs at /sys: no such device")},
		"crash":   {Title: crashTitle, Err: errors.New("start /sbin/init: exec format error")},
	} {
		m := boot().failMenu(f, now)
		golden.Check(t, "testdata/fail-"+name+".golden", screenText(m, now))
		if m.Items[m.Default].ID != reboot || m.Deadline.Sub(now) != failWait {
			t.Errorf("%s: after %v comes %q, want a restart", name, m.Deadline.Sub(now), m.Items[m.Default].ID)
		}
	}
}

func TestNodeName(t *testing.T) {
	for want, cmdline := range map[string]string{"lab-1": "slate.node=lab-1 BOOTIF=01-52-54-00-12-34-56", "node-123456": "BOOTIF=01-52-54-00-12-34-56", "node": ""} {
		b := &Boot{Settings: machine.ParseCmdline(cmdline), Root: t.TempDir()}
		if got := b.node(); got != want {
			t.Errorf("%q: node %q, want %q", cmdline, got, want)
		}
	}
}

// A machine is the same without a network: its journal is kept by its machine-id.
func TestOwnMAC(t *testing.T) {
	files := map[string]string{}
	for name, mac := range map[string]string{"eth0": "52:54:00:00:00:02", "eth1": "52:54:00:00:00:01"} {
		files["/sys/class/net/"+name+"/type"], files["/sys/class/net/"+name+"/address"], files["/sys/class/net/"+name+"/device/x"] = "1\n", mac+"\n", ""
	}
	cards := sysTree(t, files)
	for want, cmdline := range map[string]string{"52:54:00:00:00:01": "", "52:54:00:00:00:02": "BOOTIF=01-52-54-00-00-00-02"} {
		b := &Boot{Settings: machine.ParseCmdline(cmdline), Root: cards}
		for _, b.Lease.MAC = range []string{"", "52:54:00:00:00:01", "52:54:00:00:00:02"} {
			if got := b.ownMAC(); got != want {
				t.Errorf("%q, with the lease of %q: %q, want %q", cmdline, b.Lease.MAC, got, want)
			}
		}
	}
}

func TestFactsFileIsOneLineEach(t *testing.T) {
	b := boot()
	b.Settings.Image = "demo/1"
	golden.Check(t, "testdata/facts.golden", []byte(b.factsFile()))
}

func sysTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestSelfCheck(t *testing.T) {
	release := machine.Release()
	const enough = "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // a part of the error
	}{
		{"good", map[string]string{"/proc/meminfo": enough, "/lib/modules/" + release + "/modules.dep": ""}, ""},
		{"too little memory", map[string]string{"/proc/meminfo": "MemTotal: 100000 kB\n"}, "this machine has 97 MB of memory; slate needs 200 MB"},
		{"damaged", map[string]string{"/proc/meminfo": enough, "/etc/slate/files.sha256": strings.Repeat("ab", 32) + "  /init\n", "/init": "x"}, "the start files are damaged: /init is damaged"},
		{"no modules", map[string]string{"/proc/meminfo": enough}, "no modules for the kernel " + release},
		{"modules of another kernel", map[string]string{"/proc/meminfo": enough, "/lib/modules/1.2.3/modules.dep": ""}, "the kernel is " + release + ", but the modules sent with it are for 1.2.3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &Boot{Root: sysTree(t, tt.files)}
			err := selfCheck(t.Context(), b)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("selfCheck() = %v, want %q", err, tt.want)
			}
			if err == nil && b.Loader == nil {
				t.Error("no loader after a good check")
			}
		})
	}
}

func TestModprobeIsServedAndGivenBack(t *testing.T) {
	root := sysTree(t, map[string]string{"/proc/sys/kernel/modprobe": "/sbin/modprobe\n"})
	file := filepath.Join(root, "/proc/sys/kernel/modprobe")
	restore := (&Boot{Root: root}).serveModprobe()
	if b, _ := os.ReadFile(file); !strings.HasSuffix(string(b), "installer.test") {
		t.Errorf("the kernel calls %q for modules", b)
	}
	restore()
	if b, _ := os.ReadFile(file); string(b) != "/sbin/modprobe" {
		t.Errorf("the kernel calls %q for modules afterwards", b)
	}
}

func TestMainRefusesToPlayInitElsewhere(t *testing.T) {
	var out, errs bytes.Buffer
	if got := Main(t.Context(), []string{"slate-init"}, &out, &errs); got != 2 || !strings.Contains(errs.String(), "process 1") {
		t.Errorf("Main() = %d, %q", got, errs.String())
	}
	if got := Main(t.Context(), []string{"slate-init", controllerRole}, &out, &errs); got != 2 {
		t.Errorf("Main(controller) outside an initramfs = %d, want 2", got)
	}
	out.Reset()
	if got := Main(t.Context(), []string{"slate-init", "plan"}, &out, &errs); got != 0 || !strings.Contains(out.String(), "handover") {
		t.Errorf("Main(plan) = %d, %q", got, out.String())
	}
}

func TestShellCommands(t *testing.T) {
	b := boot()
	b.Root = sysTree(t, map[string]string{
		"/proc/modules":                       "nfs 500 1 nfsv3, Live 0x0\nvirtio 20 0 - Live 0x0\n",
		"/proc/self/mounts":                   "proc /proc proc rw 0 0\n",
		"/sys/bus/pci/devices/0/modalias":     "pci:v1\n",
		"/sys/bus/pci/devices/1/modalias":     "pci:v2\n",
		"/sys/bus/pci/devices/1/driver/x":     "",
		"/lib/modules/r/modules.dep":          "a.ko:\n",
		"/lib/modules/r/modules.alias":        "alias pci:v1* a\n",
		"/sys/class/net/eth0/this-is-no-card": "",
	})
	x, err := machine.ReadModuleIndex(os.DirFS(b.Root), "r")
	if err != nil {
		t.Fatal(err)
	}
	b.Loader = &machine.Loader{Root: b.Root, Index: x}
	b.printf("slate: something happened\n")
	for _, tt := range []struct {
		line, want string
		err        string
	}{
		{"help", "poweroff", ""},
		{"?", "connect ADDRESS:PORT", ""},
		{"log", "slate: something happened", ""},
		{"steps", "10  handover", ""},
		{"modules", "nfs                           500  nfsv3", ""},
		{"modules gone", "0 loaded", "module gone: not in the initramfs"},
		{"devices", "0 pci:v1: claimed by a\n", ""},
		{"mount", "proc /proc proc", ""},
		{"plan", "slate-rw", ""},
		{"ls " + b.Root + "/proc", "modules", ""},
		{"ls /gone", "", "no such file"},
		{"cat " + b.Root + "/proc/modules", "nfs 500", ""},
		{"cat /gone", "", "no such file"},
		{"ip", "lo", ""},
		{"ping nobody", "", `"nobody" is not an IPv4 address`},
		{"ping", "", "want an address"},
		{"connect", "", "want ADDRESS:PORT"},
		{"connect 127.0.0.1:1", "", "connection refused"},
		{"dmesg x", "", "not a number"},
		{"rm -rf /", "", "no such command"},
	} {
		var out bytes.Buffer
		err := runCommand(t.Context(), b, &out, strings.Fields(tt.line))
		if !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s says %q, want %q", tt.line, out.String(), tt.want)
		}
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.line, err, tt.err)
		}
	}
}

func TestChecksum(t *testing.T) {
	p := echoRequest(0x51a7, 3)
	if checksum(p) != 0 {
		t.Errorf("the checksum over a packet with its checksum is %#x, want 0", checksum(p))
	}
}

// never is the condition of a step that has nothing to do.
func never(why string) func(*Boot) (bool, string) {
	return func(*Boot) (bool, string) { return false, why }
}

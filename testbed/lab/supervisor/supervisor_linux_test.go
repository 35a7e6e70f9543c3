// SPDX-License-Identifier: GPL-2.0-or-later

package supervisor_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/lab/supervisor"
	"slate/testbed/labtest"
	"slate/testbed/netns"
	"slate/testbed/qemu"
)

// superviseEnv makes the test binary a supervisor: it holds the configuration.
const superviseEnv = "SLATE_TEST_SUPERVISE"

func TestMain(m *testing.M) {
	if text := os.Getenv(superviseEnv); text != "" {
		var c supervisor.Config
		err := json.Unmarshal([]byte(text), &c)
		if err == nil {
			err = supervisor.Run(context.Background(), c, func() error { fmt.Println("ready"); return nil })
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	netns.Main(m)
}

// supervise starts a supervisor and returns the first thing it says.
func supervise(t *testing.T, c supervisor.Config) string {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), superviseEnv+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	return line
}

func labDir(t *testing.T) string {
	// Not in t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "sup-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "lab")
}

func TestLabInTheBackground(t *testing.T) {
	labtest.Need(t, qemu.Program)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := supervisor.Config{Name: "x", Dir: labDir(t), Nodes: []lab.NodeSpec{{Name: "one", Memory: 64, NICs: []lab.NIC{}}, {Name: "two", Memory: 64, NICs: []lab.NIC{}}},
		Appliance: []string{"sh", "-c", "echo serving; sleep 1000"}}
	if said := supervise(t, c); said != "ready\n" {
		t.Fatal(said)
	}
	cl := &supervisor.Client{Dir: c.Dir}
	st, err := cl.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.Name != "x" || len(st.Nodes) != 2 || !st.Nodes[1].On || !st.Appliance.Running || st.Address != "10.77.0.1/24" {
		t.Errorf("status %+v", st)
	}

	// Two people at one console: both see what came before they did.
	for range 2 {
		see := attach(ctx, t, cl, "one")
		see("SeaBIOS")
		see("No bootable device")
	}
	see := attach(ctx, t, cl, "1")
	see("No bootable device")
	if err := cl.Power(ctx, "one", "reset"); err != nil {
		t.Fatal(err)
	}
	see("SeaBIOS")

	pic, err := cl.Screen(ctx, "two")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(pic)); err != nil {
		t.Error(err)
	}
	for _, step := range []struct{ node, action, err string }{
		{"two", "powercut", ""},
		{"two", "powercut", ""}, // nothing to do
		{"two", "reset", "machine two: the machine is off"},
		{"two", "start", ""},
		{"two", "start", "machine two: is on already"},
		{"three", "reset", `no machine "three" in the lab; there are [one two]`},
		{"two", "explode", "404 page not found"},
	} {
		if err := cl.Power(ctx, step.node, step.action); (err == nil) != (step.err == "") || err != nil && err.Error() != step.err {
			t.Errorf("%s %s: %v, want %q", step.action, step.node, err, step.err)
		}
	}
	if err := cl.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of the lab is still there: %v", err)
	}
	if _, err := cl.Status(ctx); !errors.Is(err, supervisor.ErrNotUp) {
		t.Errorf("Status() of a lab that is down = %v", err)
	}
}

// attach watches a console; the function it returns waits for a text.
func attach(ctx context.Context, t *testing.T, cl *supervisor.Client, node string) func(string) {
	t.Helper()
	keys, typed := io.Pipe()
	shown, screen := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- cl.Console(ctx, node, struct {
			io.Reader
			io.Writer
		}{keys, screen})
		screen.Close()
	}()
	t.Cleanup(func() { typed.Close(); shown.Close(); <-ended })
	var seen []byte
	return func(want string) {
		t.Helper()
		buf := make([]byte, 1024)
		for !bytes.Contains(seen, []byte(want)) {
			n, err := shown.Read(buf)
			seen = append(seen, buf[:n]...)
			if err != nil {
				t.Fatalf("console of %s ended without %q: %v; it showed %q", node, want, err, seen)
			}
		}
		_, seen, _ = bytes.Cut(seen, []byte(want))
	}
}

func TestConsoleOfNobody(t *testing.T) {
	labtest.Need(t, qemu.Program)
	c := supervisor.Config{Dir: labDir(t)}
	if said := supervise(t, c); said != "ready\n" {
		t.Fatal(said)
	}
	cl := &supervisor.Client{Dir: c.Dir}
	err := cl.Console(t.Context(), "x", struct {
		io.Reader
		io.Writer
	}{strings.NewReader(""), io.Discard})
	if err == nil || !strings.Contains(err.Error(), `no machine "x"`) {
		t.Errorf("Console() = %v", err)
	}
	if err := cl.Down(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	c := supervisor.Config{Dir: labDir(t), Appliance: []string{"sh", "-c", "echo cannot bind; exit 1"}, ApplianceNotify: true}
	if said := supervise(t, c); !strings.Contains(said, "appliance ended before it was ready: exit status 1") {
		t.Errorf("it said %q", said)
	}
	if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of the lab is still there: %v", err)
	}
}

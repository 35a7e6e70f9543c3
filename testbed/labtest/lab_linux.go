// SPDX-License-Identifier: GPL-2.0-or-later

package labtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/testbed/lab"
	"slate/testbed/qemu"
)

// Lab is a lab that ends with its test.
type Lab struct {
	*lab.Lab
	t testing.TB
}

// New opens a lab for the test; see Need for what happens where there can be
// none. When the test fails, the logs of consoles, programs and packets and a
// picture of each screen are kept among its artifacts, or, without -artifacts, in
// a directory whose name is printed; so is the end of each console.
//
// An ordinary user needs netns.Main in the package's TestMain.
func New(t testing.TB, o lab.Options) *Lab {
	t.Helper()
	Need(t, qemu.Program)
	// The clean-up ends it, in good order, not the end of the context.
	inner, err := lab.Open(context.WithoutCancel(t.Context()), o)
	if unfit := (*lab.Error)(nil); errors.As(err, &unfit) {
		Lacking(t, "%v (%s)", err, unfit.Hint())
	}
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{inner, t}
	t.Cleanup(l.close)
	return l
}

// On is the same lab for a part of the test, whose failures are its own. The lab
// ends with the test that it was made for.
func (l *Lab) On(t testing.TB) *Lab { return &Lab{l.Lab, t} }

// Node makes a machine and switches it on.
func (l *Lab) Node(s lab.NodeSpec) *lab.Node {
	l.t.Helper()
	Need(l.t, s.Firmware.Program())
	if code, vars := s.Firmware.FirmwareFiles(); code != "" {
		NeedFile(l.t, code, vars)
	}
	n, err := l.AddNode(s)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := n.Start(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	return n
}

// Expect waits for markers on a machine's console, see console.Console, and fails
// the test if one does not come.
func (l *Lab) Expect(n *lab.Node, timeout time.Duration, patterns ...string) {
	l.t.Helper()
	if _, err := n.Console().Expect(l.t.Context(), timeout, patterns...); err != nil {
		l.t.Fatalf("%s: %v", n.Name(), err)
	}
}

// Run runs a command in the shell on a machine's console and returns its output.
// The test fails if its exit status is not 0.
func (l *Lab) Run(n *lab.Node, timeout time.Duration, command string) string {
	l.t.Helper()
	out, status, err := n.Console().Run(l.t.Context(), timeout, command)
	if err != nil {
		l.t.Fatalf("%s: %v", n.Name(), err)
	}
	if status != 0 {
		l.t.Fatalf("%s: %q ended with status %d:\n%s", n.Name(), command, status, out)
	}
	return out
}

func (l *Lab) close() {
	if l.t.Failed() {
		l.keep()
	}
	if err := l.Close(); err != nil {
		l.t.Error(err)
	}
}

// keep saves what helps to understand a failure.
func (l *Lab) keep() {
	// The test's own context has ended; the pictures get a moment.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, n := range l.Nodes() {
		if con := n.Console(); con != nil {
			l.t.Logf("%s: the end of the console:\n  | %s", n.Name(), strings.Join(con.Tail(10), "\n  | "))
		}
		if !n.Running() {
			continue
		}
		png, err := n.Screenshot(ctx)
		if err == nil {
			err = os.WriteFile(filepath.Join(l.LogDir(), n.Name()+".png"), png, 0o644)
		}
		if err != nil {
			l.t.Logf("%s: picture of the screen: %v", n.Name(), err)
		}
	}
	dir, err := keepDir(l.t)
	if err == nil {
		err = l.KeepLogs(dir)
	}
	if err != nil {
		l.t.Logf("logs of the lab not kept: %v", err)
		return
	}
	l.t.Logf("logs of the lab are in %s", dir)
}

// keepDir is the artifact directory, if it outlives the test, or a new one.
func keepDir(t testing.TB) (string, error) {
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		return t.ArtifactDir(), nil
	}
	name := strings.NewReplacer("/", "-", "*", "-").Replace(t.Name())
	return os.MkdirTemp("", fmt.Sprintf("slate-%s-", name))
}

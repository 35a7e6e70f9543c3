// SPDX-License-Identifier: GPL-2.0-or-later

package builder_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slate/builder"
	"slate/images/store"
	"slate/netboot/config"
)

// killedEnv makes the test's program a build that is to be killed: it holds the
// data directory and the sources.
const killedEnv = "SLATE_TEST_KILLED_BUILD"

type killedBuild struct {
	Data    string
	Sources config.Sources
}

// A build that is killed in the middle of a package takes all its programs and
// mounts along; the next one tidies up, and the store is whole.
func TestKilledBuild(t *testing.T) {
	if text := os.Getenv(killedEnv); text != "" {
		beKilled(t, text)
		return
	}
	m := newGentoo(t)
	st := openStore(t)
	text, err := json.Marshal(killedBuild{st.Dir(), gentooSources(m)})
	if err != nil {
		t.Fatal(err)
	}
	// Portage's stand-in opens this when it is at work, and as long as it lives.
	fifo := filepath.Join(st.Dir(), "builds/sources/gentoo/distfiles/slow")
	if err := os.MkdirAll(filepath.Dir(fifo), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledBuild$")
	cmd.Env = append(os.Environ(), killedEnv+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan string, 1)
	go func() {
		said, _ := io.ReadAll(out)
		over <- string(said)
	}()
	type reader struct {
		*bufio.Reader
		err error
	}
	opened := make(chan reader, 1)
	go func() {
		f, err := os.Open(fifo)
		if err != nil {
			opened <- reader{nil, err}
			return
		}
		r := bufio.NewReader(f)
		_, err = r.ReadString('\n')
		opened <- reader{r, err}
	}()
	var r reader
	select {
	case r = <-opened:
	case said := <-over:
		t.Fatalf("the build ended by itself:\n%s", said)
	}
	if r.err != nil {
		t.Fatal(r.err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The end of the file comes when nobody is left who could write.
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed

	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), st.Dir()) {
		t.Errorf("mounts are left: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(st.Dir(), "builds/work/build-*")); err != nil || len(left) != 1 {
		t.Errorf("the killed build has left %q, %v; want its directory", left, err)
	}
	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	b, err := builder.Build(t.Context(), st, gentooOptions(m))
	if err != nil || b.Record.Number != 1 {
		t.Errorf("the next build = %s, %v", b.Record.Ref(), err)
	}
	checkNothingLeft(t, st)
	rep, err := st.Verify(t.Context(), store.VerifyOptions{})
	if err != nil || len(rep.Damage) > 0 {
		t.Errorf("the store: %+v, %v", rep.Damage, err)
	}
}

func beKilled(t *testing.T, text string) {
	var k killedBuild
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(k.Data, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := gentooOptionsFrom(k.Sources)
	m.Recipe.Packages.Install = []string{"app-misc/slow"}
	_, err = builder.Build(t.Context(), st, m)
	t.Fatalf("the build was not killed: %v", err)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rounds is something that is tried many times: a few times in make test, all of
// them in make soak. There each round that went well is a line in a file, so that a
// trial that was cut off goes on where it stopped.
type rounds struct {
	t    *testing.T
	file string // "": nothing is kept
	done int
	all  int
}

func newRounds(t *testing.T, name string, sample, full int) *rounds {
	t.Helper()
	dir := os.Getenv("SLATE_SOAK")
	if dir == "" {
		return &rounds{t: t, all: sample}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &rounds{t: t, file: filepath.Join(dir, name), all: full}
	text, err := os.ReadFile(r.file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	r.done = strings.Count(string(text), "\n")
	t.Logf("%s: %d of %d rounds are done (%s)", name, r.done, r.all, r.file)
	return r
}

// left reports whether there are rounds to do.
func (r *rounds) left() bool { return r.done < r.all }

// passed notes a round that went well.
func (r *rounds) passed(format string, args ...any) {
	r.t.Helper()
	r.done++
	text := fmt.Sprintf("%d: ", r.done) + fmt.Sprintf(format, args...)
	r.t.Log(text)
	if r.file == "" {
		return
	}
	f, err := os.OpenFile(r.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = fmt.Fprintln(f, text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

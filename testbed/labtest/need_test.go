// SPDX-License-Identifier: GPL-2.0-or-later

package labtest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slate/testbed/labtest"
)

// verdict is a testing.TB that notes how a test would have ended.
type verdict struct {
	testing.TB
	text string
}

func (v *verdict) Helper()       {}
func (v *verdict) Skip(a ...any) { v.text = "skip: " + fmt.Sprint(a...) }
func (v *verdict) Fatalf(format string, args ...any) {
	v.text = "fail: " + fmt.Sprintf(format, args...)
}

func TestNeed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	tool := filepath.Join(dir, "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, env, want string
		need            func(testing.TB)
	}{
		{"program there", "all", "", func(t testing.TB) { labtest.Need(t, "tool") }},
		{"program missing", "", "skip: programs not installed: a, b", func(t testing.TB) { labtest.Need(t, "a", "tool", "b") }},
		{"program missing, all", "all", "fail: programs not installed: a", func(t testing.TB) { labtest.Need(t, "a") }},
		{"file there", "all", "", func(t testing.TB) { labtest.NeedFile(t, tool) }},
		{"file missing", "", "skip: files not there: /no/such", func(t testing.TB) { labtest.NeedFile(t, tool, "/no/such") }},
		{"file missing, all", "all", "fail: files not there: /no/such", func(t testing.TB) { labtest.NeedFile(t, "/no/such") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("SLATE_TEST", c.env)
			v := &verdict{TB: t}
			c.need(v)
			if !strings.HasPrefix(v.text, c.want) || (c.want == "") != (v.text == "") {
				t.Errorf("verdict %q, want %q", v.text, c.want)
			}
		})
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package golden_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slate/testbed/golden"
)

// recorder is a testing.TB that notes errors instead of failing.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper()           {}
func (r *recorder) Error(args ...any) { r.errors = append(r.errors, fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "x.golden")
	check := func(got string) []string {
		r := &recorder{TB: t}
		golden.Check(r, file, []byte(got))
		return r.errors
	}
	expect := func(step string, errs []string, want string) {
		t.Helper()
		if want == "" && len(errs) != 0 || want != "" && (len(errs) != 1 || !strings.Contains(errs[0], want)) {
			t.Errorf("%s: errors %q, want one with %q", step, errs, want)
		}
	}

	t.Setenv("SLATE_GOLDEN", "")
	expect("no file", check("one\n"), "does not exist")
	t.Setenv("SLATE_GOLDEN", "write")
	expect("first write", check("one\n"), "rewritten")
	expect("write of the same", check("one\n"), "")
	t.Setenv("SLATE_GOLDEN", "")
	expect("equal", check("one\n"), "")
	expect("different", check("two\n"), "differs")
	if b, err := os.ReadFile(file); err != nil || string(b) != "one\n" {
		t.Errorf("file holds %q, %v; a check must not change it", b, err)
	}
}

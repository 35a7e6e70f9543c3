// SPDX-License-Identifier: GPL-2.0-or-later

// Package labtest is the lab with a *testing.T: what a test needs from the
// machine, a lab that ends with the test, and its logs among the test's
// artifacts when it fails.
package labtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Need skips the test if one of the programs is not installed. Where everything
// must run (SLATE_TEST=all, as in make test) it fails instead, so that a missing
// tool cannot hide a test.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		Lacking(t, "programs not installed: %s", strings.Join(missing, ", "))
	}
}

// NeedFile is Need for files, such as firmware.
func NeedFile(t testing.TB, paths ...string) {
	t.Helper()
	var missing []string
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		Lacking(t, "files not there: %s", strings.Join(missing, ", "))
	}
}

// NeedRoot skips the test, or fails it where everything must run, unless it runs
// as root; root of a user namespace counts.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacking(t, "not root (uid %d)", os.Geteuid())
	}
}

// Lacking ends the test because the machine cannot run it: skipped on a laptop,
// failed where everything must run.
func Lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	if os.Getenv("SLATE_TEST") == "all" {
		t.Fatalf("%s, and SLATE_TEST=all allows no test to be skipped", reason)
	} else {
		t.Skip(reason)
	}
}

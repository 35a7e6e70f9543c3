// SPDX-License-Identifier: GPL-2.0-or-later

// Package smallroot makes the files of a small root tree with a working shell:
// this machine's busybox with its libraries. Tests run programs in it.
package smallroot

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"slate/testbed/labtest"
)

// applets are the names busybox is found by.
var applets = []string{"sh", "cat", "ls", "mount", "ps", "sleep", "touch", "hostname", "env", "id", "stat", "rm", "mkdir", "mv", "cp", "ln",
	"find", "du", "tail", "head", "cut", "grep", "sed", "sort", "readlink", "dirname", "basename", "chmod", "chown", "printf", "echo", "true",
	"false", "tr", "date", "uname", "wc", "test", "xargs", "which", "cmp", "od"}

// Files returns the files by path, without a leading slash. "->" begins the
// target of a link. All are programs or libraries, mode 0755.
func Files(t testing.TB) map[string]string {
	t.Helper()
	labtest.Need(t, "busybox", "ldd")
	out, err := exec.Command("sh", "-c", `b=$(command -v busybox); echo $b; ldd "$b" | grep -o '/[^ ]*' || :`).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for i, p := range strings.Fields(string(out)) {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			p = "/bin/busybox"
		}
		files[strings.TrimPrefix(p, "/")] = string(data)
	}
	for _, a := range applets {
		files["bin/"+a] = "->busybox"
	}
	return files
}

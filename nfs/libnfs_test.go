// SPDX-License-Identifier: GPL-2.0-or-later

package nfs_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"slate/nfs"
	"slate/testbed/labtest"
)

// libnfs is a client that shares no code and no author with this server. It
// asks for EXPORT before it mounts, and lists by READDIRPLUS.
func TestLibnfs(t *testing.T) {
	labtest.Need(t, "nfs-ls", "nfs-cat")
	s := makeSite(t, 3000)
	list := func(context.Context) ([]string, error) { return []string{"/demo/1", "/demo@stable"}, nil }
	addr, _ := start(t, &nfs.Server{Exports: s, Blobs: s, List: list})
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	run := func(program, path string) string {
		t.Helper()
		url := fmt.Sprintf("nfs://127.0.0.1%s?nfsport=%s&mountport=%s&uid=0&gid=0", path, port, port)
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), program, url)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s %s: %v\n%s", program, url, err, stderr.String())
		}
		return stdout.String()
	}
	for _, export := range []string{"/demo/1", "/demo@stable", "/demo/" + s.tree.Digest().String()} {
		out := run("nfs-ls", export)
		for _, want := range []string{"drwxrwxrwx", "tmp", "lrwxrwxrwx", "bin", "etc"} {
			if !strings.Contains(out, want) {
				t.Errorf("nfs-ls %s: no %q in\n%s", export, want, out)
			}
		}
	}
	if out := run("nfs-ls", "/demo/1/many"); strings.Count(out, "file-") != 3000 {
		t.Errorf("nfs-ls shows %d files of 3000", strings.Count(out, "file-"))
	}
	for _, path := range []string{"var/big", "usr/bin/su", "usr/bin/perl5", "etc/passwd", "names/" + longName} {
		want := content(strings.Replace(path, "perl5", "perl", 1))
		if out := run("nfs-cat", "/demo/1/"+path); out != string(want) {
			t.Errorf("nfs-cat %s: %d bytes, want %d, or others", path, len(out), len(want))
		}
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package nfsbench

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"slate/nfs"
	"slate/testbed/labtest"
)

// With the well-known ports, which only a network namespace of its own has to
// give, clients need to be told nothing but the host.
func TestStockClients(t *testing.T) {
	labtest.Need(t, "nfs-ls", "nfs-cat")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hello"), []byte("world\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	site, err := newDirSite(map[string]string{"/demo/1": dir})
	if err != nil {
		t.Fatal(err)
	}
	list := func(context.Context) ([]string, error) { return []string{"/demo/1"}, nil }
	srv := &nfs.Server{Exports: site, Blobs: site, List: list, Port: 2049}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, addr := range []string{"127.0.0.1:2049", "127.0.0.1:111"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := srv.Serve(ctx, ln); err != nil {
				t.Error(err)
			}
		})
	}
	for _, tc := range []struct{ program, url, want string }{
		{"nfs-ls", "nfs://127.0.0.1/demo/1", "hello"},
		{"nfs-cat", "nfs://127.0.0.1/demo/1/hello", "world"},
	} {
		out, err := exec.CommandContext(ctx, tc.program, tc.url).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tc.want) {
			t.Errorf("%s %s: %v, %q; want %q in it", tc.program, tc.url, err, out, tc.want)
		}
	}
}

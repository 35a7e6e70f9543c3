// SPDX-License-Identifier: GPL-2.0-or-later

package httpd_test

import (
	"bufio"
	"context"
	"io"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"slate/netboot/api"
	"slate/netboot/httpd"
	"slate/netboot/logs"
	"slate/netboot/nodes"
)

// numbered lists the logs of a store as the appliance does.
type numbered struct{ *logs.Store }

func (n numbered) List(node string) ([]api.LogEntry, error) {
	if node != "pc1" && node != "pc2" {
		return nil, &nodes.TargetError{Text: "there is no node " + node}
	}
	entries, err := n.Store.List(node)
	var out []api.LogEntry
	for i, e := range entries {
		out = append(out, api.LogEntry{Number: i + 1, Boot: e.Boot, Changed: e.Changed})
	}
	return out, err
}

func TestLogsOfANode(t *testing.T) {
	store, err := logs.Open(filepath.Join(t.TempDir(), "logs"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	say := func(boot string, from int64, text string) {
		t.Helper()
		if _, err := store.Append("pc1", boot, from, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say("b1", 0, "the older one\n")
	say("b2", 0, "hello\n")
	srv := httptest.NewServer(httpd.NewAdmin(httpd.AdminOptions{Logs: numbered{store}}))
	defer srv.Close()
	client := &api.Client{Base: srv.URL}
	for _, c := range []struct{ name, node, boot, want, err string }{
		{"newest", "pc1", "1", "hello\n", ""},
		{"the one before", "pc1", "2", "the older one\n", ""},
		{"by id", "pc1", "b1", "the older one\n", ""},
		{"too old", "pc1", "3", "", `no log of a boot "3"`},
		{"none yet", "pc2", "1", "", "no log of node pc2 yet"},
		{"nobody", "pc9", "1", "", "no node pc9"},
	} {
		var out strings.Builder
		err := client.Log(t.Context(), c.node, c.boot, false, &out)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || out.String() != c.want {
			t.Errorf("%s: Log(%s, %s) = %q, %v, want %q, %q", c.name, c.node, c.boot, out.String(), err, c.want, c.err)
		}
	}
	list, err := client.Logs(t.Context(), "pc1")
	if err != nil || len(list) != 2 || list[0].Boot != "b2" || list[1].Number != 2 {
		t.Errorf("Logs = %+v, %v, want b2 and b1", list, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- client.Log(ctx, "pc1", "1", true, w)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	next := func(want string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() != "" {
				break
			}
		}
		if got := lines.Text(); got != want {
			t.Errorf("followed line %q, want %q", got, want)
		}
	}
	next("hello")
	say("b2", 6, "more\n")
	next("more")
	say("b3", 0, "started again\n")
	next("--- boot b3 ---")
	next("started again")
	cancel()
	go io.Copy(io.Discard, r)
	if err := <-done; err == nil {
		t.Error("following ended by itself")
	}
}

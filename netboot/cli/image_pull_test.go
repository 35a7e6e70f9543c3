// SPDX-License-Identifier: GPL-2.0-or-later

package cli_test

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slate/images"
	"slate/images/store"
	"slate/images/transfer"
	"slate/netboot/cli"
)

// TestImagePull runs the command against a server of the transfer package.
func TestImagePull(t *testing.T) {
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "site.pub")
	if err := images.WritePublicKey(keyFile, key); err != nil {
		t.Fatal(err)
	}
	there, err := store.Open(t.TempDir(), store.Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(&transfer.Handler{Source: there, Cache: t.TempDir()})
	defer srv.Close()
	src, here := t.TempDir(), t.TempDir()
	commit := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(src, "file"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		_, d, err := there.AddDir(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		kernel, err := there.PutBlob(t.Context(), strings.NewReader("kernel of "+content))
		if err != nil {
			t.Fatal(err)
		}
		rec, _, err := there.Commit(t.Context(), images.Record{Name: "demo", Tree: d, Kernel: &images.Kernel{Release: "6.1", Blob: kernel}})
		if err != nil {
			t.Fatal(err)
		}
		if err := there.Publish(t.Context(), images.Ref{Name: "demo", Number: rec.Number}, "stable"); err != nil {
			t.Fatal(err)
		}
	}
	slate := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		args = append([]string{"--data", here, "--config", filepath.Join(here, "none.toml"), "image"}, args...)
		if got := cli.Main(t.Context(), args, strings.NewReader(""), &out, &errs); got != want {
			t.Fatalf("slate %s = %d, want %d\n%s%s", strings.Join(args, " "), got, want, &out, &errs)
		}
		return out.String(), errs.String()
	}
	has := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	pull := []string{"pull", "demo@stable", "--from", srv.URL, "--key", keyFile}

	_, e := slate(1, "pull", "demo@stable", "--from", srv.URL, "--key", keyFile)
	has(e, "404")
	commit("one")
	_, e = slate(1, "pull", "demo@stable", "--from", srv.URL)
	has(e, "--key")
	o, _ := slate(0, append(pull, "--publish", "stable")...)
	has(o, "demo/1: ")
	has(o, "demo@stable is demo/1 (new)")
	o, _ = slate(0, pull...)
	has(o, "with 1 requests")
	commit("two")
	o, _ = slate(0, append(pull, "--publish", "stable")...)
	has(o, "demo@stable is demo/2 (was demo/1)")
	o, _ = slate(0, "show", "demo/2")
	has(o, "kernel")
	slate(0, "verify")

	if err := there.Publish(t.Context(), images.Ref{Name: "demo", Number: 1}, "stable"); err != nil {
		t.Fatal(err)
	}
	_, e = slate(1, pull...)
	has(e, "is older than demo/2")
	slate(0, append(pull, "--allow-older")...)

	stranger, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.pub")
	if err := images.WritePublicKey(other, stranger); err != nil {
		t.Fatal(err)
	}
	_, e = slate(1, "pull", "demo", "--from", srv.URL, "--key", other)
	has(e, "which is not trusted here")
}

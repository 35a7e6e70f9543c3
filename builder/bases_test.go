// SPDX-License-Identifier: GPL-2.0-or-later

package builder_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slate/builder"
	"slate/builder/fetch"
	"slate/builder/recipes"
	"slate/images/archive"
	"slate/testbed/labtest"
)

// baseRecipe has a step of each kind over some base.
func baseRecipe(base string, s recipes.Source) *recipes.Recipe {
	return &recipes.Recipe{Name: "lab", Base: base, Source: s,
		Files:   []recipes.File{{Path: "/etc/motd", Data: []byte("hello\n")}},
		Scripts: []recipes.Script{{Name: "note", Run: "echo over $(cat /etc/base) > /etc/note"}},
		Clean:   recipes.Clean{Docs: true},
	}
}

// baseFiles is the same system for each of the bases.
func baseFiles(t *testing.T) map[string]string {
	files := runnable(t)
	files["etc/base"] = "what was there\n"
	files["usr/share/doc/x/README"] = strings.Repeat("words ", 4000)
	return files
}

// TestBases builds on a tar archive, here and elsewhere, a directory and a
// container image: the steps over them are the same, and so is what comes out.
func TestBases(t *testing.T) {
	labtest.NeedRoot(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(rootTar(t, baseFiles(t))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(packed.Bytes()))
	local := filepath.Join(t.TempDir(), "base.tar.gz")
	if err := os.WriteFile(local, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(local))))
	t.Cleanup(srv.Close)
	dir := writeTree(t, baseFiles(t))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(t.TempDir(), "layout")

	st := openStore(t)
	tr, d, err := st.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err := builder.Commit(t.Context(), st, builder.Source{Dir: dir}, builder.Meta{Name: "seed"})
	if err != nil || rec.Tree != d {
		t.Fatal(rec, err)
	}
	if err := archive.OCI(t.Context(), st, tr, rec, layout); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, base, kind string
		source           recipes.Source
	}{
		{"tar", recipes.BaseTar, "tar", recipes.Source{Path: local}},
		{"tar elsewhere", recipes.BaseTar, "tar", recipes.Source{Path: srv.URL + "/base.tar.gz", Digest: digest}},
		{"directory", recipes.BaseDirectory, "directory", recipes.Source{Path: dir}},
		{"container", recipes.BaseOCI, "container", recipes.Source{Path: "oci:" + layout}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := openStore(t)
			build := func() builder.Built {
				t.Helper()
				b, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: baseRecipe(tc.base, tc.source)})
				if err != nil {
					t.Fatal(err)
				}
				checkNothingLeft(t, st)
				return b
			}
			b := build()
			for name, want := range map[string]string{"etc/motd": "hello\n", "etc/note": "over what was there\n", "etc/base": "what was there\n"} {
				if got := content(t, st, b.Record, name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
			if got := content(t, st, b.Record, "usr/share/doc/x/README"); !strings.Contains(got, "no such file") || b.Saved["documents"] < 20000 {
				t.Errorf("documents are left: %.20q; saved %v", got, b.Saved)
			}
			if b.Record.Init != "systemd" || b.Record.Kernel == nil || b.Record.Kernel.Release != "6.1.0" {
				t.Errorf("record = %+v", b.Record)
			}
			if br, err := builder.ReadBuildRecord(st, b.Record); err != nil || br.Base != tc.base || len(br.Inputs) != 1 ||
				br.Inputs[0].Kind != tc.kind || br.Inputs[0].Digest == "" {
				t.Errorf("build record = %+v, %v", br, err)
			}
			if again := build(); !again.Unchanged || again.Record.Ref() != "lab/1" {
				t.Errorf("built again: %s, unchanged %t", again.Record.Ref(), again.Unchanged)
			}
		})
	}
	if got, err := os.ReadFile(filepath.Join(dir, "etc/base")); err != nil || string(got) != "what was there\n" {
		t.Errorf("the directory was changed: %q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "etc/note")); err == nil {
		t.Error("a script wrote into the directory that the build began with")
	}
}

// What cannot be the base makes no version, and says what is wrong.
func TestBasesRefused(t *testing.T) {
	labtest.NeedRoot(t)
	dir := t.TempDir()
	tar := rootTar(t, baseFiles(t))
	for name, data := range map[string][]byte{"half.tar": tar[:len(tar)/2], "whole.tar": tar, "no.tar": []byte(strings.Repeat("no archive ", 99))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(srv.Close)
	other := fmt.Sprintf("%x", sha256.Sum256(nil))
	for _, tc := range []struct {
		name, base string
		source     recipes.Source
		want       string
	}{
		{"cut off", recipes.BaseTar, recipes.Source{Path: filepath.Join(dir, "half.tar")}, "cut off"},
		{"no archive", recipes.BaseTar, recipes.Source{Path: filepath.Join(dir, "no.tar")}, "no.tar"},
		{"another digest", recipes.BaseTar, recipes.Source{Path: filepath.Join(dir, "whole.tar"), Digest: other}, "the recipe wants " + other},
		{"another digest elsewhere", recipes.BaseTar, recipes.Source{Path: srv.URL + "/whole.tar", Digest: other}, "the recipe wants " + other},
		{"not there", recipes.BaseTar, recipes.Source{Path: srv.URL + "/gone.tar", Digest: other}, "404"},
		{"no directory", recipes.BaseDirectory, recipes.Source{Path: filepath.Join(dir, "gone")}, "gone"},
		{"no layout", recipes.BaseOCI, recipes.Source{Path: "oci:" + dir}, dir},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := openStore(t)
			_, err := builder.Build(t.Context(), st, builder.BuildOptions{Recipe: baseRecipe(tc.base, tc.source),
				Fetch: fetch.Options{Tries: 1, Pause: time.Millisecond, Stall: time.Second}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build = %v, want an error with %q", err, tc.want)
			}
			if names, err := st.Images(); err != nil || len(names) != 0 {
				t.Errorf("images = %v, %v; want none", names, err)
			}
			checkNothingLeft(t, st)
		})
	}
}

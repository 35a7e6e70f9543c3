// SPDX-License-Identifier: GPL-2.0-or-later

package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"slate/images"
	"slate/images/archive"
	"slate/images/store"
	"slate/images/tree"
)

type entry struct {
	tar.Header
	body string
}

func reg(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(1700000000, 500)}, body}
}

func other(typ byte, name, link string) entry {
	return entry{tar.Header{Typeflag: typ, Name: name, Linkname: link, Mode: 0o755, ModTime: time.Unix(1700000000, 0)}, ""}
}

func makeTar(t testing.TB, list ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range list {
		e.Size, e.Format = int64(len(e.body)), tar.FormatPAX
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func text(t testing.TB, tr *tree.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := tr.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// sample has everything that the forms can hold.
func sample(t testing.TB, s *store.Store, more ...entry) *tree.Tree {
	t.Helper()
	suid := reg("usr/bin/sudo", "sudo")
	suid.Mode, suid.Uid, suid.Gid = 0o6755, 12, 34
	suid.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "SCHILY.xattr.user.note": "a=b\x00c"}
	dev := other(tar.TypeChar, "dev/null", "")
	dev.Devmajor, dev.Devminor, dev.Mode = 1, 3, 0o666
	sticky := other(tar.TypeDir, "tmp", "")
	sticky.Mode = 0o1777
	tr, _, err := s.AddTar(t.Context(), bytes.NewReader(makeTar(t, append([]entry{other(tar.TypeDir, "./", ""), sticky, suid, dev,
		other(tar.TypeLink, "aaa", "usr/bin/sudo"), other(tar.TypeLink, "zzz/hard", "usr/bin/sudo"), other(tar.TypeSymlink, "bin", "usr/bin"),
		other(tar.TypeFifo, "run/pipe", ""), reg("empty", ""), reg("zeros", strings.Repeat("\x00", 100_000))}, more...)...)), "sample")
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// odd has names that some programs stumble over.
func odd() []entry {
	return []entry{reg("odd/\xff\xfe name\n", "odd"), reg(strings.Repeat(strings.Repeat("n", 200)+"/", 25)+"deep", "deep")}
}

func TestTarRoundTrip(t *testing.T) {
	s := open(t)
	tr := sample(t, s, odd()...)
	var one, two, packed bytes.Buffer
	if err := archive.Tar(t.Context(), s, tr, &one); err != nil {
		t.Fatal(err)
	}
	if err := archive.Tar(t.Context(), s, tr, &two); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Errorf("the second archive differs from the first: %v", err)
	}
	if err := archive.TarZstd(t.Context(), s, tr, &packed); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*bytes.Buffer{"tar": &one, "tar.zst": &packed} {
		back, _, err := open(t).AddTar(t.Context(), b, name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(text(t, tr), text(t, back)); d != "" {
			t.Errorf("%s: tree list differs (-before +after):\n%s", name, d)
		}
	}
}

func TestDirRoundTrip(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("SLATE_TEST") == "all" {
			t.Fatal("must run as root")
		}
		t.Skip("must run as root")
	}
	s := open(t)
	tr := sample(t, s, odd()...)
	dir := filepath.Join(t.TempDir(), "out")
	if err := archive.Dir(t.Context(), s, tr, dir); err != nil {
		t.Fatal(err)
	}
	back, _, err := open(t).AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text(t, tr), text(t, back)); d != "" {
		t.Errorf("tree list differs (-before +after):\n%s", d)
	}
	if err := archive.Dir(t.Context(), s, tr, dir); !errors.Is(err, archive.ErrNotEmpty) {
		t.Errorf("Dir into a full directory = %v, want ErrNotEmpty", err)
	}
	// A blob that is missing ends the export with the entry's name.
	i, _ := tr.Find("usr/bin/sudo")
	os.Remove(s.BlobPath(tr.Blob(i).Digest))
	err = archive.Dir(t.Context(), s, tr, filepath.Join(t.TempDir(), "out"))
	var missing *store.MissingBlobError
	if !errors.As(err, &missing) || !strings.HasPrefix(err.Error(), "aaa: ") {
		t.Errorf("Dir with a missing blob = %v, want a MissingBlobError at aaa", err)
	}
	if err := archive.Tar(t.Context(), s, tr, io.Discard); !errors.As(err, &missing) {
		t.Errorf("Tar with a missing blob = %v", err)
	}
}

func layered(t *testing.T, layers ...[]byte) v1.Image {
	t.Helper()
	img := empty.Image
	for _, data := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	conf = conf.DeepCopy()
	conf.OS, conf.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, conf); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestContainerLayersAndWhiteouts(t *testing.T) {
	img := layered(t,
		makeTar(t, other(tar.TypeDir, "etc/", ""), reg("etc/keep", "keep"), reg("etc/gone", "gone"), reg("etc/changed", "old"),
			reg("opaque/old", "old"), reg("opaque/sub/old", "old"), reg("dir/a", "a"), reg("dir/b", "b"), reg("linked", "linked"), reg("becomes/dir", "x")),
		makeTar(t, reg("opaque/new", "new"), reg("opaque/.wh..wh..opq", ""), reg("etc/.wh.gone", ""), reg("etc/changed", "new"),
			reg(".wh.dir", ""), other(tar.TypeLink, "again", "linked"), reg("becomes", "file"), reg(".wh..wh.plnk", "")),
		makeTar(t, reg("dir/c", "c")))
	dir := filepath.Join(t.TempDir(), "layout")
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "v1"})); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.MultiWriteToFile(saved, nil); err == nil {
		t.Log("empty archive written")
	}
	if err := tarball.WriteToFile(saved, nil, img); err != nil {
		t.Fatal(err)
	}
	hub := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer hub.Close()
	pulled := strings.TrimPrefix(hub.URL, "http://") + "/lab/demo:v1"
	r, err := name.ParseReference(pulled)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"etc/keep": "keep", "etc/changed": "new", "opaque/new": "new", "dir/c": "c", "linked": "linked", "again": "linked", "becomes": "file"}
	for _, where := range []string{"oci:" + dir, "oci:" + dir + ":v1", "docker-archive:" + saved, "docker://" + pulled} {
		t.Run(strings.SplitN(where, ":", 2)[0], func(t *testing.T) {
			if !archive.IsContainer(where) {
				t.Errorf("IsContainer(%q) = false", where)
			}
			c, err := archive.OpenContainer(t.Context(), where, "amd64")
			if err != nil {
				t.Fatal(err)
			}
			s := open(t)
			tr, _, err := c.Add(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for i := range uint32(tr.Len()) {
				if tr.Type(i) == tree.File {
					data, err := s.FS(tr).ReadFile(tr.Path(i))
					if err != nil {
						t.Fatal(err)
					}
					got[tr.Path(i)] = string(data)
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("files (-want +got):\n%s", d)
			}
			if i, ok := tr.Find("again"); !ok || tr.Entry(i).Nlink != 2 {
				t.Error("a hard link into a lower layer was lost")
			}
		})
	}
	for where, want := range map[string]string{
		"oci:" + dir + ":v9":           `no image called "v9"`,
		"oci:/does/not/exist":          "no such file",
		"docker-archive:/not/there":    "no such file",
		"podman:x":                     `unknown kind "podman"`,
		"plain":                        "want oci:DIR",
		"docker://" + pulled + "9":     "MANIFEST_UNKNOWN",
		"docker-archive:" + os.Args[0]: "container image",
	} {
		if _, err := archive.OpenContainer(t.Context(), where, "amd64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("OpenContainer(%q) = %v, want %q", where, err, want)
		}
	}
	if _, err := archive.OpenContainer(t.Context(), "oci:"+dir, "riscv64"); err != nil {
		t.Errorf("an image without a platform is refused: %v", err)
	}
}

// A layer whose bytes were changed must not come in.
func TestContainerDamagedLayer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	img := layered(t, makeTar(t, reg("a", strings.Repeat("content ", 1000))))
	if err := l.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	d, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "blobs", d.Algorithm, d.Hex)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := archive.OpenContainer(t.Context(), "oci:"+dir, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Add(t.Context(), open(t)); err == nil {
		t.Error("a damaged layer came in without an error")
	}
}

func TestOCIRoundTrip(t *testing.T) {
	s := open(t)
	tr := sample(t, s, odd()...)
	rec, _, err := s.Commit(t.Context(), images.Record{Name: "demo", Tree: tr.Digest(), Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if err := archive.OCI(t.Context(), s, tr, rec, dir); err != nil {
		t.Fatal(err)
	}
	if err := archive.OCI(t.Context(), s, tr, rec, dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("OCI over a layout = %v, want ErrExist", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".layer-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	c, err := archive.OpenContainer(t.Context(), "oci:"+dir+":1", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	back, _, err := c.Add(t.Context(), open(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text(t, tr), text(t, back)); d != "" || c.Arch != "amd64" {
		t.Errorf("tree list differs (-before +after), arch %s:\n%s", c.Arch, d)
	}
}

// GNU tar and bsdtar read what we write.
func TestForeignTarsReadOurs(t *testing.T) {
	s := open(t)
	tr := sample(t, s)
	var b bytes.Buffer
	if err := archive.Tar(t.Context(), s, tr, &b); err != nil {
		t.Fatal(err)
	}
	for _, prog := range []string{"tar", "bsdtar"} {
		if _, err := exec.LookPath(prog); err != nil {
			if os.Getenv("SLATE_TEST") == "all" {
				t.Fatal(err)
			}
			continue
		}
		cmd := exec.Command(prog, "-tvf", "-")
		cmd.Stdin = bytes.NewReader(b.Bytes())
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", prog, err, out)
		}
		if n := strings.Count(string(out), "\n"); n != tr.Len() {
			t.Errorf("%s lists %d entries, want %d", prog, n, tr.Len())
		}
		for _, want := range []string{"rwsr-sr-x", "drwxrwxrwt", "-> usr/bin", "link to ./aaa"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in\n%s", prog, want, out)
			}
		}
	}
}

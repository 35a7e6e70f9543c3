// SPDX-License-Identifier: GPL-2.0-or-later

package store_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"slate/images/store"
)

// A tarEntry is one entry of an archive made for a test.
type tarEntry struct {
	hdr  tar.Header
	body string
}

func makeTar(t testing.TB, entries ...tarEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.hdr.Typeflag == 0 {
			e.hdr.Typeflag = tar.TypeReg
		}
		e.hdr.Size = int64(len(e.body))
		if err := w.WriteHeader(&e.hdr); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func reg(name, body string) tarEntry {
	return tarEntry{tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(1700000000, 0)}, body}
}

func special(typ byte, name, link string) tarEntry {
	return tarEntry{tar.Header{Typeflag: typ, Name: name, Linkname: link, Mode: 0o755, ModTime: time.Unix(1700000000, 0)}, ""}
}

func TestAddTar(t *testing.T) {
	cap := "\x01\x00\x00\x02\x00\x20\x00\x00"
	suid := reg("./usr/bin/sudo", "sudo")
	suid.hdr.Mode, suid.hdr.Uid, suid.hdr.Gid = 0o4755, 3, 4
	suid.hdr.ModTime = time.Unix(1700000000, 123456789)
	suid.hdr.Format = tar.FormatPAX
	suid.hdr.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": cap, "SCHILY.xattr.security.selinux": "no"}
	lib := reg("lib/x", "x")
	lib.hdr.PAXRecords = map[string]string{"LIBARCHIVE.xattr.user.odd%20name": base64.RawStdEncoding.EncodeToString([]byte("v\x00"))}
	dev := special(tar.TypeChar, "dev/null", "")
	dev.hdr.Devmajor, dev.hdr.Devminor = 1, 3
	archive := makeTar(t, special(tar.TypeDir, "./", ""), reg("dup", "first"), special(tar.TypeSymlink, "bin", "usr/bin"), suid, lib, dev,
		special(tar.TypeLink, "./hard", "./usr/bin/sudo"), reg("dup", "second"), special(tar.TypeFifo, "pipe", ""),
		reg("/absolute", "abs"), reg("big", strings.Repeat("big", 1<<20)))

	packed := map[string]func(io.Writer) io.WriteCloser{
		"plain": func(w io.Writer) io.WriteCloser { return nopCloser{w} },
		"gz":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"xz": func(w io.Writer) io.WriteCloser {
			x, err := xz.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return x
		},
		"zst": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	}
	var first string
	for kind, pack := range packed {
		t.Run(kind, func(t *testing.T) {
			var b bytes.Buffer
			w := pack(&b)
			w.Write(archive)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			s := open(t, store.Options{})
			tr, _, err := s.AddTar(t.Context(), bytes.NewReader(b.Bytes()), "test.tar")
			if err != nil {
				t.Fatal(err)
			}
			clean(t, s)
			blobs(t, s)
			got := text(t, tr)
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("tree differs from that of another compression:\n%s", cmp.Diff(first, got))
			}
			sum := fmt.Sprintf("%x", sha256.Sum256([]byte("second")))
			for _, want := range []string{
				"./dup type=file mode=0644 uid=0 gid=0 time=1700000000.000000000 size=6 sha256digest=" + sum + "\n",
				"./usr/bin/sudo type=file mode=4755 uid=3 gid=4 time=1700000000.123456789 nlink=2 inode=",
				"xattr.security.capability=AQAAAgAgAAA=\n",
				`xattr.user.odd\040name=dgA=`,
				"./dev/null type=char mode=0755 uid=0 gid=0 time=1700000000.000000000 device=linux,1,3\n",
				"./absolute type=file", "./bin type=link", "./pipe type=fifo",
			} {
				if !strings.Contains(got, want) {
					t.Errorf("tree lacks %q:\n%s", want, got)
				}
			}
			if strings.Contains(got, "selinux") {
				t.Error("a label of the building machine is in the tree")
			}
		})
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestAddTarRefuses(t *testing.T) {
	good := makeTar(t, reg("a", "hello"), reg("b", strings.Repeat("x", 3000)), reg("zeros", strings.Repeat("\x00", 2048)))
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(good)
	w.Close()
	badSum := bytes.Clone(gz.Bytes())
	badSum[len(badSum)-6] ^= 1
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"dot dot":            {makeTar(t, reg("ok", ""), reg("../evil", "x")), `"../evil": the name contains ".."`},
		"dot dot within":     {makeTar(t, reg("a/../../evil", "x")), `".."`},
		"dot dot link":       {makeTar(t, special(tar.TypeLink, "l", "../../etc/passwd")), `".."`},
		"below a link":       {makeTar(t, special(tar.TypeSymlink, "etc", "/etc"), reg("etc/passwd", "x")), `"etc/passwd"`},
		"below a file":       {makeTar(t, reg("f", ""), reg("f/x", "x")), "not a directory"},
		"link to nothing":    {makeTar(t, special(tar.TypeLink, "l", "missing")), "missing, which is not there"},
		"link to later":      {makeTar(t, special(tar.TypeLink, "l", "f"), reg("f", "")), "not there"},
		"file over full dir": {makeTar(t, reg("d/f", ""), reg("d", "x")), "not empty"},
		"empty archive":      {makeTar(t), "empty"},
		"no bytes":           {nil, "empty"},
		"not tar":            {bytes.Repeat([]byte("not a tar archive "), 100), "header"},
		"cut in content":     {good[:512+512+512+100], "cut off"},
		"cut in header":      {good[:1024+100], "cut off"},
		"cut between":        {good[:1024], "cut off"},
		"cut after zeros":    {good[:1024+512+3072+512+2048], "cut off"},
		"cut gzip":           {gz.Bytes()[:gz.Len()/2], "cut off"},
		"cut gzip sum":       {gz.Bytes()[:gz.Len()-2], "cut off"},
		"bad gzip sum":       {badSum, "checksum"},
		"huge uid":           {makeTar(t, tarEntry{tar.Header{Name: "f", Uid: 1 << 33, Format: tar.FormatPAX}, ""}), "owner"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, store.Options{})
			_, _, err := s.AddTar(t.Context(), bytes.NewReader(tt.data), "bad.tar")
			var ae *store.ArchiveError
			if !errors.As(err, &ae) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "bad.tar") {
				t.Errorf("AddTar = %v, want an ArchiveError with %q", err, tt.want)
			}
			clean(t, s)
			if names, err := s.Images(); err != nil || len(names) > 0 {
				t.Errorf("Images after a refused archive = %v, %v", names, err)
			}
		})
	}
}

// A cut at any byte must be noticed.
func TestAddTarCutAnywhere(t *testing.T) {
	archive := makeTar(t, reg("a", "hello"), special(tar.TypeDir, "d/", ""), reg("d/zeros", strings.Repeat("\x00", 1024)))
	s := open(t, store.Options{})
	for n := 1; n < len(archive)-512; n += 37 { // one of the two closing blocks is enough
		_, _, err := s.AddTar(t.Context(), bytes.NewReader(archive[:n]), "cut.tar")
		if !errors.Is(err, store.ErrTruncated) {
			t.Errorf("AddTar of the first %d of %d bytes = %v, want ErrTruncated", n, len(archive), err)
		}
	}
}

// GNU tar and bsdtar write what we read, and a directory and its archive give
// the same tree.
func TestTarAndDirGiveTheSameTree(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	put(t, dir, "same")
	os.Chmod(filepath.Join(dir, "usr/bin/tool"), 0o4755|os.ModeSetuid)
	os.Link(filepath.Join(dir, "usr/bin/tool"), filepath.Join(dir, "etc/tool"))
	os.Symlink("usr/bin", filepath.Join(dir, "bin"))
	if err := unix.Setxattr(filepath.Join(dir, "etc/seed"), "user.k", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	s := open(t, store.Options{})
	fromDir, _, err := s.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for prog, args := range map[string][]string{
		"tar":    {"--xattrs", "--format=pax", "-cf", "-", "-C", dir, "."},
		"bsdtar": {"--xattrs", "--format=pax", "-cf", "-", "-C", dir, "."},
	} {
		t.Run(prog, func(t *testing.T) {
			if _, err := exec.LookPath(prog); err != nil {
				t.Skip(err)
			}
			out, err := exec.Command(prog, args...).Output()
			if err != nil {
				t.Fatal(err)
			}
			fromTar, _, err := s.AddTar(t.Context(), bytes.NewReader(out), prog)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(text(t, fromDir), text(t, fromTar)); d != "" {
				t.Errorf("tree list differs (-directory +archive):\n%s", d)
			}
		})
	}
}

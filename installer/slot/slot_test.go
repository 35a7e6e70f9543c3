// SPDX-License-Identifier: GPL-2.0-or-later

package slot_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slate/images"
	"slate/images/transfer"
	"slate/images/tree"
	"slate/installer/slot"
	"slate/testbed/labtest"
)

// version is a small image with what is rare in it, and its contents.
type version struct {
	signed transfer.Signed
	tree   *tree.Tree
	blobs  map[images.Digest][]byte
	key    ed25519.PublicKey
}

func makeVersion(t *testing.T) version {
	t.Helper()
	v := version{blobs: map[images.Digest][]byte{}}
	var b tree.Builder
	add := func(path string, e tree.Entry) {
		t.Helper()
		e.MtimeNs = 1700000000123456789
		if e.Mode == 0 {
			e.Mode = 0o755
		}
		if err := b.Add(path, e); err != nil {
			t.Fatal(err)
		}
	}
	file := func(text string) tree.Entry {
		d := images.Digest(sha256.Sum256([]byte(text)))
		v.blobs[d] = []byte(text)
		return tree.Entry{Type: tree.File, Digest: d, Size: int64(len(text)), Mode: 0o644}
	}
	add(".", tree.Entry{Type: tree.Dir})
	add("bin", tree.Entry{Type: tree.Dir})
	add("etc", tree.Entry{Type: tree.Dir, Mode: 0o700, UID: 3, GID: 4})
	add("etc/one", file("hello"))
	add("etc/same", file("hello")) // another file with the same content
	setuid := file("program")
	setuid.Mode, setuid.UID = 0o4755, 1000
	add("bin/setuid", setuid)
	marked := file("marked")
	marked.Xattrs = []tree.Xattr{{Name: "user.colour", Value: []byte("blue")}}
	add("bin/marked", marked)
	add("bin/none", file(""))
	add("bin/link", tree.Entry{Type: tree.Symlink, Target: "../etc/one", Mode: 0o777})
	add("bin/null", tree.Entry{Type: tree.Char, Major: 1, Minor: 3, Mode: 0o666})
	add("bin/pipe", tree.Entry{Type: tree.Fifo, Mode: 0o600})
	var err error
	if v.tree, err = b.Build(); err != nil {
		t.Fatal(err)
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	v.key = pub
	v.signed.Record = images.Record{Name: "demo", Number: 3, Tree: v.tree.Digest(), Entries: v.tree.Len(), Size: v.tree.Size(), Time: time.Unix(1700000000, 0)}
	if v.signed.Text, err = images.MarshalRecord(v.signed.Record); err != nil {
		t.Fatal(err)
	}
	v.signed.Signature = images.Sign(key, images.PurposeRecord, v.signed.Text)
	return v
}

var errPower = errors.New("the power failed")

// fill fills dir, with the contents of v but for those after the first n; negative: all.
func (v version) fill(ctx context.Context, dir string, n int, fetched *int) error {
	f := slot.Fill{Dir: dir, Signed: v.signed, Tree: v.tree, Note: func(string, ...any) {}}
	f.Fetch = func(ctx context.Context, t *tree.Tree, _ []images.Blob, s transfer.Sink) error {
		for b := range t.Blobs() {
			if s.Has(b.Digest) {
				continue
			}
			if n == 0 {
				return errPower
			}
			n--
			*fetched++
			if err := s.Put(ctx, b, bytes.NewReader(v.blobs[b.Digest])); err != nil {
				return err
			}
		}
		return nil
	}
	return f.Run(ctx)
}

func TestFill(t *testing.T) {
	labtest.NeedRoot(t)
	v, dir, fetched := makeVersion(t), t.TempDir(), 0
	keys := []ed25519.PublicKey{v.key}
	if _, err := slot.Read(dir, keys); !errors.Is(err, slot.ErrEmpty) {
		t.Errorf("Read of an empty slot = %v, want ErrEmpty", err)
	}
	// The power fails after each content that came; the next try goes on from there.
	for range len(v.blobs) {
		if err := v.fill(t.Context(), dir, 1, &fetched); err == nil {
			break
		} else if !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		var half *slot.IncompleteError
		if _, err := slot.Read(dir, keys); !errors.As(err, &half) || half.Version != "demo/3" {
			t.Errorf("Read of a slot that is half full = %v, want that demo/3 was interrupted", err)
		}
	}
	if fetched != len(v.blobs) {
		t.Errorf("%d contents were fetched, want each of %d once", fetched, len(v.blobs))
	}
	if rec, err := slot.Read(dir, keys); err != nil || rec.Ref() != "demo/3" {
		t.Fatalf("Read = %s, %v", rec.Ref(), err)
	}
	if got, err := slot.ReadTree(dir, v.tree.Digest()); err != nil || got.Digest() != v.tree.Digest() {
		t.Errorf("ReadTree: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, slot.Dir))
	if err != nil || len(entries) != 4 {
		t.Errorf("beside the tree lie %v (%v), want record, signature, tree list and marker", entries, err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slot.Read(dir, []ed25519.PublicKey{other}); err == nil {
		t.Error("a slot of another site is taken")
	}
	// Filled once more, it is as before, and it is none while that goes on.
	if err := v.fill(t.Context(), dir, 0, &fetched); !errors.Is(err, errPower) {
		t.Errorf("fill = %v", err)
	}
	if _, err := slot.Read(dir, keys); err == nil {
		t.Error("a slot that is being filled anew is taken for whole")
	}
	if err := v.fill(t.Context(), dir, -1, &fetched); err != nil {
		t.Fatal(err)
	}
	if err := slot.Verify(t.Context(), dir, v.tree, nil); err != nil {
		t.Error(err)
	}
}

func TestVerifyFinds(t *testing.T) {
	labtest.NeedRoot(t)
	for name, change := range map[string]func(dir string) error{
		"/etc/one: its content is another":    func(dir string) error { return os.WriteFile(dir+"/etc/one", []byte("jello"), 0o644) },
		"/etc/one: it has 3 bytes, not 5":     func(dir string) error { return os.WriteFile(dir+"/etc/one", []byte("abc"), 0o644) },
		"/bin/setuid: its mode is 100755":     func(dir string) error { return unix.Chmod(dir+"/bin/setuid", 0o755) },
		"/etc: it belongs to 0:0, not to 3:4": func(dir string) error { return os.Chown(dir+"/etc", 0, 0) },
		"/etc/new: is not of the image":       func(dir string) error { return os.WriteFile(dir+"/etc/new", nil, 0o644) },
		"/new: is not of the image":           func(dir string) error { return os.Mkdir(dir+"/new", 0o755) },
		"/bin/link: it leads to \"elsewhere\"": func(dir string) error {
			return errors.Join(os.Remove(dir+"/bin/link"), os.Symlink("elsewhere", dir+"/bin/link"))
		},
		"/bin/null: it is another device": func(dir string) error {
			return errors.Join(os.Remove(dir+"/bin/null"), unix.Mknod(dir+"/bin/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))), unix.Chmod(dir+"/bin/null", 0o666))
		},
		"/bin/pipe: no such file":                        func(dir string) error { return os.Remove(dir + "/bin/pipe") },
		"/bin/marked: its attribute user.colour is anot": func(dir string) error { return unix.Setxattr(dir+"/bin/marked", "user.colour", []byte("red"), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			v, dir, n := makeVersion(t), t.TempDir(), 0
			if err := v.fill(t.Context(), dir, -1, &n); err != nil {
				t.Fatal(err)
			}
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			// What was changed has a new time, which counts before contents do.
			stamp := time.Unix(0, 1700000000123456789)
			for _, f := range []string{"etc/one", "etc", "bin"} {
				if err := os.Chtimes(filepath.Join(dir, f), stamp, stamp); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			for _, f := range []string{"bin/link", "bin/null"} {
				ts := []unix.Timespec{{Sec: stamp.Unix(), Nsec: 123456789}, {Sec: stamp.Unix(), Nsec: 123456789}}
				if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, f), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
					t.Fatal(err)
				}
			}
			if err := slot.Verify(t.Context(), dir, v.tree, nil); err == nil || !strings.HasPrefix(err.Error(), name) {
				t.Errorf("Verify = %v, want %s", err, name)
			}
		})
	}
}

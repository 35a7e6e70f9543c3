// SPDX-License-Identifier: GPL-2.0-or-later

package tree_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vbatts/go-mtree"

	"slate/images"
	"slate/images/tree"
)

func sum(s string) images.Digest { return sha256.Sum256([]byte(s)) }

func file(content string, mode uint32) tree.Entry {
	return tree.Entry{Type: tree.File, Mode: mode, Size: int64(len(content)), Digest: sum(content), MtimeNs: 1700000000_500000000}
}

func dir(mode uint32) tree.Entry {
	return tree.Entry{Type: tree.Dir, Mode: mode, MtimeNs: 1700000000e9}
}

func symlink(target string) tree.Entry {
	return tree.Entry{Type: tree.Symlink, Mode: 0o777, Target: target}
}

// sample has every kind of thing that a tree can hold.
func sample(t testing.TB, depth int) *tree.Tree {
	t.Helper()
	var b tree.Builder
	add := func(path string, e tree.Entry) {
		t.Helper()
		if err := b.Add(path, e); err != nil {
			t.Fatal(err)
		}
	}
	add(".", dir(0o755))
	add("usr/bin/sudo", file("sudo", 0o4755))
	add("usr/bin/passwd", file("passwd", 0o2755))
	add("usr", dir(0o755))
	add("tmp", dir(0o1777))
	add("bin", symlink("usr/bin"))
	ping := file("ping", 0o755)
	ping.Xattrs = []tree.Xattr{{Name: "user.odd name=\n", Value: []byte("x")}, {Name: "security.capability", Value: []byte{1, 0, 0, 2, 0, 32, 0, 0}}, {Name: "user.empty"}}
	add("usr/bin/ping", ping)
	add("dev/sda", tree.Entry{Type: tree.Block, Mode: 0o660, GID: 6, Major: 8, Minor: 0})
	add("dev/null", tree.Entry{Type: tree.Char, Mode: 0o666, Major: 1, Minor: 3})
	add("dev/big", tree.Entry{Type: tree.Char, Mode: 0o666, Major: 4095, Minor: 1<<20 - 1})
	add("run/pipe", tree.Entry{Type: tree.Fifo, Mode: 0o600, UID: 101, GID: math.MaxUint32})
	add("run/sock", tree.Entry{Type: tree.Socket, Mode: 0o600, UID: math.MaxUint32})
	add("odd/space and\ttab\n#=*?[\\", file("odd", 0))
	add("odd/\xff\xfe\x01", file("", 0o644))
	add("odd/umläut", symlink("../ümlaut with space"))
	add("odd/"+strings.Repeat("n", 255), file("long", 0o644))
	past := file("past", 0o644)
	past.MtimeNs = -1
	add("times/past", past)
	past.MtimeNs = math.MinInt64
	add("times/first", past)
	past.MtimeNs = math.MaxInt64
	add("times/last", past)
	for _, l := range []string{"links/b", "links/a", "aaa"} {
		if err := b.Link(l, "usr/bin/ping"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Link("links/null", "dev/null"); err != nil {
		t.Fatal(err)
	}
	if err := b.Link("links/sym", "bin"); err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat("d/", depth)
	add(deep+"bottom", file("bottom", 0o644))
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func text(t testing.TB, tr *tree.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := tr.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func parse(t testing.TB, s string) *tree.Tree {
	t.Helper()
	tr, err := tree.Parse(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func entries(tr *tree.Tree) map[string]tree.Entry {
	m := map[string]tree.Entry{}
	for i := range uint32(tr.Len()) {
		m[tr.Path(i)] = tr.Entry(i)
	}
	return m
}

func TestBuildEncodeParse(t *testing.T) {
	built := sample(t, 1000)
	s := text(t, built)
	parsed := parse(t, s)
	if d := cmp.Diff(entries(built), entries(parsed)); d != "" {
		t.Errorf("entries differ (-built +parsed):\n%s", d)
	}
	if again := text(t, parsed); again != s {
		t.Errorf("second text differs:\n%s", cmp.Diff(s, again))
	}
	want := images.Digest(sha256.Sum256([]byte(s)))
	if built.Digest() != want || parsed.Digest() != want {
		t.Errorf("Digest = %s built, %s parsed, want %s", built.Digest(), parsed.Digest(), want)
	}
	if built.Size() != parsed.Size() || built.Size() == 0 {
		t.Errorf("Size = %d built, %d parsed", built.Size(), parsed.Size())
	}
}

func TestGoldenText(t *testing.T) {
	var b tree.Builder
	ping := file("ping", 0o755)
	ping.Xattrs = []tree.Xattr{{Name: "security.capability", Value: []byte{1, 2, 3, 4}}}
	for path, e := range map[string]tree.Entry{
		".": dir(0o755), "bin/ping": ping, "bin": dir(0o755), "a b": file("x", 0o4755), "z": symlink("bin/x#"),
		"dev/null": {Type: tree.Char, Mode: 0o666, Major: 1, Minor: 3}, "dev": dir(0o700),
	} {
		if err := b.Add(path, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Link("bin/ping2", "bin/ping"); err != nil {
		t.Fatal(err)
	}
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	got := text(t, tr)
	want, err := os.ReadFile("testdata/small.mtree")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("text differs from testdata/small.mtree, got:\n%s", got)
	}
}

func TestNavigate(t *testing.T) {
	tr := parse(t, text(t, sample(t, 1000)))
	for _, path := range []string{".", "usr/bin/sudo", "odd/\xff\xfe\x01", strings.Repeat("d/", 1000) + "bottom"} {
		i, ok := tr.Find("/" + path)
		if !ok || tr.Path(i) != path {
			t.Errorf("Find(%q) = %d, %v, Path %q", path, i, ok, tr.Path(i))
		}
	}
	for _, path := range []string{"nope", "usr/bin/sudo/x", "bin/sudo", "usr/bin/sud", "usr/bin/sudoo"} {
		if i, ok := tr.Find(path); ok {
			t.Errorf("Find(%q) = %d, want nothing", path, i)
		}
	}
	if i, ok := tr.Find("usr/../../tmp/."); !ok || tr.Path(i) != "tmp" {
		t.Errorf("Find(usr/../../tmp/.) = %d, %v", i, ok)
	}
	usr, _ := tr.Find("usr/bin")
	var names []string
	for c := range tr.Children(usr) {
		names = append(names, tr.Name(c))
		if tr.Parent(c) != usr {
			t.Errorf("Parent(%s) = %d, want %d", tr.Name(c), tr.Parent(c), usr)
		}
		if j, ok := tr.Lookup(usr, tr.Name(c)); !ok || j != c {
			t.Errorf("Lookup(%s) = %d, %v, want %d", tr.Name(c), j, ok, c)
		}
	}
	if d := cmp.Diff([]string{"passwd", "ping", "sudo"}, names); d != "" {
		t.Errorf("children (-want +got):\n%s", d)
	}
	aaa, _ := tr.Find("aaa")
	for _, path := range []string{"aaa", "links/a", "links/b", "usr/bin/ping"} {
		i, _ := tr.Find(path)
		if tr.Canonical(i) != aaa || tr.Entry(i).Nlink != 4 || len(tr.Entry(i).Xattrs) != 3 {
			t.Errorf("%s: Canonical %d, %+v, want %d and 4 links", path, tr.Canonical(i), tr.Entry(i), aaa)
		}
	}
	if e := tr.Entry(0); e.Nlink != 2+uint32(len(dirsIn(tr, 0))) {
		t.Errorf("root has %d links, want 2 and one for each of %v", e.Nlink, dirsIn(tr, 0))
	}
}

func dirsIn(tr *tree.Tree, d uint32) (names []string) {
	for c := range tr.Children(d) {
		if tr.Type(c) == tree.Dir {
			names = append(names, tr.Name(c))
		}
	}
	return names
}

func TestResolve(t *testing.T) {
	var b tree.Builder
	for path, e := range map[string]tree.Entry{
		"usr/bin/env": file("env", 0o755), "bin": symlink("usr/bin"), "up": symlink("../../../usr"), "abs": symlink("/bin/env"),
		"usr/loop1": symlink("loop2"), "usr/loop2": symlink("loop1"), "usr/back": symlink("../abs"), "dangling": symlink("no/where"),
		"slash": symlink("usr/bin/"), "dot": symlink("."),
	} {
		if err := b.Add(path, e); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"bin/env": "usr/bin/env", "/bin": "usr/bin", "up/bin/env": "usr/bin/env", "abs": "usr/bin/env", "usr/back": "usr/bin/env",
		"bin/../loop1/..": "", "": ".", "..": ".", "slash/env": "usr/bin/env", "dot/dot/usr": "usr", "usr/bin/env/..": "",
	} {
		i, err := tr.Resolve(path)
		if want == "" {
			if err == nil {
				t.Errorf("Resolve(%q) = %q, want an error", path, tr.Path(i))
			}
			continue
		}
		if err != nil || tr.Path(i) != want {
			t.Errorf("Resolve(%q) = %q, %v, want %q", path, tr.Path(i), err, want)
		}
	}
	for path, want := range map[string]error{"usr/loop1": syscall.ELOOP, "dangling": fs.ErrNotExist, "abs/x": syscall.ENOTDIR, "x": fs.ErrNotExist} {
		if _, err := tr.Resolve(path); !errors.Is(err, want) {
			t.Errorf("Resolve(%q) = %v, want %v", path, err, want)
		}
	}
	if i, err := tr.ResolveLast("up/../bin"); err != nil || tr.Path(i) != "bin" {
		t.Errorf("ResolveLast(up/../bin) = %q, %v, want bin", tr.Path(i), err)
	}
}

func TestBuilderReplaces(t *testing.T) {
	var b tree.Builder
	steps := []struct {
		path string
		e    tree.Entry
		ok   bool
	}{
		{"a", file("old", 0o644), true},
		{"a", file("newer", 0o600), true},
		{"d/x", file("x", 0o644), true},
		{"d", dir(0o700), true},
		{"d", file("no", 0o644), false},
		{"a/below", file("no", 0o644), false},
		{"link", symlink("/etc"), true},
		{"link/passwd", file("no", 0o644), false},
		{"up/../../etc", file("no", 0o644), false},
		{".", file("no", 0o644), false},
		{"nul\x00", file("no", 0o644), false},
		{strings.Repeat("n", 256), file("no", 0o644), false},
		{strings.Repeat("dir/", tree.MaxPath/4), dir(0o755), true},
		{strings.Repeat("dir/", tree.MaxPath/4) + "x", dir(0o755), false},
		{"empty", symlink(""), false},
		{"long", symlink(strings.Repeat("x", 4096)), false},
		{"dev", tree.Entry{Type: tree.Char, Major: 4096}, false},
		{"twice", tree.Entry{Type: tree.Fifo, Xattrs: []tree.Xattr{{Name: "user.a"}, {Name: "user.a"}}}, false},
		{"mode", dir(0o10000), false},
		{"none", tree.Entry{}, false},
		{"nodigest", tree.Entry{Type: tree.File}, false},
	}
	for _, s := range steps {
		if err := b.Add(s.path, s.e); (err == nil) != s.ok {
			t.Errorf("Add(%.40q, %v) = %v, want ok %v", s.path, s.e.Type, err, s.ok)
		}
	}
	if err := b.Link("hard", "a"); err != nil {
		t.Error(err)
	}
	if err := b.Add("a", file("third", 0o644)); err != nil { // takes only this name away from the inode
		t.Error(err)
	}
	for _, bad := range []string{"nope", "d", "."} {
		if err := b.Link("x", bad); err == nil {
			t.Errorf("Link to %q: no error", bad)
		}
	}
	b.Remove("dir")
	b.Remove("./link/")
	if b.Remove("dir") {
		t.Error("Remove of what is gone reports true")
	}
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	got := entries(parse(t, text(t, tr)))
	if len(got) != 5 || got["a"].Digest != sum("third") || got["hard"].Digest != sum("newer") || got["hard"].Nlink != 1 || got["d"].Mode != 0o700 {
		t.Errorf("entries after the steps: %+v", got)
	}
}

func TestParseRefuses(t *testing.T) {
	const (
		head = "#mtree\n. type=dir mode=0755 uid=0 gid=0 time=0.000000000\n"
		meta = " mode=0644 uid=0 gid=0 time=0.000000000"
	)
	dig := " sha256digest=" + strings.Repeat("ab", 32)
	f := func(path, links, size string) string {
		return path + " type=file" + meta + links + " size=" + size + dig + "\n"
	}
	d := func(path string) string { return path + " type=dir" + meta + "\n" }
	if _, err := tree.Parse(strings.NewReader(head + d("./a") + d("./b") + f("./a/x", "", "1") + f("./b/x", " nlink=2 inode=3", "1"))); err == nil {
		t.Error("a link to an inode without links parses")
	}
	parse(t, head+d("./a")+d("./b")+f("./a/x", " nlink=2 inode=3", "1")+f("./b/x", " nlink=2 inode=3", "1"))
	for name, s := range map[string]string{
		"empty":                "",
		"no signature":         head[7:],
		"no root":              "#mtree\n",
		"root is a file":       "#mtree\n" + f(".", "", "1"),
		"no newline":           head[:len(head)-1],
		"comment":              head + "# comment\n",
		"set line":             head + "/set type=file\n",
		"empty line":           head + "\n",
		"second root":          head + head[7:],
		"unsorted":             head + f("./b", "", "1") + f("./a", "", "1"),
		"twice":                head + f("./a", "", "1") + f("./a", "", "1"),
		"no parent":            head + f("./a/b", "", "1"),
		"parent is a file":     head + f("./a", "", "1") + f("./a/b", "", "1"),
		"back to a directory":  head + d("./a") + d("./b") + f("./b/x", "", "1") + f("./a/x", "", "1"),
		"root after directory": head + d("./a") + f("./a/x", "", "1") + f("./b", "", "1"),
		"dot dot":              head + d("./.."),
		"dot":                  head + d("./."),
		"empty name":           head + d("./"),
		"absolute":             head + d("/a"),
		"relative":             head + d("a"),
		"double slash":         head + d("./a") + d("./a//b"),
		"escaped letter":       head + d(`./\141`),
		"bare star":            head + d(`./*`),
		"bare high byte":       head + d("./\xff"),
		"escaped slash":        head + d(`./a\057b`),
		"escaped zero":         head + d(`./a\000`),
		"escape above 377":     head + d(`./\477`),
		"cut escape":           head + d(`./\04`),
		"not octal":            head + d(`./\049`),
		"leading zero":         head + f("./a", "", "01"),
		"size overflow":        head + f("./a", "", "9223372036854775808"),
		"negative size":        head + f("./a", "", "-1"),
		"one link":             head + f("./a", " nlink=1 inode=1", "1"),
		"missing link":         head + f("./a", " nlink=2 inode=1", "1"),
		"link forward":         head + f("./a", " nlink=2 inode=2", "1") + f("./b", " nlink=2 inode=2", "1"),
		"links differ":         head + f("./a", " nlink=2 inode=1", "1") + f("./b", " nlink=2 inode=1", "2"),
		"too many links":       head + f("./a", " nlink=2 inode=1", "1") + f("./b", " nlink=2 inode=1", "1") + f("./c", " nlink=2 inode=1", "1"),
		"extra keyword":        head + strings.Replace(d("./a"), " mode", " flags=none mode", 1),
		"trailing space":       head + strings.Replace(d("./a"), "\n", " \n", 1),
		"upper hex":            head + strings.Replace(f("./a", "", "1"), "ab", "AB", 1),
		"short time":           head + strings.Replace(d("./a"), "0.000000000", "0.0", 1),
		"minus zero":           head + strings.Replace(d("./a"), "0.000000000", "-0.000000000", 1),
		"time overflow":        head + strings.Replace(d("./a"), "0.000000000", "9223372036.854775808", 1),
		"time underflow":       head + strings.Replace(d("./a"), "0.000000000", "-9223372037.145224191", 1),
		"directory with links": head + strings.Replace(d("./a"), "\n", " nlink=2 inode=1\n", 1),
		"xattr unsorted":       head + strings.Replace(d("./a"), "\n", " xattr.b= xattr.a=\n", 1),
		"xattr not base64":     head + strings.Replace(d("./a"), "\n", " xattr.b=A\n", 1),
		"xattr loose bits":     head + strings.Replace(d("./a"), "\n", " xattr.b=AB==\n", 1),
		"xattr no name":        head + strings.Replace(d("./a"), "\n", " xattr.=AA==\n", 1),
		"unknown type":         head + strings.Replace(d("./a"), "dir", "door", 1),
		"long name":            head + d("./"+strings.Repeat("n", 256)),
		"long line":            head + d("./"+strings.Repeat("n", 1<<20)),
		"uid":                  head + strings.Replace(d("./a"), "uid=0", "uid=4294967296", 1),
	} {
		tr, err := tree.Parse(strings.NewReader(s))
		var se *tree.SyntaxError
		if !errors.As(err, &se) || se.Line == 0 {
			t.Errorf("%s: Parse = %v, %v, want a SyntaxError with a line", name, tr, err)
		}
	}
}

// Every prefix of a list that ends within a line must be refused.
func TestParseRefusesCutLists(t *testing.T) {
	s := "#mtree\n. type=dir mode=0755 uid=0 gid=0 time=0.000000000\n./a type=link mode=0777 uid=0 gid=0 time=0.000000000 link=b\n"
	for n := range len(s) {
		_, err := tree.Parse(strings.NewReader(s[:n]))
		whole := n > 7 && s[n-1] == '\n'
		if (err == nil) != whole {
			t.Errorf("Parse of the first %d bytes = %v, want ok %v", n, err, whole)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(text(f, sample(f, 2))))
	small, err := os.ReadFile("testdata/small.mtree")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small)
	f.Fuzz(func(t *testing.T, data []byte) {
		tr, err := tree.Parse(bytes.NewReader(data))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if _, err := tr.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Fatalf("text changed on the way through: %v\n%q\n%q", err, data, out.Bytes())
		}
		if tr.Digest() != sha256.Sum256(data) {
			t.Fatal("digest is not that of the text")
		}
		// The same entries through the Builder give the same text, so there is
		// one canonical text and both ends agree on it.
		var b tree.Builder
		for i := range uint32(tr.Len()) {
			if c := tr.Canonical(i); c != i {
				err = b.Link(tr.Path(i), tr.Path(c))
			} else {
				err = b.Add(tr.Path(i), tr.Entry(i))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if built.Digest() != tr.Digest() {
			t.Fatalf("rebuilt text differs:\n%s\n%s", data, text(t, built))
		}
	})
}

func TestBsdtarReadsTheList(t *testing.T) {
	need(t, "bsdtar")
	dirName := t.TempDir()
	var b tree.Builder
	contents := map[string]string{"plain": "hello", "odd/space and\ttab #=*?[\\\"": "odd", "odd/\xc3\xa4\xff": "bytes", "suid": "suid"}
	for path, c := range contents {
		os.MkdirAll(filepath.Join(dirName, filepath.Dir(path)), 0o755)
		if err := os.WriteFile(filepath.Join(dirName, path), []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
		b.Add(path, file(c, 0o4711))
	}
	b.Link("odd/hard", "suid")
	os.Link(filepath.Join(dirName, "suid"), filepath.Join(dirName, "odd/hard"))
	b.Add("sym", symlink("odd/a b"))
	b.Add("null", tree.Entry{Type: tree.Char, Mode: 0o666, Major: 1, Minor: 3})
	b.Add("fifo", tree.Entry{Type: tree.Fifo, Mode: 0o600, UID: 7, GID: 8})
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dirName, "list.mtree"), []byte(text(t, tr)), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bsdtar", "-cf", "out.tar", "--format=gnutar", "@list.mtree")
	cmd.Dir = dirName
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("bsdtar -cf @list.mtree: %v\n%s", err, out)
	}
	cmd = exec.Command("bsdtar", "-tvf", "out.tar", "--numeric-owner")
	cmd.Dir = dirName
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("bsdtar -tvf: %v\n%s", err, out)
	}
	if n := strings.Count(string(out), "\n"); n != tr.Len() {
		t.Errorf("bsdtar lists %d entries, want %d:\n%s", n, tr.Len(), out)
	}
	for _, want := range []string{"-rws--x--x", "1,3", "sym -> odd/a b", "link to ./suid", "prw-------  0 7      8", `space and\ttab #=*?[\\"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("bsdtar's listing lacks %q:\n%s", want, out)
		}
	}
}

// go-mtree, which shares no code with bsdtar or with us, checks a directory by our
// list: it finds nothing in the one it was made from, and each change of it.
func TestGoMtreeChecksByTheList(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("SLATE_TEST") != "all" {
		t.Skip("must run as root: the list says who owns the files")
	}
	dir := t.TempDir()
	stamp := time.Unix(1700000000, 123456000)
	var b tree.Builder
	for path, c := range map[string]string{"plain": "hello", "a b/sp ace": "space", "a b/\xc3\xa4": "umlaut", "suid": "suid"} {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, path), []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
		e := file(c, 0o644)
		if path == "suid" {
			e.Mode = 0o4755
			os.Chmod(filepath.Join(dir, path), 0o755|os.ModeSetuid)
		}
		e.MtimeNs, e.UID, e.GID = stamp.UnixNano(), 7, 8
		b.Add(path, e)
		os.Chown(filepath.Join(dir, path), 7, 8)
		if path == "suid" { // chown has taken it away
			os.Chmod(filepath.Join(dir, path), 0o755|os.ModeSetuid)
		}
		os.Chtimes(filepath.Join(dir, path), stamp, stamp)
	}
	os.Symlink("a b/sp ace", filepath.Join(dir, "link"))
	b.Add("link", symlink("a b/sp ace"))
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := mtree.ParseSpec(strings.NewReader(text(t, tr)))
	if err != nil {
		t.Fatal(err)
	}
	check := func() string {
		found, err := mtree.Check(dir, spec, []mtree.Keyword{"type", "uid", "gid", "mode", "size", "link", "sha256digest"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, d := range found {
			// Directories and links have other owners here than in the list. And go-mtree
			// compares modes as text, 4755 with its own 04755.
			if d.Path() != "." && d.Path() != "a b" && d.Path() != "link" && !strings.Contains(d.String(), "expected 4755; got 04755") {
				lines = append(lines, d.String())
			}
		}
		return strings.Join(lines, "\n")
	}
	if got := check(); got != "" {
		t.Errorf("go-mtree finds in the directory of the list:\n%s", got)
	}
	for what, change := range map[string]func() error{
		"sha256digest": func() error { return os.WriteFile(filepath.Join(dir, "plain"), []byte("hellO"), 0o644) },
		"mode":         func() error { return os.Chmod(filepath.Join(dir, "suid"), 0o755) },
		"uid":          func() error { return os.Chown(filepath.Join(dir, "a b/sp ace"), 9, 8) },
		"missing":      func() error { return os.Remove(filepath.Join(dir, "a b/\xc3\xa4")) },
	} {
		before := check()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if after := check(); after == before {
			t.Errorf("go-mtree does not see a change of %s", what)
		}
	}
}

// need skips the test where a program is missing, except in the full run.
func need(t *testing.T, prog string) {
	t.Helper()
	if _, err := exec.LookPath(prog); err == nil {
		return
	}
	if os.Getenv("SLATE_TEST") == "all" {
		t.Fatalf("%s is not installed", prog)
	}
	t.Skipf("%s is not installed", prog)
}

// big makes a tree shaped like a large system: 400,000 entries.
func big(t testing.TB, entries int) *tree.Tree {
	t.Helper()
	var b tree.Builder
	for i := range entries * 20 / 21 {
		dir := fmt.Sprintf("usr/lib/python3/dist-packages/pkg%d/sub%d", i/2000, i/20)
		e := file("", 0o644)
		e.Size = int64(i)
		e.Digest = sha256.Sum256(fmt.Appendf(nil, "%d", i))
		e.MtimeNs = int64(i) * 1e9
		if err := b.Add(fmt.Sprintf("%s/module_%d.py", dir, i%20), e); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func BenchmarkParse400k(b *testing.B) {
	s := []byte(text(b, big(b, 400_000)))
	var tr *tree.Tree
	b.SetBytes(int64(len(s)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if tr, err = tree.Parse(bytes.NewReader(s)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(tr.Len()), "entries")
	b.ReportMetric(float64(tr.Bytes())/float64(tr.Len()), "B/entry")
}

func BenchmarkEncode400k(b *testing.B) {
	tr := big(b, 400_000)
	for b.Loop() {
		n, _ := tr.WriteTo(nowhere{})
		b.SetBytes(n)
	}
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkFind(b *testing.B) {
	tr := big(b, 400_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := tr.Find("usr/lib/python3/dist-packages/pkg100/sub10000/module_7.py"); !ok {
			b.Fatal("not found")
		}
	}
}

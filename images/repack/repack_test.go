// SPDX-License-Identifier: GPL-2.0-or-later

package repack_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"

	"slate/images/repack"
)

// content looks like files do: words, columns of numbers, runs, noise.
func content(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		switch r.IntN(8) {
		case 0:
			for range r.IntN(200) {
				b.WriteByte(byte(r.Uint32()))
			}
		case 1:
			b.Write(bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(2000)))
		case 2:
			if at := r.IntN(b.Len() + 1); b.Len() > 0 {
				b.Write(bytes.Clone(b.Bytes()[at:min(at+r.IntN(5000), b.Len())]))
			}
		default:
			for range r.IntN(300) {
				fmt.Fprintf(&b, "%s %d\n", []string{"module", "depends", "alias pci:", "the quick"}[r.IntN(4)], r.IntN(100000)*r.IntN(10))
			}
		}
	}
	return b.Bytes()[:n]
}

// command runs a program as a filter.
func command(t testing.TB, in []byte, argv ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		if os.Getenv("SLATE_TEST") == "all" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", argv, err)
	}
	return out
}

// roundTrip takes a file apart, puts it together and returns content and recipe.
func roundTrip(t testing.TB, packed []byte) (plain, recipe []byte) {
	t.Helper()
	var p, again, only bytes.Buffer
	recipe, err := repack.Unpack(bytes.NewReader(packed), int64(len(packed)), &p, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	plain = bytes.Clone(p.Bytes())
	if err := repack.Repack(recipe, &p, &again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), packed) {
		t.Fatalf("%d bytes came back as %d, or as others", len(packed), again.Len())
	}
	if err := repack.Plain(bytes.NewReader(packed), int64(len(packed)), &only); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(only.Bytes(), plain) {
		t.Fatal("Plain and Unpack differ in the content")
	}
	return plain, recipe
}

// encoders are programs and libraries, and what part of the packed size the
// recipe may have; 0: the encoder has ways of its own, and it is not worth one.
var encoders = []struct {
	name   string
	encode func(t testing.TB, in []byte) []byte
	most   float64
}{
	{"gzip 1", gnuGzip("-1"), 0.01},
	{"gzip 3", gnuGzip("-3"), 0.01},
	{"gzip 4", gnuGzip("-4"), 0.01},
	{"gzip", gnuGzip("-6"), 0.01},
	{"gzip 9", gnuGzip("-9"), 0.01},
	{"zlib", func(t testing.TB, in []byte) []byte {
		return command(t, in, "python3", "-c", "import sys,gzip;sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read()))")
	}, 0.01},
	{"go stored", goGzip(gzip.NoCompression), 0.01},
	{"go 6", goGzip(6), 0.5},
	{"go huffman", goGzip(gzip.HuffmanOnly), 0},
	{"klauspost 1", func(t testing.TB, in []byte) []byte {
		var b bytes.Buffer
		w, err := kgzip.NewWriterLevel(&b, 1)
		return write(t, in, &b, w, err)
	}, 0},
}

func gnuGzip(level string) func(testing.TB, []byte) []byte {
	return func(t testing.TB, in []byte) []byte { return command(t, in, "gzip", "-n", level) }
}

func goGzip(level int) func(testing.TB, []byte) []byte {
	return func(t testing.TB, in []byte) []byte {
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, level)
		return write(t, in, &b, w, err)
	}
}

func write(t testing.TB, in []byte, b *bytes.Buffer, w io.WriteCloser, err error) []byte {
	if err == nil {
		_, err = w.Write(in)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEveryEncoder(t *testing.T) {
	text := content(200_000)
	for _, e := range encoders {
		t.Run(e.name, func(t *testing.T) {
			for _, n := range []int{0, 1, 2, 3, 300, 33_000, len(text)} {
				packed := e.encode(t, text[:n])
				if e.most == 0 {
					// Of what is not worth it no more is made than need be.
					_, err := repack.Unpack(bytes.NewReader(packed), int64(len(packed)), io.Discard, len(packed)/4)
					if n > 1000 && !errors.Is(err, repack.ErrNone) {
						t.Errorf("%d bytes: Unpack = %v, want ErrNone", n, err)
					}
					continue
				}
				plain, recipe := roundTrip(t, packed)
				if !bytes.Contains(plain, text[:n]) {
					t.Fatalf("%d bytes: the content is not what was packed", n)
				}
				if most := int(e.most*float64(len(packed))) + 300; len(recipe) > most {
					t.Errorf("%d bytes, packed %d: recipe has %d, want at most %d", n, len(packed), len(recipe), most)
				}
			}
		})
	}
}

func TestSeveralMembersAndWhatIsAround(t *testing.T) {
	one, two := goGzip(6)(t, content(5000)), goGzip(9)(t, content(70_000))
	named := bytes.Clone(one[:10])
	named[3] = 2 | 4 | 8 | 16 // checksum of the header, extra field, name, comment
	named = append(named, "\x03\x00abcfile.txt\x00why\x00\x12\x34"...)
	named = append(named, one[10:]...)
	archive := append([]byte("070701"), make([]byte, 514)...)
	for name, packed := range map[string][]byte{
		"one":               one,
		"two":               append(bytes.Clone(one), two...),
		"rubbish behind":    append(bytes.Clone(two), "rubbish"...),
		"archive in front":  append(bytes.Clone(archive), two...),
		"name and comment":  named,
		"trailer is wrong":  append(bytes.Clone(one[:len(one)-8]), "somethin"...),
		"short end":         append(bytes.Clone(one), 0x1f, 0x8b, 8),
		"archive of 100 kB": append(append([]byte("070701"), make([]byte, 100_002)...), one...),
	} {
		t.Run(name, func(t *testing.T) { roundTrip(t, packed) })
	}
}

func TestNotOne(t *testing.T) {
	good := goGzip(6)(t, content(5000))
	broken := bytes.Clone(good)
	broken[10] |= 6 // a kind of block that there is not
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte("just some text, long enough"), "cut off": good[:len(good)/2], "no trailer": good[:len(good)-3],
		"broken": broken, "archive alone": append([]byte("070701"), make([]byte, 1000)...),
	} {
		if _, err := repack.Unpack(bytes.NewReader(data), int64(len(data)), io.Discard, 1<<20); !errors.Is(err, repack.ErrNone) {
			t.Errorf("%s: Unpack = %v, want ErrNone", name, err)
		}
	}
}

// FuzzUnpack takes anything apart, and puts together what could be.
func FuzzUnpack(f *testing.F) {
	f.Add(goGzip(6)(f, content(2000)))
	f.Add(goGzip(0)(f, content(300)))
	f.Add(goGzip(gzip.HuffmanOnly)(f, content(300)))
	f.Fuzz(func(t *testing.T, packed []byte) {
		var plain, again bytes.Buffer
		recipe, err := repack.Unpack(bytes.NewReader(packed), int64(len(packed)), &plain, 1<<20)
		if err != nil {
			return
		}
		// What was padded with ones, or coded in more bits than need be, comes out
		// otherwise; that is for who compares digests. Nothing else may.
		if err := repack.Repack(recipe, &plain, &again); err == nil && again.Len() != len(packed) {
			t.Errorf("%d bytes came back as %d", len(packed), again.Len())
		}
	})
}

// FuzzRepack follows any recipe.
func FuzzRepack(f *testing.F) {
	packed := goGzip(6)(f, content(2000))
	var plain bytes.Buffer
	recipe, err := repack.Unpack(bytes.NewReader(packed), int64(len(packed)), &plain, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(recipe, plain.Bytes())
	f.Fuzz(func(t *testing.T, recipe, plain []byte) {
		var out bytes.Buffer
		if err := repack.Repack(recipe, bytes.NewReader(plain), &out); err == nil && out.Len() > 8*(len(recipe)+len(plain))+64 {
			t.Errorf("%d bytes of recipe and %d of content became %d", len(recipe), len(plain), out.Len())
		}
	})
}

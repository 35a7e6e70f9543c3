// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// Stage is one archive of a mirror, as its signed listing names it.
type Stage struct {
	Path string // below autobuilds/: 20261123T014451Z/stage3-amd64-openrc-20261123T014451Z.tar.xz
	Size int64  // 0 if only its name is known
}

// Name is the file's name.
func (s Stage) Name() string { return path.Base(s.Path) }

// stageName matches an archive's file name: the variant, then the time stamp.
var stageName = regexp.MustCompile(`^([a-z0-9_.+-]+)-([0-9]{8}T[0-9]{6}Z)\.tar\.(xz|zst|bz2)$`)

var stampWord = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z$`)

// ParseLatest reads the text of a latest-*.txt file and returns the archive of
// the variant, "stage3-amd64-openrc". The names become paths here and URLs, so
// they have to look like archives.
func ParseLatest(text []byte, variant string) (Stage, error) {
	var others []string
	for line := range strings.SplitSeq(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		m := stageName.FindStringSubmatch(path.Base(f[0]))
		if m == nil || !fs.ValidPath(f[0]) || len(f) != 2 {
			return Stage{}, fmt.Errorf("listing: %q is no line of it", line)
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || size <= 0 {
			return Stage{}, fmt.Errorf("listing: %q: size %q", f[0], f[1])
		}
		if m[1] == variant {
			return Stage{Path: f[0], Size: size}, nil
		}
		others = append(others, m[1])
	}
	if len(others) > 0 {
		return Stage{}, fmt.Errorf("listing: no %s in it, only %s", variant, strings.Join(others, ", "))
	}
	return Stage{}, fmt.Errorf("listing: no %s in it", variant)
}

// Pinned is the archive of a variant with a given time stamp.
func Pinned(variant, stamp string) (Stage, error) {
	s := Stage{Path: stamp + "/" + variant + "-" + stamp + ".tar.xz"}
	if !stampWord.MatchString(stamp) || !stageName.MatchString(s.Name()) {
		return Stage{}, fmt.Errorf("stage %q of %q: want a time stamp such as 20261123T014451Z", variant, stamp)
	}
	return s, nil
}

// digests are the digests of one file, by algorithm.
type digests map[string][]byte

// algorithms are those that are good enough; SHA1 and WHIRLPOOL are passed over.
var algorithms = map[string]func() hash.Hash{
	"SHA512": sha512.New,
	"BLAKE2B": func() hash.Hash {
		h, err := blake2b.New512(nil)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		return h
	},
}

// parseDigests reads a DIGESTS file: "# SHA512 HASH" before lines of hash and
// file name. It returns those of the named file.
func parseDigests(text []byte, name string) (digests, error) {
	d := digests{}
	algorithm := ""
	for line := range strings.SplitSeq(string(text), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[0] == "#" && f[2] == "HASH":
			algorithm = f[1]
		case len(f) == 2 && f[1] == name && algorithms[algorithm] != nil:
			sum, err := hex.DecodeString(f[0])
			if err != nil || len(sum) != algorithms[algorithm]().Size() {
				return nil, fmt.Errorf("digests: %q is no %s", f[0], algorithm)
			}
			if old := d[algorithm]; old != nil && !bytes.Equal(old, sum) {
				return nil, fmt.Errorf("digests: two different %s of %s", algorithm, name)
			}
			d[algorithm] = sum
		}
	}
	if len(d) == 0 {
		return nil, fmt.Errorf("digests: none of %s in SHA512 or BLAKE2B", name)
	}
	return d, nil
}

// DigestError is a file that is not what was signed.
type DigestError struct{ Name, Algorithm string }

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s does not have the %s digest that was signed", e.Name, e.Algorithm)
}

// Hint says what to do about it.
func (e *DigestError) Hint() string {
	return "the download is damaged or forged and was removed; try again, or another mirror"
}

// check reads all of r and compares it with every digest.
func (d digests) check(name string, r io.Reader) error {
	sums := map[string]hash.Hash{}
	var ws []io.Writer
	for a := range d {
		sums[a] = algorithms[a]()
		ws = append(ws, sums[a])
	}
	if _, err := io.Copy(io.MultiWriter(ws...), r); err != nil {
		return err
	}
	for a, h := range sums {
		if !bytes.Equal(h.Sum(nil), d[a]) {
			return &DigestError{name, a}
		}
	}
	return nil
}

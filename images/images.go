// SPDX-License-Identifier: GPL-2.0-or-later

// Package images is the vocabulary of images: digests, references to versions,
// the record of a version, the history of a channel, and the signatures on
// what the appliance hands out. It reads no files except keys and knows
// nothing of where images are kept; package images/store does.
package images

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// A Digest is the SHA-256 of the bytes it names: a blob's content, or the text
// of a tree list.
type Digest [sha256.Size]byte

// String returns the digest as 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 digits of String, for people.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// IsZero reports whether d is the zero value, which no content has.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText is String; the zero digest is the empty text.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return []byte{}, nil
	}
	return hex.AppendEncode(nil, d[:]), nil
}

// UnmarshalText parses what MarshalText writes.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	p, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = p
	return nil
}

// ParseDigest parses 64 lower-case hexadecimal digits. Upper case is refused,
// so that one content has one name in paths and URLs.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != hex.EncodedLen(len(d)) || !isLowerHex(s) {
		return Digest{}, fmt.Errorf("digest %q: want 64 lower-case hexadecimal digits", s)
	}
	_, err := hex.Decode(d[:], []byte(s))
	return d, err
}

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// A Blob names the stored content of a file.
type Blob struct {
	Digest Digest `toml:"digest" json:"digest"`
	Size   int64  `toml:"size" json:"size"`
}

// A Ref is what a person writes to name a version. At most one of Channel,
// Number and Digest is set; with none it means the image's newest version.
type Ref struct {
	Name    string
	Channel string
	Number  int
	Digest  string // at least 6 leading hexadecimal digits of the tree digest
}

const minDigestPrefix = 6

// ParseRef parses demo, demo@stable, demo/3 and demo/ab12cd…. After the slash,
// digits only are a version number unless all 64 are there; anything else is
// the beginning of the tree digest.
func ParseRef(s string) (Ref, error) {
	name, rest, sep := s, "", byte(0)
	if i := strings.IndexAny(s, "@/"); i >= 0 {
		name, sep, rest = s[:i], s[i], s[i+1:]
	}
	if err := CheckName(name); err != nil {
		return Ref{}, fmt.Errorf("reference %q: %w", s, err)
	}
	r := Ref{Name: name}
	switch sep {
	case '@':
		if err := CheckChannel(rest); err != nil {
			return Ref{}, fmt.Errorf("reference %q: %w", s, err)
		}
		r.Channel = rest
	case '/':
		if n, err := strconv.ParseUint(rest, 10, 31); err == nil && n > 0 && rest[0] != '0' {
			r.Number = int(n)
			break
		}
		if len(rest) < minDigestPrefix || len(rest) > 2*sha256.Size || !isLowerHex(rest) {
			return Ref{}, fmt.Errorf("reference %q: after the slash comes a version number, or at least %d digits of a digest", s, minDigestPrefix)
		}
		r.Digest = rest
	}
	return r, nil
}

// String returns the form that ParseRef reads.
func (r Ref) String() string {
	switch {
	case r.Channel != "":
		return r.Name + "@" + r.Channel
	case r.Number != 0:
		return r.Name + "/" + strconv.Itoa(r.Number)
	case r.Digest != "":
		return r.Name + "/" + r.Digest
	}
	return r.Name
}

const maxName = 64

// CheckName says why s cannot name an image, or returns nil. Names become
// directories, parts of export paths and of URLs, so they are kept plain.
func CheckName(s string) error { return checkWord("image name", s) }

// CheckChannel says why s cannot name a channel, or returns nil.
func CheckChannel(s string) error { return checkWord("channel", s) }

func checkWord(what, s string) error {
	if s == "" {
		return fmt.Errorf("%s is empty", what)
	}
	if len(s) > maxName {
		return fmt.Errorf("%s %q is longer than %d bytes", what, s, maxName)
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return fmt.Errorf("%s %q: want lower-case letters, digits and, after the first, . _ -", what, s)
		}
	}
	return nil
}

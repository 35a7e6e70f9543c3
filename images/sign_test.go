// SPDX-License-Identifier: GPL-2.0-or-later

package images_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slate/images"
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVerify(t *testing.T) {
	key, other := newKey(t), newKey(t)
	pub := key.Public().(ed25519.PublicKey)
	otherPub := other.Public().(ed25519.PublicKey)
	text := []byte("name = \"demo\"\n")
	sig := images.Sign(key, images.PurposeRecord, text)

	both := []ed25519.PublicKey{otherPub, pub}
	if err := images.Verify(both, images.PurposeRecord, text, sig); err != nil {
		t.Fatalf("Verify of a good signature: %v", err)
	}
	flipped := bytes.Clone(sig)
	flipped[len(flipped)-20] ^= 1
	for name, tt := range map[string]struct {
		keys    []ed25519.PublicKey
		purpose string
		text    []byte
		sig     []byte
		want    string
	}{
		"altered text":      {both, images.PurposeRecord, append(bytes.Clone(text), ' '), sig, "altered"},
		"altered signature": {both, images.PurposeRecord, text, flipped, "signature"},
		"foreign key":       {[]ed25519.PublicKey{otherPub}, images.PurposeRecord, text, sig, "not trusted"},
		"no key":            {nil, images.PurposeRecord, text, sig, "not trusted"},
		"other purpose":     {both, images.PurposeBundle, text, sig, "made for a record"},
		"purpose rewritten": {both, images.PurposeBundle, text, bytes.Replace(sig, []byte("record"), []byte("bundle"), 1), "altered"},
		"key id rewritten":  {both, images.PurposeRecord, text, bytes.Replace(sig, []byte(images.KeyID(pub)), []byte(images.KeyID(otherPub)), 1), "altered"},
		"garbage":           {both, images.PurposeRecord, text, []byte("hello"), "form"},
		"huge":              {both, images.PurposeRecord, text, bytes.Repeat([]byte("a "), 5000), "form"},
	} {
		err := images.Verify(tt.keys, tt.purpose, tt.text, tt.sig)
		var se *images.SignatureError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Verify = %v, want a SignatureError with %q", name, err, tt.want)
		}
	}
	if err := images.Verify(both, images.PurposeRecord, text, nil); !errors.Is(err, images.ErrUnsigned) {
		t.Errorf("Verify without signature = %v, want ErrUnsigned", err)
	}
}

func TestKeyFiles(t *testing.T) {
	key := newKey(t)
	path := filepath.Join(t.TempDir(), "site.key")
	if err := images.WriteKey(path, key); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key file: mode %v, %v, want 0600", fi.Mode(), err)
	}
	if err := images.WriteKey(path, newKey(t)); !errors.Is(err, os.ErrExist) {
		t.Errorf("WriteKey over a key = %v, want ErrExist", err)
	}
	got, err := images.LoadKey(path)
	if err != nil || !got.Equal(key) {
		t.Errorf("LoadKey = %v, want the key written", err)
	}
	pubPath := path + ".pub"
	if err := images.WritePublicKey(pubPath, key); err != nil {
		t.Fatal(err)
	}
	pubs, err := images.LoadPublicKeys(pubPath)
	if err != nil || len(pubs) != 1 || !pubs[0].Equal(key.Public()) {
		t.Errorf("LoadPublicKeys = %v, %v, want the key written", pubs, err)
	}
	if _, err := images.LoadKey(pubPath); err == nil {
		t.Error("LoadKey of a public key: no error")
	}
}

func TestParsePublicKeys(t *testing.T) {
	one := string(images.FormatPublicKey(newKey(t)))
	two := "# old\n\n" + strings.TrimSpace(one) + " room 12\n" + one
	if keys, err := images.ParsePublicKeys([]byte(two)); err != nil || len(keys) != 2 {
		t.Errorf("ParsePublicKeys(%q) = %d keys, %v, want 2", two, len(keys), err)
	}
	for _, bad := range []string{"", "# nothing\n", "AAAA\n", "not base64!\n", one[1:]} {
		if _, err := images.ParsePublicKeys([]byte(bad)); err == nil {
			t.Errorf("ParsePublicKeys(%q): no error", bad)
		}
	}
}

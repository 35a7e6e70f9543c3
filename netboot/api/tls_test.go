// SPDX-License-Identifier: GPL-2.0-or-later

package api_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"slate/images"
	"slate/netboot/api"
)

func TestSecuredIsSigned(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := api.Secured{Port: 8443, Pin: api.Pin{1, 2, 3}}
	text := want.Sign(key)
	if got, err := api.OpenSecured([]ed25519.PublicKey{pub}, text); err != nil || got != want {
		t.Errorf("OpenSecured = %+v, %v, want %+v", got, err, want)
	}
	sign := func(line string) string { return line + string(images.Sign(key, images.PurposeTLS, []byte(line))) }
	for name, bad := range map[string]string{
		"empty":         "",
		"cut":           string(text[:40]),
		"unsigned":      string(text[:strings.IndexByte(string(text), '\n')+1]),
		"other port":    strings.Replace(string(text), "8443", "8444", 1),
		"other purpose": "slate-https 1 x\n" + string(images.Sign(key, images.PurposeRecord, []byte("slate-https 1 x\n"))),
		"no port":       sign("slate-https 0 " + want.Pin.String() + "\n"),
		"short pin":     sign("slate-https 1 sha256//AQID\n"),
		"bare pin":      sign("slate-https 1 " + strings.TrimPrefix(want.Pin.String(), "sha256//") + "\n"),
		"other word":    sign("slate-http 1 " + want.Pin.String() + "\n"),
	} {
		if got, err := api.OpenSecured([]ed25519.PublicKey{pub}, []byte(bad)); err == nil {
			t.Errorf("%s: taken as %+v", name, got)
		}
	}
}

func FuzzOpenSecured(f *testing.F) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(api.Secured{Port: 1}.Sign(key))
	f.Fuzz(func(t *testing.T, b []byte) {
		line, _, _ := bytes.Cut(b, []byte("\n"))
		if s, err := api.OpenSecured([]ed25519.PublicKey{pub}, b); err == nil && !bytes.HasPrefix(s.Sign(key), line) {
			t.Errorf("%q was taken, and would be written as %q", b, s.Sign(key))
		}
	})
}

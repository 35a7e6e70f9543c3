// SPDX-License-Identifier: GPL-2.0-or-later

package config_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slate/images"
	"slate/netboot/config"
)

func newKey(t *testing.T) (ed25519.PrivateKey, []ed25519.PublicKey) {
	t.Helper()
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key, []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}
}

var bundled = map[string]string{
	"system/boot.conf": "timeout = 4\n", "system/cboot.conf": "mode = \"diskless\"\n",
	"groups/room/system/boot.conf": "choice = \"shell\"\n", "groups/other/system/boot.conf": "choice = \"reboot\"\n",
	"nodes/pc1/system/etc.conf": "[[file]]\npath = \"/etc/motd\"\nfrom = \"files/motd\"\n", "nodes/pc2/system/etc.conf": "timezone = \"UTC\"\n",
	"groups/room/files/motd": "hello\n", "files/motd": "site\n", "files/secret": "not for pc1",
	"controller/services/default-runlevel": "ssh\n",
}

func TestBundleMergesAsTheApplianceDoes(t *testing.T) {
	s, err := config.Load(site(bundled))
	if err != nil {
		t.Fatal(err)
	}
	scope := config.Scope{Node: "pc1", Groups: []string{"room"}, Set: config.Set{Image: "lab@testing"}}
	key, pub := newKey(t)
	b := s.Bundle(scope)
	b.Revision = 7
	data := b.Sign(key)
	if !bytes.Equal(data, b.Sign(key)) {
		t.Error("the same bundle twice differs")
	}
	got, err := config.OpenBundle(pub, data)
	if err != nil {
		t.Fatal(err)
	}
	if got.Revision != 7 || got.Node != "pc1" || got.Digest() != s.Bundle(scope).Digest() {
		t.Errorf("OpenBundle() = %+v", got)
	}
	n, err := got.Config()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(explain(s.For(scope), ""), explain(n, "")); diff != "" {
		t.Errorf("the node sees another configuration (-appliance +node):\n%s", diff)
	}
	if string(n.Etc.File[0].Content()) != "hello\n" {
		t.Errorf("the file has %q", n.Etc.File[0].Content())
	}
	for name := range got.Files {
		if strings.Contains(name, "other") || strings.Contains(name, "pc2") || strings.Contains(name, "secret") {
			t.Errorf("the bundle of pc1 has %s", name)
		}
	}
	if d := s.Bundle(config.Scope{Node: "pc1"}).Digest(); d == got.Digest() {
		t.Error("another scope, the same digest")
	}
}

func TestBundleIsRefused(t *testing.T) {
	s, err := config.Load(site(bundled))
	if err != nil {
		t.Fatal(err)
	}
	key, pub := newKey(t)
	other, _ := newKey(t)
	b := s.Bundle(config.Scope{Node: "pc1"})
	good := b.Sign(key)
	sig, text, _ := bytes.Cut(good, []byte("\n"))
	bad := b
	bad.Format = 2
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"altered", bytes.Replace(good, []byte(`"node":"pc1"`), []byte(`"node":"pc2"`), 1), "was altered"},
		{"unsigned", text, "not signed"},
		{"another key", b.Sign(other), "not trusted here"},
		{"for something else", append(images.Sign(key, images.PurposeRecord, text), text...), "made for a record"},
		{"empty", nil, "not signed"},
		{"cut", good[:len(good)-3], "was altered"},
		{"signature only", sig, "was altered"},
		{"a later form", bad.Sign(key), "its form is 2"},
	} {
		if _, err := config.OpenBundle(pub, c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: OpenBundle error = %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := config.OpenBundle(pub, text); !errors.Is(err, images.ErrUnsigned) {
		t.Errorf("unsigned: %v", err)
	}
	for name, text := range map[string]string{"system/nothing.conf": "", "system/boot.conf": "mode = 3"} {
		b := s.Bundle(config.Scope{Node: "pc1"})
		b.Files[name] = []byte(text)
		if _, err := b.Config(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a bundle with a bad %s: %v", name, err)
		}
	}
}

func TestNextRevisionGrows(t *testing.T) {
	now := time.Unix(1000, 0)
	for last, want := range map[int64]int64{0: 1000, 999: 1000, 1000: 1001, 5000: 5001} {
		if got := config.NextRevision(last, now); got != want {
			t.Errorf("NextRevision(%d) = %d, want %d", last, got, want)
		}
	}
}

func FuzzOpenBundle(f *testing.F) {
	key, err := images.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	pub := []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}
	f.Add([]byte(`{"format":1,"node":"x","files":{"system/boot.conf":"bW9kZSA9IDE="}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = config.OpenBundle(pub, text)
		b, err := config.OpenBundle(pub, append(images.Sign(key, images.PurposeBundle, text), text...))
		if err == nil {
			_, _ = b.Config()
		}
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package conf_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"slate/images"
	"slate/installer/conf"
	"slate/netboot/config"
)

// bundle makes a bundle of a site whose time-out of the chooser is given.
func bundle(t *testing.T, key ed25519.PrivateKey, node string, revision int64, timeout string) []byte {
	t.Helper()
	s, err := config.Load(fstest.MapFS{"system/boot.conf": {Data: []byte("timeout = " + timeout + "\n")}})
	if err != nil {
		t.Fatal(err)
	}
	b := s.Bundle(config.Scope{Node: node})
	b.Revision = revision
	return b.Sign(key)
}

func TestChoose(t *testing.T) {
	key, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := images.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	good := bundle(t, key, "pc1", 20, "20")
	kept := bundle(t, key, "pc1", 10, "11")
	silent := errors.New("nobody answers")
	for _, c := range []struct {
		name          string
		fetched, kept []byte
		err           error
		from          string
		timeout       int
		keep          bool
		refused       string
		unusable      string
	}{
		{name: "first time", fetched: good, from: conf.FromAppliance, timeout: 20, keep: true},
		{name: "newer", fetched: good, kept: kept, from: conf.FromAppliance, timeout: 20, keep: true},
		{name: "the same again", fetched: good, kept: good, from: conf.FromAppliance, timeout: 20},
		{name: "nobody answers", kept: kept, err: silent, from: conf.FromKept, timeout: 11},
		{name: "nobody ever answered", err: silent, from: conf.FromDefaults, timeout: 10},
		{name: "older", fetched: kept, kept: good, from: conf.FromKept, timeout: 20, refused: "its revision is 10, older than 20"},
		{name: "older, the same content", fetched: bundle(t, key, "pc1", 15, "20"), kept: good, from: conf.FromKept, timeout: 20},
		{name: "two of one revision", fetched: bundle(t, key, "pc1", 20, "30"), kept: good, from: conf.FromKept, timeout: 20, refused: "as that of another one"},
		{name: "altered", fetched: bytes.Replace(good, []byte(`"revision":20`), []byte(`"revision":99`), 1), kept: kept, from: conf.FromKept, timeout: 11, refused: "was altered"},
		{name: "altered, nothing kept", fetched: append(bytes.Clone(good), ' '), from: conf.FromDefaults, timeout: 10, refused: "was altered"},
		{name: "unsigned", fetched: good[bytes.IndexByte(good, '\n')+1:], kept: kept, from: conf.FromKept, timeout: 11, refused: "not signed"},
		{name: "another site's", fetched: bundle(t, other, "pc1", 30, "30"), kept: kept, from: conf.FromKept, timeout: 11, refused: "not trusted here"},
		{name: "another node's", fetched: bundle(t, key, "pc2", 30, "30"), kept: kept, from: conf.FromKept, timeout: 11, refused: `it is for the node "pc2"`},
		{name: "empty", fetched: []byte{}, kept: kept, from: conf.FromKept, timeout: 11, refused: "not signed"},
		{name: "the kept one is damaged", fetched: good, kept: kept[:40], from: conf.FromAppliance, timeout: 20, keep: true, unusable: "signature"},
		{name: "the disk is another node's", err: silent, kept: bundle(t, key, "pc9", 5, "5"), from: conf.FromDefaults, timeout: 10, unusable: `it is for the node "pc9"`},
		{name: "looked at without asking", kept: kept, from: conf.FromKept, timeout: 11},
		{name: "another node's disk, looked at without asking", kept: bundle(t, key, "pc9", 5, "5"), from: conf.FromDefaults, timeout: 10, unusable: `it is for the node "pc9"`},
		{name: "damaged, looked at without asking", kept: kept[:40], from: conf.FromDefaults, timeout: 10, unusable: "signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := conf.Choose(conf.Facts{Keys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, Node: "pc1", Fetched: c.fetched, FetchErr: c.err, Kept: c.kept})
			if got.From != c.from || got.Config.Boot.Timeout != c.timeout || got.Keep != c.keep {
				t.Errorf("Choose() = %s, timeout %d, keep %v; want %s, %d, %v", got.From, got.Config.Boot.Timeout, got.Keep, c.from, c.timeout, c.keep)
			}
			for what, pair := range map[string]struct {
				err  error
				want string
			}{"Refused": {got.Refused, c.refused}, "Unusable": {got.Unusable, c.unusable}} {
				if (pair.err != nil) != (pair.want != "") || pair.err != nil && !strings.Contains(pair.err.Error(), pair.want) {
					t.Errorf("%s = %v, want %q", what, pair.err, pair.want)
				}
			}
		})
	}
}

func TestStore(t *testing.T) {
	s := conf.Store{Dir: t.TempDir() + "/slate/config"}
	if data, err := s.Load(); data != nil || err != nil {
		t.Errorf("Load() of nothing = %q, %v", data, err)
	}
	for _, text := range []string{"one", "two"} {
		if err := s.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if data, err := s.Load(); string(data) != text || err != nil {
			t.Errorf("Load() = %q, %v, want %q", data, err, text)
		}
	}
	if entries, err := os.ReadDir(s.Dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	if err := (conf.Store{}).Save([]byte("x")); err != nil {
		t.Error(err)
	}
}

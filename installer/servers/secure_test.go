// SPDX-License-Identifier: GPL-2.0-or-later

package servers_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"slate/images"
	"slate/installer/servers"
	"slate/netboot/api"
)

// The configuration comes by TLS from the key that the site vouches for, or not at all.
func TestConfigComesByTLS(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	secret := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "of ", r.URL.Path) }))
	defer secret.Close()
	u, err := url.Parse(secret.URL)
	if err != nil {
		t.Fatal(err)
	}
	var port int
	fmt.Sscan(u.Port(), &port)
	cert, err := x509.ParseCertificate(secret.TLS.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	_, strange, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	good := api.Secured{Port: port, Pin: api.PinOf(cert)}
	for _, c := range []struct {
		name string
		text []byte
		want string // in the error; "": none
	}{
		{"good", good.Sign(key), ""},
		{"of another site", good.Sign(strange), "not trusted here"},
		{"another key", api.Secured{Port: port, Pin: api.Pin{1}}.Sign(key), "not the pinned"},
		{"unsigned", fmt.Appendf(nil, "slate-https %d %s\n", port, good.Pin), "not signed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != api.PathTLS {
					t.Errorf("asked for %s over plain HTTP", r.URL.Path)
				}
				w.Write(c.text)
			}))
			defer plain.Close()
			u, err := url.Parse(plain.URL)
			if err != nil {
				t.Fatal(err)
			}
			data, err := servers.Client{Server: u, Boot: "b1"}.Config(context.Background(), []ed25519.PublicKey{pub}, 1000)
			if c.want == "" {
				if err != nil || string(data) != "of /api/v1/boots/b1/config" {
					t.Errorf("Config = %q, %v", data, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Config = %q, %v, want %q", data, err, c.want)
			}
			var se *images.SignatureError
			if forged := errors.As(err, &se) || errors.Is(err, images.ErrUnsigned); forged != (c.name == "of another site" || c.name == "unsigned") {
				t.Errorf("counts as forged: %v", forged)
			}
		})
	}
}

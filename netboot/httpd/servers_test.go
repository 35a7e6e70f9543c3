// SPDX-License-Identifier: GPL-2.0-or-later

package httpd_test

import (
	"net/http"
	"strings"
	"testing"

	"slate/netboot/api"
)

func TestLoadAndHello(t *testing.T) {
	f := newFixture(t)
	const nonce = "0123456789abcdef"
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"load", "GET", "/api/v1/load?nonce=" + nonce, "", 200, `{"nonce":"` + nonce + `","nfsPort":2049,"has":false,"cpu":0,"loading":0,"waiting":3,"limit":0,"sent":0,"speed":0}`},
		{"has the tree", "GET", "/api/v1/load?nonce=" + nonce + "&tree=" + kernel.String(), "", 200, `"has":true`},
		{"no nonce", "GET", "/api/v1/load", "", 400, "nonce: want 16 to 64"},
		{"odd nonce", "GET", "/api/v1/load?nonce=" + nonce + "%0a", "", 400, "nonce: want"},
		{"odd tree", "GET", "/api/v1/load?nonce=" + nonce + "&tree=x", "", 400, "tree: "},
		{"hello", "POST", "/api/v1/hello", `{"mac":"52-54-00-AB-cd-ef","from":"medium"}`, 200, `{"node":"node of 52:54:00:ab:cd:ef at 127.0.0.1","boot":"b7","words":["slate.node=x"]}`},
		{"hello of nobody", "POST", "/api/v1/hello", `{}`, 400, "no MAC address"},
		{"hello of nonsense", "POST", "/api/v1/hello", `{"mac":"me"}`, 400, "invalid MAC address"},
		{"long hello", "POST", "/api/v1/hello", `{"mac":"52:54:00:ab:cd:ef","from":"` + strings.Repeat("x", 200) + `"}`, 400, "over the limit"},
		{"huge hello", "POST", "/api/v1/hello", `{"mac":"` + strings.Repeat("x", 10000) + `"}`, 413, "longer than 4096"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := f.do(t, c.method, c.path, c.body)
			if resp.StatusCode != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%s %s = %d %q, want %d %q", c.method, c.path, resp.StatusCode, body, c.status, c.want)
			}
			if signed := resp.Header.Get(api.SignatureHeader); c.status == http.StatusOK && c.method == "GET" && signed != "load signed" {
				t.Errorf("signature = %q", signed)
			}
		})
	}
}

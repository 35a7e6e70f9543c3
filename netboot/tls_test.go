// SPDX-License-Identifier: GPL-2.0-or-later

package netboot_test

import (
	"crypto/ed25519"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"slate/images"
	"slate/netboot"
	"slate/netboot/api"
	"slate/testbed/labtest"
)

// The appliance serves TLS with a key that the site key vouches for: our client
// speaks to it and to nobody else, and so does curl with the same pin.
func TestTLSIsPinnedByTheSiteKey(t *testing.T) {
	s := newAppliance(t)
	stop := start(t, s)
	const base = "http://" + labAddr + ":8070"
	keys, err := images.LoadPublicKeys(s.Settings.Key + netboot.PublicKeySuffix)
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.Secure(t.Context(), base, keys)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := c.Status(t.Context()); err != nil || len(st.Images) != 1 || c.Base != "https://"+labAddr+":8443" {
		t.Errorf("status from %s: %+v, %v", c.Base, st, err)
	}
	pin := pinOf(t, base, keys)
	t.Run("curl", func(t *testing.T) {
		labtest.Need(t, "curl")
		_, cert := netboot.TLSFiles(s.Settings.Key)
		for _, trust := range [][]string{{"--insecure"}, {"--cacert", cert}} {
			out, err := exec.Command("curl", append(trust, "-sS", "--pinnedpubkey", pin, "https://"+labAddr+":8443"+api.PathStatus)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), `"demo@stable = demo/1"`) {
				t.Errorf("curl %v: %v\n%s", trust, err, out)
			}
		}
		if out, err := exec.Command("curl", "--insecure", "-sS", "--pinnedpubkey", api.Pin{1}.String(), "https://"+labAddr+":8443"+api.PathStatus).CombinedOutput(); err == nil {
			t.Errorf("curl with another pin succeeds:\n%s", out)
		}
	})

	// Somebody else's TLS on the way: the name and address are right, the key is not.
	other := httptest.NewTLSServer(http.NotFoundHandler())
	defer other.Close()
	mitm := *c
	mitm.Base = other.URL
	if _, err := mitm.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "not the pinned") {
		t.Errorf("a server with another key: %v", err)
	}
	stranger, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Secure(t.Context(), base, []ed25519.PublicKey{stranger}); err == nil || !strings.Contains(err.Error(), "not trusted here") {
		t.Errorf("an appliance of another site: %v", err)
	}

	// The pin outlives restarts and a certificate that is made anew.
	stop()
	_, cert := netboot.TLSFiles(s.Settings.Key)
	before, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	start(t, &netboot.Server{Settings: s.Settings})
	after, err := os.ReadFile(cert)
	if err != nil || string(after) == string(before) {
		t.Errorf("no new certificate: %v", err)
	}
	if again := pinOf(t, base, keys); again != pin {
		t.Errorf("the pin was %s and is %s", pin, again)
	}
	key, _ := netboot.TLSFiles(s.Settings.Key)
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v", info.Mode(), err)
	}
}

func pinOf(t *testing.T, base string, keys []ed25519.PublicKey) string {
	t.Helper()
	resp, err := http.Get(base + api.PathTLS)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 4096)
	n, _ := resp.Body.Read(b)
	s, err := api.OpenSecured(keys, b[:n])
	if err != nil {
		t.Fatal(err)
	}
	return s.Pin.String()
}

// Without the private site key an appliance serves TLS, but cannot vouch for it; a
// certificate of the admin's own, of another kind of key, is taken as it is.
func TestTLSWithoutTheSiteKeyAndWithAnotherCertificate(t *testing.T) {
	s := newAppliance(t)
	labtest.Need(t, "openssl", "curl")
	key, cert := netboot.TLSFiles(s.Settings.Key)
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mine", "-keyout", key, "-out", cert).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Remove(s.Settings.Key); err != nil {
		t.Fatal(err)
	}
	start(t, s)
	out, err = exec.Command("curl", "-sS", "--insecure", "-v", "https://"+labAddr+":8443"+api.PathTLS).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "CN=mine") || !strings.Contains(string(out), "cannot vouch for its TLS") {
		t.Errorf("curl: %v\n%s", err, out)
	}
}

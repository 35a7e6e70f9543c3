// SPDX-License-Identifier: GPL-2.0-or-later

package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"slate/images"
)

// Pin is the SHA-256 of a certificate's public key (its SubjectPublicKeyInfo, RFC
// 7469 section 2.4). Certificates come and go; who knows the pin needs no authority
// and no right clock.
type Pin [sha256.Size]byte

// PinOf is the pin of a certificate.
func PinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

const pinPrefix = "sha256//"

// String returns the pin as curl --pinnedpubkey takes it.
func (p Pin) String() string { return pinPrefix + base64.StdEncoding.EncodeToString(p[:]) }

// TLS accepts a server with the pinned key, and no other.
func (p Pin) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // by authority and name; the key is checked instead
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := PinOf(s.PeerCertificates[0]); got != p {
				return fmt.Errorf("the server has the key %s, not the pinned %s: it is not the appliance that this site's key vouches for", got, p)
			}
			return nil
		},
	}
}

// Secured is where an appliance serves TLS, and with which key.
type Secured struct {
	Port int
	Pin  Pin
}

// securedWord starts the text of a Secured.
const securedWord = "slate-https"

// Sign writes it as text with the site key's signature on a second line.
func (s Secured) Sign(key ed25519.PrivateKey) []byte {
	text := fmt.Appendf(nil, "%s %d %s\n", securedWord, s.Port, s.Pin)
	return append(text, images.Sign(key, images.PurposeTLS, text)...)
}

// OpenSecured reads what Sign wrote, if one of the keys has signed it.
func OpenSecured(keys []ed25519.PublicKey, data []byte) (Secured, error) {
	var s Secured
	end := bytes.IndexByte(data, '\n') + 1
	if err := images.Verify(keys, images.PurposeTLS, data[:end], data[end:]); err != nil {
		return s, err
	}
	f := strings.Fields(string(data[:end]))
	bad := errors.New("not in the form that slate writes")
	if len(f) != 3 || f[0] != securedWord {
		return s, bad
	}
	var err error
	if s.Port, err = strconv.Atoi(f[1]); err != nil || s.Port < 1 || s.Port > 65535 {
		return s, bad
	}
	digits, ok := strings.CutPrefix(f[2], pinPrefix)
	raw, err := base64.StdEncoding.Strict().DecodeString(digits)
	if !ok || err != nil || len(raw) != len(s.Pin) {
		return s, bad
	}
	s.Pin = Pin(raw)
	return s, nil
}

// secureTime bounds each try to reach an appliance by TLS.
const secureTime = 10 * time.Second

// Secure asks the appliance at base, a URL of plain HTTP, where it serves TLS and
// with which key, and returns a client that speaks to nobody else. keys are the
// site's: what they have not signed is refused, whoever answered.
func Secure(ctx context.Context, base string, keys []ed25519.PublicKey) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	ask := &Client{Base: base, HTTP: &http.Client{Timeout: secureTime}}
	resp, err := ask.send(ctx, http.MethodGet, PathTLS, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return nil, err
	}
	s, err := OpenSecured(keys, data)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", base, PathTLS, err)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy, t.TLSClientConfig, t.TLSHandshakeTimeout = nil, s.Pin.TLS(), secureTime
	return &Client{
		Base: "https://" + net.JoinHostPort(u.Hostname(), strconv.Itoa(s.Port)),
		HTTP: &http.Client{Transport: t},
	}, nil
}

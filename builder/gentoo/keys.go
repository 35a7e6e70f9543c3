// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"slate/builder/fetch"
	"slate/images/durable"
)

// Reason says why a signature was not accepted.
type Reason uint8

// The reasons.
const (
	Unsigned Reason = iota + 1 // there is no signature
	WrongKey                   // made by a key that is not trusted
	Expired                    // the key or the signature has expired
	Broken                     // it does not fit the text
)

func (r Reason) String() string {
	switch r {
	case Unsigned:
		return "is not signed"
	case WrongKey:
		return "is signed by a key that is not trusted"
	case Expired:
		return "is signed with a key or signature that has expired"
	case Broken:
		return "does not match its signature"
	}
	return "unknown"
}

// SignatureError is a file whose signature was not accepted.
type SignatureError struct {
	What   string // the file
	Reason Reason
	Err    error // what the library says; may be nil
}

func (e *SignatureError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s %s", e.What, e.Reason)
	}
	return fmt.Sprintf("%s %s: %v", e.What, e.Reason, e.Err)
}

func (e *SignatureError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *SignatureError) Hint() string {
	switch e.Reason {
	case Unsigned, Broken:
		return "the mirror, or somebody on the way, does not hand out what Gentoo signed: try another mirror"
	case WrongKey:
		return "compare the fingerprint with https://www.gentoo.org/downloads/signatures/ before you trust the key"
	case Expired:
		return "get Gentoo's keys anew: expiry dates are extended each year; and look at this machine's clock"
	}
	return ""
}

// Keys are the keys that are trusted.
type Keys struct {
	ring openpgp.EntityList
	now  func() time.Time
}

// LoadKeys reads the keys from a file, or from a URL whose answer is kept in the
// directory cache. It asks again if a key is not among those kept, or fresh is
// wanted because one has expired. Where keys come from does not matter: what
// counts is their fingerprint.
func LoadKeys(ctx context.Context, where string, fingerprints []string, cache string, fresh bool, o fetch.Options) (*Keys, error) {
	if !strings.HasPrefix(where, "http://") && !strings.HasPrefix(where, "https://") {
		f, err := os.Open(where)
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		defer f.Close()
		return ReadKeys(f, fingerprints)
	}
	sum := sha256.Sum256([]byte(where))
	kept := filepath.Join(cache, fmt.Sprintf("keys-%x.gpg", sum[:6]))
	if data, err := os.ReadFile(kept); err == nil && !fresh {
		if k, err := ReadKeys(bytes.NewReader(data), fingerprints); err == nil {
			return k, nil
		}
	}
	data, err := fetch.Bytes(ctx, where, o)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	k, err := ReadKeys(bytes.NewReader(data), fingerprints)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if err := durable.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	return k, durable.WriteFile(kept, data, 0o644)
}

// ReadKeys reads keys, armoured or not, and keeps those with one of the
// fingerprints: 40 hexadecimal digits, spaces allowed. A key file comes from
// where the archives come from, so it alone proves nothing.
func ReadKeys(r io.Reader, fingerprints []string) (*Keys, error) {
	if len(fingerprints) == 0 {
		return nil, errors.New("keys: no fingerprint is named as trusted")
	}
	data, err := io.ReadAll(io.LimitReader(r, 16<<20))
	if err != nil {
		return nil, err
	}
	var all openpgp.EntityList
	if bytes.Contains(data, []byte("-----BEGIN PGP")) {
		all, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	} else {
		all, err = openpgp.ReadKeyRing(bytes.NewReader(data))
	}
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	k := &Keys{now: time.Now}
	for _, f := range fingerprints {
		want := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(f, "0x"), " ", ""))
		if len(want) != 40 {
			return nil, fmt.Errorf("fingerprint %q: want 40 hexadecimal digits; shorter ones can be forged", f)
		}
		found := false
		for _, e := range all {
			if fmt.Sprintf("%x", e.PrimaryKey.Fingerprint) == want {
				k.ring = append(k.ring, e)
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("keys: no key with the fingerprint %s", want)
		}
	}
	return k, nil
}

func (k *Keys) config() *packet.Config { return &packet.Config{Time: k.now} }

// ClearSigned returns the text of a clear-signed file, after checking its
// signature. What stands outside the signed part is not returned.
func (k *Keys) ClearSigned(what string, data []byte) ([]byte, error) {
	block, rest := clearsign.Decode(data)
	if block == nil {
		return nil, &SignatureError{what, Unsigned, nil}
	}
	// A second message behind the first would be read by nobody but an attacker.
	if more, _ := clearsign.Decode(rest); more != nil {
		return nil, &SignatureError{what, Broken, errors.New("more than one signed message")}
	}
	if _, err := block.VerifySignature(k.ring, k.config()); err != nil {
		return nil, signatureError(what, err)
	}
	return block.Plaintext, nil
}

// Detached checks a file against its detached signature, armoured or not.
func (k *Keys) Detached(what string, signed io.Reader, signature []byte) error {
	if len(bytes.TrimSpace(signature)) == 0 {
		return &SignatureError{what, Unsigned, nil}
	}
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(signature), []byte("-----BEGIN PGP")) {
		_, err = openpgp.CheckArmoredDetachedSignature(k.ring, signed, bytes.NewReader(signature), k.config())
	} else {
		_, err = openpgp.CheckDetachedSignature(k.ring, signed, bytes.NewReader(signature), k.config())
	}
	if err != nil {
		return signatureError(what, err)
	}
	return nil
}

func signatureError(what string, err error) error {
	reason := Broken
	switch {
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		reason = WrongKey
	case errors.Is(err, pgperrors.ErrKeyExpired), errors.Is(err, pgperrors.ErrSignatureExpired):
		reason = Expired
	}
	return &SignatureError{what, reason, err}
}

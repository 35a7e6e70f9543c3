// SPDX-License-Identifier: GPL-2.0-or-later

package images

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// What a signature is over. The purpose is part of the signed bytes, so that a
// signature on one kind of text cannot be passed off as one on another.
const (
	PurposeRecord = "record" // a version's record
	PurposeBundle = "bundle" // a bundle of config.d
	PurposeTLS    = "tls"    // the key of an appliance's TLS
	// PurposeAssigned is for the version that a node is to run.
	PurposeAssigned = "assigned"
)

// ErrUnsigned says that there is no signature at all.
var ErrUnsigned = errors.New("not signed")

// A SignatureError says why a signature is not accepted.
type SignatureError struct {
	Reason string
	hint   string
}

func (e *SignatureError) Error() string { return "signature: " + e.Reason }

// Hint says what to look at.
func (e *SignatureError) Hint() string { return e.hint }

// sigWord starts every signature line and fixes its form.
const sigWord = "slate-ed25519"

// Sign returns a detached signature on text: one line with the form's name,
// the purpose, the key's id and the signature in base64.
func Sign(key ed25519.PrivateKey, purpose string, text []byte) []byte {
	sig := ed25519.Sign(key, signedBytes(purpose, text))
	pub := key.Public().(ed25519.PublicKey)
	return fmt.Appendf(nil, "%s %s %s %s\n", sigWord, purpose, KeyID(pub), base64.StdEncoding.EncodeToString(sig))
}

// Verify checks a detached signature made by Sign against the keys that are
// trusted. An empty signature is ErrUnsigned.
func Verify(keys []ed25519.PublicKey, purpose string, text, sig []byte) error {
	if len(sig) == 0 {
		return ErrUnsigned
	}
	f := strings.Fields(string(sig))
	if len(sig) > 1024 || len(f) != 4 || f[0] != sigWord {
		return &SignatureError{Reason: "not in the form that slate writes"}
	}
	if f[1] != purpose {
		return &SignatureError{Reason: fmt.Sprintf("made for a %s, not for a %s", f[1], purpose)}
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(f[3])
	if err != nil || len(raw) != ed25519.SignatureSize {
		return &SignatureError{Reason: "not in the form that slate writes"}
	}
	for _, k := range keys {
		if KeyID(k) != f[2] {
			continue
		}
		if ed25519.Verify(k, signedBytes(purpose, text), raw) {
			return nil
		}
		return &SignatureError{Reason: "does not fit: the text or the signature was altered"}
	}
	return &SignatureError{
		Reason: fmt.Sprintf("made with key %s, which is not trusted here", f[2]),
		hint:   "was it made by another site, or with a key that this site no longer uses?",
	}
}

// signedBytes hashes first, so that a signer needs to hold only a digest.
func signedBytes(purpose string, text []byte) []byte {
	sum := sha256.Sum256(text)
	return fmt.Appendf(nil, "%s %s %x\n", sigWord, purpose, sum)
}

// KeyID returns 16 hexadecimal digits that tell keys apart.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:8])
}

// GenerateKey makes a new site key.
func GenerateKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// pemType is what openssl writes for an unencrypted PKCS #8 key.
const pemType = "PRIVATE KEY"

// WriteKey writes the private key to a new file that only its owner can read,
// as PKCS #8 in PEM, which openssl pkey reads. An existing file is an error.
func WriteKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("key %s: %w", path, err)
	}
	return writeNew(path, 0o600, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}))
}

// LoadKey reads a private key that WriteKey or openssl wrote.
func LoadKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("key %s: no PEM block %q in it", path, pemType)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key %s: %T is not an Ed25519 key", path, k)
	}
	return key, nil
}

// FormatPublicKey returns the public key as text: its 32 bytes in base64, then
// a newline. It takes a private key too.
func FormatPublicKey(key crypto.PublicKey) []byte {
	var pub ed25519.PublicKey
	switch k := key.(type) {
	case ed25519.PublicKey:
		pub = k
	case ed25519.PrivateKey:
		pub = k.Public().(ed25519.PublicKey)
	default:
		panic(fmt.Sprintf("BUG: public key of type %T", key))
	}
	return []byte(base64.StdEncoding.EncodeToString(pub) + "\n")
}

// ParsePublicKeys reads public keys, one a line. Empty lines and lines that
// start with # are skipped; what follows the key on its line is a comment.
// There must be at least one key.
func ParsePublicKeys(text []byte) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for i, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(f[0])
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("public key, line %d: want 32 bytes in base64", i+1)
		}
		keys = append(keys, raw)
	}
	if len(keys) == 0 {
		return nil, errors.New("public key: none in the file")
	}
	return keys, nil
}

// WritePublicKey writes the public half of key to a new file.
func WritePublicKey(path string, key ed25519.PrivateKey) error {
	return writeNew(path, 0o644, FormatPublicKey(key))
}

// LoadPublicKeys reads a file of public keys; see ParsePublicKeys.
func LoadPublicKeys(path string) ([]ed25519.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	keys, err := ParsePublicKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// writeNew does not use images/durable: a key must never replace another, so
// it is created in place and not renamed over.
func writeNew(path string, mode os.FileMode, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

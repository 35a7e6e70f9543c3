// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"slate/images/durable"
	"slate/netboot/api"
)

// TLSFiles are the private key and the certificate of the appliance's TLS, beside
// the site key.
func TLSFiles(siteKey string) (key, cert string) {
	dir := filepath.Dir(siteKey)
	return filepath.Join(dir, "tls.key"), filepath.Join(dir, "tls.crt")
}

// WriteTLS makes the key and the certificate, or only the certificate if there is
// a key, whose pin then stays. It returns the files that it wrote.
func WriteTLS(siteKey string, addrs []netip.Addr) (wrote []string, err error) {
	keyFile, certFile := TLSFiles(siteKey)
	_, noKey := os.Stat(keyFile)
	if _, err := os.Stat(certFile); err == nil && noKey == nil {
		return nil, nil // ours or the admin's own, of whatever kind
	}
	key, err := readTLSKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		if err := durable.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			return nil, err
		}
		wrote = append(wrote, keyFile)
	} else if err != nil {
		return nil, err
	}
	cert, err := selfSigned(key, addrs)
	if err != nil {
		return wrote, err
	}
	return append(wrote, certFile), durable.WriteFile(certFile, cert, 0o644)
}

func readTLSKey(file string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("key %s: no PEM block in it", file)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := k.(*ecdsa.PrivateKey)
	if err == nil && !ok {
		err = errors.New("not an ECDSA key; a certificate of your own must come with it, as tls.crt")
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	return key, nil
}

// selfSigned makes a certificate in PEM. Nobody looks at its times who pins its
// key; the others, such as browsers, are given many years.
func selfSigned(key *ecdsa.PrivateKey, addrs []netip.Addr) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "slate appliance"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if name, err := os.Hostname(); err == nil {
		c.DNSNames = []string{name}
	}
	for _, a := range addrs {
		c.IPAddresses = append(c.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// openTLS reads the key and certificate, or makes them, and signs where and with
// which key TLS is served.
func (s *Server) openTLS() error {
	var addrs []netip.Addr
	for _, n := range s.local() {
		addrs = append(addrs, n.addr)
	}
	wrote, err := WriteTLS(s.Settings.Key, addrs)
	for _, file := range wrote {
		s.Log.Info("made for TLS", "file", file)
	}
	if err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	keyFile, certFile := TLSFiles(s.Settings.Key)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return &settingsError{fmt.Errorf("TLS: %s and %s: %w", certFile, keyFile, err), "remove both: the appliance makes new ones, and vouches for them with the site key"}
	}
	s.tlsConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if s.key != nil { // without it nobody can know that it is us
		s.secured = api.Secured{Port: s.Settings.HTTPS.Port, Pin: api.PinOf(cert.Leaf)}.Sign(s.key)
	}
	return nil
}

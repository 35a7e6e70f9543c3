// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
)

// HostKey makes an Ed25519 host key in the format of openssh-key-v1 (PROTOCOL.key
// of OpenSSH) and its public half. A stateless machine gets a new one each start;
// an admin who wants keys that stay gives them by config.d.
func HostKey(comment string) (private, public []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	var check [4]byte
	if _, err := rand.Read(check[:]); err != nil {
		return nil, nil, err
	}
	blob := sshString(sshString(nil, []byte("ssh-ed25519")), pub)
	secret := append(append([]byte{}, check[:]...), check[:]...)
	secret = sshString(sshString(sshString(sshString(secret, []byte("ssh-ed25519")), pub), priv), []byte(comment))
	for i := byte(1); len(secret)%8 != 0; i++ {
		secret = append(secret, i)
	}
	key := []byte("openssh-key-v1\x00")
	key = sshString(sshString(sshString(key, []byte("none")), []byte("none")), nil)
	key = binary.BigEndian.AppendUint32(key, 1)
	key = sshString(sshString(key, blob), secret)
	private = pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: key})
	public = []byte("ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob) + " " + comment + "\n")
	return private, public, nil
}

func sshString(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

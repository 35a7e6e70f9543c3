// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"path"

	"slate/images/durable"
)

// keptKey is where a machine with a disk keeps its ssh host key.
const keptKey = UserData + "/persistent/etc/ssh/ssh_host_ed25519_key"

// HostKeys gives the files of the machine's ssh host key. With a disk it is the one
// from the first start; else it is of this start only, and an admin who wants one
// that stays gives it by etc.conf.
func HostKeys(comment string, keep bool) ([]Change, error) {
	const name = "/etc/ssh/ssh_host_ed25519_key"
	if keep {
		private, err := os.ReadFile(keptKey)
		public, err2 := os.ReadFile(keptKey + ".pub")
		if err == nil && err2 == nil {
			return []Change{{Path: name, Text: string(private), Mode: 0o600}, {Path: name + ".pub", Text: string(public)}}, nil
		}
	}
	private, public, err := HostKey(comment)
	if err != nil {
		return nil, err
	}
	if keep {
		err := durable.MkdirAll(path.Dir(keptKey), 0o700)
		if err == nil {
			err = durable.WriteFile(keptKey, private, 0o600)
		}
		if err == nil { // last: it says that the key is whole
			err = durable.WriteFile(keptKey+".pub", public, 0o644)
		}
		if err != nil {
			return nil, fmt.Errorf("keep the ssh host key: %w", err)
		}
	}
	return []Change{{Path: name, Text: string(private), Mode: 0o600}, {Path: name + ".pub", Text: string(public)}}, nil
}

// HostKey makes an Ed25519 host key in the format of openssh-key-v1 (PROTOCOL.key
// of OpenSSH) and its public half.
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

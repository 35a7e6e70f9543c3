// SPDX-License-Identifier: GPL-2.0-or-later

package lint

import (
	"io/fs"
	"path"
	"strings"
)

// The nodes of a site share an image, and NFS hands it out to whoever asks. So
// nothing in it is secret.

func checkSSHKeys(l *linter) {
	for _, e := range l.list("etc/ssh") {
		if n := e.Name(); strings.HasPrefix(n, "ssh_host_") && strings.HasSuffix(n, "_key") {
			l.add(Error, "ssh-host-key", "etc/ssh/"+n, "remove it; let ssh-keygen -A make keys when the service starts",
				"an ssh host key: all nodes would share it, and everybody can read it")
		}
	}
}

// keyDirs are where programs keep private keys.
var keyDirs = []string{"root/.ssh", "etc/ssl/private", "etc/wireguard", "etc/NetworkManager/system-connections", "root/.gnupg/private-keys-v1.d",
	"etc/portage/gnupg/private-keys-v1.d"}

func checkPrivateKeys(l *linter) {
	dirs := keyDirs
	for _, e := range l.list("home") {
		dirs = append(dirs[:len(dirs):len(dirs)], path.Join("home", e.Name(), ".ssh"))
	}
	for _, dir := range dirs {
		for _, e := range l.list(dir) {
			p := path.Join(dir, e.Name())
			if fi, err := fs.Stat(l.fsys, p); err != nil || !fi.Mode().IsRegular() || fi.Size() > 1<<20 {
				continue
			}
			text := l.read(p)
			if strings.Contains(text, "PRIVATE KEY-----") || strings.Contains(text, "PrivateKey") || strings.HasPrefix(text, "Key: (") || strings.Contains(text, "psk=") {
				l.add(Error, "private-key", p, "remove it; secrets of a node come from the appliance when it boots",
					"a private key: everybody who can boot can read it")
			}
		}
	}
}

func checkPasswords(l *linter) {
	for line := range settings(l.read("etc/shadow")) {
		if f := strings.Split(line, ":"); len(f) > 1 && f[1] == "" {
			l.add(Error, "empty-password", "etc/shadow", "lock it (passwd -l "+f[0]+"), or give it a password", "%s can log in without a password", f[0])
		}
	}
	if !l.exists("etc/shadow") && l.exists("etc/passwd") {
		for line := range settings(l.read("etc/passwd")) {
			if f := strings.Split(line, ":"); len(f) > 1 && f[1] == "" {
				l.add(Error, "empty-password", "etc/passwd", "", "%s can log in without a password", f[0])
			}
		}
	}
}

// shallow is how deep directories are searched: what is world-writable lies
// near the top.
const shallow = 4

func checkWorldWritable(l *linter) {
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		for _, e := range l.list(dir) {
			if !e.IsDir() {
				continue
			}
			p := path.Join(dir, e.Name())
			fi, err := fs.Lstat(l.fsys, p)
			if err != nil {
				continue
			}
			if fi.Mode().Perm()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 {
				l.add(Warning, "world-writable", p, "chmod +t, or take the right to write away", "everybody may write here and remove the files of others")
			}
			if depth < shallow {
				walk(p, depth+1)
			}
		}
	}
	walk(".", 1)
}

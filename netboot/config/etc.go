// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Etc is system/etc.conf: what goes into a node's /etc.
type Etc struct {
	// Hostname is the pattern of node names: {mac6} is the last six hex digits
	// of the node's MAC address, {mac} all twelve, {serial} the machine's serial number.
	Hostname string `toml:"hostname"`
	Timezone string `toml:"timezone"` // e.g. Europe/Berlin; empty: the image's
	Locale   string `toml:"locale"`   // e.g. de_DE.UTF-8; empty: the image's
	File     []File `toml:"file"`
	User     []User `toml:"user"`
}

// File is a file that is put into /etc at each start.
type File struct {
	Path   string `toml:"path"`
	From   string `toml:"from"`  // below config.d, e.g. files/motd; else Text counts
	Text   string `toml:"text"`  // its content
	Mode   string `toml:"mode"`  // octal; empty: 0644
	Owner  string `toml:"owner"` // user:group by number; empty: 0:0
	Remove bool   `toml:"remove"`

	content []byte
}

// User is an account that the node has, beside those of the image or in place of one.
type User struct {
	Name     string   `toml:"name"`
	UID      int      `toml:"uid"`      // 0: the one in the image, or the first free one from 1000 on
	Groups   []string `toml:"groups"`   // more groups; those that the image lacks are made
	Keys     []string `toml:"keys"`     // for ssh, as in authorized_keys
	Password string   `toml:"password"` // hash as in shadow(5); empty: as it is, "!" for a new account
	Home     string   `toml:"home"`     // empty: the image's, or /home/<name>
	Shell    string   `toml:"shell"`    // empty: the image's, or /bin/bash or /bin/sh
	Remove   bool     `toml:"remove"`
}

func (f File) id() string    { return f.Path }
func (f File) removed() bool { return f.Remove }
func (u User) id() string    { return u.Name }
func (u User) removed() bool { return u.Remove }

// Content is what the file holds.
func (f File) Content() []byte { return f.content }

// Perm is the file's mode.
func (f File) Perm() uint32 {
	m, err := strconv.ParseUint(f.Mode, 8, 16)
	if err != nil {
		return 0o644
	}
	return uint32(m)
}

// Owners are the numbers of the file's user and group.
func (f File) Owners() (uid, gid int) {
	u, g, _ := strings.Cut(f.Owner, ":")
	uid, _ = strconv.Atoi(u)
	gid, _ = strconv.Atoi(g)
	return uid, gid
}

func (e *Etc) lists() []keyedList {
	return []keyedList{entries[File]{"file", &e.File}, entries[User]{"user", &e.User}}
}

const etcFile = "system/etc.conf"

func defaultEtc() Etc { return Etc{Hostname: "node-{mac6}"} }

var (
	hostnamePattern = regexp.MustCompile(`^(?:[a-zA-Z0-9-]|\{mac6\}|\{mac\}|\{serial\})+$`)
	zonePattern     = regexp.MustCompile(`^[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,3}$`)
	localePattern   = regexp.MustCompile(`^[A-Za-z0-9_.@-]+$`)
	ownerPattern    = regexp.MustCompile(`^[0-9]{1,9}:[0-9]{1,9}$`)
	userPattern     = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	hashPattern     = regexp.MustCompile(`^(?:[!*]|!?\$[a-zA-Z0-9./$=,_-]{8,255})$`)
	keyPattern      = regexp.MustCompile(`^(?:ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*(?: [ -~]*)?$`)
)

func (e *Etc) check(d *Doc) (errs []error) {
	if !hostnamePattern.MatchString(e.Hostname) {
		err := d.Errorf("hostname", "%q is not a host name pattern", e.Hostname)
		err.Help = "use letters, digits, '-' and {mac6}, {mac}, {serial}"
		errs = append(errs, err)
	}
	if e.Timezone != "" && !zonePattern.MatchString(e.Timezone) {
		errs = append(errs, d.Errorf("timezone", "%q is not a time zone, such as Europe/Berlin", e.Timezone))
	}
	if e.Locale != "" && !localePattern.MatchString(e.Locale) {
		errs = append(errs, d.Errorf("locale", "%q is not a locale, such as de_DE.UTF-8", e.Locale))
	}
	for i, f := range e.File {
		errs = append(errs, f.check(d, i)...)
	}
	for i, u := range e.User {
		errs = append(errs, u.check(d, i)...)
	}
	return errs
}

// ownFiles are made by the controller out of what it and config.d know.
var ownFiles = map[string]string{
	"/etc/hostname": "hostname", "/etc/machine-id": "nothing: it is the machine's", "/etc/fstab": "system/fstab.conf",
	"/etc/passwd": "[[user]]", "/etc/shadow": "[[user]]", "/etc/group": "[[user]]", "/etc/gshadow": "[[user]]",
	"/etc/localtime": "timezone", "/etc/hosts": "[[host]] in system/network.conf", "/etc/resolv.conf": "dns in system/network.conf",
}

func (f File) check(d *Doc, i int) (errs []error) {
	bad := func(key, format string, args ...any) { errs = append(errs, d.at("file", i, key, format, args...)) }
	switch instead := ownFiles[f.Path]; {
	case !strings.HasPrefix(f.Path, "/etc/") || path.Clean(f.Path) != f.Path || strings.ContainsFunc(f.Path, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		bad("path", "%q is not the path of a file below /etc", f.Path)
	case instead != "":
		bad("path", "%s is made from %s", f.Path, instead)
	}
	if f.Remove {
		return errs
	}
	if f.From != "" && f.Text != "" {
		bad("from", "from and text are both there: which is it?")
	}
	if f.From != "" && (!isSource(f.From) || path.Clean(f.From) != f.From || !strings.HasPrefix(f.From, sourcesDir)) {
		bad("from", "%q is not below files/", f.From)
	}
	if f.Mode != "" && !modePattern.MatchString(f.Mode) {
		bad("mode", "%q is not a mode in octal, such as \"0644\"", f.Mode)
	}
	if f.Owner != "" && !ownerPattern.MatchString(f.Owner) {
		bad("owner", "%q is not user:group by their numbers, such as \"0:0\"", f.Owner)
	}
	return errs
}

func (u User) check(d *Doc, i int) (errs []error) {
	bad := func(key, format string, args ...any) { errs = append(errs, d.at("user", i, key, format, args...)) }
	if !userPattern.MatchString(u.Name) {
		bad("name", "%q is not the name of a user", u.Name)
	}
	if u.Remove {
		return errs
	}
	if u.UID < 0 || u.UID > 60000 || u.Name == "root" && u.UID != 0 {
		bad("uid", "%d is not a number of a user, from 1 to 60000", u.UID)
	}
	for _, g := range u.Groups {
		if !userPattern.MatchString(g) {
			bad("groups", "%q is not the name of a group", g)
		}
	}
	for _, k := range u.Keys {
		if !keyPattern.MatchString(k) {
			bad("keys", "%q is not a public key for ssh: it is the line in id_ed25519.pub", k)
		}
	}
	if u.Password != "" && !hashPattern.MatchString(u.Password) {
		e := d.at("user", i, "password", "it must be a hash, never the password itself")
		e.Help = "make one with: openssl passwd -6"
		errs = append(errs, e)
	}
	for key, p := range map[string]string{"home": u.Home, "shell": u.Shell} {
		if p != "" && (!path.IsAbs(p) || path.Clean(p) != p || strings.ContainsAny(p, ": \t\n")) {
			bad(key, "%q is not an absolute path", p)
		}
	}
	return errs
}

// NodeName fills in the pattern for a machine. What cannot stand in a host name
// (RFC 1123, section 2.1) becomes '-', and the result has at most 63 characters.
func (e Etc) NodeName(mac, serial string) string {
	hex := strings.ToLower(strings.NewReplacer(":", "", "-", "").Replace(mac))
	if strings.TrimSpace(serial) == "" {
		serial = hex
	}
	name := strings.NewReplacer("{mac6}", hex[max(0, len(hex)-6):], "{mac}", hex, "{serial}", serial).Replace(e.Hostname)
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, name)
	return strings.Trim(name[:min(len(name), 63)], "-")
}

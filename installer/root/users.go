// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"slate/netboot/config"
)

// KeysDir has the ssh keys that config.d gives. They are not put into the homes,
// which may be kept over a restart: a key that config.d no longer has is gone.
const KeysDir = "/etc/ssh/slate-keys"

// table is a file of passwd's kind: lines of fields with colons between.
type table [][]string

func readTable(tree fs.FS, name string) (table, bool) {
	text, ok := read(tree, name)
	var t table
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			t = append(t, strings.Split(line, ":"))
		}
	}
	return t, ok
}

func (t table) find(name string) []string {
	for _, row := range t {
		if row[0] == name {
			return row
		}
	}
	return nil
}

// free gives the first number from first on that no row has in a column.
func (t table) free(column, first int) int {
	used := map[string]bool{}
	for _, row := range t {
		if len(row) > column {
			used[row[column]] = true
		}
	}
	for used[strconv.Itoa(first)] {
		first++
	}
	return first
}

func (t table) String() string {
	var b strings.Builder
	for _, row := range t {
		b.WriteString(strings.Join(row, ":") + "\n")
	}
	return b.String()
}

// accounts are the files that accounts are made of.
type accounts struct {
	passwd, shadow, group, gshadow table
	hasGshadow                     bool
}

// Users adds the accounts of etc.conf to those of the image.
func Users(tree fs.FS, list []config.User) (out []Change, problems []string) {
	if len(list) == 0 {
		return nil, nil
	}
	var a accounts
	var ok bool
	if a.passwd, ok = readTable(tree, "etc/passwd"); !ok {
		return nil, []string{"system/etc.conf: the image has no /etc/passwd to add users to"}
	}
	a.shadow, _ = readTable(tree, "etc/shadow")
	a.group, _ = readTable(tree, "etc/group")
	a.gshadow, a.hasGshadow = readTable(tree, "etc/gshadow")
	var homes []Change
	keys := false
	for _, u := range list {
		changes, wrong := a.add(tree, u)
		homes, problems = append(homes, changes...), append(problems, wrong...)
		if len(u.Keys) > 0 {
			keys = true
			homes = append(homes, Change{Path: KeysDir + "/" + u.Name, Text: strings.Join(u.Keys, "\n") + "\n"})
		}
	}
	group := 0
	if row := a.group.find("shadow"); len(row) > 2 {
		group, _ = strconv.Atoi(row[2])
	}
	mode := fs.FileMode(0o600)
	if group != 0 {
		mode = 0o640
	}
	out = []Change{{Path: "/etc/passwd", Text: a.passwd.String()}, {Path: "/etc/group", Text: a.group.String()},
		{Path: "/etc/shadow", Text: a.shadow.String(), Mode: mode, GID: group}}
	if a.hasGshadow {
		out = append(out, Change{Path: "/etc/gshadow", Text: a.gshadow.String(), Mode: mode, GID: group})
	}
	if keys {
		changes, wrong := sshKeys(tree)
		out, problems = append(out, changes...), append(problems, wrong...)
	}
	return append(out, homes...), problems
}

// add makes or changes one account, and gives what its home needs.
func (a *accounts) add(tree fs.FS, u config.User) (out []Change, problems []string) {
	row := a.passwd.find(u.Name)
	isNew := row == nil
	if isNew {
		uid := u.UID
		if uid == 0 {
			uid = a.passwd.free(2, 1000)
		}
		gid := uid
		if g := a.group.find(u.Name); len(g) > 2 {
			gid, _ = strconv.Atoi(g[2])
		} else {
			gid = a.group.free(2, gid)
			a.addGroup(u.Name, gid)
		}
		row = []string{u.Name, "x", strconv.Itoa(uid), strconv.Itoa(gid), "", "/home/" + u.Name, shell(tree)}
		a.passwd = append(a.passwd, row)
		// "*" is no password at all; "!" would make sshd refuse the account's keys too.
		a.shadow = append(a.shadow, []string{u.Name, "*", "", "0", "99999", "7", "", "", ""})
	}
	if len(row) < 7 {
		return nil, []string{fmt.Sprintf("system/etc.conf: the image's account %s is damaged", u.Name)}
	}
	if u.UID != 0 {
		row[2] = strconv.Itoa(u.UID)
	}
	if u.Home != "" {
		row[5] = u.Home
	}
	if u.Shell != "" {
		row[6] = u.Shell
	}
	if s := a.shadow.find(u.Name); len(s) > 1 && u.Password != "" {
		s[1] = u.Password
	}
	for _, g := range u.Groups {
		a.join(u.Name, g)
	}
	if isNew {
		out = home(tree, row)
	}
	return out, nil
}

func (a *accounts) addGroup(name string, gid int) {
	a.group = append(a.group, []string{name, "x", strconv.Itoa(gid), ""})
	if a.hasGshadow {
		a.gshadow = append(a.gshadow, []string{name, "!", "", ""})
	}
}

// join puts a user into a group, which is made if there is none.
func (a *accounts) join(user, group string) {
	if a.group.find(group) == nil {
		a.addGroup(group, a.group.free(2, 1000))
	}
	for _, t := range []table{a.group, a.gshadow} {
		if row := t.find(group); len(row) > 3 {
			members := strings.FieldsFunc(row[3], func(r rune) bool { return r == ',' })
			if !slices.Contains(members, user) {
				row[3] = strings.Join(append(members, user), ",")
			}
		}
	}
}

func shell(tree fs.FS) string {
	for _, s := range []string{"/bin/bash", "/usr/bin/bash"} {
		if exists(tree, s[1:]) {
			return s
		}
	}
	return "/bin/sh"
}

// home makes the home of a new account, with the files of /etc/skel. What is there
// already, kept over a restart, stays as it is.
func home(tree fs.FS, row []string) (out []Change) {
	uid, _ := strconv.Atoi(row[2])
	gid, _ := strconv.Atoi(row[3])
	out = []Change{{Path: row[5], Dir: true, Mode: 0o700, UID: uid, GID: gid}}
	entries, _ := fs.ReadDir(tree, "etc/skel")
	for _, e := range entries {
		if text, ok := read(tree, "etc/skel/"+e.Name()); ok && e.Type().IsRegular() {
			out = append(out, Change{Path: path.Join(row[5], e.Name()), Text: text, UID: uid, GID: gid, IfNew: true})
		}
	}
	return out
}

// sshKeys has the ssh server look for keys in KeysDir too.
func sshKeys(tree fs.FS) ([]Change, []string) {
	const line = "AuthorizedKeysFile .ssh/authorized_keys " + KeysDir + "/%u\n"
	old, ok := read(tree, "etc/ssh/sshd_config")
	if !ok {
		return nil, []string{"system/etc.conf: a user has ssh keys, but the image has no ssh server"}
	}
	for l := range strings.Lines(old) {
		if f := strings.Fields(l); len(f) > 1 && strings.EqualFold(f[0], "Include") && strings.HasPrefix(f[1], "/etc/ssh/sshd_config.d/") {
			return []Change{{Path: "/etc/ssh/sshd_config.d/00-slate.conf", Text: "# Keys of config.d\n" + line}}, nil
		}
	}
	// The first setting counts, so it goes before all.
	return []Change{{Path: "/etc/ssh/sshd_config", Text: "# slate: keys of config.d\n" + line + old}}, nil
}

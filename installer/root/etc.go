// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"fmt"
	"io/fs"
	"strings"

	"slate/netboot/config"
)

// view is a tree with the files of etc.conf on top, so that what is decided by
// looking at the tree takes them into account.
type view struct {
	fs.FS
	files map[string][]byte
}

func withFiles(tree fs.FS, files []config.File) fs.FS {
	v := view{tree, map[string][]byte{}}
	for _, f := range files {
		v.files[strings.TrimPrefix(f.Path, "/")] = f.Content()
	}
	return v
}

// ReadFile reads a file of etc.conf, or of the tree.
func (v view) ReadFile(name string) ([]byte, error) {
	if b, ok := v.files[name]; ok {
		return b, nil
	}
	return fs.ReadFile(v.FS, name)
}

// ReadLink reads a link of the tree that no file of etc.conf replaces.
func (v view) ReadLink(name string) (string, error) {
	if _, ok := v.files[name]; ok {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return fs.ReadLink(v.FS, name)
}

// Lstat looks at the tree.
func (v view) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(v.FS, name) }

func configFiles(files []config.File) (out []Change) {
	for _, f := range files {
		uid, gid := f.Owners()
		out = append(out, Change{Path: f.Path, Text: string(f.Content()), Mode: changeMode(f.Perm()), UID: uid, GID: gid})
	}
	return out
}

// changeMode turns a Unix mode into one that os.Chmod takes.
func changeMode(perm uint32) fs.FileMode {
	m := fs.FileMode(perm & 0o777)
	for bit, goBit := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if perm&bit != 0 {
			m |= goBit
		}
	}
	return m
}

// place sets time zone and locale, in the files of the distributions that slate
// builds from.
func place(tree fs.FS, e config.Etc) (out []Change, problems []string) {
	if z := e.Timezone; z != "" {
		if exists(tree, "usr/share/zoneinfo/"+z) {
			out = append(out, Change{Path: "/etc/localtime", Link: "../usr/share/zoneinfo/" + z}, Change{Path: "/etc/timezone", Text: z + "\n"})
		} else {
			problems = append(problems, fmt.Sprintf("system/etc.conf: the image knows no time zone %s (package tzdata)", z))
		}
	}
	if l := e.Locale; l != "" {
		out = append(out, Change{Path: "/etc/locale.conf", Text: "LANG=" + l + "\n"})
		if exists(tree, "etc/default") { // Debian
			out = append(out, Change{Path: "/etc/default/locale", Text: "LANG=" + l + "\n"})
		}
		if exists(tree, "etc/env.d") { // Gentoo; profile.env is what env-update makes of it
			env, _ := read(tree, "etc/profile.env")
			out = append(out, Change{Path: "/etc/env.d/02locale", Text: "LANG=\"" + l + "\"\n"},
				Change{Path: "/etc/profile.env", Text: env + "export LANG='" + l + "'\n"})
		}
	}
	return out, problems
}

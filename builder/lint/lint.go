// SPDX-License-Identifier: GPL-2.0-or-later

// Package lint looks at a root tree for what will go wrong when many machines
// run it at once from a root that is read-only and forgets: secrets that all of
// them would share, the identity of one of them, configuration that fights with
// how a node is started, services that cannot work. It reads only, and gives an
// opinion: whether a finding matters is for the admin to say.
package lint

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Severity says what a finding costs.
type Severity uint8

// The severities.
const (
	Note    Severity = iota + 1 // costs space or time
	Warning                     // something will not work as it is meant to
	Error                       // a hole in the image's security, or nodes that do not start
)

func (s Severity) String() string {
	switch s {
	case Note:
		return "note"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return "unknown"
}

// MarshalText is String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	Name     string   `json:"name"` // of the kind of finding, stable: "ssh-host-key"
	Path     string   `json:"path,omitempty"`
	Text     string   `json:"text"`
	Fix      string   `json:"fix,omitempty"`
}

// String is the finding on one line.
func (f Finding) String() string {
	if f.Path == "" {
		return fmt.Sprintf("%s [%s]", f.Text, f.Name)
	}
	return fmt.Sprintf("%s: %s [%s]", f.Path, f.Text, f.Name)
}

// System is what the checks have to know beside the tree.
type System struct {
	Init string // systemd, openrc, sysvinit, other; "": none
}

// linter collects findings.
type linter struct {
	fsys  fs.FS
	sys   System
	found []Finding
}

func (l *linter) add(s Severity, name, path, fix, format string, args ...any) {
	if path != "" {
		path = "/" + strings.TrimPrefix(path, "/")
	}
	l.found = append(l.found, Finding{s, name, path, fmt.Sprintf(format, args...), fix})
}

// checks are all of them, in the order in which findings of one severity come.
var checks = []func(*linter){
	checkKernel, checkModules, checkInit,
	checkSSHKeys, checkPrivateKeys, checkPasswords, checkWorldWritable,
	checkMachineID, checkIdentity, checkSeeds,
	checkMtab, checkFstab, checkLinks, checkInstall, checkUnits, checkWriters, checkNetwork, checkOpenRC,
	checkLeftovers, checkInitrd,
}

// Check looks at the tree and returns what it found, the worst first.
func Check(fsys fs.FS, sys System) []Finding {
	l := &linter{fsys: fsys, sys: sys}
	for _, c := range checks {
		c(l)
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int { return int(b.Severity) - int(a.Severity) })
	return l.found
}

// exists reports whether there is something of that name, a link included.
func (l *linter) exists(name string) bool {
	_, err := fs.Lstat(l.fsys, name)
	return err == nil
}

// read returns a file's text, "" if it cannot be read.
func (l *linter) read(name string) string {
	b, err := fs.ReadFile(l.fsys, name)
	if err != nil {
		return ""
	}
	return string(b)
}

// list returns the names in a directory.
func (l *linter) list(dir string) []fs.DirEntry {
	list, err := fs.ReadDir(l.fsys, dir)
	if err != nil {
		return nil
	}
	return list
}

// settings yields the lines of a text that are neither empty nor comments.
func settings(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.TrimSpace(line)
			if line != "" && line[0] != '#' && !yield(line) {
				return
			}
		}
	}
}

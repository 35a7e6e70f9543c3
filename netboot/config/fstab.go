// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"slices"
	"strings"
)

// Fstab is system/fstab.conf: file systems that a running node mounts, beside
// those of the image's own fstab that can hold on it.
type Fstab struct {
	Mount []FSMount `toml:"mount"`
}

// FSMount is one line of fstab(5).
type FSMount struct {
	What    string   `toml:"what"`
	Where   string   `toml:"where"`
	Type    string   `toml:"type"`
	Options []string `toml:"options"`
	Remove  bool     `toml:"remove"`
}

func (m FSMount) id() string    { return m.Where }
func (m FSMount) removed() bool { return m.Remove }

func (f *Fstab) lists() []keyedList { return []keyedList{entries[FSMount]{"mount", &f.Mount}} }

// What an entry of cfstab.conf does (CMount.Action).
const (
	MountAdd     = "add"     // mount it, in the place of another there
	MountReplace = "replace" // only where something is mounted there anyway
	MountRemove  = "remove"  // mount nothing there
)

// Cfstab is controller/cfstab.conf: what the controller changes of the fstab that
// the image and fstab.conf give.
type Cfstab struct {
	Mount []CMount `toml:"mount"`
}

// CMount changes the line of one mount point.
type CMount struct {
	Action  string   `toml:"action"` // one of the Mount constants
	What    string   `toml:"what"`
	Where   string   `toml:"where"`
	Type    string   `toml:"type"`
	Options []string `toml:"options"`
	Remove  bool     `toml:"remove"`
}

func (m CMount) id() string    { return m.Where }
func (m CMount) removed() bool { return m.Remove }

func (f *Cfstab) lists() []keyedList { return []keyedList{entries[CMount]{"mount", &f.Mount}} }

const (
	fstabFile  = "system/fstab.conf"
	cfstabFile = "controller/cfstab.conf"
)

// RemoteMounts is where file systems of other machines may always be mounted: the
// directories below it are made.
const RemoteMounts = "/user-data/persistent/rmount"

func (f *Fstab) check(d *Doc) (errs []error) {
	for i, m := range f.Mount {
		if !m.Remove {
			errs = append(errs, checkMount(d, i, m)...)
		}
	}
	return errs
}

func (f *Cfstab) check(d *Doc) (errs []error) {
	for i, m := range f.Mount {
		switch {
		case m.Remove:
		case m.Action == MountAdd, m.Action == MountReplace:
			errs = append(errs, checkMount(d, i, FSMount{m.What, m.Where, m.Type, m.Options, false})...)
		case m.Action == MountRemove:
			if m.What != "" || m.Type != "" || len(m.Options) > 0 {
				errs = append(errs, d.at("mount", i, "action", "remove needs only where"))
			}
		default:
			errs = append(errs, d.at("mount", i, "action", "%q is not one of %s, %s, %s", m.Action, MountAdd, MountReplace, MountRemove))
		}
	}
	return errs
}

// fixed are the mount points that the root consists of.
var fixed = []string{"/etc", "/var", "/usr", "/tmp"}

func checkMount(d *Doc, i int, m FSMount) (errs []error) {
	bad := func(key, format string, args ...any) { errs = append(errs, d.at("mount", i, key, format, args...)) }
	remote := strings.HasPrefix(m.Where, RemoteMounts+"/")
	if why := badDirectory(m.Where); why != "" && !remote {
		bad("where", "%q %s", m.Where, why)
	}
	if slices.Contains(fixed, m.Where) {
		bad("where", "%s is made by the controller: see overlays.conf and tmpfs.conf", m.Where)
	}
	for key, v := range map[string]string{"what": m.What, "type": m.Type} {
		if v == "" || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
			bad(key, "%q is not one word", v)
		}
	}
	if m.Type == "swap" {
		bad("type", "a node does not swap: it would be to a disk that is not its own")
	}
	for _, o := range m.Options {
		if o == "" || strings.ContainsFunc(o, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ',' || r == '#' }) {
			bad("options", "%q is not one option: give each its own string", o)
		}
	}
	return errs
}

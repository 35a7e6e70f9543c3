// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"path"
	"slices"
	"strings"
)

// Where what is written to an overlay goes (Overlay.Upper).
const (
	UpperMemory   = "memory"    // forgotten at the next start
	UpperUserData = "user-data" // kept on the disk; in memory where there is none
)

// Overlays is system/overlays.conf: directories made writable by an overlay.
type Overlays struct {
	Overlay []Overlay `toml:"overlay"`
}

// Overlay is one such directory.
type Overlay struct {
	Path   string `toml:"path"`
	Upper  string `toml:"upper"` // one of the Upper constants; empty: memory
	Size   string `toml:"size"`  // cap of its own; empty: it shares that of tmpfs.conf
	Remove bool   `toml:"remove"`
}

func (o Overlay) id() string    { return o.Path }
func (o Overlay) removed() bool { return o.Remove }

func (o *Overlays) lists() []keyedList {
	return []keyedList{entries[Overlay]{"overlay", &o.Overlay}}
}

const overlaysFile = "system/overlays.conf"

func defaultOverlays() Overlays {
	return Overlays{Overlay: []Overlay{
		{Path: "/etc", Upper: UpperMemory}, {Path: "/var", Upper: UpperMemory}, {Path: "/srv", Upper: UpperMemory},
		{Path: "/root", Upper: UpperUserData}, {Path: "/home", Upper: UpperUserData},
		{Path: "/mnt", Upper: UpperUserData}, {Path: "/media", Upper: UpperUserData},
	}}
}

func (o *Overlays) check(d *Doc) (errs []error) {
	for i := range o.Overlay {
		e := &o.Overlay[i]
		if e.Upper == "" {
			e.Upper = UpperMemory
		}
		if why := badDirectory(e.Path); why != "" {
			errs = append(errs, d.at("overlay", i, "path", "%q %s", e.Path, why))
		}
		if e.Upper != UpperMemory && e.Upper != UpperUserData {
			errs = append(errs, d.at("overlay", i, "upper", "%q is not one of %s, %s", e.Upper, UpperMemory, UpperUserData))
		}
		if e.Path == "/etc" && e.Upper != UpperMemory {
			err := d.at("overlay", i, "upper", "/etc is made anew at each start and cannot be kept")
			err.Help = "put files into it with [[file]] in system/etc.conf"
			errs = append(errs, err)
		}
		if e.Size != "" {
			errs = append(errs, d.checkSize("overlay", i, "size", e.Size)...)
			if e.Upper == UpperUserData {
				errs = append(errs, d.at("overlay", i, "size", "what is kept on user-data has the size of that; leave size out"))
			}
		}
	}
	return errs
}

// ofTheSystem are the directories that are the kernel's, the loader's or ours.
var ofTheSystem = []string{"/proc", "/sys", "/dev", "/run", "/boot", "/user-data"}

// badDirectory says why a directory cannot be an overlay, a tmpfs or a mount point.
func badDirectory(dir string) string {
	switch {
	case !strings.HasPrefix(dir, "/") || path.Clean(dir) != dir:
		return "is not an absolute path such as /srv/data"
	case dir == "/":
		return "is the image itself, which stays read-only"
	case strings.ContainsFunc(dir, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`,:\"'`, r) }):
		return `has a blank or one of , : \ " '`
	}
	for _, sys := range ofTheSystem {
		if dir == sys || strings.HasPrefix(dir, sys+"/") {
			return "is below " + sys + ", which is not config.d's to change"
		}
	}
	return ""
}

// checkWritable makes sure that the directories without which no system starts
// can be written to.
func (n *Node) checkWritable() (errs []error) {
	for _, dir := range []string{"/etc", "/var"} {
		overlay := slices.ContainsFunc(n.Overlays.Overlay, func(o Overlay) bool { return o.Path == dir })
		tmpfs := slices.ContainsFunc(n.Tmpfs.Tmpfs, func(t TmpfsDir) bool { return t.Path == dir })
		if !overlay && !tmpfs {
			e := n.errorAt(overlaysFile, entryKey("overlay", dir), "nothing makes %s writable, and no system starts without", dir)
			e.Help = "leave the overlay for " + dir + " in, or give it a tmpfs with a copy in controller/tmpfs.conf"
			errs = append(errs, e)
		}
	}
	return errs
}

// SPDX-License-Identifier: GPL-2.0-or-later

package root

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"slate/netboot/config"
)

// Fstab keeps of the image's fstab what can hold on a machine without a disk of
// its own: network and memory file systems, outside the places that the root is
// made of. Everything else stays as a comment, so that a person sees what became
// of it. Then come the mounts of fstab.conf, and the changes of cfstab.conf, which
// beat both. It also gives the directories that are mounted on.
func Fstab(old string, init Init, c *config.Node, userData bool) (text string, kept []string) {
	var b strings.Builder
	b.WriteString("# Made by slate for this start; the root is mounted already and stays read-only.\n")
	if init == OpenRC {
		// Without this line OpenRC's service root would remount / for writing.
		b.WriteString("rootfs / auto ro 0 0\n")
	}
	ours, gone := configMounts(old, c)
	taken := []string{"/", "/proc", "/sys", "/dev", "/run", "/etc", "/var", "/tmp"}
	for line := range strings.Lines(old) {
		line = strings.TrimRight(line, "\r\n")
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		switch {
		case localEntry(f) || slices.Contains(taken, path.Clean(f[1])):
			b.WriteString("#slate: not used here: ")
		case slices.Contains(gone, path.Clean(f[1])):
			b.WriteString("#slate: config.d says otherwise: ")
		default:
			kept = append(kept, path.Clean(f[1]))
		}
		b.WriteString(line + "\n")
	}
	for _, m := range ours {
		where := m.Where
		if rest, ok := strings.CutPrefix(where, "/user-data/"); ok && !userData {
			where = UserData + "/" + rest // the image has no /user-data of its own
		}
		options := slices.Clone(m.Options)
		if !slices.Contains(options, "nofail") {
			options = append(options, "nofail")
		}
		fmt.Fprintf(&b, "%s %s %s %s 0 0\n", m.What, where, m.Type, strings.Join(options, ","))
		kept = append(kept, where)
	}
	return b.String(), kept
}

// configMounts gives the mounts that config.d wants, and the mount points of the
// image that it has something to say about.
func configMounts(old string, c *config.Node) (ours []config.FSMount, gone []string) {
	ours = slices.Clone(c.Fstab.Mount)
	for _, m := range ours {
		gone = append(gone, m.Where)
	}
	image := func(where string) bool {
		for line := range strings.Lines(old) {
			if f := strings.Fields(line); len(f) > 1 && f[0][0] != '#' && path.Clean(f[1]) == where {
				return !localEntry(f)
			}
		}
		return false
	}
	for _, m := range c.Cfstab.Mount {
		at := slices.IndexFunc(ours, func(o config.FSMount) bool { return o.Where == m.Where })
		if m.Action == config.MountReplace && at < 0 && !image(m.Where) {
			continue
		}
		gone = append(gone, m.Where)
		if at >= 0 {
			ours = slices.Delete(ours, at, at+1)
		}
		if m.Action != config.MountRemove {
			ours = append(ours, config.FSMount{What: m.What, Where: m.Where, Type: m.Type, Options: m.Options})
		}
	}
	return ours, gone
}

// mountPoints makes the directories that are mounted on, where that is possible.
func mountPoints(tree fs.FS, dirs, mounted []string) (out []Change, problems []string) {
	for _, dir := range dirs {
		if fi, err := fs.Stat(tree, strings.TrimPrefix(dir, "/")); err == nil && fi.IsDir() {
			continue
		}
		if !slices.ContainsFunc(mounted, func(m string) bool { return m != Bare && strings.HasPrefix(dir, m+"/") }) {
			problems = append(problems, fmt.Sprintf("fstab: the image has no directory %s to mount on, and it cannot be made there", dir))
			continue
		}
		out = append(out, Change{Path: dir, Dir: true})
	}
	return out, problems
}

// localEntry tells fstab entries that want a disk, or are no entries at all.
func localEntry(f []string) bool {
	if len(f) < 3 || f[2] == "swap" {
		return true
	}
	return slices.ContainsFunc([]string{"/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID="}, func(p string) bool {
		return strings.HasPrefix(f[0], p)
	})
}

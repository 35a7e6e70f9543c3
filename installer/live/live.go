// SPDX-License-Identifier: GPL-2.0-or-later

// Package live brings a change of config.d to a system that runs, where that is
// safe, and names what waits for the next start. What will be done is a Plan, made
// by comparing configurations; Apply does it. It never takes anything away that is in
// use, and what it cannot do waits too.
package live

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"slate/installer/root"
	"slate/netboot/config"
)

// Facts are what a plan is made from.
type Facts struct {
	Boot *config.Node // what the system was started with
	Last *config.Node // what was applied last
	Next *config.Node

	Tree   fs.FS // the bare image
	System fs.FS // the running system
}

// Plan is what is to be done, in this order.
type Plan struct {
	Fstab   string        // the new /etc/fstab; "": it stays
	Unmount []string      // where
	Mount   []string      // where, as the fstab says
	Remount []Remount     // with another cap
	Users   []string      // accounts that are made or changed
	Changes []root.Change // files and directories of the accounts
	SSH     bool          // its server has to read its settings anew

	// Waits are what takes effect at the next start.
	Waits []string
}

// Remount gives a file system in memory another size.
type Remount struct{ Where, Size, What string }

// Empty tells whether nothing is to be done to the running system.
func (p Plan) Empty() bool {
	return p.Fstab == "" && len(p.Unmount)+len(p.Mount)+len(p.Remount)+len(p.Users)+len(p.Changes) == 0
}

// Make compares.
func Make(f Facts) Plan {
	var p Plan
	p.mounts(f)
	p.memory(f)
	p.users(f)
	p.rest(f)
	slices.Sort(p.Waits)
	p.Waits = slices.Compact(p.Waits)
	return p
}

func (p *Plan) wait(format string, a ...any) { p.Waits = append(p.Waits, fmt.Sprintf(format, a...)) }

// mounts compares the fstabs that come of the configurations.
func (p *Plan) mounts(f Facts) {
	image, _ := fs.ReadFile(f.Tree, "etc/fstab")
	fstab := func(c *config.Node) (string, map[string]string) {
		text, _ := root.Fstab(string(image), root.DetectInit(f.Tree), c, isDir(f.Tree, "user-data"))
		return text, lines(text)
	}
	_, last := fstab(f.Last)
	text, next := fstab(f.Next)
	if maps.Equal(last, next) {
		return
	}
	p.Fstab = text
	for _, where := range slices.Sorted(maps.Keys(last)) {
		if last[where] != next[where] && !strings.Contains(last[where], "noauto") {
			p.Unmount = append(p.Unmount, where)
		}
	}
	for _, where := range slices.Sorted(maps.Keys(next)) {
		if last[where] != next[where] && !strings.Contains(next[where], "noauto") {
			p.Mount = append(p.Mount, where)
		}
	}
}

// lines gives the entries of an fstab by their mount points.
func lines(fstab string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(fstab) {
		if f := strings.Fields(line); len(f) > 3 && !strings.HasPrefix(f[0], "#") && f[1] != "/" {
			out[path.Clean(f[1])] = strings.Join(f, " ")
		}
	}
	return out
}

func isDir(tree fs.FS, name string) bool {
	fi, err := fs.Stat(tree, name)
	return err == nil && fi.IsDir()
}

// memory compares the caps of what lies in memory. What is new, gone or of another
// kind is part of the root, which is made at the start.
func (p *Plan) memory(f Facts) {
	if size := f.Next.Tmpfs.Limit.Total; size != f.Last.Tmpfs.Limit.Total {
		p.Remount = append(p.Remount, Remount{root.Upper, size, "tmpfs.conf limit.total"})
	}
	for _, t := range f.Next.Tmpfs.Tmpfs {
		entry := "tmpfs.conf tmpfs[" + t.Path + "]"
		boot, ok := find(f.Boot.Tmpfs.Tmpfs, func(o config.TmpfsDir) bool { return o.Path == t.Path })
		if !ok || boot.Mode != t.Mode || !slices.Equal(boot.Copy, t.Copy) {
			p.wait("%s", entry)
			continue
		}
		if last, ok := find(f.Last.Tmpfs.Tmpfs, func(o config.TmpfsDir) bool { return o.Path == t.Path }); ok && last.Size != t.Size {
			p.Remount = append(p.Remount, Remount{t.Path, t.Size, entry})
		}
	}
	for _, b := range f.Boot.Tmpfs.Tmpfs {
		if _, ok := find(f.Next.Tmpfs.Tmpfs, func(o config.TmpfsDir) bool { return o.Path == b.Path }); !ok {
			p.wait("tmpfs.conf tmpfs[%s] is gone", b.Path)
		}
	}
	p.overlays(f)
}

func (p *Plan) overlays(f Facts) {
	for _, o := range f.Next.Overlays.Overlay {
		entry := "overlays.conf overlay[" + o.Path + "]"
		boot, ok := find(f.Boot.Overlays.Overlay, func(b config.Overlay) bool { return b.Path == o.Path })
		if !ok || boot.Upper != o.Upper || (boot.Size == "") != (o.Size == "") {
			p.wait("%s", entry)
			continue
		}
		if last, ok := find(f.Last.Overlays.Overlay, func(l config.Overlay) bool { return l.Path == o.Path }); ok && last.Size != o.Size && o.Size != "" {
			p.Remount = append(p.Remount, Remount{root.UpperOf(o.Path), o.Size, entry})
		}
	}
	for _, b := range f.Boot.Overlays.Overlay {
		if _, ok := find(f.Next.Overlays.Overlay, func(o config.Overlay) bool { return o.Path == b.Path }); !ok {
			p.wait("overlays.conf overlay[%s] is gone", b.Path)
		}
	}
}

func find[T any](list []T, is func(T) bool) (T, bool) {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i], true
	}
	var none T
	return none, false
}

// users makes new accounts and gives those that are there what is new of theirs. Their
// numbers stay while programs run under them, and so do accounts that are gone; a key
// that is gone is gone at once.
func (p *Plan) users(f Facts) {
	named := func(list []config.User, name string) (config.User, bool) {
		return find(list, func(u config.User) bool { return u.Name == name })
	}
	var fresh []config.User
	for _, u := range f.Next.Etc.User {
		entry := "etc.conf user[" + u.Name + "]"
		last, ok := named(f.Last.Etc.User, u.Name)
		first, started := named(f.Boot.Etc.User, u.Name)
		if !started {
			first = last
		}
		if started || ok {
			if first.UID != u.UID || slices.ContainsFunc(first.Groups, func(g string) bool { return !slices.Contains(u.Groups, g) }) {
				p.wait("%s", entry)
			}
			u.UID, last.UID = first.UID, first.UID
		}
		if ok && same(last, u) {
			continue
		}
		if ok && len(last.Keys) > 0 && len(u.Keys) == 0 {
			p.Changes = append(p.Changes, root.Change{Path: root.KeysDir + "/" + u.Name, Remove: true})
		}
		fresh, p.Users = append(fresh, u), append(p.Users, u.Name)
	}
	for _, b := range f.Boot.Etc.User {
		if _, ok := named(f.Next.Etc.User, b.Name); !ok {
			p.wait("etc.conf user[%s] is gone", b.Name)
		}
	}
	for _, l := range f.Last.Etc.User {
		if _, ok := named(f.Next.Etc.User, l.Name); !ok && len(l.Keys) > 0 {
			p.Users = append(p.Users, l.Name)
			p.Changes = append(p.Changes, root.Change{Path: root.KeysDir + "/" + l.Name, Remove: true})
		}
	}
	changes, problems := root.Users(f.System, fresh)
	p.Waits = append(p.Waits, problems...)
	for _, c := range changes {
		if strings.HasPrefix(c.Path, "/etc/ssh/sshd_config") {
			if old, _ := fs.ReadFile(f.System, c.Path[1:]); strings.Contains(string(old), root.KeysDir) {
				continue // it knows where they are
			}
			p.SSH = true
		}
		p.Changes = append(p.Changes, c)
	}
}

func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// elsewhere are the files whose changes are no matter of the running system, or are
// looked at above.
var elsewhere = []string{"system/dhcp.conf", "controller/drives.conf", "controller/btrfs.conf", "controller/update.chk.conf",
	"controller/health.d", "controller/server/server.info.conf", "system/fstab.conf", "controller/cfstab.conf", "controller/tmpfs.conf", "system/overlays.conf",
	"controller/services/default-runlevel healthy", "system/etc.conf hostname"}

// rest names every other setting that differs from what the system was started with.
func (p *Plan) rest(f Facts) {
	values := func(c *config.Node) map[string]string {
		out := map[string]string{}
		for _, v := range c.Explain() {
			name := v.File + " " + v.Key
			if slices.Contains(elsewhere, v.File) || strings.HasPrefix(name, "system/etc.conf user") || slices.Contains(elsewhere, name) {
				continue
			}
			text, _ := json.Marshal(v.Value)
			out[name] = string(text)
		}
		for _, file := range c.Etc.File {
			out["system/etc.conf file["+file.Path+"]"] += string(file.Content())
		}
		return out
	}
	boot, next := values(f.Boot), values(f.Next)
	for name := range boot {
		if _, ok := next[name]; !ok {
			next[name] = ""
		}
	}
	for name, v := range next {
		if boot[name] != v {
			p.wait("%s", name)
		}
	}
}

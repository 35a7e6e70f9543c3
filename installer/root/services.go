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

// otherNames are the names of one service in several distributions.
var otherNames = [][]string{
	{"ssh", "sshd"}, {"cron", "crond", "cronie", "dcron", "fcron"}, {"apache2", "httpd"}, {"cups", "cupsd"},
	{"ntp", "ntpd", "ntpsec"}, {"chrony", "chronyd"}, {"rsyslog", "rsyslogd"}, {"bluetooth", "bluez"},
	{"nfs", "nfs-server", "nfs-kernel-server"}, {"NetworkManager", "networkmanager"}, {"avahi-daemon", "avahi"},
}

// namesOf gives the names that a service may have, the one that was written first.
func namesOf(name string) []string {
	for _, all := range otherNames {
		if slices.Contains(all, name) {
			return append([]string{name}, all...)
		}
	}
	return []string{name}
}

// services enables and disables services as default-runlevel says.
func services(tree fs.FS, init Init, s config.Services) (out []Change, problems []string) {
	act := map[Init]func(fs.FS, string, bool, config.Services) ([]Change, bool){Systemd: systemdService, OpenRC: openRCService}[init]
	if act == nil {
		if len(s.Enable)+len(s.Disable) > 0 {
			problems = append(problems, fmt.Sprintf("controller/services/default-runlevel: the image's init (%s) is neither systemd nor OpenRC", init))
		}
		return nil, problems
	}
	for enable, names := range map[bool][]string{true: s.Enable, false: s.Disable} {
		for _, name := range names {
			changes, ok := act(tree, name, enable, s)
			out = append(out, changes...)
			if !ok && enable {
				problems = append(problems, fmt.Sprintf("controller/services/default-runlevel: the image has no service %s", name))
			}
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(problems)
	return out, problems
}

// HealthyServices gives the services that must run, by the names that the image's
// init system has for them.
func HealthyServices(tree fs.FS, s config.Services) (out []string) {
	init := DetectInit(tree)
	for _, name := range s.Healthy {
		found := name // one that the image lacks never runs, and that will be said
		for _, n := range namesOf(name) {
			if init == OpenRC && exists(tree, "etc/init.d/"+n) {
				found = n
				break
			}
			if unit, _, ok := findUnit(tree, n); init == Systemd && ok {
				found = unit
				break
			}
		}
		out = append(out, found)
	}
	return out
}

func openRCService(tree fs.FS, name string, enable bool, s config.Services) (out []Change, ok bool) {
	for _, n := range namesOf(name) {
		if !exists(tree, "etc/init.d/"+n) {
			continue
		}
		if enable {
			return []Change{{Path: "/etc/runlevels/" + s.OpenRC.Runlevel + "/" + n, Link: "/etc/init.d/" + n}}, true
		}
		links, _ := fs.Glob(tree, "etc/runlevels/*/"+n)
		for _, l := range links {
			out = append(out, Change{Path: "/" + l, Remove: true})
		}
		return out, true
	}
	return nil, false
}

// unitDirs are where systemd looks for units, in its order.
var unitDirs = []string{"etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// findUnit finds a unit, and the file that it is made from.
func findUnit(tree fs.FS, name string) (unit, file string, ok bool) {
	if !slices.Contains([]string{".service", ".socket", ".timer", ".target", ".path", ".mount"}, path.Ext(name)) {
		name += ".service"
	}
	file = name // an instance, getty@tty1.service, is made from getty@.service
	if before, _, ok := strings.Cut(name, "@"); ok {
		file = before + "@" + path.Ext(name)
	}
	for _, dir := range unitDirs {
		if !exists(tree, dir+"/"+file) {
			continue
		}
		// A link, sshd.service or one that systemctl enable made, is another name of
		// the unit that it leads to.
		if l, err := fs.ReadLink(tree, dir+"/"+file); err == nil && path.Base(l) != "null" {
			return path.Base(l), path.Base(l), true
		}
		return name, file, true
	}
	return "", "", false
}

func systemdService(tree fs.FS, name string, enable bool, _ config.Services) ([]Change, bool) {
	for _, n := range namesOf(name) {
		unit, file, ok := findUnit(tree, n)
		switch {
		case ok && enable:
			return enableUnit(tree, unit, file)
		case ok:
			return disableUnit(tree, unit), true
		}
	}
	return nil, false
}

// enableUnit does what systemctl enable would.
func enableUnit(tree fs.FS, unit, file string) (out []Change, ok bool) {
	text, where := "", ""
	for _, dir := range unitDirs {
		if t, found := read(tree, dir+"/"+file); found {
			text, where = t, "/"+dir+"/"+file
			break
		}
	}
	if where == "" {
		return nil, false // masked in the image, by a link to /dev/null
	}
	install := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			install = line == "[Install]"
		}
		key, value, found := strings.Cut(line, "=")
		if !install || !found {
			continue
		}
		for _, v := range strings.Fields(value) {
			switch strings.TrimSpace(key) {
			case "WantedBy":
				out = append(out, Change{Path: "/etc/systemd/system/" + v + ".wants/" + unit, Link: where})
			case "RequiredBy":
				out = append(out, Change{Path: "/etc/systemd/system/" + v + ".requires/" + unit, Link: where})
			case "Alias":
				out = append(out, Change{Path: "/etc/systemd/system/" + v, Link: where})
			}
		}
	}
	if len(out) == 0 { // it is not made to be enabled, but that is what is asked for
		out = []Change{{Path: "/etc/systemd/system/multi-user.target.wants/" + unit, Link: where}}
	}
	return out, true
}

// disableUnit takes all links away; a unit that the image itself links below
// /usr/lib can only be masked.
func disableUnit(tree fs.FS, unit string) (out []Change) {
	for _, pattern := range []string{"etc/systemd/system/*.wants/", "etc/systemd/system/*.requires/"} {
		links, _ := fs.Glob(tree, pattern+unit)
		for _, l := range links {
			out = append(out, Change{Path: "/" + l, Remove: true})
		}
	}
	links, _ := fs.Glob(tree, "etc/systemd/system/*"+path.Ext(unit))
	for _, l := range links {
		if to, err := fs.ReadLink(tree, l); err == nil && path.Base(to) == unit {
			out = append(out, Change{Path: "/" + l, Remove: true})
		}
	}
	for _, dir := range unitDirs[1:] {
		if links, _ := fs.Glob(tree, dir+"/*.wants/"+unit); len(links) > 0 {
			return append(out, Change{Path: "/etc/systemd/system/" + unit, Link: "/dev/null"})
		}
	}
	return out
}

// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"regexp"
	"slices"
	"strings"
)

// Services is controller/services/default-runlevel: which services a node starts.
// What it does not name stays as the image has it.
type Services struct {
	Enable  []string `toml:"enable"`
	Disable []string `toml:"disable"`
	Healthy []string `toml:"healthy"` // that must run before a start-up counts as healthy
	OpenRC  OpenRC   `toml:"openrc"`
}

// OpenRC is for images with that init system.
type OpenRC struct {
	Runlevel string `toml:"runlevel"` // that services are enabled in
}

const servicesFile = "controller/services/default-runlevel"

func defaultServices() Services {
	return Services{Healthy: []string{}, OpenRC: OpenRC{Runlevel: "default"}}
}

// lists makes the merge go service by service: a later file that enables one beats
// an earlier one that disables it, and the other way round.
func (s *Services) lists() []keyedList {
	own := &ownServices{}
	return []keyedList{
		serviceList{"enable", &s.Enable, &s.Disable, own},
		serviceList{"disable", &s.Disable, &s.Enable, own},
	}
}

type serviceList struct {
	name        string
	list, other *[]string
	own         *ownServices
}

// ownServices is what the file that is being merged names itself.
type ownServices struct {
	known bool
	all   []string
}

func (l serviceList) key() string   { return l.name }
func (l serviceList) ids() []string { return *l.list }

func (l serviceList) begin() func(*Doc) (map[string]int, []error) {
	before := *l.list
	*l.list = nil
	return func(d *Doc) (map[string]int, []error) {
		if !l.own.known { // neither list has been merged yet
			*l.own = ownServices{true, slices.Concat(*l.list, *l.other)}
		}
		set := map[string]int{}
		for _, s := range *l.list {
			set[s] = d.Line(l.name)
		}
		kept := slices.DeleteFunc(slices.Clone(before), func(s string) bool { return slices.Contains(l.own.all, s) })
		*l.list = append(kept, *l.list...)
		return set, nil
	}
}

var servicePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.@:-]{0,127}$`)

func (s *Services) check(d *Doc) (errs []error) {
	for key, list := range map[string][]string{"enable": s.Enable, "disable": s.Disable, "healthy": s.Healthy} {
		for _, name := range list {
			if !servicePattern.MatchString(name) {
				errs = append(errs, d.Errorf(key, "%q is not the name of a service", name))
			}
		}
	}
	for _, name := range s.Enable {
		if slices.Contains(s.Disable, name) {
			errs = append(errs, d.Errorf("disable", "%s is enabled and disabled in one file", name))
		}
	}
	if !servicePattern.MatchString(s.OpenRC.Runlevel) {
		errs = append(errs, d.Errorf("openrc.runlevel", "%q is not the name of a runlevel", s.OpenRC.Runlevel))
	}
	return errs
}

// plainServices turns the plain form of the file, one service a line, into TOML,
// line by line.
func plainServices(data []byte) []byte {
	lines := strings.Split(string(data), "\n")
	first := -1
	for i, line := range lines {
		text, _, _ := strings.Cut(line, "#")
		text = strings.TrimSpace(text)
		if strings.ContainsAny(text, "=[]{}") {
			return data // it is TOML
		}
		lines[i] = ""
		if text == "" {
			continue
		}
		if first < 0 {
			first = i
		}
		lines[i] = strings.Join(strings.Fields(text), " ")
	}
	if first < 0 {
		return data
	}
	for i, text := range lines {
		if text != "" {
			lines[i] = quote(text) + ","
		}
	}
	lines[first] = "enable = [" + lines[first]
	lines[len(lines)-1] += "]"
	return []byte(strings.Join(lines, "\n"))
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

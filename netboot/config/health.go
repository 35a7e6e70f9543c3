// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// Health is controller/health.d: what a start-up must show, beside the services of
// default-runlevel, before it counts as healthy. All the files of that directory,
// in the order of their names, are as one.
type Health struct {
	Check []HealthCheck `toml:"check"`
}

// HealthCheck is a program that ends with status 0 when all is well.
type HealthCheck struct {
	Name   string   `toml:"name"`
	Run    []string `toml:"run"`    // the program and its arguments, or:
	Script string   `toml:"script"` // text that /bin/sh runs
	Limit  int      `toml:"limit"`  // seconds it may take; 0: 30
	Remove bool     `toml:"remove"`
}

// Args are the program that the check runs and its arguments.
func (c HealthCheck) Args() []string {
	if c.Script != "" {
		return []string{"/bin/sh", "-c", c.Script}
	}
	return c.Run
}

func (c HealthCheck) id() string    { return c.Name }
func (c HealthCheck) removed() bool { return c.Remove }

func (h *Health) lists() []keyedList { return []keyedList{entries[HealthCheck]{"check", &h.Check}} }

// healthDir is the part that is a directory of files and not one.
const healthDir = "controller/health.d"

// healthExample is the file of it that is shipped.
const healthExample = healthDir + "/example.conf"

var healthName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

func (h *Health) check(d *Doc) (errs []error) {
	for i, c := range h.Check {
		if !healthName.MatchString(c.Name) {
			errs = append(errs, d.at("check", i, "name", "%q is not the name of a check, such as \"proxy\"", c.Name))
		}
		if c.Remove {
			continue
		}
		switch {
		case len(c.Run) == 0 && strings.TrimSpace(c.Script) == "":
			errs = append(errs, d.at("check", i, "run", "the check runs nothing: give it run or script"))
		case len(c.Run) > 0 && c.Script != "":
			errs = append(errs, d.at("check", i, "script", "the check has both run and script"))
		case len(c.Run) > 0 && !strings.HasPrefix(c.Run[0], "/"):
			errs = append(errs, d.at("check", i, "run", "%q is not the full path of a program", c.Run[0]))
		}
		if c.Limit < 0 || c.Limit > 600 {
			errs = append(errs, d.at("check", i, "limit", "%d seconds is not between 0 and 600", c.Limit))
		}
	}
	return errs
}

// inHealthDir tells by its path, below config.d or the directory of a group or node,
// whether a file is of health.d.
func inHealthDir(rest string) bool {
	return path.Dir(rest) == healthDir && path.Ext(rest) == ".conf"
}

// healthFiles are the files of health.d below a prefix, in the order of their names.
func (s *Site) healthFiles(prefix string) (out []string) {
	for p := range s.files {
		if rest, ok := strings.CutPrefix(p, prefix); ok && inHealthDir(rest) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

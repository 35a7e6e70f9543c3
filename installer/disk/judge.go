// SPDX-License-Identifier: GPL-2.0-or-later

package disk

import (
	"fmt"
	"path"
	"strings"

	"slate/netboot/config"
)

// Use says how far a drive may be used.
type Use int

// The uses.
const (
	Never   Use = iota // not even if a person asks for it
	Confirm            // if a person at the console types its name
	Free               // a rule allows it without asking
)

func (u Use) String() string { return [...]string{"never", "confirm", "free"}[u] }

// Verdict says whether a drive may be used, and why.
type Verdict struct {
	Drive  Drive
	Rule   *config.Drive // that fits; nil: none
	Layout config.Layout
	Use    Use
	Lost   bool // something on it would be lost
	Reason string
}

// Judge decides for each drive whether the image, with need bytes of content, may be
// installed on it. It never allows a drive that is in use, read-only or too small,
// and allows what is foreign to be overwritten only where a rule names that drive
// and says so.
func Judge(drives []Drive, conf config.Drives, need int64) []Verdict {
	fits := map[int]int{} // rule to the number of drives it fits
	rule := make([]int, len(drives))
	for i, d := range drives {
		rule[i] = -1
		for r := range conf.Drive {
			if matches(conf.Drive[r].Match, d) {
				fits[r]++
				if rule[i] < 0 {
					rule[i] = r
				}
			}
		}
	}
	var out []Verdict
	for i, d := range drives {
		v := Verdict{Drive: d, Lost: !d.Empty() && !d.Ours()}
		if rule[i] >= 0 {
			v.Rule = &conf.Drive[rule[i]]
		}
		v.Layout = conf.LayoutOf(v.Rule)
		v.Use, v.Reason = decide(v, fits[rule[i]], need)
		out = append(out, v)
	}
	return out
}

func decide(v Verdict, fits int, need int64) (Use, string) {
	d := v.Drive
	switch {
	case d.Busy != "":
		return Never, "in use: " + d.Busy
	case d.ReadOnly:
		return Never, "it is read-only"
	case d.Err != "":
		return Never, "it cannot be read: " + d.Err
	}
	if _, err := Divide(d, v.Layout, need); err != nil {
		return Never, err.Error()
	}
	holds := strings.Join(d.Holds(), "; ")
	if v.Rule == nil {
		if v.Lost {
			return Confirm, "no rule of drives.conf fits it, and it holds: " + holds
		}
		return Confirm, "no rule of drives.conf fits it"
	}
	name := fmt.Sprintf("the rule %q", v.Rule.Name)
	switch {
	case fits > 1:
		return Confirm, fmt.Sprintf("%s fits %d drives: it must fit one", name, fits)
	case !v.Lost && d.Empty():
		return Free, name + " fits it, and it is empty"
	case !v.Lost:
		return Free, name + " fits it, and it was installed by slate"
	case !v.Rule.Wipe:
		return Confirm, name + " fits it but does not say wipe = true, and it holds: " + holds
	case !v.Rule.Match.Named():
		return Confirm, name + " says wipe = true but names no drive, and it holds: " + holds
	}
	return Free, name + " names it and says that it is wiped: " + holds
}

// matches tells whether all that a rule says holds for the drive.
func matches(m config.Match, d Drive) bool {
	for _, c := range []struct{ pattern, value string }{
		{m.ByID, d.ID}, {m.Serial, d.Serial}, {m.Model, d.Model}, {m.Path, d.Path}, {m.Transport, d.Transport},
	} {
		if c.pattern == "" {
			continue
		}
		if ok, err := path.Match(c.pattern, c.value); err != nil || !ok || c.value == "" {
			return false
		}
	}
	if m.MinSize != "" {
		if n, err := config.ParseDriveSize(m.MinSize); err != nil || d.Size < n {
			return false
		}
	}
	if m.MaxSize != "" {
		if n, err := config.ParseDriveSize(m.MaxSize); err != nil || d.Size > n {
			return false
		}
	}
	return m != (config.Match{})
}

// Pick chooses the drive for an installation that nobody watches: the only one that
// is free. Otherwise it says why there is none.
func Pick(verdicts []Verdict) (Verdict, error) {
	var free []Verdict
	for _, v := range verdicts {
		if v.Use == Free {
			free = append(free, v)
		}
	}
	switch {
	case len(free) == 1:
		return free[0], nil
	case len(free) > 1:
		var names []string
		for _, v := range free {
			names = append(names, v.Drive.Name)
		}
		return Verdict{}, &PickError{verdicts, fmt.Sprintf("%d drives may be used (%s), and drives.conf does not say which", len(free), strings.Join(names, ", "))}
	case len(verdicts) == 0:
		return Verdict{}, &PickError{nil, "this machine has no drive"}
	}
	return Verdict{}, &PickError{verdicts, "no drive may be used without asking"}
}

// PickError says why no drive was chosen.
type PickError struct {
	Verdicts []Verdict
	Text     string
}

func (e *PickError) Error() string {
	text := e.Text
	for _, v := range e.Verdicts {
		text += fmt.Sprintf("\n%s: %s", v.Drive, v.Reason)
	}
	return text
}

// Hint says what to do.
func (e *PickError) Hint() string {
	return "Rules are in config.d/controller/drives.conf; or choose \"Install on this machine\" here."
}

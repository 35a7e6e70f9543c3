// SPDX-License-Identifier: GPL-2.0-or-later

// Package atom knows the grammar of Portage's package atoms and of the files
// that hold them, so that a mistake is found before an hour's build is. It is
// that of the Package Manager Specification, section 8.3, and of portage(5).
package atom

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// The parts of an atom. A version is numbers, a letter, suffixes, a revision.
const (
	category = `[A-Za-z0-9_][A-Za-z0-9_+.-]*`
	name     = `[A-Za-z0-9_][A-Za-z0-9_+-]*`
	version  = `[0-9]+(?:\.[0-9]+)*[a-z]?(?:_(?:alpha|beta|pre|rc|p)[0-9]*)*(?:-r[0-9]+)?`
	slot     = `[A-Za-z0-9_][A-Za-z0-9_+./-]*`
	flag     = `[A-Za-z0-9][A-Za-z0-9_+@-]*`
	repo     = `[A-Za-z0-9_][A-Za-z0-9_-]*`
	depFlag  = `[!-]?` + flag + `(?:\([+-]\))?[?=]?`

	tail = `(?::(?:` + slot + `)?[=*]?)?(?:::` + repo + `)?(?:\[` + depFlag + `(?:,` + depFlag + `)*\])?`
)

var (
	setWord   = regexp.MustCompile(`^@[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	plain     = regexp.MustCompile(`^` + category + `/` + name + tail + `$`)
	versioned = regexp.MustCompile(`^(?:>=|<=|=|>|<|~)` + category + `/` + name + `-` + version + `\*?` + tail + `$`)
	// In package.* files, and only there, * stands for anything.
	wild = regexp.MustCompile(`^(?:[A-Za-z0-9_*][A-Za-z0-9_+.*-]*)/(?:[A-Za-z0-9_*][A-Za-z0-9_+*-]*)(?::(?:` + slot + `))?(?:::` + repo + `)?$`)
	// A name that ends like a version would be one: a/b-1 is no package's name.
	versionEnd = regexp.MustCompile(`^[^:\[]*/[^:\[]*-` + version + `(?:[:\[].*)?$`)

	useWord     = regexp.MustCompile(`^-?` + `(?:\*|` + flag + `|[A-Za-z0-9][A-Za-z0-9_+@-]*\*?)$`)
	expandWord  = regexp.MustCompile(`^[A-Z][A-Z0-9_]*:$`)
	keywordWord = regexp.MustCompile(`^(?:\*\*|\*|~\*|-\*|[~-]?[a-z0-9][a-z0-9-]*)$`)
	licenseWord = regexp.MustCompile(`^-?(?:\*|@?[A-Za-z0-9_][A-Za-z0-9_+.-]*)$`)
	envWord     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./-]*$`)
)

// Check says what is wrong with an atom, or a set such as @world, that is to be
// installed.
func Check(a string) error {
	switch {
	case setWord.MatchString(a):
		return nil
	case plain.MatchString(a):
		if versionEnd.MatchString(a) {
			return fmt.Errorf("%q: a version needs an operator before it: =%s", a, a)
		}
		return nil
	case versioned.MatchString(a):
		if strings.Contains(a, "*") && !strings.HasPrefix(a, "=") {
			return fmt.Errorf("%q: only = goes with *", a)
		}
		return nil
	case !strings.Contains(a, "/"):
		return fmt.Errorf("%q: want the category too, such as app-editors/vim", a)
	}
	return fmt.Errorf("%q is no package atom", a)
}

// Kinds are the files (or directories of files) below /etc/portage that hold an
// atom and words on each line.
var Kinds = []string{"package.use", "package.accept_keywords", "package.license", "package.mask", "package.unmask", "package.env"}

// CheckLine says what is wrong with a line of a file of the kind, which is one
// of Kinds. Comments and empty lines are fine.
func CheckLine(kind, line string) error {
	line, _, _ = strings.Cut(line, "#")
	f := strings.Fields(line)
	if len(f) == 0 {
		return nil
	}
	a := f[0]
	if kind == "package.mask" || kind == "package.unmask" {
		a = strings.TrimPrefix(a, "-") // takes an earlier line back
	}
	if !wild.MatchString(a) || !strings.Contains(a, "*") {
		if err := Check(a); err != nil {
			return err
		}
	}
	words := f[1:]
	if len(words) == 0 && kind != "package.accept_keywords" && kind != "package.mask" && kind != "package.unmask" {
		return fmt.Errorf("%s: nothing is said about it", a)
	}
	check := func(ok *regexp.Regexp, what string) error {
		for _, w := range words {
			if !ok.MatchString(w) {
				return fmt.Errorf("%q is no %s", w, what)
			}
		}
		return nil
	}
	switch kind {
	case "package.use":
		for _, w := range words {
			if !useWord.MatchString(w) && !expandWord.MatchString(w) {
				return fmt.Errorf("%q is no USE flag", w)
			}
		}
	case "package.accept_keywords":
		return check(keywordWord, "keyword")
	case "package.license":
		return check(licenseWord, "licence")
	case "package.env":
		return check(envWord, "file in /etc/portage/env")
	case "package.mask", "package.unmask":
		if len(words) > 0 {
			return errors.New("only an atom stands on a line of it")
		}
	default:
		return fmt.Errorf("BUG: no kind of file %q", kind)
	}
	return nil
}

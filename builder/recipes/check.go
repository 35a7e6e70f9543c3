// SPDX-License-Identifier: GPL-2.0-or-later

package recipes

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"slate/netboot/config"
)

// The words of a recipe end up in command lines and scripts. They are quoted
// there; these patterns catch mistakes before an hour's build does.
var (
	packageWord = regexp.MustCompile(`^-?[a-z0-9][a-zA-Z0-9+.{}~:=/-]*( \[[a-z0-9 ]+\])?$`)
	unitWord    = regexp.MustCompile(`^-?[a-zA-Z0-9:_.@\\-]+$`)
	suiteWord   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)
	userWord    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	zoneWord    = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)
	localeWord  = regexp.MustCompile(`^[A-Za-z0-9_.@-]+$`)
	hashWord    = regexp.MustCompile(`^(\$[0-9a-zA-Z./$=,-]+|[!*])$`)
)

// Bases are the bases there is a builder for.
var Bases = []string{"debian"}

// variants are mmdebstrap's sets of packages that can make a root.
var variants = []string{"apt", "required", "minbase", "buildd", "important", "debootstrap", "standard", "-"}

// check looks at what the recipe itself says.
func (r *Recipe) check(d *config.Doc) error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, d.Errorf(key, format, args...)) }
	words := func(key string, list []string, ok *regexp.Regexp) {
		for _, w := range list {
			if !ok.MatchString(w) {
				bad(key, "%q is no such name", w)
			}
		}
	}
	word := func(key, w string, ok *regexp.Regexp) {
		if w != "" && !ok.MatchString(w) {
			bad(key, "%q is not usable here", w)
		}
	}
	words("packages.install", r.Packages.Install, packageWord)
	words("system.mask", r.System.Mask, unitWord)
	words("system.enable", r.System.Enable, unitWord)
	words("system.disable", r.System.Disable, unitWord)
	words("debian.components", r.Debian.Components, suiteWord)
	words("clean.keep-locales", r.Clean.KeepLocales, localeWord)
	word("debian.suite", r.Debian.Suite, suiteWord)
	word("debian.arch", r.Debian.Arch, suiteWord)
	word("system.timezone", r.System.Timezone, zoneWord)
	word("system.locale", r.System.Locale, localeWord)
	if r.Base != "" && !slices.Contains(Bases, r.Base) {
		bad("base", "%q: there is no builder for it; there is one for %s", r.Base, strings.Join(Bases, ", "))
	}
	if v := r.Debian.Variant; v != "" && !slices.Contains(variants, v) {
		bad("debian.variant", "%q: want one of %s", v, strings.Join(variants, ", "))
	}
	mirror := func(key, m string) {
		if m != "" && (!strings.Contains(m, ":/") || strings.ContainsAny(m, " \t\n[]")) {
			bad(key, "%q: want a URL such as http://deb.debian.org/debian", m)
		}
	}
	mirror("debian.mirror", r.Debian.Mirror)
	mirror("debian.security-mirror", r.Debian.SecurityMirror)
	for _, u := range r.Users {
		r.checkUser(u, bad)
	}
	for _, f := range r.Files {
		r.checkFile(f, bad)
	}
	for _, s := range r.Scripts {
		if s.Run == "" {
			bad("script", "a script without run")
		}
	}
	return errors.Join(errs...)
}

func (r *Recipe) checkUser(u User, bad func(string, string, ...any)) {
	if !userWord.MatchString(u.Name) {
		bad("user.name", "%q: want lower-case letters, digits, _ and -", u.Name)
	}
	if u.Password != "" && u.PasswordHash != "" {
		bad("user.password", "user %s has a password and a password-hash: give one", u.Name)
	}
	if strings.ContainsAny(u.Password, "\n\r\x00") {
		bad("user.password", "user %s: a line break cannot be typed at a login prompt", u.Name)
	}
	if u.PasswordHash != "" && !hashWord.MatchString(u.PasswordHash) {
		bad("user.password-hash", "user %s: not what stands in /etc/shadow; make one with: mkpasswd -m yescrypt", u.Name)
	}
	for _, k := range u.Keys {
		if f := strings.Fields(k); len(f) < 2 || strings.ContainsAny(k, "\n\r\x00") {
			bad("user.keys", "user %s: %.40q is no line of authorized_keys", u.Name, k)
		}
	}
	for _, g := range u.Groups {
		if !userWord.MatchString(g) {
			bad("user.groups", "user %s: group %q", u.Name, g)
		}
	}
	if u.Shell != "" && !path.IsAbs(u.Shell) {
		bad("user.shell", "user %s: %q is no absolute path", u.Name, u.Shell)
	}
}

func (r *Recipe) checkFile(f File, bad func(string, string, ...any)) {
	switch {
	case !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" || strings.ContainsAny(f.Path, "\n\x00"):
		bad("file.path", "%q: want an absolute path without . and ..", f.Path)
	case f.Content != "" && f.From != "":
		bad("file.from", "%s has content and from: give one", f.Path)
	}
	if f.From != "" && r.dir == "" {
		bad("file.from", "%s: a shipped recipe has no files beside it", f.Path)
	}
	if f.Mode != "" {
		if m, err := strconv.ParseUint(f.Mode, 8, 32); err != nil || m > 0o7777 {
			bad("file.mode", "%s: %q is no octal mode such as 0644", f.Path, f.Mode)
		}
	}
	if f.Owner != "" {
		for _, w := range strings.SplitN(f.Owner, ":", 2) {
			if _, err := strconv.Atoi(w); err != nil && !userWord.MatchString(w) {
				bad("file.owner", "%s: %q: want user or user:group", f.Path, f.Owner)
				break
			}
		}
	}
}

// checkWhole looks at the recipe with all that it extends.
func (r *Recipe) checkWhole(d *config.Doc) error {
	var errs []error
	if r.Base == "" {
		errs = append(errs, d.Errorf("base", "a recipe says what it builds on, or which recipe it extends"))
	}
	if r.Base == "debian" && r.Debian.Suite == "" {
		errs = append(errs, d.Errorf("debian.suite", "missing"))
	}
	seen := map[string]bool{}
	for _, f := range r.Files {
		if seen[f.Path] {
			errs = append(errs, d.Errorf("file.path", "%s is given twice", f.Path))
		}
		seen[f.Path] = true
	}
	return errors.Join(errs...)
}

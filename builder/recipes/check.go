// SPDX-License-Identifier: GPL-2.0-or-later

package recipes

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"slate/builder/atom"
	"slate/builder/initramfs"
	"slate/images/archive"
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
	variantWord = regexp.MustCompile(`^[a-z0-9][a-z0-9_.+-]*$`)
	profileWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]*(/[A-Za-z0-9][A-Za-z0-9_.+-]*)*$`)
	digestWord  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	moduleWord  = regexp.MustCompile(`^-?[A-Za-z0-9_][A-Za-z0-9_:*.+,-]*$`)
	hashWord    = regexp.MustCompile(`^(\$[0-9a-zA-Z./$=,-]+|[!*])$`)
)

// Bases are the bases there is a builder for.
var Bases = []string{BaseGentoo, BaseDebian, BaseTar, BaseDirectory, BaseOCI}

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
	for _, w := range r.Packages.Install {
		// Which of the two it has to be depends on the base; see checkWhole.
		if !packageWord.MatchString(w) && atom.Check(strings.TrimPrefix(w, "-")) != nil {
			bad("packages.install", "%q is no such name", w)
		}
	}
	for key, list := range map[string][]string{"use": r.Gentoo.Use, "accept_keywords": r.Gentoo.Keywords, "license": r.Gentoo.Licenses} {
		for _, line := range list {
			if err := atom.CheckLine("package."+key, line); err != nil || strings.ContainsAny(line, "\n\r") {
				bad("gentoo."+map[string]string{"use": "use", "accept_keywords": "keywords", "license": "licenses"}[key], "%q: %v", line, err)
			}
		}
	}
	if c := r.Gentoo.ConfigUpdates; c != "" && c != ConfigNew && c != ConfigKeep {
		bad("gentoo.config-updates", "%q is not one of %s, %s", c, ConfigNew, ConfigKeep)
	}
	word("gentoo.variant", r.Gentoo.Variant, variantWord)
	word("gentoo.profile", r.Gentoo.Profile, profileWord)
	word("source.digest", r.Source.Digest, digestWord)
	words("modules.extra", r.Modules.Extra, moduleWord)
	words("modules.exclude", r.Modules.Exclude, moduleWord)
	for _, c := range r.Modules.Classes {
		if !slices.Contains(initramfs.Classes(), c) {
			bad("modules.classes", "%q is not one of %s", c, strings.Join(initramfs.Classes(), ", "))
		}
	}
	if r.dir == "" && (r.Source.Path != "" || r.Kernel.Config != "" || len(r.Kernel.Fragments) > 0) {
		bad("source", "a shipped recipe has no files beside it")
	}
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
	for _, w := range r.Packages.Install {
		var err error
		if r.Base == BaseGentoo {
			err = atom.Check(w)
		} else if r.Base != "" && !packageWord.MatchString(w) {
			err = fmt.Errorf("%q is no such name", w)
		}
		if err != nil {
			errs = append(errs, d.Errorf("packages.install", "%v", err))
		}
	}
	errs = append(errs, r.checkSource(d)...)
	if (r.Kernel.Config != "" || len(r.Kernel.Fragments) > 0) && r.Base != BaseGentoo {
		errs = append(errs, d.Errorf("kernel", "only a Gentoo kernel is compiled"))
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

// checkSource wants to know where the base is, if it is not a distribution, and
// why what comes over a network is to be believed.
func (r *Recipe) checkSource(d *config.Doc) []error {
	s := r.Source
	switch {
	case r.Base != BaseTar && r.Base != BaseDirectory && r.Base != BaseOCI:
		if s.Path != "" {
			return []error{d.Errorf("source.path", "base %q has sources of its own", r.Base)}
		}
	case s.Path == "":
		return []error{d.Errorf("source.path", "missing: where the %s is", r.Base)}
	case r.Base == BaseOCI && !archive.IsContainer(s.Path):
		return []error{d.Errorf("source.path", "%q: want oci:DIR[:TAG], docker-archive:FILE or docker://NAME[:TAG]", s.Path)}
	case r.Base == BaseTar && s.Remote() && s.Digest == "" && (s.Keys == "" || len(s.Signer) == 0):
		return []error{d.Errorf("source.digest", "an archive from elsewhere needs its SHA-256, or keys and signer")}
	}
	return nil
}

// Remote reports whether the archive is fetched over a network.
func (s Source) Remote() bool {
	return strings.HasPrefix(s.Path, "http://") || strings.HasPrefix(s.Path, "https://")
}

// SPDX-License-Identifier: GPL-2.0-or-later

package debian

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"slate/builder/recipes"
)

// DefaultMirror serves where neither the recipe nor this machine names one.
const (
	DefaultMirror         = "http://deb.debian.org/debian"
	DefaultSecurityMirror = "http://deb.debian.org/debian-security"
)

// archiveKeyring has the keys of Debian's archive on systems that are not
// Debian; on Debian apt knows them already.
const archiveKeyring = "usr/share/keyrings/debian-archive-keyring.gpg"

// Source is one suite of one archive.
type Source struct {
	URI        string
	Suite      string
	Components []string
	SignedBy   string // file with the keys; "": those apt trusts anyway
}

// String is the line for sources.list(5).
func (s Source) String() string {
	opt := ""
	if s.SignedBy != "" {
		opt = "[signed-by=" + s.SignedBy + "] "
	}
	return "deb " + opt + s.URI + " " + s.Suite + " " + strings.Join(s.Components, " ")
}

// Host is what of the building machine decides where packages come from.
type Host struct {
	Debian   bool   // it runs Debian
	Codename string // its release: "bookworm"
	Sources  []Source
	Keyring  string // Debian's keys, where apt does not have them
}

// ReadHost reads os-release and apt's sources below root, "/" in life. What is
// not there is not an error: the machine then has no say.
func ReadHost(root fs.FS) Host {
	var h Host
	release, _ := fs.ReadFile(root, "etc/os-release")
	for line := range strings.SplitSeq(string(release), "\n") {
		k, v, _ := strings.Cut(line, "=")
		v = strings.Trim(v, `"'`)
		switch k {
		case "ID":
			h.Debian = v == "debian"
		case "VERSION_CODENAME":
			h.Codename = v
		}
	}
	if !h.Debian {
		if _, err := fs.Stat(root, archiveKeyring); err == nil {
			h.Keyring = "/" + archiveKeyring
		}
		return h
	}
	if b, err := fs.ReadFile(root, "etc/apt/sources.list"); err == nil {
		h.Sources = append(h.Sources, ParseSourceList(string(b))...)
	}
	list, _ := fs.ReadDir(root, "etc/apt/sources.list.d")
	for _, e := range list {
		b, err := fs.ReadFile(root, path.Join("etc/apt/sources.list.d", e.Name()))
		if err != nil {
			continue
		}
		switch path.Ext(e.Name()) {
		case ".list":
			h.Sources = append(h.Sources, ParseSourceList(string(b))...)
		case ".sources":
			h.Sources = append(h.Sources, ParseDeb822(string(b))...)
		}
	}
	return h
}

// ParseSourceList reads the one-line format of sources.list(5). Lines for
// source packages and lines it cannot read are passed over.
func ParseSourceList(text string) []Source {
	var out []Source
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], " \t[") {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, after, ok := strings.Cut(rest, "]")
			if !ok {
				continue
			}
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 2 {
			continue
		}
		out = append(out, Source{URI: strings.TrimSuffix(f[0], "/"), Suite: f[1], Components: f[2:]})
	}
	return out
}

// ParseDeb822 reads the format of *.sources files: paragraphs of fields, each
// with several URIs and suites.
func ParseDeb822(text string) []Source {
	var out []Source
	fields := map[string]string{}
	last := ""
	flush := func() {
		defer func() { fields, last = map[string]string{}, "" }()
		enabled := strings.ToLower(fields["enabled"])
		if enabled == "no" || enabled == "false" || !slices.Contains(strings.Fields(fields["types"]), "deb") {
			return
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			for _, suite := range strings.Fields(fields["suites"]) {
				out = append(out, Source{URI: strings.TrimSuffix(uri, "/"), Suite: suite, Components: strings.Fields(fields["components"])})
			}
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t': // continues the field before
			if last != "" {
				fields[last] += " " + strings.TrimSpace(line)
			}
		default:
			k, v, ok := strings.Cut(line, ":")
			if ok {
				last = strings.ToLower(strings.TrimSpace(k))
				fields[last] = strings.TrimSpace(v)
			}
		}
	}
	flush()
	return out
}

// mirrors returns the host's own archive and security archive: those its own
// release comes from, since other entries belong to other vendors.
func (h Host) mirrors() (main, security string) {
	for _, s := range h.Sources {
		switch s.Suite {
		case h.Codename, "stable", "testing", "unstable", "sid":
			if main == "" && h.Codename != "" {
				main = s.URI
			}
		case h.Codename + "-security", h.Codename + "/updates", "stable-security", "testing-security":
			if security == "" && h.Codename != "" {
				security = s.URI
			}
		}
	}
	return main, security
}

// Sources returns the suites a recipe's packages come from, and says in words
// why from there.
func Sources(d recipes.Debian, h Host) ([]Source, string) {
	main, security := h.mirrors()
	why := "the sources of this machine's apt"
	switch {
	case d.Mirror != "":
		main, why = strings.TrimSuffix(d.Mirror, "/"), "the recipe's mirror"
		security = ""
	case main == "":
		main, why = DefaultMirror, "the default mirror"
	}
	if d.SecurityMirror != "" {
		security = strings.TrimSuffix(d.SecurityMirror, "/")
	}
	if security == "" {
		security = DefaultSecurityMirror
	}
	key := d.Keyring
	if key == "" {
		key = h.Keyring
	}
	comps := d.Components
	if len(comps) == 0 {
		comps = []string{"main"}
	}
	out := []Source{{main, d.Suite, comps, key}}
	if rolling(d.Suite) {
		return out, why
	}
	if d.Updates {
		out = append(out, Source{main, d.Suite + "-updates", comps, key})
	}
	if d.Security {
		out = append(out, Source{security, d.Suite + "-security", comps, key})
	}
	return out, why
}

// rolling suites have no -updates and -security beside them.
func rolling(suite string) bool {
	return suite == "sid" || suite == "unstable" || suite == "experimental"
}

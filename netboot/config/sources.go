// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Sources is sources/sources.conf: where builds come from, and for which
// processors they are made. Recipes say what goes into an image.
type Sources struct {
	Gentoo SourcesGentoo `toml:"gentoo"`
	Debian SourcesDebian `toml:"debian"`
	Target SourcesTarget `toml:"target"`
	Remote []Remote      `toml:"remote,omitempty"`
}

// SourcesGentoo says where stages, the tree and binary packages come from.
type SourcesGentoo struct {
	Mirrors   []string `toml:"mirrors"`    // tried in order; a build takes everything from one
	Variant   string   `toml:"variant"`    // stage3-amd64-openrc
	Stamp     string   `toml:"stamp"`      // latest, or the time stamp of a stage
	Tree      string   `toml:"tree"`       // latest, YYYYMMDD, or a directory with the repository
	Profile   string   `toml:"profile"`    // empty: the stage's
	Binhost   string   `toml:"binhost"`    // auto, off, or a URL
	Keys      string   `toml:"keys"`       // file or URL with the public keys
	StageKeys []string `toml:"stage-keys"` // fingerprints that may sign stages
	TreeKeys  []string `toml:"tree-keys"`  // fingerprints that may sign snapshots
}

// SourcesDebian says where Debian's packages come from, unless a recipe does.
type SourcesDebian struct {
	Suite          string   `toml:"suite"`
	Components     []string `toml:"components"`
	Mirror         string   `toml:"mirror"`
	SecurityMirror string   `toml:"security-mirror"`
	Keyring        string   `toml:"keyring"`
}

// SourcesTarget says for which processors programs are compiled.
type SourcesTarget struct {
	Level    string   `toml:"level"`     // what -march= takes
	CPUFlags []string `toml:"cpu-flags"` // CPU_FLAGS_X86; empty: what the level has
	Optimize string   `toml:"optimize"`  // binary-first or source
	Jobs     int      `toml:"jobs"`      // programs compiled at once; 0: as many as there are processors
}

// What compiling prefers (SourcesTarget.Optimize).
const (
	BinaryFirst = "binary-first" // take a binary package where there is one
	FromSource  = "source"       // compile everything
)

// Remote is a place from which files come that config.d does not have: recipes,
// keys, overlays, and what stands in sources/ here. It is a git repository or a
// web directory with a list of digests.
type Remote struct {
	Name   string   `toml:"name"`
	URL    string   `toml:"url"`
	Ref    string   `toml:"ref"`    // git: branch, tag or commit; empty: the default branch
	Digest string   `toml:"digest"` // web: SHA-256 of the list
	Keys   string   `toml:"keys"`   // web: file with the public keys of who signed the list
	Signer []string `toml:"signer"` // web: their fingerprints
}

// Git reports whether the place is a git repository.
func (r Remote) Git() bool {
	return strings.HasPrefix(r.URL, "git+") || strings.HasPrefix(r.URL, "ssh://") || strings.HasSuffix(r.URL, ".git")
}

func defaultSources() Sources {
	return Sources{
		Gentoo: SourcesGentoo{
			Mirrors: []string{"https://distfiles.gentoo.org"}, Variant: "stage3-amd64-openrc", Stamp: "latest", Tree: "latest", Binhost: "auto",
			Keys:      "https://qa-reports.gentoo.org/output/service-keys.gpg",
			StageKeys: []string{"13EBBDBEDE7A12775DFDB1BABB572E0E2D182910"},
			TreeKeys:  []string{"DCD05B71EAB94199527F44ACDB6B8C1F96D8BF6D"},
		},
		Debian: SourcesDebian{Suite: "trixie", Components: []string{"main"}},
		Target: SourcesTarget{Level: "x86-64-v2", CPUFlags: []string{}, Optimize: BinaryFirst},
	}
}

// PortageDir is the directory of config.d that is laid over a Gentoo tree's
// /etc/portage: make.conf, package.use and whatever else Portage reads.
const PortageDir = "sources/portage/"

var (
	variantWord     = regexp.MustCompile(`^[a-z0-9][a-z0-9_.+-]*$`)
	stageStamp      = regexp.MustCompile(`^(latest|[0-9]{8}T[0-9]{6}Z)$`)
	treeWord        = regexp.MustCompile(`^(latest|[0-9]{8}|/.+)$`)
	profileWord     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]*(/[A-Za-z0-9][A-Za-z0-9_.+-]*)*$`)
	suiteWord       = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)
	levelWord       = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]*$`)
	flagWord        = regexp.MustCompile(`^[a-z0-9_]+$`)
	remoteWord      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	refWord         = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]*$`)
	sha256Word      = regexp.MustCompile(`^[0-9a-f]{64}$`)
	fingerprintWord = regexp.MustCompile(`^(0x)?[0-9A-Fa-f ]+$`)
)

func (s *Sources) check(d *Doc) []error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, d.Errorf(key, format, args...)) }
	word := func(key, w string, ok *regexp.Regexp, want string) {
		if w != "" && !ok.MatchString(w) {
			bad(key, "%q: want %s", w, want)
		}
	}
	g := s.Gentoo
	if len(g.Mirrors) == 0 {
		bad("gentoo.mirrors", "no mirror is named")
	}
	for _, m := range g.Mirrors {
		if !isURL(m, "http", "https") {
			bad("gentoo.mirrors", "%q: want a URL such as https://distfiles.gentoo.org", m)
		}
	}
	word("gentoo.variant", g.Variant, variantWord, "a name such as stage3-amd64-openrc")
	word("gentoo.stamp", g.Stamp, stageStamp, `"latest" or a time stamp such as 20261123T014451Z`)
	word("gentoo.tree", g.Tree, treeWord, `"latest", a date such as 20261124, or the absolute path of a repository`)
	word("gentoo.profile", g.Profile, profileWord, "a path such as default/linux/amd64/23.0")
	if g.Variant == "" || g.Stamp == "" || g.Tree == "" {
		bad("gentoo", "variant, stamp and tree cannot be empty")
	}
	if g.Binhost != "auto" && g.Binhost != "off" && !isURL(g.Binhost, "http", "https") {
		bad("gentoo.binhost", `%q: want "auto", "off" or a URL`, g.Binhost)
	}
	fingerprints := func(key string, list []string) {
		for _, f := range list {
			if hex := strings.ReplaceAll(strings.TrimPrefix(f, "0x"), " ", ""); !fingerprintWord.MatchString(f) || len(hex) != 40 {
				bad(key, "%q: want the 40 hexadecimal digits of a fingerprint; shorter ones can be forged", f)
			}
		}
	}
	fingerprints("gentoo.stage-keys", g.StageKeys)
	fingerprints("gentoo.tree-keys", g.TreeKeys)
	word("debian.suite", s.Debian.Suite, suiteWord, "a suite such as trixie")
	for _, c := range s.Debian.Components {
		word("debian.components", c, suiteWord, "a component such as main")
	}
	for key, m := range map[string]string{"debian.mirror": s.Debian.Mirror, "debian.security-mirror": s.Debian.SecurityMirror} {
		if m != "" && (!strings.Contains(m, ":/") || strings.ContainsAny(m, " \t\n[]")) {
			bad(key, "%q: want a URL such as http://deb.debian.org/debian", m)
		}
	}
	word("target.level", s.Target.Level, levelWord, "what -march= takes, such as x86-64-v2")
	for _, f := range s.Target.CPUFlags {
		word("target.cpu-flags", f, flagWord, "a flag such as avx2")
	}
	if o := s.Target.Optimize; o != BinaryFirst && o != FromSource {
		bad("target.optimize", "%q is not one of %s, %s", o, BinaryFirst, FromSource)
	}
	if s.Target.Jobs < 0 || s.Target.Jobs > 1024 {
		bad("target.jobs", "%d is not between 0 and 1024", s.Target.Jobs)
	}
	seen := map[string]bool{}
	for _, r := range s.Remote {
		errs = append(errs, r.check(d, seen)...)
		fingerprints("remote.signer", r.Signer)
	}
	return errs
}

func (r Remote) check(d *Doc, seen map[string]bool) []error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, d.Errorf("remote."+key, "remote %q: %s", r.Name, fmt.Sprintf(format, args...)))
	}
	if !remoteWord.MatchString(r.Name) || seen[r.Name] {
		bad("name", "want a name of its own, of lower-case letters, digits and -")
	}
	seen[r.Name] = true
	if r.Git() {
		if !isURL(strings.TrimPrefix(r.URL, "git+"), "https", "http", "ssh", "file") {
			bad("url", "%q: want a URL such as git+https://example.org/images.git", r.URL)
		}
		if r.Ref != "" && !refWord.MatchString(r.Ref) {
			bad("ref", "%q: want a branch, tag or commit", r.Ref)
		}
		if r.Digest != "" || r.Keys != "" || len(r.Signer) > 0 {
			bad("url", "a git repository is pinned by ref, to a commit; digest, keys and signer are for web directories")
		}
		return errs
	}
	if !isURL(r.URL, "https", "http") {
		bad("url", "%q: want an https URL or a git repository", r.URL)
	}
	switch {
	case r.Digest != "" && !sha256Word.MatchString(r.Digest):
		bad("digest", "%q: want the 64 hexadecimal digits of sha256sum", r.Digest)
	case r.Digest == "" && (r.Keys == "" || len(r.Signer) == 0):
		bad("digest", "name the digest of its list, or keys and signer: what comes from elsewhere is not believed without")
	case r.Ref != "":
		bad("ref", "only a git repository has one")
	}
	return errs
}

func isURL(s string, schemes ...string) bool {
	u, err := url.Parse(s)
	return err == nil && slices.Contains(schemes, u.Scheme) && (u.Host != "" || u.Scheme == "file") && !strings.ContainsAny(s, " \t\n\"'\\")
}

// isBuilds tells what is for builds alone and not read here.
func isBuilds(p string) bool {
	top, _, below := strings.Cut(p, "/")
	return below && slices.Contains([]string{"recipes", "keys", "overlays"}, top)
}

// isPortage tells files that are Portage's, by their path below config.d.
func isPortage(p string) bool {
	_, rest := splitScope(p)
	return strings.HasPrefix(rest, PortageDir)
}

var repoWord = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]*$`)

// IsRepoName reports whether an ebuild repository may be called so (PMS 3.1.5).
func IsRepoName(name string) bool { return repoWord.MatchString(name) }

// Portage returns the files for /etc/portage by their path below it: the site's,
// and in their place those of the scope's groups.
func (s *Site) Portage(scope Scope) map[string][]byte {
	out := map[string][]byte{}
	for _, prefix := range scope.prefixes() {
		for p, data := range s.portage {
			if rest, ok := strings.CutPrefix(p, prefix+PortageDir); ok {
				out[rest] = data
			}
		}
	}
	return out
}

// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"slate/builder/customize"
)

// Work is what Portage is to do in a tree.
type Work struct {
	Packages []string // atoms and sets to install
	Update   bool     // @world first
	Depclean bool
	Keep     bool     // changed configuration files stay; otherwise an update's take their place
	Sync     []string // repositories that config.d has Portage fetch
	Offline  bool
}

// Env is what every program of Portage sees beside its configuration.
func Env() []string {
	return []string{
		// Byte code written while running would be in some builds and not in others.
		"PYTHONDONTWRITEBYTECODE=1",
		"NOCOLOR=true", "NO_COLOR=1", "EMERGE_DEFAULT_OPTS=", "PAGER=cat", "EDITOR=true",
	}
}

// Actions are the steps, each a script that runs inside the tree. They call the
// tree's own Portage; if one fails, so does the build.
func (w Work) Actions(c *Config) []customize.Action {
	online := !w.Offline
	options := []string{"--color=n", "--nospinner", "--quiet-build=y", "--ask=n", "--verbose-conflicts",
		fmt.Sprintf("--jobs=%d", max(c.Jobs, 1)), fmt.Sprintf("--load-average=%d", max(c.Jobs, 1)),
		"--usepkg=y", "--buildpkg=y", "--binpkg-respect-use=y"}
	if c.binhost() && online {
		options = append(options, "--getbinpkg=y")
	} else {
		options = append(options, "--getbinpkg=n")
	}
	out := []customize.Action{{Step: "looking at Portage", Script: lookAtPortage}}
	add := func(step, script string, network bool, args ...string) {
		out = append(out, customize.Action{Step: step, Script: script, Args: args, Network: network && online})
	}
	for _, r := range w.Sync {
		add("fetching the repository "+r, `exec emaint sync --repo "$1"`, true, r)
	}
	if c.binhost() && online {
		add("preparing the keys of binary packages", `! command -v getuto >/dev/null || exec getuto`, true)
	}
	const emerge = `exec emerge "$@"`
	wanted := w.Packages
	if w.Update {
		wanted = append([]string{"@world"}, wanted...)
	}
	if len(wanted) > 0 {
		// Phases of packages have no network, by Portage's own sandbox; what they
		// need is fetched before them.
		add("installing packages", emerge, true, slices.Concat(options, []string{"--update", "--deep", "--newuse", "--with-bdeps=n"}, wanted)...)
		add("rebuilding what uses old libraries", emerge, true, append(slices.Clone(options), "@preserved-rebuild")...)
	}
	if w.Depclean {
		add("removing what nothing needs", emerge, false, "--color=n", "--ask=n", "--depclean", "--with-bdeps=n")
		add("rebuilding what uses old libraries", emerge, true, append(slices.Clone(options), "@preserved-rebuild")...)
	}
	rule := "new"
	if w.Keep {
		rule = "keep"
	}
	add("settling configuration files", configUpdates, false, rule)
	add("settling configuration files", `! command -v env-update >/dev/null || env-update
! command -v eselect >/dev/null || eselect --brief news read --quiet all >/dev/null 2>&1 || :`, false)
	return out
}

const lookAtPortage = `
command -v emerge >/dev/null || {
  echo "there is no emerge in this tree: packages cannot be installed. Is the base a stage3?" >&2
  exit 1
}
if [ ! -e /etc/portage/make.profile/ ]; then
  echo "the profile $(readlink /etc/portage/make.profile || echo "(none)") is not in the ebuild repository" >&2
  exit 1
fi
emerge --color=n --version
emerge --color=n --info
`

// configUpdates settles what CONFIG_PROTECT has left, as etc-update(1) would, by
// rule. Each file is named, in the log and among the warnings.
const configUpdates = `
find /etc -xdev -name '._cfg????_*' | sort | while read -r new; do
  old=${new%/*}/${new##*/._cfg????_}
  if [ "$1" = new ]; then
    echo "slate-warning: $old was changed since it was installed; the update's version was taken"
    mv -f "$new" "$old"
  else
    echo "slate-warning: $old was changed since it was installed; it was kept, the update's version is lost"
    rm -f "$new"
  fi
done
`

// WarningPrefix begins lines of output that the person should see.
const WarningPrefix = "slate-warning: "

var emerging = regexp.MustCompile(`^>>> (Emerging|Installing|Fetching|Extracting|Running|Completed)[a-z -]* (?:binary )?(?:\()?([0-9]+) of ([0-9]+)\)? ([^\s]+)`)

// Progress reads a line of emerge's output and says in short what it is at, or "".
func Progress(line string) string {
	m := emerging.FindStringSubmatch(line)
	if m == nil {
		if rest, ok := strings.CutPrefix(line, "Calculating dependencies"); ok {
			return "calculating dependencies" + strings.TrimRight(rest, " .")
		}
		return ""
	}
	pkg, _, _ := strings.Cut(m[4], "::")
	return fmt.Sprintf("%s of %s: %s", m[2], m[3], pkg)
}

var iniSection = regexp.MustCompile(`^\s*\[([^\]]+)\]`)

// Synced lists the repositories of config.d's repos.conf that Portage is to
// fetch itself: those with a sync-type, Gentoo's own excepted.
func (c *Config) Synced() []string {
	var out []string
	for name, data := range c.Files {
		if name != "repos.conf" && !strings.HasPrefix(name, "repos.conf/") {
			continue
		}
		section := ""
		for line := range strings.SplitSeq(string(data), "\n") {
			if m := iniSection.FindStringSubmatch(line); m != nil {
				section = m[1]
				continue
			}
			k, v, ok := strings.Cut(line, "=")
			if ok && strings.TrimSpace(k) == "sync-type" && strings.TrimSpace(v) != "" && section != "gentoo" && section != "DEFAULT" && section != "" {
				out = append(out, section)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

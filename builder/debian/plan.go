// SPDX-License-Identifier: GPL-2.0-or-later

package debian

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"slate/builder/customize"
	"slate/builder/recipes"
	"slate/images"
)

// arches are Debian's names for Go's architectures, and what the kernel package
// for each ends in.
var arches = map[string]struct{ debian, kernel string }{
	"amd64":   {"amd64", "amd64"},
	"386":     {"i386", "686"},
	"arm64":   {"arm64", "arm64"},
	"arm":     {"armhf", "armmp"},
	"riscv64": {"riscv64", "riscv64"},
	"ppc64le": {"ppc64el", "powerpc64le"},
	"s390x":   {"s390x", "s390x"},
}

// Arch is the Debian architecture a recipe is built for.
func Arch(d recipes.Debian) string {
	if d.Arch != "" {
		return d.Arch
	}
	if a, ok := arches[runtime.GOARCH]; ok {
		return a.debian
	}
	return runtime.GOARCH
}

// kernelFlavour is what {arch} in the name of a kernel package stands for.
func kernelFlavour(arch string) string {
	for _, a := range arches {
		if a.debian == arch {
			return a.kernel
		}
	}
	return arch
}

// packages gives the names for one architecture. A name may end in the list of those
// it is for, as in Debian's control files: "grub-pc-bin [amd64 i386]".
func packages(list []string, arch string) []string {
	var out []string
	for _, p := range list {
		name, only, limited := strings.Cut(p, " [")
		if limited && !slices.Contains(strings.Fields(strings.TrimSuffix(only, "]")), arch) {
			continue
		}
		name = strings.ReplaceAll(name, "linux-image-{arch}", "linux-image-"+kernelFlavour(arch))
		out = append(out, strings.ReplaceAll(name, "{arch}", arch))
	}
	return out
}

// mode is how mmdebstrap gets at the rights it needs.
type mode string

const (
	modeRoot    mode = "root"    // we are root
	modeUnshare mode = "unshare" // in a user namespace
)

// arguments is mmdebstrap's command line: the tree as tar on standard output.
// dir is the directory with the hooks that writeHooks makes; they
// are followed by nothing if the tree is finished then.
func arguments(r *recipes.Recipe, sources []Source, m mode, dir string, finished bool) []string {
	arch := Arch(r.Debian)
	args := []string{
		"mmdebstrap",
		"--mode=" + string(m),
		"--format=tar",
		"--verbose", // the programs' own words go to the log
		"--variant=" + orDefault(r.Debian.Variant, "minbase"),
		"--architectures=" + arch,
		`--aptopt=APT::Install-Recommends "` + strconv.FormatBool(r.Debian.Recommends) + `"`,
		`--aptopt=Acquire::Languages "none"`,
		// Nothing is lost if the machine stops: the tree is thrown away then.
		"--dpkgopt=force-unsafe-io",
		// A file that a recipe has put there first is no reason to ask.
		"--dpkgopt=force-confold",
	}
	if finished {
		args = append(args, "--skip=cleanup/apt") // cleaning up is among the actions
	}
	if r.Clean.Docs {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
			"--dpkgopt=path-exclude=/usr/share/info/*", "--dpkgopt=path-exclude=/usr/share/lintian/*")
	}
	if r.Clean.Man {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/man/*")
	}
	if r.Clean.Locales {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-include=/usr/share/locale/locale.alias")
		for _, l := range r.Clean.KeepLocales {
			args = append(args, "--dpkgopt=path-include=/usr/share/locale/"+l+"/*", "--dpkgopt=path-include=/usr/share/locale/"+l+"_*/*")
		}
	}
	if p := packages(r.Packages.Install, arch); len(p) > 0 {
		args = append(args, "--include="+strings.Join(p, ","))
	}
	args = append(args,
		"--setup-hook="+path.Join(dir, "setup.sh"),
		"--customize-hook="+path.Join(dir, "customize.sh"),
		r.Debian.Suite, "-")
	for _, s := range sources {
		args = append(args, s.String())
	}
	return args
}

// environment is what mmdebstrap and the packages' scripts see. The caller's
// own would make the result depend on the person who builds.
func environment(epoch time.Time, home string, caller func(string) string) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + home,
		"LC_ALL=C.UTF-8",
		"TZ=UTC",
		"DEBIAN_FRONTEND=noninteractive",
		"DEBCONF_NONINTERACTIVE_SEEN=true",
		"SYSTEMD_OFFLINE=1",
		"INITRD=No", // the kernel package's hooks: nodes get their initramfs from us
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(epoch.Unix(), 10),
	}
	// How this machine reaches the archive is its own business.
	for _, k := range []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "TMPDIR"} {
		if v := caller(k); v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// Key is the same for two builds that make the same tree: it covers the command
// line, the scripts with what they read, the archives' states, and what
// mmdebstrap calls its version.
func Key(r *recipes.Recipe, sources []Source, actions []customize.Action, in Inputs, version string) images.Digest {
	h := sha256.New()
	put := func(s string) { fmt.Fprintf(h, "%d:%s,", len(s), s) }
	put(version)
	for _, a := range arguments(r, sources, modeRoot, "hooks", len(actions) > 0) {
		put(a)
	}
	for _, e := range environment(in.Date, "hooks", func(string) string { return "" }) {
		put(e)
	}
	put(setupScript)
	put(hookScript(actions, "files"))
	for _, a := range actions {
		put(string(a.Stdin))
	}
	for _, s := range slices.Sorted(maps.Keys(in.Release)) {
		put(s + " " + in.Release[s].String())
	}
	return images.Digest(h.Sum(nil))
}

// setupScript runs before anything is fetched. aptConf is configuration that
// holds for the build only.
const setupScript = `#!/bin/sh
# Made by slate for mmdebstrap: apt's settings of the building machine.
set -eu
mkdir -p "$1/etc/apt/apt.conf.d"
cat "$(dirname "$0")/apt.conf" > "$1/etc/apt/apt.conf.d/00slate-build"
`

// dropAptConf ends the customize script: the settings do not stay in the image.
const dropAptConf = `rm -f "$1/etc/apt/apt.conf.d/00slate-build"` + "\n"

// aptSettings picks from the output of apt-config dump what says how this
// machine reaches archives and how it judges their age.
func aptSettings(dump string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(dump, "\n") {
		key, _, _ := strings.Cut(line, " ")
		lower := strings.ToLower(key)
		proxy := strings.HasPrefix(lower, "acquire::http") && strings.Contains(lower, "proxy") && !strings.Contains(lower, "proxy-auto")
		age := lower == "acquire::check-valid-until" || lower == "acquire::check-date"
		if (proxy || age) && strings.HasSuffix(strings.TrimSpace(line), ";") {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"slate/builder/atom"
)

// Places inside a tree that builds share with this machine.
const (
	RepoDir    = "var/db/repos/gentoo"
	DistDir    = "var/cache/distfiles"
	PkgDir     = "var/cache/binpkgs"
	BinhostDir = "var/cache/binhost"
)

// Config is what Portage is to know: what config.d and the recipe say about it.
type Config struct {
	Files    map[string][]byte // config.d's, by path below /etc/portage
	Use      []string          // lines of the recipe
	Keywords []string
	Licenses []string
	Profile  string // "": the stage's

	March    string   // what -march= takes; "": not set
	CPUFlags []string // for CPU_FLAGS_X86; nil: not set
	Mirror   string   // for distfiles and binary packages
	Arch     string   // Gentoo's name
	Binhost  string   // auto, off, or a URL
	Source   bool     // compile, even if the binhost has a package
	Jobs     int
	Overlays map[string]string // name of a repository → its directory below /var/db/repos

	KernelConfig    []byte   // a whole .config; nil: the distribution's
	KernelFragments [][]byte // settings that go over it
}

// FileError is a file of config.d that Portage would not understand, or that
// would break the build.
type FileError struct {
	File string
	Line int
	Text string
}

func (e *FileError) Error() string {
	return fmt.Sprintf("sources/portage/%s:%d: %s", e.File, e.Line, e.Text)
}

// taken are variables of make.conf that are the builder's to set.
var taken = []string{"ROOT", "SYSROOT", "PORTAGE_CONFIGROOT", "EPREFIX", "PORTAGE_TMPDIR", "PKGDIR", "DISTDIR", "PORTDIR", "PORTAGE_TRUST_HELPER"}

// isolation are the values of FEATURES that keep packages inside the build.
var isolation = []string{"sandbox", "usersandbox", "network-sandbox", "pid-sandbox", "ipc-sandbox", "mount-sandbox", "userpriv", "strict", "gpg-keepalive"}

var assignment = regexp.MustCompile(`^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\+?=(.*)$`)

// Check looks at what Portage would read, before it is asked to build by it. It
// returns all that is wrong.
func (c *Config) Check() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		data := c.Files[name]
		top, _, _ := strings.Cut(name, "/")
		if !fs.ValidPath(name) {
			errs = append(errs, &FileError{name, 0, "no path below /etc/portage"})
			continue
		}
		for i, line := range strings.Split(string(data), "\n") {
			var err error
			switch {
			case top == "make.conf":
				err = checkMakeConf(line)
			case slices.Contains(atom.Kinds, top):
				err = atom.CheckLine(top, line)
			}
			if err != nil {
				errs = append(errs, &FileError{name, i + 1, err.Error()})
			}
		}
		if top == "repos.conf" || top == "binrepos.conf" {
			if err := checkINI(name, data); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func checkMakeConf(line string) error {
	m := assignment.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	if slices.Contains(taken, m[1]) {
		return fmt.Errorf("%s is the builder's to set", m[1])
	}
	if m[1] == "FEATURES" {
		for _, w := range strings.Fields(strings.Trim(strings.TrimSpace(m[2]), `"'`)) {
			if off, ok := strings.CutPrefix(w, "-"); ok && (slices.Contains(isolation, off) || off == "*") {
				return fmt.Errorf("FEATURES: %s would let packages reach out of the build", w)
			}
		}
	}
	return nil
}

// checkINI wants sections and keys, as Python's configparser does.
func checkINI(name string, data []byte) error {
	section := ""
	for i, line := range strings.Split(string(data), "\n") {
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case strings.HasPrefix(text, "["):
			if !strings.HasSuffix(text, "]") || len(text) < 3 {
				return &FileError{name, i + 1, fmt.Sprintf("%q is no section", text)}
			}
			section = text
		case section == "":
			return &FileError{name, i + 1, "a setting before the first [section]"}
		case line[0] == ' ' || line[0] == '\t': // goes on
		case !strings.ContainsAny(text, "=:"):
			return &FileError{name, i + 1, fmt.Sprintf("%q is neither a section nor a setting", text)}
		}
	}
	return nil
}

// written is the heading of files that are ours.
const written = "# Written by slate when this image was built.\n"

// Plan lists the files to write below /etc/portage, by path. stage are those that
// the tree has; a name that config.d has replaces the stage's whole. Where the
// stage or config.d has a file and more is to be said, the file becomes a
// directory, which Portage reads in the order of names:
//
//	10-stage     what the stage brings
//	30-target    -march and processor flags, which config.d may overrule
//	50-config.d  config.d's
//	70-recipe    the recipe's
//	90-slate     what building needs
func (c *Config) Plan(stage map[string][]byte, stageProfile string) map[string][]byte {
	out := map[string][]byte{}
	own := map[string]bool{} // names at the top that config.d has
	for name := range c.Files {
		top, _, _ := strings.Cut(name, "/")
		own[top] = true
	}
	directory := slices.Concat([]string{"make.conf", "repos.conf", "binrepos.conf"}, atom.Kinds)
	place := func(name, as string) string {
		if slices.Contains(directory, name) {
			return name + "/" + as
		}
		return name
	}
	for name, data := range stage {
		if top, _, _ := strings.Cut(name, "/"); !own[top] {
			out[place(name, "10-stage")] = data
		}
	}
	for name, data := range c.Files {
		out[place(name, "50-config.d")] = data
	}
	lines := func(name string, list []string) {
		if len(list) > 0 {
			out[name] = []byte(written + strings.Join(list, "\n") + "\n")
		}
	}
	lines("package.use/70-recipe", c.Use)
	lines("package.accept_keywords/70-recipe", c.Keywords)
	lines("package.license/70-recipe", c.Licenses)
	out["package.use/90-slate"] = []byte(written + kernelUse)
	if c.KernelConfig != nil {
		out["savedconfig/sys-kernel/gentoo-kernel"] = c.KernelConfig
		out["package.use/90-slate"] = append(out["package.use/90-slate"], "sys-kernel/gentoo-kernel savedconfig\n"...)
	}
	out["make.conf/30-target"] = c.target()
	out["make.conf/90-slate"] = c.makeConf()
	c.repos(out)
	c.binrepos(out, stage, stageProfile)
	return out
}

// kernelUse keeps the kernel's packages from making an initramfs: nodes start
// with the controller, and dracut's hook stops every build in a chroot.
const kernelUse = `sys-kernel/gentoo-kernel -initramfs
sys-kernel/gentoo-kernel-bin -initramfs
sys-kernel/installkernel -dracut -ugrd -ukify -uki -grub -systemd-boot -efistub
`

func (c *Config) target() []byte {
	var b bytes.Buffer
	b.WriteString(written)
	if c.March != "" {
		fmt.Fprintf(&b, "COMMON_FLAGS=\"-march=%s -O2 -pipe\"\nCFLAGS=\"${COMMON_FLAGS}\"\nCXXFLAGS=\"${COMMON_FLAGS}\"\nFCFLAGS=\"${COMMON_FLAGS}\"\nFFLAGS=\"${COMMON_FLAGS}\"\n", c.March)
	}
	if len(c.CPUFlags) > 0 {
		fmt.Fprintf(&b, "CPU_FLAGS_X86=\"%s\"\n", strings.Join(c.CPUFlags, " "))
	}
	if c.Mirror != "" {
		fmt.Fprintf(&b, "GENTOO_MIRRORS=\"%s\"\n", c.Mirror)
	}
	return b.Bytes()
}

func (c *Config) makeConf() []byte {
	var b bytes.Buffer
	b.WriteString(written)
	fmt.Fprintf(&b, "DISTDIR=\"/%s\"\nPKGDIR=\"/%s\"\nBINPKG_FORMAT=\"gpkg\"\n", DistDir, PkgDir)
	features := "buildpkg binpkg-multi-instance parallel-fetch -news -ccache -distcc"
	if c.binhost() {
		features += " getbinpkg"
	} else {
		features += " -getbinpkg"
	}
	fmt.Fprintf(&b, "FEATURES=\"${FEATURES} %s\"\nMAKEOPTS=\"--jobs=%d\"\nCLEAN_DELAY=\"0\"\nEMERGE_WARNING_DELAY=\"0\"\n", features, max(c.Jobs, 1))
	return b.Bytes()
}

func (c *Config) binhost() bool { return c.Binhost != "off" && !c.Source }

func (c *Config) repos(out map[string][]byte) {
	var b bytes.Buffer
	b.WriteString(written + "[DEFAULT]\nmain-repo = gentoo\n\n[gentoo]\nlocation = /" + RepoDir + "\nsync-type =\nauto-sync = no\n")
	for _, name := range slices.Sorted(maps.Keys(c.Overlays)) {
		fmt.Fprintf(&b, "\n[%s]\nlocation = /%s\nsync-type =\nauto-sync = no\n", name, c.Overlays[name])
	}
	out["repos.conf/90-slate.conf"] = b.Bytes()
}

// profileVersion finds the version in a profile's path: default/linux/amd64/23.0.
var profileVersion = regexp.MustCompile(`/([0-9]{2}\.[0-9])(?:/|$)`)

// binrepos tells Portage of the binary packages of the mirror that everything
// else comes from. A stage names those of Gentoo's own server; which set it is
// is taken from there.
func (c *Config) binrepos(out, stage map[string][]byte, stageProfile string) {
	var own bool
	for name := range c.Files {
		own = own || name == "binrepos.conf" || strings.HasPrefix(name, "binrepos.conf/")
	}
	if own {
		return
	}
	where := c.Binhost
	for name, data := range stage {
		if !strings.HasPrefix(name, "binrepos.conf") {
			continue
		}
		delete(out, name)
		delete(out, "binrepos.conf/10-stage")
		if _, after, ok := strings.Cut(string(data), "/releases/"); ok && where == "auto" {
			where = c.Mirror + "/releases/" + strings.Fields(after)[0]
		}
	}
	if !c.binhost() {
		return
	}
	if where == "auto" {
		version := "23.0"
		if m := profileVersion.FindStringSubmatch(stageProfile); m != nil {
			version = m[1]
		}
		where = fmt.Sprintf("%s/releases/%s/binpackages/%s/%s", c.Mirror, c.Arch, version, map[string]string{"amd64": "x86-64"}[c.Arch])
	}
	if c.Arch == "amd64" && (c.March == "x86-64-v3" || c.March == "x86-64-v4") {
		where = strings.TrimRight(where, "/")
		if strings.HasSuffix(where, "/x86-64") && c.Binhost == "auto" {
			where += "-v3"
		}
	}
	out["binrepos.conf/90-slate.conf"] = fmt.Appendf(nil, "%s[slate-binhost]\npriority = 9999\nsync-uri = %s\nverify-signature = true\nlocation = /%s\n", written, where, BinhostDir)
}

// Apply writes the plan into a tree: below etc/portage, whose links are not
// followed out of it.
func (c *Config) Apply(root *os.Root) error {
	const dir = "etc/portage"
	if fi, err := root.Lstat(dir); err == nil && !fi.IsDir() {
		return fmt.Errorf("/%s is not a directory", dir)
	}
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	stage, profile, err := c.readStage(root)
	if err != nil {
		return err
	}
	plan := c.Plan(stage, profile)
	tops := map[string]bool{"binrepos.conf": true}
	for name := range plan {
		top, _, _ := strings.Cut(name, "/")
		tops[top] = true
	}
	for top := range tops {
		if err := root.RemoveAll(path.Join(dir, top)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(plan)) {
		p := path.Join(dir, name)
		if err := root.MkdirAll(path.Dir(p), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(p, plan[name], 0o644); err != nil {
			return err
		}
	}
	for i, data := range c.KernelFragments {
		if err := root.MkdirAll("etc/kernel/config.d", 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(fmt.Sprintf("etc/kernel/config.d/%02d-slate.config", i+1), data, 0o644); err != nil {
			return err
		}
	}
	if c.Profile == "" {
		return nil
	}
	link := path.Join(dir, "make.profile")
	if err := root.RemoveAll(link); err != nil {
		return err
	}
	return root.Symlink("../../"+RepoDir+"/profiles/"+c.Profile, link)
}

// stageLimit bounds what is read of a stage's /etc/portage; a real one has a few
// kilobytes.
const stageLimit = 16 << 20

// readStage reads the files below /etc/portage and where the profile points.
func (c *Config) readStage(root *os.Root) (files map[string][]byte, profile string, err error) {
	files = map[string][]byte{}
	total := 0
	sub, err := fs.Sub(root.FS(), "etc/portage")
	if err != nil {
		return nil, "", err
	}
	err = fs.WalkDir(sub, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if p == "make.profile" || !e.Type().IsRegular() || strings.HasPrefix(p, "gnupg/") {
			return nil
		}
		data, err := fs.ReadFile(sub, p)
		if total += len(data); total > stageLimit {
			return errors.New("/etc/portage of the base is too large to be one")
		}
		files[p] = data
		return err
	})
	if err != nil {
		return nil, "", err
	}
	profile, _ = root.Readlink("etc/portage/make.profile")
	return files, profile, nil
}

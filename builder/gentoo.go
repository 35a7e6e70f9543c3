// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"slate/builder/command"
	"slate/builder/gentoo"
	"slate/builder/recipes"
	"slate/builder/sandbox"
	"slate/images"
	"slate/images/durable"
	"slate/netboot/config"
)

// gentooArch maps what a variant says to what Go and the kernel call it.
var gentooArch = map[string]struct{ goarch, binfmt string }{
	"amd64":   {"amd64", "qemu-x86_64"},
	"arm64":   {"arm64", "qemu-aarch64"},
	"arm":     {"arm", "qemu-arm"},
	"riscv":   {"riscv64", "qemu-riscv64"},
	"ppc":     {"ppc64le", "qemu-ppc64le"},
	"x86":     {"386", "qemu-i386"},
	"loong":   {"loong64", "qemu-loongarch64"},
	"s390":    {"s390x", "qemu-s390x"},
	"hppa":    {"hppa", "qemu-hppa"},
	"sparc":   {"sparc64", "qemu-sparc64"},
	"mips":    {"mips64le", "qemu-mips64el"},
	"alpha":   {"alpha", "qemu-alpha"},
	"ppc64le": {"ppc64le", "qemu-ppc64le"},
}

// gentoo is a base that is a stage3, brought up to date and filled by Portage.
func (j *job) gentoo(ctx context.Context) (base, error) {
	r, s := j.o.Recipe, j.o.Sources.Gentoo
	variant := cmp.Or(r.Gentoo.Variant, s.Variant)
	arch := archOf(variant)
	if err := j.checkTarget(arch); err != nil {
		return base{}, err
	}
	c := j.portageConfig(arch)
	if err := c.Check(); err != nil {
		return base{}, err
	}
	j.meta.step("looking for the stage", "%s", variant)
	archive, err := j.stage3(ctx, variant, arch)
	if err != nil {
		return base{}, err
	}
	b := base{key: archive.Digest, epoch: archive.Stage.Time(), detail: gentoo.Progress, env: gentoo.Env(),
		inputs: []Input{{"stage3", from(archive.Mirror, archive.Stage.Name()), archive.Digest.String()}}}
	b.make = func(ctx context.Context, j *job) (images.Digest, error) { return j.addTar(ctx, archive.File) }
	repo, treeKey, err := j.ebuilds(ctx, &b)
	if err != nil {
		return base{}, err
	}
	if err := j.overlays(ctx, c, &b); err != nil {
		return base{}, err
	}
	work := gentoo.Work{Packages: r.Packages.Install, Update: r.Gentoo.Update, Depclean: r.Gentoo.Depclean,
		Keep: r.Gentoo.ConfigUpdates == recipes.ConfigKeep, Sync: c.Synced(), Offline: j.o.Offline}
	b.actions = work.Actions(c)
	b.packager = fmt.Sprintf("%s %q %s", treeKey, describe(c), slices.Collect(func(yield func(string) bool) {
		for _, a := range b.actions {
			yield(a.Script + strings.Join(a.Args, " "))
		}
	}))
	if treeKey == "" || len(work.Sync) > 0 {
		b.key = images.Digest{} // what is in them cannot be known beforehand
	}
	if err := j.shareCaches(c, variant, &b); err != nil {
		return base{}, err
	}
	b.prepare = func(ctx context.Context, j *job) error {
		dir := repo
		if dir == "" {
			var err error
			if dir, err = j.unpackEbuilds(ctx); err != nil {
				return err
			}
		}
		j.base.bind = append(j.base.bind, sandbox.Bind{Outside: dir, Inside: gentoo.RepoDir})
		root, err := os.OpenRoot(j.root)
		if err != nil {
			return err
		}
		defer root.Close()
		j.meta.step("configuring Portage", "")
		return c.Apply(root)
	}
	return b, nil
}

// archOf is Gentoo's name of the architecture in a variant: stage3-amd64-openrc.
func archOf(variant string) string {
	parts := strings.Split(variant, "-")
	if len(parts) < 2 {
		return ""
	}
	name, _, _ := strings.Cut(parts[1], "_")
	switch name {
	case "i686", "i486":
		return "x86"
	case "armv6j", "armv7a":
		return "arm"
	case "rv64":
		return "riscv"
	case "power9le", "ppc64le":
		return "ppc"
	}
	return name
}

// checkTarget refuses what this machine cannot run: programs of the tree run
// while it is built.
func (j *job) checkTarget(arch string) error {
	a, ok := gentooArch[arch]
	if !ok {
		return fmt.Errorf("architecture %q of the stage is not known", arch)
	}
	if a.goarch != runtime.GOARCH && (a.goarch != "386" || runtime.GOARCH != "amd64") {
		if _, err := os.Stat("/proc/sys/fs/binfmt_misc/" + a.binfmt); err != nil {
			return &foreignError{arch, a.binfmt}
		}
		return nil
	}
	level := j.o.Sources.Target.Level
	if level == "native" && j.o.Group != "" {
		return fmt.Errorf("target.level is native, which means this machine's processor, but the image is for the group %s: name the processors of its nodes", j.o.Group)
	}
	if level == "native" {
		j.meta.warn("target.level is native: nodes with an older processor than this machine's will not run this image")
	}
	if arch != "amd64" {
		return nil
	}
	return gentoo.CanRun(level, gentoo.HostCPU())
}

// foreignError is a tree whose programs this machine cannot run at all.
type foreignError struct{ arch, binfmt string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("this machine cannot run programs for %s", e.arch)
}

// Hint says what to do about it.
func (e *foreignError) Hint() string {
	return "install qemu-user-static and binfmt-support (" + e.binfmt + "), or build on a machine of that kind"
}

func (j *job) portageConfig(arch string) *gentoo.Config {
	s, r := j.o.Sources, j.o.Recipe
	c := &gentoo.Config{
		Files: j.o.Portage, Use: r.Gentoo.Use, Keywords: r.Gentoo.Keywords, Licenses: r.Gentoo.Licenses,
		Profile: cmp.Or(r.Gentoo.Profile, s.Gentoo.Profile), Arch: arch, Mirror: strings.TrimRight(s.Gentoo.Mirrors[0], "/"),
		Binhost: s.Gentoo.Binhost, Source: s.Target.Optimize == config.FromSource, Jobs: cmp.Or(s.Target.Jobs, runtime.NumCPU()),
		KernelConfig: r.Kernel.ConfigData, KernelFragments: r.Kernel.FragmentData,
	}
	if arch == "amd64" {
		c.March = s.Target.Level
		c.CPUFlags = s.Target.CPUFlags
		if len(c.CPUFlags) == 0 {
			c.CPUFlags = gentoo.CPUFlags(s.Target.Level)
		}
	}
	return c
}

// describe is all of a configuration that makes a difference for the packages.
func describe(c *gentoo.Config) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		fmt.Fprintf(&b, "%s %x\n", name, sha256.Sum256(c.Files[name]))
	}
	rest := *c
	rest.Files, rest.Jobs, rest.KernelConfig, rest.KernelFragments = nil, 0, nil, nil
	fmt.Fprintf(&b, "%+v %x", rest, sha256.Sum256(c.KernelConfig))
	for _, f := range c.KernelFragments {
		fmt.Fprintf(&b, " %x", sha256.Sum256(f))
	}
	return b.String()
}

// stage3 returns the stage, fetched and verified.
func (j *job) stage3(ctx context.Context, variant, arch string) (gentoo.Archive, error) {
	s := j.o.Sources.Gentoo
	get := gentoo.Stage3{Mirrors: s.Mirrors, Arch: arch, Variant: variant, Stamp: s.Stamp, Cache: j.gentooDir("stages"),
		Fetch: j.fetchOptions("fetching the stage"), Log: j.logf("looking for the stage")}
	if j.o.Offline {
		a, err := get.Offline()
		if err == nil {
			j.meta.warn("offline: %s, which was fetched before", a.Stage.Name())
		}
		return a, err
	}
	var a gentoo.Archive
	err := j.withKeys(ctx, s.StageKeys, func(k *gentoo.Keys) (err error) {
		get.Keys = k
		a, err = get.Get(ctx)
		return err
	})
	return a, err
}

// withKeys calls f with the keys, and again with fresh ones if one has expired:
// Gentoo extends its keys each year.
func (j *job) withKeys(ctx context.Context, fingerprints []string, f func(*gentoo.Keys) error) error {
	where := SourcePath(j.o, j.o.Sources.Gentoo.Keys)
	for _, fresh := range []bool{false, true} {
		keys, err := gentoo.LoadKeys(ctx, where, fingerprints, j.gentooDir("keys"), fresh, j.fetchOptions(""))
		if err != nil {
			return err
		}
		err = f(keys)
		var se *gentoo.SignatureError
		if !errors.As(err, &se) || se.Reason != gentoo.Expired || fresh {
			return err
		}
	}
	return nil
}

// snapshot is how the ebuild repository is got.
func (j *job) snapshot() gentoo.Snapshot {
	s := j.o.Sources.Gentoo
	return gentoo.Snapshot{Mirrors: s.Mirrors, Date: s.Tree, Cache: j.gentooDir("snapshots"),
		Fetch: j.fetchOptions("fetching the ebuild repository"), Log: j.logf("looking for the ebuild repository")}
}

// ebuilds finds the ebuild repository: one on this machine, whose directory it
// returns, or a snapshot. key is the same for the same content; "" if that cannot
// be told.
func (j *job) ebuilds(ctx context.Context, b *base) (dir, key string, err error) {
	if where := j.o.Sources.Gentoo.Tree; filepath.IsAbs(where) {
		if _, err := os.Stat(filepath.Join(where, "profiles/repo_name")); err != nil {
			return "", "", fmt.Errorf("gentoo.tree: %s is no ebuild repository: %w", where, err)
		}
		key := repositoryState(ctx, where)
		b.inputs = append(b.inputs, Input{"tree", where, key})
		if key == "" {
			j.meta.warn("%s has neither a git commit nor a time stamp, so it cannot be seen whether it has changed", where)
		}
		return where, key, nil
	}
	j.meta.step("looking for the ebuild repository", "")
	get := j.snapshot()
	var t gentoo.Tree
	if j.o.Offline {
		if t, err = get.Offline(); err == nil {
			j.meta.warn("offline: the ebuild repository of %s, which was fetched before", t.Date)
		}
	} else {
		err = j.withKeys(ctx, j.o.Sources.Gentoo.TreeKeys, func(k *gentoo.Keys) (err error) {
			get.Keys = k
			t, err = get.Get(ctx)
			return err
		})
	}
	if err != nil {
		return "", "", err
	}
	j.tree = t
	b.inputs = append(b.inputs, Input{"tree", from(t.Mirror, filepath.Base(t.File)), t.Digest.String()})
	// The snapshot of a day was made when it ended.
	if day, err := time.Parse("20060102", t.Date); err == nil && day.AddDate(0, 0, 1).After(b.epoch) {
		b.epoch = day.AddDate(0, 0, 1)
	}
	return "", t.Digest.String(), nil
}

func (j *job) unpackEbuilds(ctx context.Context) (string, error) {
	j.meta.step("unpacking the ebuild repository", "%s", j.tree.Date)
	return j.tree.Unpack(ctx, j.gentooDir("repository"), j.log)
}

// repositoryState is the commit or the time stamp of an ebuild repository.
func repositoryState(ctx context.Context, dir string) string {
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		git := []string{"git", "-c", "safe.directory=*", "-C", dir}
		commit, err := command.Output(ctx, command.Cmd{Args: append(git, "rev-parse", "HEAD")})
		dirty, err2 := command.Output(ctx, command.Cmd{Args: append(git, "status", "--porcelain")})
		if err == nil && err2 == nil && dirty == "" {
			return "commit " + strings.TrimSpace(commit)
		}
		return ""
	}
	if stamp, err := os.ReadFile(filepath.Join(dir, "metadata/timestamp.chk")); err == nil {
		return "time " + strings.TrimSpace(string(stamp))
	}
	return ""
}

// overlays binds the repositories in overlays/ of config.d and of what was
// fetched; the first of a name counts.
func (j *job) overlays(ctx context.Context, c *gentoo.Config, b *base) error {
	c.Overlays = map[string]string{}
	for _, top := range append([]string{j.o.ConfigD}, j.o.Extra...) {
		list, err := os.ReadDir(filepath.Join(top, "overlays"))
		if err != nil {
			continue // there are none
		}
		for _, e := range list {
			dir := filepath.Join(top, "overlays", e.Name())
			text, err := os.ReadFile(filepath.Join(dir, "profiles/repo_name"))
			if err != nil {
				return fmt.Errorf("%s is no ebuild repository: %w", dir, err)
			}
			name := strings.TrimSpace(string(text))
			if !config.IsRepoName(name) || name == "gentoo" {
				return fmt.Errorf("%s/profiles/repo_name: %q cannot be the name of an overlay", dir, name)
			}
			if c.Overlays[name] != "" {
				continue
			}
			c.Overlays[name] = "var/db/repos/" + name
			b.bind = append(b.bind, sandbox.Bind{Outside: dir, Inside: c.Overlays[name]})
			// Its content is an input, too.
			_, d, err := j.st.AddDirAfresh(ctx, dir)
			if err != nil {
				return err
			}
			b.inputs = append(b.inputs, Input{"overlay", dir, d.String()})
			b.key = sha256.Sum256(fmt.Appendf(nil, "%s overlay %s %s", b.key, name, d))
		}
	}
	return nil
}

// shareCaches gives the tree directories of this machine for what is downloaded
// and for binary packages. Packages for other processors or another system have
// directories of their own.
func (j *job) shareCaches(c *gentoo.Config, variant string, b *base) error {
	kind := sha256.Sum256(fmt.Appendf(nil, "%s %s %s %x", variant, c.Profile, c.March, c.Files["make.conf"]))
	name := fmt.Sprintf("%s-%s-%x", variant, cmp.Or(c.March, "plain"), kind[:4])
	for _, d := range []struct{ outside, inside string }{
		{"distfiles", gentoo.DistDir},
		{filepath.Join("binpkgs", name), gentoo.PkgDir},
		{filepath.Join("binhost", name), gentoo.BinhostDir},
	} {
		dir := j.gentooDir(d.outside)
		if err := durable.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		b.bind = append(b.bind, sandbox.Bind{Outside: dir, Inside: d.inside, Write: true})
	}
	return nil
}

func (j *job) gentooDir(name string) string { return filepath.Join(j.cacheDir(), "gentoo", name) }

func (j *job) logf(step string) func(string, ...any) {
	return func(format string, args ...any) { j.meta.step(step, format, args...) }
}

// from names a file of a mirror; one that is here already has none.
func from(mirror, name string) string {
	if mirror == "" {
		return name
	}
	return mirror + ": " + name
}

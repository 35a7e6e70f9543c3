// SPDX-License-Identifier: GPL-2.0-or-later

package builder

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"slate/builder/customize"
	"slate/builder/debian"
	"slate/builder/fetch"
	"slate/builder/gentoo"
	"slate/builder/recipes"
	"slate/builder/sandbox"
	"slate/images"
	"slate/images/archive"
	"slate/images/durable"
	"slate/images/tree"
)

// Input is something that a build was made from.
type Input struct {
	Kind   string `toml:"kind" json:"kind"`     // archive, stage3, tree, tar, directory, container, remote
	Name   string `toml:"name" json:"name"`     // where it comes from
	Digest string `toml:"digest" json:"digest"` // what it was; "" if that is not known
}

// base is where a tree begins, and what is done to it before the recipe's own
// steps.
type base struct {
	key      images.Digest // the same for the same tree; zero: not known, so nothing is cached
	epoch    time.Time     // no file's time is later
	inputs   []Input
	make     func(context.Context, *job) (images.Digest, error) // puts the tree into the store
	prepare  func(context.Context, *job) error                  // before the actions; may be nil
	actions  []customize.Action                                 // that install packages
	packager string                                             // all that makes prepare and actions what they are
	bind     []sandbox.Bind
	env      []string
	detail   func(line string) string // what of a program's output to show; nil: all

	archives []debian.Source // of Debian
}

// resolve finds out what the build would be made from, without making it.
func (j *job) resolve(ctx context.Context) (base, error) {
	switch j.o.Recipe.Base {
	case recipes.BaseDebian:
		return j.debian(ctx)
	case recipes.BaseGentoo:
		return j.gentoo(ctx)
	case recipes.BaseTar:
		return j.tar(ctx)
	case recipes.BaseDirectory:
		return j.directory(ctx)
	case recipes.BaseOCI:
		return j.container(ctx)
	}
	return base{}, fmt.Errorf("recipe %s: no builder for base %q", j.o.Recipe.Name, j.o.Recipe.Base)
}

// debian is a base that mmdebstrap makes, with its packages.
func (j *job) debian(ctx context.Context) (base, error) {
	j.o.Recipe = withDebianSources(j.o.Recipe, j.o)
	version, err := debian.Version(ctx)
	if err != nil {
		return base{}, err
	}
	sources, why := debian.Sources(j.o.Recipe.Debian, debian.ReadHost(os.DirFS("/")))
	b := base{archives: sources, make: makeDebian}
	if j.o.Offline {
		return b, errors.New("packages cannot be had offline; a mirror on this machine can: debian.mirror = \"file:/srv/debian\" in sources.conf")
	}
	j.meta.step("looking at the archives", "%s, from %s", sources[0].URI, why)
	in, err := debian.ReadInputs(ctx, nil, sources)
	if err != nil {
		if ctx.Err() != nil {
			return b, context.Cause(ctx)
		}
		j.meta.warn("the state of the archives is not known, so it cannot be seen whether anything changed: %v", err)
		in.Date = time.Now().UTC().Truncate(24 * time.Hour)
	} else {
		actions := j.actions
		if os.Geteuid() == 0 {
			actions = nil // they are run, and cached, by us
		}
		b.key = debian.Key(j.o.Recipe, sources, actions, in, version)
	}
	b.epoch = in.Date
	for _, s := range sources {
		digest := ""
		if d, ok := in.Release[s.String()]; ok {
			digest = "InRelease " + d.String()
		}
		b.inputs = append(b.inputs, Input{Kind: "archive", Name: s.String(), Digest: digest})
	}
	return b, nil
}

// withDebianSources fills in from sources.conf what the recipe leaves empty.
func withDebianSources(r *recipes.Recipe, o BuildOptions) *recipes.Recipe {
	out, s := *r, o.Sources.Debian
	d := &out.Debian
	def := func(v *string, w string) {
		if *v == "" {
			*v = w
		}
	}
	if d.Mirror == "" && d.SecurityMirror == "" {
		d.SecurityMirror = s.SecurityMirror
	}
	def(&d.Suite, s.Suite)
	def(&d.Mirror, s.Mirror)
	if d.Keyring == "" && s.Keyring != "" {
		d.Keyring = SourcePath(o, s.Keyring)
	}
	if len(d.Components) == 0 {
		d.Components = s.Components
	}
	return &out
}

func makeDebian(ctx context.Context, j *job) (digest images.Digest, err error) {
	err = j.mmdebstrap(ctx, j.work.dir, nil, func(ctx context.Context, r io.Reader) (err error) {
		_, digest, err = j.st.AddTar(ctx, r, j.o.Name+".tar")
		return err
	})
	return digest, err
}

// tar is a base that is a tar archive, here or elsewhere.
func (j *job) tar(ctx context.Context) (base, error) {
	s := j.o.Recipe.Source
	file, err := j.tarFile(ctx, s)
	if err != nil {
		return base{}, err
	}
	sum, err := digestFile(file)
	if err != nil {
		return base{}, err
	}
	if s.Digest != "" && sum.String() != s.Digest {
		return base{}, fmt.Errorf("%s has the digest %s, the recipe wants %s", s.Path, sum, s.Digest)
	}
	return j.plain(base{
		key: sum, inputs: []Input{{"tar", s.Path, sum.String()}},
		make: func(ctx context.Context, j *job) (images.Digest, error) { return j.addTar(ctx, file) },
	})
}

func (j *job) addTar(ctx context.Context, file string) (images.Digest, error) {
	j.meta.step("unpacking", "%s", filepath.Base(file))
	r, err := openTar(ctx, file, j.log)
	if err != nil {
		return images.Digest{}, err
	}
	defer r.Close()
	t, d, err := j.st.AddTar(ctx, r, filepath.Base(file))
	if err == nil && j.base.epoch.IsZero() {
		j.base.epoch = newest(t)
	}
	return d, err
}

// tarFile returns the archive on this machine, fetched and verified if it comes
// from elsewhere.
func (j *job) tarFile(ctx context.Context, s recipes.Source) (string, error) {
	if !s.Remote() {
		return s.Path, nil
	}
	u, err := url.Parse(s.Path)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(j.cacheDir(), "tar")
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(s.Path + s.Digest))
	file := filepath.Join(dir, fmt.Sprintf("%x-%s", sum[:6], path.Base(u.Path)))
	if _, err := os.Stat(file); err == nil && (s.Digest != "" || j.o.Offline) {
		return file, nil // its digest is looked at by whoever asks
	}
	if j.o.Offline {
		return "", fmt.Errorf("%s was not fetched before", s.Path)
	}
	raw := file + ".unverified"
	if err := fetch.File(ctx, s.Path, raw, j.fetchOptions("fetching "+path.Base(u.Path))); err != nil {
		return "", err
	}
	if err := j.verifyTar(ctx, s, raw); err != nil {
		return "", errors.Join(err, fetch.Discard(raw))
	}
	return file, os.Rename(raw, file)
}

func (j *job) verifyTar(ctx context.Context, s recipes.Source, raw string) error {
	if s.Digest != "" {
		sum, err := digestFile(raw)
		if err == nil && sum.String() != s.Digest {
			err = fmt.Errorf("%s has the digest %s, the recipe wants %s", s.Path, sum, s.Digest)
		}
		return err
	}
	keys, err := gentoo.LoadKeys(ctx, s.Keys, s.Signer, j.cacheDir(), false, j.fetchOptions(""))
	if err != nil {
		return err
	}
	sig, err := fetch.Bytes(ctx, s.Path+".asc", j.fetchOptions(""))
	if err != nil {
		return err
	}
	f, err := os.Open(raw)
	if err != nil {
		return err
	}
	defer f.Close()
	return keys.Detached(path.Base(s.Path), f, sig)
}

// directory is a base that lies on this machine. It is read and never changed.
func (j *job) directory(ctx context.Context) (base, error) {
	dir := j.o.Recipe.Source.Path
	j.meta.step("reading", "%s", dir)
	t, d, err := j.st.AddDirAfresh(ctx, dir)
	if err != nil {
		return base{}, err
	}
	return j.stored(t, d, Input{"directory", dir, d.String()})
}

// container is a base that is a container image.
func (j *job) container(ctx context.Context) (base, error) {
	where := j.o.Recipe.Source.Path
	if j.o.Offline && strings.HasPrefix(where, "docker://") {
		return base{}, fmt.Errorf("%s cannot be had offline", where)
	}
	j.meta.step("looking at the container image", "%s", where)
	c, err := archive.OpenContainer(ctx, where, runtime.GOARCH)
	if err != nil {
		return base{}, err
	}
	_, digest, _ := strings.Cut(c.Name, "@")
	b, err := j.plain(base{key: sha256.Sum256([]byte("container " + digest)), inputs: []Input{{"container", where, digest}}})
	b.make = func(ctx context.Context, j *job) (images.Digest, error) {
		j.meta.step("reading the container image", "")
		t, d, err := c.Add(ctx, j.st)
		if err == nil {
			j.base.epoch = newest(t)
		}
		return d, err
	}
	return b, err
}

// stored is a base that is in the store already.
func (j *job) stored(t *tree.Tree, d images.Digest, in Input) (base, error) {
	return j.plain(base{key: d, epoch: newest(t), inputs: []Input{in},
		make: func(context.Context, *job) (images.Digest, error) { return d, nil }})
}

// plain adds to a base what all have whose packages are installed by the tree's
// own package manager.
func (j *job) plain(b base) (base, error) {
	if list := j.o.Recipe.Packages.Install; len(list) > 0 {
		b.actions = []customize.Action{{Step: "installing packages", Script: installPackages, Args: list, Network: true}}
		b.packager = installPackages + strings.Join(list, " ")
		if !j.o.Offline {
			// What the package manager finds today it may not find tomorrow.
			b.packager += time.Now().UTC().Format(time.DateOnly)
		}
	}
	return b, nil
}

// installPackages uses whichever package manager the tree has.
const installPackages = `
if command -v apt-get >/dev/null; then
  # No service is to start here.
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  export DEBIAN_FRONTEND=noninteractive INITRD=No
  apt-get -q update
  apt-get -q -y -o Dpkg::Options::=--force-confold -o APT::Install-Recommends=false install "$@"
  rm -f /usr/sbin/policy-rc.d
elif command -v emerge >/dev/null; then
  emerge --color=n --ask=n --noreplace "$@"
elif command -v apk >/dev/null; then
  apk add "$@"
else
  echo "the tree has no package manager that slate knows (apt-get, emerge, apk): leave packages out of the recipe" >&2
  exit 1
fi
`

// newest is the time of the youngest file.
func newest(t *tree.Tree) time.Time {
	var ns int64
	for i := range uint32(t.Len()) {
		ns = max(ns, t.Entry(i).MtimeNs)
	}
	return time.Unix(0, ns).UTC()
}

// cacheDir is where fetched archives stay.
func (j *job) cacheDir() string { return filepath.Join(j.st.Dir(), "builds", "sources") }

// fetchOptions are how to fetch something large, with its progress shown.
func (j *job) fetchOptions(step string) fetch.Options {
	o := j.o.Fetch
	if step != "" {
		o.Progress = func(done, total int64) {
			if total > 0 {
				j.meta.step(step, "%.0f of %.0f MB", float64(done)/1e6, float64(total)/1e6)
			} else {
				j.meta.step(step, "%.0f MB", float64(done)/1e6)
			}
		}
	}
	return o
}

// SourcePath is the path of a file that sources.conf names: absolute, or below
// config.d or the places that are fetched.
func SourcePath(o BuildOptions, name string) string {
	if filepath.IsAbs(name) || strings.Contains(name, "://") {
		return name
	}
	for _, dir := range append([]string{o.ConfigD}, o.Extra...) {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return filepath.Join(o.ConfigD, name)
}

func digestFile(name string) (images.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return images.Digest{}, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return images.Digest(h.Sum(nil)), err
}

// FindRecipe returns what the recipe is loaded by: a file in recipes/ of one of
// the directories if there is one of that name, or else the name.
func FindRecipe(name string, dirs []string) string {
	if strings.Contains(name, "/") || strings.HasSuffix(name, ".toml") {
		return name
	}
	for _, d := range dirs {
		if d == "" {
			continue
		}
		p := filepath.Join(d, "recipes", name+".toml")
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return name
}

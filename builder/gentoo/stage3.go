// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slate/builder/fetch"
	"slate/images"
	"slate/images/durable"
)

// Stage3 gets one variant of stage3 from one of several mirrors.
type Stage3 struct {
	Mirrors []string // base URLs, tried in order; a build takes everything from one
	Arch    string   // Gentoo's name: amd64
	Variant string   // stage3-amd64-openrc
	Stamp   string   // "latest", or a time stamp that mirrors still have
	Keys    *Keys    // trusted to sign stages
	Cache   string   // directory of archives
	Fetch   fetch.Options

	Log func(format string, args ...any) // what is going on; may be nil
}

// Archive is a verified archive on this machine.
type Archive struct {
	Stage  Stage
	Mirror string // "": it was there already
	File   string
	Digest images.Digest
}

func (s *Stage3) log(format string, args ...any) {
	if s.Log != nil {
		s.Log(format, args...)
	}
}

// Get returns the archive, fetched and verified. Mirrors lag behind each other,
// so listing, digests and archive come from the same one; if that fails the next
// is asked for all three.
func (s *Stage3) Get(ctx context.Context) (Archive, error) {
	if s.Keys == nil {
		return Archive{}, errors.New("BUG: stage3 without keys")
	}
	if err := durable.MkdirAll(s.Cache, 0o755); err != nil {
		return Archive{}, err
	}
	var errs []error
	for _, m := range s.Mirrors {
		m = strings.TrimRight(m, "/")
		a, err := s.from(ctx, m)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return Archive{}, context.Cause(ctx)
		}
		s.log("mirror %s: %v", m, err)
		errs = append(errs, fmt.Errorf("mirror %s: %w", m, err))
	}
	if len(errs) == 0 {
		return Archive{}, errors.New("no mirror is named")
	}
	return Archive{}, errors.Join(errs...)
}

func (s *Stage3) from(ctx context.Context, mirror string) (Archive, error) {
	base := mirror + "/releases/" + s.Arch + "/autobuilds/"
	stage, err := s.find(ctx, base)
	if err != nil {
		return Archive{}, err
	}
	s.log("%s is %s", s.Variant, stage.Name())
	text, err := fetch.Bytes(ctx, base+stage.Path+".DIGESTS", s.Fetch)
	if err != nil {
		return Archive{}, err
	}
	signed, err := s.Keys.ClearSigned(stage.Name()+".DIGESTS", text)
	if err != nil {
		return Archive{}, err
	}
	want, err := parseDigests(signed, stage.Name())
	if err != nil {
		return Archive{}, err
	}
	a := Archive{Stage: stage, Mirror: mirror, File: filepath.Join(s.Cache, stage.Name())}
	if err := verifyFile(a.File, want); err == nil {
		a.Mirror = ""
		a.Digest, err = fileDigest(a.File)
		return a, err
	}
	o := s.Fetch
	o.Size = stage.Size
	// Below another name until it is verified: what is in the cache is good.
	raw := a.File + ".unverified"
	if err := fetch.File(ctx, base+stage.Path, raw, o); err != nil {
		return Archive{}, err
	}
	if err := verifyFile(raw, want); err != nil {
		return Archive{}, errors.Join(err, fetch.Discard(raw))
	}
	if err := os.Rename(raw, a.File); err != nil {
		return Archive{}, err
	}
	if a.Digest, err = fileDigest(a.File); err != nil {
		return Archive{}, err
	}
	return a, durable.SyncDir(s.Cache)
}

func fileDigest(name string) (images.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return images.Digest{}, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return images.Digest(h.Sum(nil)), err
}

// find asks the mirror's signed listing, unless the stage is pinned.
func (s *Stage3) find(ctx context.Context, base string) (Stage, error) {
	if s.Stamp != "" && s.Stamp != "latest" {
		return Pinned(s.Variant, s.Stamp)
	}
	name := "latest-" + s.Variant + ".txt"
	text, err := fetch.Bytes(ctx, base+name, s.Fetch)
	if err != nil {
		return Stage{}, err
	}
	signed, err := s.Keys.ClearSigned(name, text)
	if err != nil {
		return Stage{}, err
	}
	return ParseLatest(signed, s.Variant)
}

// Offline returns the newest stage of the variant, or the one with the stamp,
// that was fetched and verified before.
func (s *Stage3) Offline() (Archive, error) {
	pattern := s.Variant + "-" + s.Stamp + ".tar.xz"
	if s.Stamp == "" || s.Stamp == "latest" {
		pattern = s.Variant + "-[0-9]*T[0-9]*Z.tar.xz"
	}
	files, err := filepath.Glob(filepath.Join(s.Cache, pattern))
	if err != nil || len(files) == 0 {
		return Archive{}, fmt.Errorf("no %s was fetched before (%s)", s.Variant, s.Cache)
	}
	slices.Sort(files)
	file := files[len(files)-1]
	d, err := fileDigest(file)
	return Archive{Stage: Stage{Path: filepath.Base(file)}, File: file, Digest: d}, err
}

// Time is when the stage was made, by its name.
func (s Stage) Time() time.Time {
	if m := stageName.FindStringSubmatch(s.Name()); m != nil {
		if t, err := time.Parse("20060102T150405Z", m[2]); err == nil {
			return t
		}
	}
	return time.Unix(0, 0).UTC()
}

func verifyFile(name string, want digests) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return want.check(strings.TrimSuffix(filepath.Base(name), ".unverified"), f)
}

// SPDX-License-Identifier: GPL-2.0-or-later

package gentoo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slate/builder/command"
	"slate/builder/fetch"
	"slate/images"
	"slate/images/durable"
)

// Snapshot gets the ebuild repository of one day from one of several mirrors.
type Snapshot struct {
	Mirrors []string
	Date    string // "latest", or YYYYMMDD
	Keys    *Keys  // trusted to sign snapshots
	Cache   string // directory of archives
	Fetch   fetch.Options
	Now     func() time.Time // nil: time.Now

	Log func(format string, args ...any) // what is going on; may be nil
}

// Tree is a verified snapshot on this machine.
type Tree struct {
	Date   string
	Mirror string // "": it was there already
	File   string
	Digest images.Digest
}

// maxAge is how far back a snapshot is looked for; after that the mirror is dead.
const maxAge = 40

func (s *Snapshot) log(format string, args ...any) {
	if s.Log != nil {
		s.Log(format, args...)
	}
}

// Get returns the snapshot, fetched and verified.
func (s *Snapshot) Get(ctx context.Context) (Tree, error) {
	if s.Keys == nil {
		return Tree{}, errors.New("BUG: snapshot without keys")
	}
	if err := durable.MkdirAll(s.Cache, 0o755); err != nil {
		return Tree{}, err
	}
	var errs []error
	for _, m := range s.Mirrors {
		m = strings.TrimRight(m, "/")
		t, err := s.from(ctx, m)
		if err == nil {
			return t, nil
		}
		if ctx.Err() != nil {
			return Tree{}, context.Cause(ctx)
		}
		s.log("mirror %s: %v", m, err)
		errs = append(errs, fmt.Errorf("mirror %s: %w", m, err))
	}
	if len(errs) == 0 {
		return Tree{}, errors.New("no mirror is named")
	}
	return Tree{}, errors.Join(errs...)
}

func (s *Snapshot) from(ctx context.Context, mirror string) (Tree, error) {
	date, sig, err := s.find(ctx, mirror+"/snapshots/")
	if err != nil {
		return Tree{}, err
	}
	name := "gentoo-" + date + ".tar.xz"
	t := Tree{Date: date, Mirror: mirror, File: filepath.Join(s.Cache, name)}
	if t.Digest, err = s.verify(t.File, name, sig); err == nil {
		t.Mirror = ""
		return t, nil
	}
	raw := t.File + ".unverified"
	if err := fetch.File(ctx, mirror+"/snapshots/"+name, raw, s.Fetch); err != nil {
		return Tree{}, err
	}
	if t.Digest, err = s.verify(raw, name, sig); err != nil {
		return Tree{}, errors.Join(err, fetch.Discard(raw))
	}
	if err := os.Rename(raw, t.File); err != nil {
		return Tree{}, err
	}
	return t, durable.SyncDir(s.Cache)
}

// find returns the date to take and its signature. The newest snapshot is the one
// of yesterday at best: a day's is published on the next.
func (s *Snapshot) find(ctx context.Context, base string) (date string, sig []byte, err error) {
	get := func(date string) ([]byte, error) {
		return fetch.Bytes(ctx, base+"gentoo-"+date+".tar.xz.gpgsig", s.Fetch)
	}
	if s.Date != "" && s.Date != "latest" {
		sig, err = get(s.Date)
		return s.Date, sig, err
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	for day := 1; day <= maxAge; day++ {
		date = now().UTC().AddDate(0, 0, -day).Format("20060102")
		sig, err = get(date)
		var status *fetch.StatusError
		if errors.As(err, &status) && status.Status == http.StatusNotFound {
			continue
		}
		if err == nil {
			s.log("the newest ebuild repository is of %s", date)
		}
		return date, sig, err
	}
	return "", nil, fmt.Errorf("no snapshot of the ebuild repository in the last %d days: %w", maxAge, err)
}

func (s *Snapshot) verify(file, name string, sig []byte) (images.Digest, error) {
	f, err := os.Open(file)
	if err != nil {
		return images.Digest{}, err
	}
	defer f.Close()
	h := sha256.New()
	if err := s.Keys.Detached(name, io.TeeReader(f, h), sig); err != nil {
		return images.Digest{}, err
	}
	if _, err := io.Copy(h, f); err != nil {
		return images.Digest{}, err
	}
	return images.Digest(h.Sum(nil)), nil
}

// Offline returns the newest snapshot, or that of the date, that was fetched and
// verified before.
func (s *Snapshot) Offline() (Tree, error) {
	pattern := "gentoo-" + s.Date + ".tar.xz"
	if s.Date == "" || s.Date == "latest" {
		pattern = "gentoo-[0-9]*.tar.xz"
	}
	files, err := filepath.Glob(filepath.Join(s.Cache, pattern))
	if err != nil || len(files) == 0 {
		return Tree{}, fmt.Errorf("no snapshot of the ebuild repository was fetched before (%s)", s.Cache)
	}
	slices.Sort(files)
	t := Tree{File: files[len(files)-1]}
	t.Date = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(t.File), "gentoo-"), ".tar.xz")
	t.Digest, err = fileDigest(t.File)
	return t, err
}

// Unpack makes a directory of the snapshot below dir, named by its digest, unless
// it is there already. Other snapshots there are removed.
func (t Tree) Unpack(ctx context.Context, dir string, log io.Writer) (string, error) {
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	to := filepath.Join(dir, t.Date+"-"+t.Digest.Short())
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range old {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return "", err
		}
	}
	tmp, err := os.MkdirTemp(dir, "unpacking-")
	if err != nil {
		return "", err
	}
	err = command.Run(ctx, command.Cmd{Log: log, Args: []string{"tar", "--extract", "--file", t.File, "--directory", tmp,
		"--no-same-owner", "--no-same-permissions"}})
	var top string
	if err == nil {
		top, err = repository(tmp)
	}
	if err == nil {
		err = os.Rename(top, to)
	}
	return to, errors.Join(err, os.RemoveAll(tmp))
}

// repository finds the ebuild repository in a directory that a snapshot was
// unpacked in: its archive holds it in a directory named by the day.
func repository(dir string) (string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range list {
		top := filepath.Join(dir, e.Name())
		if fi, err := os.Lstat(filepath.Join(top, "profiles/repo_name")); e.IsDir() && err == nil && fi.Mode().IsRegular() {
			return top, nil
		}
	}
	return "", errors.New("the snapshot holds no ebuild repository (profiles/repo_name)")
}

// SPDX-License-Identifier: GPL-2.0-or-later

// Package remote fetches files of builds from places that sources.conf names:
// git repositories, and web directories with a list of digests, SHA256SUMS, that
// is itself known by its digest or signed. Only what is missing here or has
// changed is fetched, and nothing is put where a build looks before it is
// verified.
package remote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slate/builder/command"
	"slate/builder/fetch"
	"slate/builder/gentoo"
	"slate/images/durable"
	"slate/netboot/config"
)

// Options are how to fetch.
type Options struct {
	Dir     string                   // what is fetched lies below it, by the place's name
	KeyFile func(name string) string // where a file that sources.conf names is
	Offline bool                     // ask nobody: what is there has to do
	Fetch   fetch.Options
	Step    func(step, detail string) // may be nil
}

// Place is what was fetched, or was there.
type Place struct {
	Dir     string
	Version string // commit, or digest of the list
	Fetched int    // files that were fetched now; -1: git does not say
}

// Get brings a place up to date.
func Get(ctx context.Context, r config.Remote, o Options) (Place, error) {
	if err := durable.MkdirAll(o.Dir, 0o755); err != nil {
		return Place{}, err
	}
	if o.Step != nil {
		o.Step("looking at "+r.Name, r.URL)
	}
	var p Place
	var err error
	if r.Git() {
		p, err = git(ctx, r, o)
	} else {
		p, err = web(ctx, r, o)
	}
	if err != nil {
		return p, fmt.Errorf("remote %s: %w", r.Name, err)
	}
	return p, nil
}

// git keeps a clone and checks the wanted commit out beside it.
func git(ctx context.Context, r config.Remote, o Options) (Place, error) {
	p := Place{Dir: filepath.Join(o.Dir, r.Name), Fetched: -1}
	clone := filepath.Join(o.Dir, r.Name+".git")
	run := func(args ...string) (string, error) {
		// Neither this machine's nor the user's configuration of git counts, no hook runs.
		env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + o.Dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C.UTF-8",
			"GIT_ALLOW_PROTOCOL=https:http:ssh:file", "SSH_AUTH_SOCK=" + os.Getenv("SSH_AUTH_SOCK")}
		out, err := command.Output(ctx, command.Cmd{Args: append([]string{"git", "-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*"}, args...), Env: env})
		return strings.TrimSpace(out), err
	}
	url := strings.TrimPrefix(r.URL, "git+")
	if _, err := os.Stat(clone); errors.Is(err, fs.ErrNotExist) {
		if o.Offline {
			return p, errors.New("was never fetched, and nothing is asked of a server now")
		}
		if _, err := run("init", "--quiet", "--bare", clone); err != nil {
			return p, err
		}
	}
	ref := r.Ref
	if ref == "" {
		ref = "HEAD"
	}
	const kept = "refs/slate/wanted"
	if !o.Offline {
		if have, err := run("-C", clone, "rev-parse", "--verify", "--quiet", kept); err != nil || have != ref {
			if _, err := run("-C", clone, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, "+"+ref+":"+kept); err != nil {
				return p, err
			}
		}
	}
	commit, err := run("-C", clone, "rev-parse", "--verify", kept+"^{commit}")
	if err != nil {
		return p, err
	}
	p.Version = commit
	stamp := filepath.Join(p.Dir, ".slate-commit")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == commit {
		return p, nil
	}
	return p, replaceDir(p.Dir, func(tmp string) error {
		if _, err := run("--git-dir="+clone, "--work-tree="+tmp, "checkout", "--force", "--quiet", commit, "--", "."); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tmp, ".slate-commit"), []byte(commit), 0o644)
	})
}

// replaceDir makes a directory anew and puts it in the place of the one there is.
func replaceDir(dir string, fill func(tmp string) error) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// list is the name of the file with the digests, below a web directory.
const list = "SHA256SUMS"

// web fetches the list, verifies it, and fetches the files that are not here as
// they stand in it.
func web(ctx context.Context, r config.Remote, o Options) (Place, error) {
	p := Place{Dir: filepath.Join(o.Dir, r.Name)}
	text, err := readList(ctx, r, o)
	if err != nil {
		return p, err
	}
	sum := sha256.Sum256(text)
	p.Version = hex.EncodeToString(sum[:])
	files, err := parseList(text)
	if err != nil {
		return p, err
	}
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return p, err
	}
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return p, err
	}
	defer root.Close()
	for _, f := range files {
		if data, err := root.ReadFile(f.name); err == nil && sha256.Sum256(data) == f.digest {
			continue
		}
		if o.Offline {
			return p, fmt.Errorf("%s is missing or has changed, and nothing is asked of a server now", f.name)
		}
		if o.Step != nil {
			o.Step("fetching from "+r.Name, f.name)
		}
		data, err := fetch.Bytes(ctx, strings.TrimRight(r.URL, "/")+"/"+f.name, o.Fetch)
		if err != nil {
			return p, err
		}
		if sha256.Sum256(data) != f.digest {
			return p, fmt.Errorf("%s does not have the digest that %s says", f.name, list)
		}
		if err := put(root, f.name, data); err != nil {
			return p, err
		}
		p.Fetched++
	}
	return p, prune(root, files)
}

// readList returns the verified list: fetched, or offline the one there is.
func readList(ctx context.Context, r config.Remote, o Options) ([]byte, error) {
	kept := filepath.Join(o.Dir, r.Name+"."+list)
	var text []byte
	var err error
	name := list
	if r.Digest == "" {
		name += ".asc"
	}
	if o.Offline {
		text, err = os.ReadFile(kept)
	} else {
		text, err = fetch.Bytes(ctx, strings.TrimRight(r.URL, "/")+"/"+name, o.Fetch)
	}
	if err != nil {
		return nil, err
	}
	plain := text
	if r.Digest != "" {
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != r.Digest {
			return nil, fmt.Errorf("%s has the digest %x, sources.conf wants %s", list, sum, r.Digest)
		}
	} else {
		keys, err := gentoo.LoadKeys(ctx, o.KeyFile(r.Keys), r.Signer, o.Dir, false, o.Fetch)
		if err != nil {
			return nil, err
		}
		if plain, err = keys.ClearSigned(name, text); err != nil {
			return nil, err
		}
	}
	if !o.Offline {
		if err := durable.WriteFile(kept, text, 0o644); err != nil {
			return nil, err
		}
	}
	return plain, nil
}

type file struct {
	name   string
	digest [sha256.Size]byte
}

// maxFiles bounds a list; one of recipes and overlays has hundreds.
const maxFiles = 100_000

// parseList reads what sha256sum writes: digest, two spaces (or a space and a
// star), name. Names are paths below the list.
func parseList(text []byte) ([]file, error) {
	var out []file
	sc := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimRight(sc.Text(), "\r")
		if strings.TrimSpace(line) == "" {
			continue
		}
		var f file
		if len(line) < 67 || line[64] != ' ' || line[65] != ' ' && line[65] != '*' {
			return nil, fmt.Errorf("%s:%d: %q is not what sha256sum writes", list, n, line)
		}
		sum, err := hex.DecodeString(line[:64])
		f.name = strings.TrimPrefix(line[66:], "./")
		if err != nil || !fs.ValidPath(f.name) || f.name == "." || strings.ContainsAny(f.name, "\\?#%\x00") {
			return nil, fmt.Errorf("%s:%d: %q is no digest and path below the list", list, n, line)
		}
		copy(f.digest[:], sum)
		if out = append(out, f); len(out) > maxFiles {
			return nil, fmt.Errorf("%s has more than %d files", list, maxFiles)
		}
	}
	return out, sc.Err()
}

// put writes a file so that it is whole or not there.
func put(root *os.Root, name string, data []byte) error {
	dir := filepath.Dir(name)
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp := filepath.Join(dir, ".new-"+filepath.Base(name))
	if err := root.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return root.Rename(tmp, name)
}

// prune removes what the list no longer names.
func prune(root *os.Root, files []file) error {
	var gone []string
	err := fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !slices.ContainsFunc(files, func(f file) bool { return f.name == p }) {
			gone = append(gone, p)
		}
		return nil
	})
	for _, p := range gone {
		err = errors.Join(err, root.Remove(p))
	}
	return err
}

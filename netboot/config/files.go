// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// sourcesDir is the directory, below config.d, a group's or a node's, with the
// files that etc.conf puts into /etc.
const sourcesDir = "files/"

// maxSource is how large one of them may be.
const maxSource = 256 << 10

// isSource tells such files by their path below config.d.
func isSource(p string) bool {
	_, rest := splitScope(p)
	return strings.HasPrefix(rest, sourcesDir)
}

// splitScope divides a path into groups/<group>/ or nodes/<node>/, or "", and the rest.
func splitScope(p string) (prefix, rest string) {
	for _, dir := range []string{nodesDir, groupsDir} {
		if after, ok := strings.CutPrefix(p, dir); ok {
			name, rest, _ := strings.Cut(after, "/")
			return dir + name + "/", rest
		}
	}
	return "", p
}

func (s *Site) readSource(fsys fs.FS, p string) error {
	fi, err := fs.Stat(fsys, p)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxSource {
		return nil // nothing may refer to it
	}
	s.sources[p], err = fs.ReadFile(fsys, p)
	return err
}

// readSources gives the files of etc.conf their content: a node's own goes before
// its groups', theirs before the site's.
func (s *Site) readSources(n *Node, scope Scope) (errs []error) {
	prefixes := scope.prefixes()
	slices.Reverse(prefixes)
	for i := range n.Etc.File {
		f := &n.Etc.File[i]
		if f.From == "" {
			f.content = []byte(f.Text)
			continue
		}
		at := slices.IndexFunc(prefixes, func(prefix string) bool { _, ok := s.sources[prefix+f.From]; return ok })
		if at < 0 {
			e := n.errorAt(etcFile, entryKey("file", f.Path), "there is no file %s", f.From)
			e.Help = fmt.Sprintf("put it below config.d, or below the directory of a group or node there; %d KB at most", maxSource>>10)
			errs = append(errs, e)
			continue
		}
		f.content = s.sources[prefixes[at]+f.From]
	}
	return errs
}

// prefixes are the directories of a scope, in order of rising precedence.
func (scope Scope) prefixes() []string {
	out := []string{""}
	for _, g := range scope.Groups {
		out = append(out, groupsDir+g+"/")
	}
	if scope.Node != "" {
		out = append(out, nodesDir+scope.Node+"/")
	}
	return out
}

// filesOf gives the files that the configuration of a scope is made from.
func (s *Site) filesOf(scope Scope) map[string][]byte {
	out := map[string][]byte{}
	n := s.For(scope)
	for _, p := range n.parts() {
		if strings.HasPrefix(p.path, "sources/") {
			continue // for builds only
		}
		dir, base := path.Split(p.path)
		for _, prefix := range scope.prefixes() {
			if p.path == healthDir {
				for _, name := range s.healthFiles(prefix) {
					out[name] = s.files[name]
				}
				continue
			}
			for _, name := range []string{prefix + p.path, prefix + dir + "c" + base} {
				if data, ok := s.files[name]; ok {
					out[name] = data
				}
			}
		}
	}
	for _, f := range n.Etc.File {
		for _, prefix := range scope.prefixes() {
			if data, ok := s.sources[prefix+f.From]; ok && f.From != "" {
				out[prefix+f.From] = data
			}
		}
	}
	return out
}

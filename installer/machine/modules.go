// SPDX-License-Identifier: GPL-2.0-or-later

package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// ModuleName gives the name the kernel uses for a module: no directory, no
// ending, underscores for dashes.
func ModuleName(s string) string {
	s = path.Base(s)
	if i := strings.Index(s, ".ko"); i >= 0 {
		s = s[:i]
	}
	return strings.ReplaceAll(s, "-", "_")
}

// ModuleIndex is what depmod wrote below /lib/modules/<release>.
type ModuleIndex struct {
	Dir     string // of the files, below the file system's root: lib/modules/<release>
	files   map[string]string
	deps    map[string][]string
	pre     map[string][]string
	post    map[string][]string
	builtin map[string]bool
	alias   map[string][]aliasRule // by the part before the first ':', where most patterns differ
}

type aliasRule struct{ pattern, module string }

// ReadModuleIndex reads modules.dep, .alias, .softdep and .builtin of a release.
// Only modules.dep must exist: a kernel with no modules at all has no index, which
// is an error that says so and nothing that stops a boot.
func ReadModuleIndex(fsys fs.FS, release string) (*ModuleIndex, error) {
	x := &ModuleIndex{
		Dir:   path.Join("lib/modules", release),
		files: map[string]string{}, deps: map[string][]string{}, pre: map[string][]string{}, post: map[string][]string{},
		builtin: map[string]bool{}, alias: map[string][]aliasRule{},
	}
	for _, f := range []struct {
		name  string
		parse func(io.Reader) error
		must  bool
	}{
		{"modules.dep", x.parseDep, true},
		{"modules.softdep", x.parseSoftdep, false},
		{"modules.builtin", x.parseBuiltin, false},
		{"modules.alias", x.parseAlias, false},
	} {
		r, err := fsys.Open(path.Join(x.Dir, f.name))
		if errors.Is(err, fs.ErrNotExist) && !f.must {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = f.parse(r)
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", x.Dir, f.name, err)
		}
	}
	return x, nil
}

func eachLine(r io.Reader, fn func(fields []string)) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for sc.Scan() {
		if f := strings.Fields(sc.Text()); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			fn(f)
		}
	}
	return sc.Err()
}

func (x *ModuleIndex) parseDep(r io.Reader) error {
	return eachLine(r, func(f []string) {
		file, ok := strings.CutSuffix(f[0], ":")
		if !ok {
			return
		}
		name := ModuleName(file)
		x.files[name] = file
		for _, d := range f[1:] {
			x.deps[name] = append(x.deps[name], ModuleName(d))
		}
	})
}

func (x *ModuleIndex) parseSoftdep(r io.Reader) error {
	return eachLine(r, func(f []string) {
		if len(f) < 3 || f[0] != "softdep" {
			return
		}
		into := x.pre
		for _, w := range f[2:] {
			switch w {
			case "pre:":
				into = x.pre
			case "post:":
				into = x.post
			default:
				into[ModuleName(f[1])] = append(into[ModuleName(f[1])], w)
			}
		}
	})
}

func (x *ModuleIndex) parseBuiltin(r io.Reader) error {
	return eachLine(r, func(f []string) { x.builtin[ModuleName(f[0])] = true })
}

func (x *ModuleIndex) parseAlias(r io.Reader) error {
	return eachLine(r, func(f []string) {
		if len(f) != 3 || f[0] != "alias" {
			return
		}
		p := normalAlias(f[1])
		x.alias[bucket(p)] = append(x.alias[bucket(p)], aliasRule{p, ModuleName(f[2])})
	})
}

// bucket is the bus of an alias. A pattern with a wildcard before the first
// colon goes into the bucket that every look-up reads.
func bucket(alias string) string {
	i := strings.IndexAny(alias, ":*?[")
	if i < 0 || alias[i] != ':' {
		return ""
	}
	return alias[:i]
}

// normalAlias does to an alias what depmod and modprobe do: dashes become
// underscores except inside brackets, where a dash means a range.
func normalAlias(s string) string {
	b, in := []byte(s), false
	for i, c := range b {
		switch {
		case c == '[':
			in = true
		case c == ']':
			in = false
		case c == '-' && !in:
			b[i] = '_'
		}
	}
	return string(b)
}

// Match gives the modules that claim a modalias, in the order of the index.
func (x *ModuleIndex) Match(modalias string) []string {
	m := normalAlias(strings.TrimSpace(modalias))
	if m == "" {
		return nil
	}
	var out []string
	scan := func(rules []aliasRule) {
		for _, r := range rules {
			if !slices.Contains(out, r.module) && globMatch(r.pattern, m) {
				out = append(out, r.module)
			}
		}
	}
	b := bucket(m)
	scan(x.alias[b])
	if b != "" {
		scan(x.alias[""])
	}
	return out
}

// globMatch is fnmatch(3) without flags, in time linear in pattern times text:
// the patterns come from files that anybody may have written.
func globMatch(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if p < len(pattern) {
			if n, ok := matchOne(pattern[p:], s[i]); ok {
				p += n
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches the first item of a pattern against one byte and gives the item's length.
func matchOne(pattern string, c byte) (int, bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == c
		}
	case '[':
		end := strings.IndexByte(pattern, ']')
		if end < 0 {
			break
		}
		set := pattern[1:end]
		not := strings.HasPrefix(set, "!") || strings.HasPrefix(set, "^")
		if not {
			set = set[1:]
		}
		in := false
		for k := 0; k < len(set); k++ {
			if k+2 < len(set) && set[k+1] == '-' {
				in = in || set[k] <= c && c <= set[k+2]
				k += 2
			} else {
				in = in || set[k] == c
			}
		}
		return end + 1, in != not
	}
	return 1, pattern[0] == c
}

// Load is one module to insert, after all of After.
type Load struct {
	Name, File string
	After      []string
}

// Plan orders the modules that the wanted names need: soft dependencies and
// dependencies before, what is loaded or built in left out. A name may also be an
// alias such as fs-nfs. Names that exist nowhere are returned as missing.
func (x *ModuleIndex) Plan(wanted []string, loaded func(string) bool) (plan []Load, missing []string) {
	state := map[string]int{} // 1: being visited (a circle of soft dependencies ends here), 2: in the plan
	var visit func(name string) bool
	visit = func(name string) bool {
		if state[name] != 0 || x.builtin[name] || loaded(name) {
			return true
		}
		file, ok := x.files[name]
		if !ok {
			return false
		}
		state[name] = 1
		l := Load{Name: name, File: path.Join(x.Dir, file)}
		for _, d := range slices.Concat(x.resolve(x.pre[name]), x.deps[name]) {
			visit(d)
			if state[d] == 2 && !slices.Contains(l.After, d) {
				l.After = append(l.After, d)
			}
		}
		state[name] = 2
		plan = append(plan, l)
		for _, d := range x.resolve(x.post[name]) {
			visit(d)
		}
		return true
	}
	for _, w := range wanted {
		if visit(ModuleName(w)) {
			continue
		}
		byAlias := x.Match(w)
		for _, m := range byAlias {
			visit(m)
		}
		if len(byAlias) == 0 {
			missing = append(missing, w)
		}
	}
	return plan, missing
}

// resolve replaces aliases by the modules they stand for: a soft dependency such
// as Debian's of ext4 on crypto-crc32c may name either.
func (x *ModuleIndex) resolve(names []string) []string {
	var out []string
	for _, n := range names {
		if m := ModuleName(n); x.files[m] != "" || x.builtin[m] {
			out = append(out, m)
		} else {
			out = append(out, x.Match(n)...)
		}
	}
	return out
}

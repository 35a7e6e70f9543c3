// SPDX-License-Identifier: GPL-2.0-or-later

// Package recipes reads recipes: what goes into an image, as small TOML files.
// Some are shipped with slate, others lie wherever the admin keeps them; one may
// extend another. It checks what can be checked without building.
package recipes

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"slate/images"
	"slate/netboot/config"
)

//go:embed *.toml
var shipped embed.FS

// Recipe is what goes into an image. The comments of debian.toml and gentoo.toml
// say what the keys mean.
type Recipe struct {
	Description string `toml:"description"`
	Base        string `toml:"base"`
	Extends     string `toml:"extends"`

	Gentoo   Gentoo   `toml:"gentoo"`
	Debian   Debian   `toml:"debian"`
	Source   Source   `toml:"source"`
	Packages Packages `toml:"packages"`
	Kernel   Kernel   `toml:"kernel"`
	Modules  Modules  `toml:"modules"`
	System   System   `toml:"system"`
	Users    []User   `toml:"user"`
	Files    []File   `toml:"file"`
	Scripts  []Script `toml:"script"`
	Clean    Clean    `toml:"clean"`

	Name string `toml:"-"` // the file's name without directory and suffix
	dir  string // files named by "from" lie here; "" for shipped recipes
}

// The bases a recipe can build on.
const (
	BaseGentoo    = "gentoo"
	BaseDebian    = "debian"
	BaseTar       = "tar"
	BaseDirectory = "directory"
	BaseOCI       = "oci"
)

// Gentoo says how Portage makes the system. Where stages and packages come from
// is said in sources.conf; Variant and Profile go before what stands there.
type Gentoo struct {
	Variant       string   `toml:"variant"`
	Profile       string   `toml:"profile"`
	Use           []string `toml:"use"`      // lines for package.use
	Keywords      []string `toml:"keywords"` // lines for package.accept_keywords
	Licenses      []string `toml:"licenses"` // lines for package.license
	Update        bool     `toml:"update"`   // @world before packages are added
	Depclean      bool     `toml:"depclean"` // remove what nothing needs
	ConfigUpdates string   `toml:"config-updates"`
}

// What becomes of configuration files of which an update brings another version
// (Gentoo.ConfigUpdates).
const (
	ConfigNew  = "new"  // the update's
	ConfigKeep = "keep" // the one that is there
)

// Source is the base where it is not a distribution: a tar archive, a directory,
// or a container image.
type Source struct {
	Path   string   `toml:"path"`   // relative to the recipe; a URL for an archive; or as slate image import takes it
	Digest string   `toml:"digest"` // SHA-256 of the archive
	Keys   string   `toml:"keys"`   // or a file with public keys of who signed it, as PATH.asc beside it,
	Signer []string `toml:"signer"` // and their fingerprints
}

// Kernel is the kernel's configuration where it is compiled.
type Kernel struct {
	Config    string   `toml:"config"`    // a whole .config; relative to the recipe
	Fragments []string `toml:"fragments"` // files with settings that go over the distribution's

	ConfigData   []byte   `toml:"-"`
	FragmentData [][]byte `toml:"-"`
}

// Modules say which kernel modules the initramfs has.
type Modules struct {
	Classes        []string `toml:"classes"` // empty: all
	Extra          []string `toml:"extra"`
	Exclude        []string `toml:"exclude"`
	NoFirmware     bool     `toml:"no-firmware"`
	FirmwareBudget int      `toml:"firmware-budget"` // MiB; 0: 48
	NoMicrocode    bool     `toml:"no-microcode"`
}

// Debian says where packages come from. What is empty comes from sources.conf.
type Debian struct {
	Suite          string   `toml:"suite"`
	Components     []string `toml:"components"`
	Mirror         string   `toml:"mirror"`
	SecurityMirror string   `toml:"security-mirror"`
	Updates        bool     `toml:"updates"`
	Security       bool     `toml:"security"`
	Variant        string   `toml:"variant"`
	Recommends     bool     `toml:"recommends"`
	Arch           string   `toml:"arch"`    // Debian's name; "": that of the machine that builds
	Keyring        string   `toml:"keyring"` // file with the archive's keys; "": apt's own
}

// Packages are the packages beside the base's own.
type Packages struct {
	Install []string `toml:"install"`
}

// System is what is set in every image.
type System struct {
	Timezone string   `toml:"timezone"`
	Locale   string   `toml:"locale"`
	Mask     []string `toml:"mask"`
	Enable   []string `toml:"enable"`
	Disable  []string `toml:"disable"`
}

// User is an account that is made, or changed if it is there.
type User struct {
	Name         string   `toml:"name"`
	Password     string   `toml:"password"`      // in the clear, for demonstrations
	PasswordHash string   `toml:"password-hash"` // as in /etc/shadow
	Keys         []string `toml:"keys"`          // ssh public keys
	Groups       []string `toml:"groups"`
	Shell        string   `toml:"shell"`
}

// File is a file put into the tree.
type File struct {
	Path    string `toml:"path"`
	Content string `toml:"content"`
	From    string `toml:"from"` // read from here, relative to the recipe
	Mode    string `toml:"mode"` // octal; "": 0644
	Owner   string `toml:"owner"`

	Data []byte `toml:"-"` // what is written
}

// Script is a shell script that runs in the tree after the packages.
type Script struct {
	Name    string `toml:"name"`
	Run     string `toml:"run"`
	Network bool   `toml:"network"` // it has to fetch something
}

// Clean says what is removed beside what every build removes.
type Clean struct {
	Docs        bool     `toml:"docs"`
	Man         bool     `toml:"man"`
	Locales     bool     `toml:"locales"`
	KeepLocales []string `toml:"keep-locales"`
	Development bool     `toml:"development"` // headers, static libraries, what only compiling needs
	PackageDB   bool     `toml:"package-db"`  // the package manager's records
}

// NotFoundError names a recipe that is neither shipped nor a file.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("no recipe %q", e.Name) }

// Hint lists what there is.
func (e *NotFoundError) Hint() string {
	return "shipped recipes: " + strings.Join(Shipped(), ", ") + "; a file is named by a path with a slash or .toml in it"
}

// Shipped returns the names of the recipes that come with slate.
func Shipped() []string {
	list, err := fs.ReadDir(shipped, ".")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	var out []string
	for _, e := range list {
		out = append(out, strings.TrimSuffix(e.Name(), ".toml"))
	}
	return out
}

// isPath tells a file from the name of a shipped recipe.
func isPath(s string) bool { return strings.Contains(s, "/") || strings.HasSuffix(s, ".toml") }

// Text returns a recipe's own text, with its comments.
func Text(name string) ([]byte, error) {
	if isPath(name) {
		return os.ReadFile(name)
	}
	b, err := shipped.ReadFile(name + ".toml")
	if err != nil {
		return nil, &NotFoundError{name}
	}
	return b, nil
}

// maxExtends bounds a chain of recipes; a longer one is a loop.
const maxExtends = 8

// Load reads the recipe that name stands for: a path if it has a slash or ends
// in .toml, a shipped recipe otherwise.
func Load(name string) (*Recipe, error) {
	r, err := load(name, 0)
	if err != nil {
		return nil, err
	}
	if err := r.readFiles(); err != nil {
		return nil, err
	}
	return r, nil
}

func load(name string, depth int) (*Recipe, error) {
	if depth > maxExtends {
		return nil, fmt.Errorf("recipe %s: extends itself through %d others", name, depth)
	}
	text, err := Text(name)
	if err != nil {
		return nil, err
	}
	file := name
	if !isPath(name) {
		file += ".toml"
	}
	r := &Recipe{}
	doc, err := config.Decode(file, text, r)
	if err != nil {
		return nil, err
	}
	r.Name = strings.TrimSuffix(path.Base(file), ".toml")
	if isPath(name) {
		r.dir = filepath.Dir(name)
	}
	if err := r.check(doc); err != nil {
		return nil, err
	}
	r.locateFiles()
	if r.Extends == "" {
		return r, r.checkWhole(doc)
	}
	parentName := r.Extends
	if isPath(parentName) && !filepath.IsAbs(parentName) {
		parentName = filepath.Join(r.dir, parentName)
		if !isPath(parentName) {
			parentName = "./" + parentName
		}
	}
	parent, err := load(parentName, depth+1)
	if err != nil {
		var nf *NotFoundError
		if errors.As(err, &nf) {
			e := doc.Errorf("extends", "%v", err)
			e.Help = nf.Hint()
			return nil, e
		}
		return nil, err
	}
	merged, err := extend(parent, r, text)
	if err != nil {
		return nil, err
	}
	return merged, merged.checkWhole(doc)
}

// extend puts a recipe on top of the one it extends: a key it has replaces the
// other's, but lists of packages, units, users, files and scripts add up.
func extend(parent, child *Recipe, text []byte) (*Recipe, error) {
	m := *parent
	// The decoder writes into slices that are there; those are the parent's.
	m.Packages, m.Users, m.Files, m.Scripts = Packages{}, nil, nil, nil
	m.System.Mask, m.System.Enable, m.System.Disable = nil, nil, nil
	m.Debian.Components = slices.Clone(parent.Debian.Components)
	m.Clean.KeepLocales = slices.Clone(parent.Clean.KeepLocales)
	m.Source.Signer, m.Kernel.Fragments = slices.Clone(parent.Source.Signer), slices.Clone(parent.Kernel.Fragments)
	m.Modules.Classes, m.Modules.Extra, m.Modules.Exclude = slices.Clone(parent.Modules.Classes), nil, nil
	m.Gentoo.Use, m.Gentoo.Keywords, m.Gentoo.Licenses = nil, nil, nil
	if _, err := toml.NewDecoder(bytes.NewReader(text)).Decode(&m); err != nil {
		return nil, err
	}
	m.Name, m.dir, m.Extends = child.Name, child.dir, child.Extends
	m.Packages.Install = join(parent.Packages.Install, child.Packages.Install)
	m.Gentoo.Use = slices.Concat(parent.Gentoo.Use, child.Gentoo.Use)
	m.Gentoo.Keywords = slices.Concat(parent.Gentoo.Keywords, child.Gentoo.Keywords)
	m.Gentoo.Licenses = slices.Concat(parent.Gentoo.Licenses, child.Gentoo.Licenses)
	m.Modules.Extra = join(parent.Modules.Extra, child.Modules.Extra)
	m.Modules.Exclude = join(parent.Modules.Exclude, child.Modules.Exclude)
	// Located already, and the text has them as they are written.
	m.Source, m.Kernel = locatedSource(parent.Source, child.Source), locatedKernel(parent.Kernel, child.Kernel)
	m.System.Mask = join(parent.System.Mask, child.System.Mask)
	m.System.Enable = join(parent.System.Enable, child.System.Enable)
	m.System.Disable = join(parent.System.Disable, child.System.Disable)
	m.Users = slices.Concat(parent.Users, child.Users)
	m.Files = slices.Concat(parent.Files, child.Files)
	m.Scripts = slices.Concat(parent.Scripts, child.Scripts)
	return &m, nil
}

// join adds b to a. A word that begins with a dash takes the other out again.
func join(a, b []string) []string {
	out := slices.Clone(a)
	for _, w := range b {
		if drop, ok := strings.CutPrefix(w, "-"); ok {
			out = slices.DeleteFunc(out, func(s string) bool { return s == drop })
			continue
		}
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

func locatedSource(parent, child Source) Source {
	if child.Path == "" {
		return parent
	}
	return child
}

func locatedKernel(parent, child Kernel) Kernel {
	if child.Config == "" {
		child.Config = parent.Config
	}
	child.Fragments = slices.Concat(parent.Fragments, child.Fragments)
	return child
}

// locateFiles makes the paths of "from" relative to the working directory, as
// long as we know which recipe they stand in.
func (r *Recipe) locateFiles() {
	for i, f := range r.Files {
		if f.From != "" && !filepath.IsAbs(f.From) {
			r.Files[i].From = filepath.Join(r.dir, f.From)
		}
	}
	locate := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) && !strings.Contains(*p, ":") {
			*p = filepath.Join(r.dir, *p)
		}
	}
	locate(&r.Source.Path)
	locate(&r.Source.Keys)
	locate(&r.Kernel.Config)
	for i := range r.Kernel.Fragments {
		locate(&r.Kernel.Fragments[i])
	}
	// oci:DIR and docker-archive:FILE are paths, too.
	if kind, p, ok := strings.Cut(r.Source.Path, ":"); ok && (kind == "oci" || kind == "docker-archive") && !filepath.IsAbs(p) {
		r.Source.Path = kind + ":" + filepath.Join(r.dir, p)
	}
}

func (r *Recipe) readFiles() error {
	for i, f := range r.Files {
		r.Files[i].Data = []byte(f.Content)
		if f.From != "" {
			b, err := os.ReadFile(f.From)
			if err != nil {
				return fmt.Errorf("file %s of recipe %s: %w", f.Path, r.Name, err)
			}
			r.Files[i].Data = b
		}
	}
	k := &r.Kernel
	k.FragmentData = make([][]byte, len(k.Fragments))
	for i, p := range append([]string{k.Config}, k.Fragments...) {
		if p == "" {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return fmt.Errorf("kernel configuration of recipe %s: %w", r.Name, err)
		}
		if i == 0 {
			k.ConfigData = b
		} else {
			k.FragmentData[i-1] = b
		}
	}
	return nil
}

// Digest is the same for recipes that say the same, comments apart: what the
// recipe extends and the contents of the files are part of it.
func (r *Recipe) Digest() (images.Digest, error) {
	said := *r
	said.Description, said.Extends, said.Files = "", "", slices.Clone(r.Files)
	for i := range said.Files {
		said.Files[i].Content, said.Files[i].From = "", ""
	}
	said.Kernel = Kernel{}
	said.Source.Keys = ""
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(said); err != nil {
		return images.Digest{}, fmt.Errorf("recipe %s: %w", r.Name, err)
	}
	for _, f := range r.Files {
		fmt.Fprintf(&b, "%x\n", sha256.Sum256(f.Data))
	}
	for _, data := range append([][]byte{r.Kernel.ConfigData}, r.Kernel.FragmentData...) {
		fmt.Fprintf(&b, "kernel %x\n", sha256.Sum256(data))
	}
	return sha256.Sum256(b.Bytes()), nil
}

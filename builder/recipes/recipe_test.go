// SPDX-License-Identifier: GPL-2.0-or-later

package recipes_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slate/builder/recipes"
)

func TestShippedRecipesLoad(t *testing.T) {
	names := recipes.Shipped()
	if !slices.Contains(names, "debian") || !slices.Contains(names, "demo") {
		t.Fatalf("Shipped() = %v, want debian and demo among them", names)
	}
	for _, n := range names {
		r, err := recipes.Load(n)
		if err != nil {
			t.Errorf("Load(%q): %v", n, err)
			continue
		}
		if r.Description == "" || r.Base == "" || r.Name != n {
			t.Errorf("Load(%q) = %+v: want description, base and name", n, r)
		}
		for _, u := range r.Users {
			if u.Password != "" && !strings.HasPrefix(n, "demo") {
				t.Errorf("recipe %s has a password; only the demonstration may", n)
			}
		}
	}
}

// write puts recipes into a directory and returns the path of the first.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "r.toml")
}

func TestExtend(t *testing.T) {
	p := write(t, map[string]string{
		"r.toml": `
extends = "base.toml"
[debian]
components = ["main", "contrib"]
[packages]
install = ["vim", "-nano", "less"]
[system]
mask = ["x.timer"]
[[file]]
path = "/etc/motd"
from = "motd"
[[user]]
name = "ada"
`,
		"base.toml": `
base = "debian"
[debian]
suite = "trixie"
components = ["main", "non-free-firmware", "three"]
security = true
[packages]
install = ["nano", "less"]
[system]
timezone = "Europe/Berlin"
mask = ["y.timer"]
[[user]]
name = "root"
`,
		"motd": "hello\n",
	})
	r, err := recipes.Load(p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"less", "vim"}, r.Packages.Install); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"y.timer", "x.timer"}, r.System.Mask); diff != "" {
		t.Errorf("mask (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"main", "contrib"}, r.Debian.Components); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	if r.Debian.Suite != "trixie" || !r.Debian.Security || r.System.Timezone != "Europe/Berlin" {
		t.Errorf("inherited values are lost: %+v %+v", r.Debian, r.System)
	}
	if len(r.Users) != 2 || r.Users[0].Name != "root" || r.Users[1].Name != "ada" {
		t.Errorf("users = %+v, want root and ada", r.Users)
	}
	if len(r.Files) != 1 || string(r.Files[0].Data) != "hello\n" {
		t.Errorf("files = %+v, want motd with its content", r.Files)
	}
}

func TestErrorsNameTheirPlace(t *testing.T) {
	const head = "base = \"debian\"\n[debian]\nsuite = \"trixie\"\n"
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", head + "mirrors = \"x\"\n", "r.toml:4: debian.mirrors: unknown key"},
		{"unknown table", head + "[kernels]\nx = 1\n", "unknown key"},
		{"wrong type", head + "updates = 1\n", "r.toml:4"},
		{"syntax", head + "x = [\n", "r.toml:"},
		{"no base", "[packages]\ninstall = []\n", "base"},
		{"unknown base", "base = \"hurd\"\n", "r.toml:1: base: \"hurd\""},
		{"Gentoo's atom in Debian", head + "[packages]\ninstall = [\">=a/b-1[x]\"]\n", "packages.install"},
		{"name without category", "base = \"gentoo\"\n[packages]\ninstall = [\"vim\"]\n", "r.toml:3: packages.install: \"vim\": want the category"},
		{"use line", "base = \"gentoo\"\n[gentoo]\nuse = [\"vim X\"]\n", "r.toml:3: gentoo.use"},
		{"config updates", "base = \"gentoo\"\n[gentoo]\nconfig-updates = \"ask\"\n", "gentoo.config-updates"},
		{"tar without a path", "base = \"tar\"\n", "source.path: missing"},
		{"unverified", "base = \"tar\"\n[source]\npath = \"https://example.org/x.tar\"\n", "source.digest: an archive from elsewhere"},
		{"no container", "base = \"oci\"\n[source]\npath = \"x\"\n", "want oci:DIR"},
		{"source of Debian", head + "[source]\npath = \"x\"\n", "has sources of its own"},
		{"kernel of Debian", head + "[kernel]\nconfig = \"x\"\n", "only a Gentoo kernel"},
		{"class", head + "[modules]\nclasses = [\"sound\"]\n", "modules.classes: \"sound\" is not one of network"},
		{"hostile suite", "base = \"debian\"\n[debian]\nsuite = \"../x\"\n", "r.toml:3: debian.suite"},
		{"hostile package", head + "[packages]\ninstall = [\"$(reboot)\"]\n", "r.toml:5: packages.install"},
		{"option as package", head + "[packages]\ninstall = [\"--purge\"]\n", "packages.install"},
		{"hostile unit", head + "[system]\nmask = [\"../../x\"]\n", "r.toml:5: system.mask"},
		{"hostile zone", head + "[system]\ntimezone = \"../../etc/shadow\"\n", "system.timezone"},
		{"file with dots", head + "[[file]]\npath = \"/etc/../../x\"\n", "file.path"},
		{"relative file", head + "[[file]]\npath = \"etc/x\"\n", "file.path"},
		{"file twice", head + "[[file]]\npath = \"/x\"\n[[file]]\npath = \"/x\"\n", "given twice"},
		{"mode", head + "[[file]]\npath = \"/x\"\nmode = \"rw\"\n", "octal"},
		{"owner", head + "[[file]]\npath = \"/x\"\nowner = \"a b\"\n", "user:group"},
		{"missing file", head + "[[file]]\npath = \"/x\"\nfrom = \"nowhere\"\n", "nowhere"},
		{"user", head + "[[user]]\nname = \"Ada\"\n", "user.name"},
		{"two passwords", head + "[[user]]\nname = \"a\"\npassword = \"x\"\npassword-hash = \"*\"\n", "give one"},
		{"bad hash", head + "[[user]]\nname = \"a\"\npassword-hash = \"secret\"\n", "mkpasswd"},
		{"mirror", head + "mirror = \"ftp.example\"\n", "want a URL"},
		{"extends nothing", "extends = \"nothing\"\n", "r.toml:1: extends: no recipe \"nothing\""},
		{"extends itself", "extends = \"r.toml\"\n", "extends itself"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := recipes.Load(write(t, map[string]string{"r.toml": tc.text}))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestNoSuchRecipe(t *testing.T) {
	_, err := recipes.Load("nothing")
	var nf *recipes.NotFoundError
	if !errors.As(err, &nf) || !strings.Contains(nf.Hint(), "debian") {
		t.Errorf("Load = %v, want a NotFoundError whose hint names debian", err)
	}
	if _, err := recipes.Load("./nothing.toml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load of a missing file = %v, want os.ErrNotExist", err)
	}
}

func TestDigest(t *testing.T) {
	digest := func(text, motd string) string {
		t.Helper()
		r, err := recipes.Load(write(t, map[string]string{"r.toml": text, "motd": motd}))
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	const text = "base = \"debian\"\n[debian]\nsuite = \"trixie\"\n[[file]]\npath = \"/etc/motd\"\nfrom = \"motd\"\n"
	one := digest(text, "a")
	if got := digest("# a comment\n"+text, "a"); got != one {
		t.Error("a comment or another directory changes the digest")
	}
	if digest(text, "b") == one {
		t.Error("another content of a file does not change the digest")
	}
	if digest(text+"mode = \"0600\"\n", "a") == one {
		t.Error("another mode does not change the digest")
	}
}

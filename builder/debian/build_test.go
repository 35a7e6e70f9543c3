// SPDX-License-Identifier: GPL-2.0-or-later

package debian_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"slate/builder/command"
	"slate/builder/customize"
	"slate/builder/debian"
	"slate/builder/recipes"
)

// fakeMmdebstrap puts a program of that name first in PATH. It keeps its
// arguments, environment and hooks in dir, then does what script says.
func fakeMmdebstrap(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text := "#!/bin/sh\nd=" + dir + `
printf '%s\n' "$@" > $d/args
env > $d/env
for a; do case $a in --*-hook=*) cp "${a#--*-hook=}" $d/; cp -r "$(dirname "${a#--*-hook=}")/files" $d/; cp "$(dirname "${a#--*-hook=}")/apt.conf" $d/ ;; esac; done
` + script
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func demo(t *testing.T) *recipes.Recipe {
	t.Helper()
	r, err := recipes.Load("demo")
	if err != nil {
		t.Fatal(err)
	}
	r.Debian.Suite = "trixie" // from sources.conf otherwise
	return r
}

var mirror = []debian.Source{{URI: "http://m.example/debian", Suite: "trixie", Components: []string{"main"}}}

func lines(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestBuild(t *testing.T) {
	dir := fakeMmdebstrap(t, `
echo "I: installing remaining packages inside the chroot..." >&2
echo "Setting up foo (1.0)" >&2
echo "slate-step: cleaning up" >&2
echo "slate-inrelease: 0584fba32e13e0ab8285fb16c27adea1ec03a73669c18702821094fd6ca86675 m.example_debian_dists_trixie_InRelease" >&2
echo "slate-saved: manuals 1234" >&2
printf 'the tree'
`)
	t.Setenv("SECRET_OF_THE_ADMIN", "x")
	t.Setenv("http_proxy", "http://proxy.example:3128")
	var log, out bytes.Buffer
	var steps []string
	res, err := debian.Build(t.Context(), debian.Options{
		Recipe: demo(t), Actions: customize.Actions(demo(t)), Sources: mirror, Epoch: time.Unix(1790000000, 0), Log: &log,
		Step: func(step, detail string) { steps = append(steps, step+"|"+detail) },
	}, func(_ context.Context, r io.Reader) error {
		_, err := io.Copy(&out, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != "the tree" || res.Saved["manuals"] != 1234 || len(res.Release) != 1 {
		t.Errorf("tree %q, result %+v", out.String(), res)
	}
	want := []string{"installing packages|", "installing packages|Setting up foo (1.0)", "cleaning up|"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps = %q, want %q", steps, want)
	}
	if !strings.Contains(log.String(), "Setting up foo") {
		t.Errorf("log = %q", log.String())
	}
	args := lines(t, filepath.Join(dir, "args"))
	for _, want := range []string{"--format=tar", "--variant=minbase", "--dpkgopt=path-exclude=/usr/share/man/*", "trixie", "-", "deb http://m.example/debian trixie main"} {
		if !slices.Contains(args, want) {
			t.Errorf("arguments lack %q: %q", want, args)
		}
	}
	if i := slices.IndexFunc(args, func(s string) bool { return strings.HasPrefix(s, "--include=") }); i < 0 || strings.Contains(args[i], "{") || !strings.Contains(args[i], "linux-image-") {
		t.Errorf("packages: %q", args)
	}
	env := strings.Join(lines(t, filepath.Join(dir, "env")), "\n")
	for _, want := range []string{"SOURCE_DATE_EPOCH=1790000000", "INITRD=No", "DEBIAN_FRONTEND=noninteractive", "http_proxy=http://proxy.example:3128"} {
		if !strings.Contains(env, want) {
			t.Errorf("environment lacks %s", want)
		}
	}
	if strings.Contains(env, "SECRET_OF_THE_ADMIN") {
		t.Error("the caller's environment leaks into the build")
	}
}

// The scripts must be shell, whatever stands in a recipe.
func TestScriptsAreShell(t *testing.T) {
	dir := fakeMmdebstrap(t, "")
	r := demo(t)
	nasty := `a'b"c $(touch /tmp/slate-was-here) \ %s` + "`x`"
	r.Users = append(r.Users, recipes.User{Name: "ada", Password: nasty, Keys: []string{"ssh-ed25519 AAAA " + nasty}, Groups: []string{"sudo"}, Shell: "/bin/" + nasty})
	r.Files = append(r.Files, recipes.File{Path: "/etc/" + nasty, Data: []byte(nasty)})
	r.Scripts = append(r.Scripts, recipes.Script{Name: nasty, Run: "echo '" + "it" + "'\ncat <<'X'\n$1\nX\n"})
	_, err := debian.Build(t.Context(), debian.Options{Recipe: r, Actions: customize.Actions(r), Sources: mirror}, func(_ context.Context, rd io.Reader) error {
		_, err := io.Copy(io.Discard, rd)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"setup.sh", "customize.sh"} {
		if err := command.Run(t.Context(), command.Cmd{Args: []string{"sh", "-n", filepath.Join(dir, name)}}); err != nil {
			t.Error(err)
		}
	}
	// With chroot replaced by a program that shows its arguments, nothing else
	// may run, and everything must arrive as it was written.
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "chroot"), []byte("#!/bin/sh\nprintf '<%s>' \"$@\"\necho\ncat\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The directory the script reads from is gone by now; its files were kept.
	script := strings.Join(lines(t, filepath.Join(dir, "customize.sh")), "\n")
	script = regexp.MustCompile(`/\S*/slate-build-[0-9]+/files`).ReplaceAllLiteralString(script, filepath.Join(dir, "files"))
	show := filepath.Join(bin, "customize.sh")
	if err := os.WriteFile(show, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := command.Output(t.Context(), command.Cmd{Args: []string{"sh", show, t.TempDir()}, Env: []string{"PATH=" + bin + ":/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"</bin/" + nasty + ">", "ssh-ed25519 AAAA " + nasty + "\n", "<sudo>", "</etc/" + nasty + "><0644><0:0>\n" + nasty} {
		if !strings.Contains(out, want) {
			t.Errorf("the script garbles %q", want)
		}
	}
	if _, err := os.Stat("/tmp/slate-was-here"); err == nil {
		t.Error("a word of the recipe was executed")
	}
}

func TestBuildFails(t *testing.T) {
	fakeMmdebstrap(t, `printf 'half a tr'; echo "E: Unable to locate package nosuch" >&2; echo "E: apt-get failed" >&2; exit 25`)
	var sunk error
	_, err := debian.Build(t.Context(), debian.Options{Recipe: demo(t), Sources: mirror}, func(_ context.Context, r io.Reader) error {
		_, sunk = io.Copy(io.Discard, r)
		return sunk
	})
	if err == nil || !strings.Contains(err.Error(), "Unable to locate package nosuch") || !strings.Contains(err.Error(), "exit status 25") {
		t.Errorf("Build = %v, want the program's words", err)
	}
	var h interface{ Hint() string }
	if !errors.As(err, &h) || !strings.Contains(h.Hint(), "component") {
		t.Errorf("Build = %v: no hint about the package", err)
	}
	if sunk == nil {
		t.Error("the half tree ended like a whole one")
	}
}

func TestSinkFails(t *testing.T) {
	fakeMmdebstrap(t, `while :; do echo data || exit 1; done`)
	full := errors.New("disk full")
	_, err := debian.Build(t.Context(), debian.Options{Recipe: demo(t), Sources: mirror}, func(context.Context, io.Reader) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("Build = %v, want %v", err, full)
	}
}

func TestCancelBuild(t *testing.T) {
	fakeMmdebstrap(t, `echo "I: extracting archives..." >&2; exec sleep 1000`)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := debian.Build(ctx, debian.Options{Recipe: demo(t), Sources: mirror, Step: func(string, string) { cancel() }}, func(_ context.Context, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Build = %v, want context.Canceled", err)
	}
}

func TestNoMmdebstrap(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := debian.Version(t.Context())
	var h interface{ Hint() string }
	if !errors.As(err, &h) || !strings.Contains(h.Hint(), "apt-get install mmdebstrap") {
		t.Errorf("Version = %v, want a hint how to install it", err)
	}
}

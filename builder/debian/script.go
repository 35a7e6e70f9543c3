// SPDX-License-Identifier: GPL-2.0-or-later

package debian

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"path"
	"strings"

	"slate/builder/command"
	"slate/builder/recipes"
)

// finish is what every build runs last inside the tree.
//
//go:embed finish.sh
var finish string

// tree is what the scripts call the root, which mmdebstrap gives as $1.
const tree = `"$1"`

// customize writes the script that mmdebstrap runs once the packages are in.
// Everything that touches the tree runs chrooted, so that the tree's own links
// lead nowhere else. files is the directory that holds the contents of the
// recipe's files, as 0, 1, 2, …
func customize(r *recipes.Recipe, files string) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Made by slate for mmdebstrap: what the recipe says beside packages.\nset -eu\n")
	// The archives' states, for the record; mmdebstrap removes the lists later.
	b.WriteString(`for f in "$1"/var/lib/apt/lists/*InRelease; do
  [ -f "$f" ] && echo "slate-inrelease: $(sha256sum < "$f" | cut -d' ' -f1) ${f##*/}"
done
`)
	inside := func(script string, args ...string) {
		fmt.Fprintf(&b, "chroot %s /bin/sh -euc %s sh", tree, command.QuoteArg(script))
		for _, a := range args {
			b.WriteString(" " + command.QuoteArg(a))
		}
		b.WriteString("\n")
	}
	step := func(text string) { fmt.Fprintf(&b, "echo %s\n", command.QuoteArg("slate-step: "+text)) }

	step("setting time zone and locale")
	if z := r.System.Timezone; z != "" {
		inside(setTimezone, z)
	}
	if l := r.System.Locale; l != "" {
		inside(setLocale, l)
	}
	for i, f := range r.Files {
		step("writing " + f.Path)
		fmt.Fprintf(&b, "chroot %s /bin/sh -euc %s sh", tree, command.QuoteArg(putFile))
		for _, a := range []string{f.Path, orDefault(f.Mode, "0644"), orDefault(f.Owner, "root:root")} {
			b.WriteString(" " + command.QuoteArg(a))
		}
		fmt.Fprintf(&b, " < %s\n", command.QuoteArg(path.Join(files, fmt.Sprint(i))))
	}
	for _, u := range r.Users {
		step("setting up user " + u.Name)
		addUser(&b, inside, r, u)
	}
	step("switching services on and off")
	services(inside, r.System)
	for i, s := range r.Scripts {
		step("running script " + orDefault(s.Name, fmt.Sprint(i+1)))
		inside(s.Run)
	}
	step("cleaning up")
	inside(finish, cleanWords(r.Clean)...)
	return b.String()
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

const setTimezone = `
if [ ! -e "/usr/share/zoneinfo/$1" ]; then
  [ "$1" = UTC ] && exit 0
  echo "the time zone $1 is not in the tree: add the package tzdata, or tzdata-legacy for old names" >&2
  exit 1
fi
ln -sf "/usr/share/zoneinfo/$1" /etc/localtime
echo "$1" > /etc/timezone
`

const setLocale = `
case "$1" in
C|POSIX|C.*) ;;
*)
  if ! command -v locale-gen >/dev/null; then
    echo "the locale $1 cannot be made: add the package locales" >&2
    exit 1
  fi
  grep -h "^#* *$1 " /usr/share/i18n/SUPPORTED | head -n 1 >> /etc/locale.gen
  locale-gen
  ;;
esac
mkdir -p /etc/default
echo "LANG=$1" > /etc/default/locale
`

const putFile = `
mkdir -p "$(dirname "$1")"
[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
rm -f "$1"
cat > "$1"
chown "$3" "$1"
chmod "$2" "$1"
`

const makeUser = `
id "$1" >/dev/null 2>&1 || useradd --create-home --shell "${2:-/bin/bash}" "$1"
[ -z "$2" ] || usermod --shell "$2" "$1"
shift 2
name=$1
shift
for g; do
  getent group "$g" >/dev/null || groupadd --system "$g"
  usermod --append --groups "$g" "$name"
done
`

// setPassword takes the hash, or the clear text and a salt, on standard input:
// arguments can be seen by everybody.
const setPassword = `
read -r how; read -r value
if [ "$how" != hash ]; then
  value=$(printf '%s' "$value" | perl -e 'local $/; my $p = <STDIN>; print crypt($p, $ARGV[0])' "$how")
fi
case $value in
'$'*|'!'|'*') ;;
*) echo "the password of $1 could not be hashed" >&2; exit 1 ;;
esac
printf '%s:%s\n' "$1" "$value" | chpasswd --encrypted
`

const addKeys = `
home=$(getent passwd "$1" | cut -d: -f6)
mkdir -p "$home/.ssh"
cat >> "$home/.ssh/authorized_keys"
chmod 0700 "$home/.ssh"
chmod 0600 "$home/.ssh/authorized_keys"
chown -R "$1:" "$home/.ssh"
`

func addUser(b *strings.Builder, inside func(string, ...string), r *recipes.Recipe, u recipes.User) {
	inside(makeUser, append([]string{u.Name, u.Shell, u.Name}, u.Groups...)...)
	feed := func(script, input string) {
		fmt.Fprintf(b, "printf '%%s\\n' %s | chroot %s /bin/sh -euc %s sh %s\n",
			command.QuoteArg(input), tree, command.QuoteArg(script), command.QuoteArg(u.Name))
	}
	switch {
	case u.PasswordHash != "":
		feed(setPassword, "hash\n"+u.PasswordHash)
	case u.Password != "":
		feed(setPassword, salt(r.Name, u)+"\n"+u.Password)
	}
	if len(u.Keys) > 0 {
		feed(addKeys, strings.Join(u.Keys, "\n"))
	}
}

// salt is the same in every build, because the same recipe must make the same
// tree. It costs nothing: who reads the image can read the recipe's password.
func salt(recipe string, u recipes.User) string {
	sum := sha256.Sum256([]byte(recipe + "\x00" + u.Name + "\x00" + u.Password))
	return "$6$" + strings.NewReplacer("+", ".", "-", ".", "_", "/").Replace(base64.RawURLEncoding.EncodeToString(sum[:12])) + "$"
}

const setService = `
action=$1; unit=$2
if command -v systemctl >/dev/null; then
  systemctl "$action" "$unit"
  exit
fi
name=${unit%.service}
case $action in
enable) if command -v rc-update >/dev/null; then rc-update add "$name" default; else update-rc.d "$name" enable; fi ;;
*)
  # Masking is systemd's; elsewhere a service that is not there cannot start.
  [ -e "/etc/init.d/$name" ] || exit 0
  if command -v rc-update >/dev/null; then rc-update --all del "$name"; else update-rc.d "$name" disable; fi
  ;;
esac
`

func services(inside func(string, ...string), s recipes.System) {
	for _, list := range []struct {
		action string
		units  []string
	}{{"mask", s.Mask}, {"disable", s.Disable}, {"enable", s.Enable}} {
		for _, u := range list.units {
			inside(setService, list.action, u)
		}
	}
}

// cleanWords are the arguments of finish.sh.
func cleanWords(c recipes.Clean) []string {
	var out []string
	if c.Docs {
		out = append(out, "docs")
	}
	if c.Man {
		out = append(out, "man")
	}
	if c.Locales {
		out = append(out, "locales")
		for _, l := range c.KeepLocales {
			out = append(out, "keep="+l)
		}
	}
	return out
}

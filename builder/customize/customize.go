// SPDX-License-Identifier: GPL-2.0-or-later

// Package customize turns what a recipe says beside packages into a list of
// scripts that run inside a tree: files, users, services, the recipe's own
// scripts, and cleaning up. Who runs them, and how they are kept inside the tree,
// is the caller's business.
package customize

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"strconv"
	"strings"

	"slate/builder/recipes"
)

// finish is what every build runs last inside the tree.
//
//go:embed finish.sh
var finish string

// Action is a shell script that runs inside the tree, with "set -eu".
type Action struct {
	Step    string // what is being done; "": the same as before
	Script  string
	Args    []string
	Stdin   []byte // nil: nothing
	Network bool   // it may have to fetch something
}

// Actions lists what is to be done, in order. What they print in lines that
// begin with "slate-saved: " is what cleaning up has removed: a word and bytes.
func Actions(r *recipes.Recipe) []Action {
	var out []Action
	add := func(a Action) { out = append(out, a) }
	if z := r.System.Timezone; z != "" {
		add(Action{Step: "setting the time zone", Script: setTimezone, Args: []string{z}})
	}
	if l := r.System.Locale; l != "" {
		add(Action{Step: "setting the locale", Script: setLocale, Args: []string{l}})
	}
	for _, f := range r.Files {
		data := f.Data
		if data == nil {
			data = []byte{}
		}
		add(Action{Step: "writing " + f.Path, Script: putFile, Args: []string{f.Path, orDefault(f.Mode, "0644"), orDefault(f.Owner, "0:0")}, Stdin: data})
	}
	for _, u := range r.Users {
		out = append(out, userActions(r, u)...)
	}
	for _, list := range []struct {
		action string
		units  []string
	}{{"mask", r.System.Mask}, {"disable", r.System.Disable}, {"enable", r.System.Enable}} {
		for _, u := range list.units {
			add(Action{Step: "switching services on and off", Script: setService, Args: []string{list.action, u}})
		}
	}
	for i, s := range r.Scripts {
		add(Action{Step: "running script " + orDefault(s.Name, strconv.Itoa(i+1)), Script: s.Run, Network: s.Network})
	}
	add(Action{Step: "cleaning up", Script: finish, Args: append(cleanWords(r.Clean), ownFiles(r)...)})
	return out
}

// SavedPrefix begins the lines that say what cleaning up has removed.
const SavedPrefix = "slate-saved: "

// ParseSaved reads such a line without its prefix.
func ParseSaved(text string) (what string, bytes int64) {
	what, n, _ := strings.Cut(text, " ")
	bytes, err := strconv.ParseInt(n, 10, 64)
	if err != nil || bytes < 0 {
		return what, 0
	}
	return what, bytes
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
if [ -d /etc/env.d ]; then # Gentoo
  printf 'LANG="%s"\n' "$1" > /etc/env.d/02locale
  [ ! -d /usr/lib/systemd/system ] || echo "LANG=$1" > /etc/locale.conf
  ! command -v env-update >/dev/null || env-update --no-ldconfig
  exit
fi
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

func userActions(r *recipes.Recipe, u recipes.User) []Action {
	out := []Action{{Step: "setting up user " + u.Name, Script: makeUser, Args: append([]string{u.Name, u.Shell, u.Name}, u.Groups...)}}
	feed := func(script, input string) {
		out = append(out, Action{Script: script, Args: []string{u.Name}, Stdin: []byte(input + "\n")})
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
	return out
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
  if command -v rc-update >/dev/null; then rm -f /etc/runlevels/*/"$name"; else update-rc.d "$name" disable; fi
  ;;
esac
`

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
	if c.Development {
		out = append(out, "development")
	}
	if c.PackageDB {
		out = append(out, "package-db")
	}
	return out
}

// ownFiles tells cleaning up which files it finds the recipe has put there.
func ownFiles(r *recipes.Recipe) []string {
	var out []string
	for _, f := range r.Files {
		out = append(out, "own="+f.Path)
	}
	return out
}

// SPDX-License-Identifier: GPL-2.0-or-later

package debian

import (
	"fmt"
	"path"
	"strings"

	"slate/builder/command"
	"slate/builder/customize"
)

// tree is what the scripts call the root, which mmdebstrap gives as $1.
const tree = `"$1"`

// hookScript writes the script that mmdebstrap runs once the packages are in.
// Everything that touches the tree runs chrooted, so that the tree's own links
// lead nowhere else. files is the directory that holds the standard inputs of the
// actions, by their numbers.
func hookScript(actions []customize.Action, files string) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Made by slate for mmdebstrap: what the recipe says beside packages.\nset -eu\n")
	// The archives' states, for the record; mmdebstrap removes the lists later.
	b.WriteString(`for f in "$1"/var/lib/apt/lists/*InRelease; do
  [ -f "$f" ] && echo "slate-inrelease: $(sha256sum < "$f" | cut -d' ' -f1) ${f##*/}"
done
`)
	for i, a := range actions {
		if a.Step != "" {
			fmt.Fprintf(&b, "echo %s\n", command.QuoteArg("slate-step: "+a.Step))
		}
		fmt.Fprintf(&b, "chroot %s /bin/sh -euc %s sh", tree, command.QuoteArg(a.Script))
		for _, w := range a.Args {
			b.WriteString(" " + command.QuoteArg(w))
		}
		if a.Stdin != nil {
			fmt.Fprintf(&b, " < %s", command.QuoteArg(path.Join(files, fmt.Sprint(i))))
		}
		b.WriteString("\n")
	}
	return b.String() + dropAptConf
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

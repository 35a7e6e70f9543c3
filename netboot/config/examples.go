// SPDX-License-Identifier: GPL-2.0-or-later

package config

import (
	"embed"
	"io/fs"
)

//go:embed examples
var examples embed.FS

// Examples is the starter config.d: every file with its defaults written out.
func Examples() fs.FS {
	sub, err := fs.Sub(examples, "examples")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return sub
}

// SPDX-License-Identifier: GPL-2.0-or-later

package tftp

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

var errLeaves = errors.New("the name leads out of the published files")

// cleanName turns the name of a request into a relative, slash separated path
// without dots, the only form that Open sees.
func cleanName(raw string) (string, error) {
	// ROMs that read the file name from a DHCP option without a length of its
	// own take the end-of-options byte along: "undionly.kpxe\xff".
	for strings.HasSuffix(raw, "\xff") {
		raw = raw[:len(raw)-1]
	}
	if !utf8.ValidString(raw) {
		return "", errors.New("the name is not UTF-8")
	}
	if strings.ContainsFunc(raw, unicode.IsControl) {
		return "", errors.New("the name has control characters")
	}
	// Windows loaders and some UEFI firmware write \ for /.
	raw = strings.ReplaceAll(raw, `\`, "/")
	var parts []string
	for part := range strings.SplitSeq(raw, "/") {
		switch part {
		case "", ".":
		case "..":
			// Never resolved: no loader of ours has a reason to go up, and a
			// rule without exceptions is easy to trust.
			return "", errLeaves
		default:
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "", errors.New("the name is empty")
	}
	return strings.Join(parts, "/"), nil
}

// spareName is a second name to try when there is no file of the first. A PXE
// boot menu (DHCP option 43) gives a layer number, which firmware appends to the
// name: it asks for undionly.kpxe.0 (ltsp/ltsp#64).
func spareName(name string) (string, bool) {
	short, ok := strings.CutSuffix(name, ".0")
	return short, ok && short != "" && !strings.HasSuffix(short, "/")
}

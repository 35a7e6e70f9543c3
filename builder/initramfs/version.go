// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs

import (
	"cmp"
	"strings"
)

// CompareReleases orders kernel releases by age: numbers count as numbers, a
// release candidate comes before its release, and of two flavours of the same
// version the plainer name counts as newer, so that it is preferred.
func CompareReleases(a, b string) int {
	na, nb := numbers(a), numbers(b)
	for i := range max(len(na), len(nb)) {
		if c := cmp.Compare(at(na, i), at(nb, i)); c != 0 {
			return c
		}
	}
	if c := cmp.Compare(len(b), len(a)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// releaseCandidate stands in for "rc" and "pre": below any number, and below
// no number at all.
const releaseCandidate = -2

// numbers lists what of a release decides its age: the leading numbers of
// 6.12.9-1-amd64, with -rc3 as a mark followed by its number. The flavour and
// what comes after it are not an age.
func numbers(s string) []int {
	var out []int
	for s != "" {
		switch {
		case isDigit(s[0]):
			end, n := 0, 0
			for end < len(s) && isDigit(s[end]) {
				if n < 1<<40 { // a date fits; more digits are nobody's version
					n = 10*n + int(s[end]-'0')
				}
				end++
			}
			out = append(out, n)
			s = s[end:]
		case strings.ContainsRune(".-_+~", rune(s[0])):
			s = s[1:]
		case strings.HasPrefix(s, "rc"):
			out, s = append(out, releaseCandidate), s[2:]
		case strings.HasPrefix(s, "pre"):
			out, s = append(out, releaseCandidate), s[3:]
		default:
			// A flavour such as "amd64" or "rt": its digits mean nothing, but
			// a revision may follow it, as in Gentoo's 6.12.9-gentoo-r2.
			i := strings.IndexAny(s, "-.")
			if i < 0 {
				return out
			}
			s = s[i:]
			if rev := strings.TrimPrefix(s, "-r"); rev != s && rev != "" && isDigit(rev[0]) {
				s = rev
			}
		}
	}
	return out
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// at returns the i-th number; a missing one is -1: 6.1 is older than 6.1.0,
// and newer than 6.1-rc1.
func at(n []int, i int) int {
	if i < len(n) {
		return n[i]
	}
	return -1
}

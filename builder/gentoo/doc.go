// SPDX-License-Identifier: GPL-2.0-or-later

// Package gentoo finds, fetches and verifies what a Gentoo image is built from:
// the stage3 archives on a mirror. It trusts nothing but keys whose fingerprints
// the admin has named, and checks signatures before it believes a name, a size
// or a digest. How mirrors lay these files out is described at
// https://wiki.gentoo.org/wiki/Project:RelEng and in releng's scripts.
package gentoo

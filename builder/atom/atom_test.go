// SPDX-License-Identifier: GPL-2.0-or-later

package atom_test

import (
	"testing"

	"slate/builder/atom"
)

func TestCheck(t *testing.T) {
	for _, a := range []string{
		"app-editors/vim", "@world", "@preserved-rebuild", "sys-kernel/gentoo-kernel-bin", "=dev-lang/python-3.12.8-r1", ">=sys-libs/glibc-2.40",
		"~app-misc/foo-1.0_rc2", "=app-misc/foo-1.2*", "dev-lang/python:3.12", "dev-libs/icu:0/75.1", "dev-libs/icu:=", "dev-libs/icu:0=", "media-libs/x[png,-jpeg(+)]",
		"dev-qt/qtbase:6::gentoo", "x11-libs/gtk+:3", "app-misc/a-b_c", "dev-libs/libfoo2", "media-libs/libsdl2",
	} {
		if err := atom.Check(a); err != nil {
			t.Errorf("Check(%q) = %v", a, err)
		}
	}
	for _, a := range []string{
		"", "vim", "--ask", "-C", "app-editors/", "/vim", "app-editors/vim-9.1", "=app-editors/vim", "app-editors/vim;reboot", "app-editors/$(x)",
		"app editors/vim", "app-editors/vim\n", ">=app-misc/foo-1*", "@", "app-misc/foo[", "a/b/c", "*/*",
	} {
		if err := atom.Check(a); err == nil {
			t.Errorf("Check(%q): want an error", a)
		}
	}
}

func TestCheckLine(t *testing.T) {
	for _, tc := range []struct {
		kind, line string
		ok         bool
	}{
		{"package.use", "", true},
		{"package.use", "# comment", true},
		{"package.use", "app-misc/foo a -b # why", true},
		{"package.use", "*/* PYTHON_TARGETS: python3_13 -python3_12", true},
		{"package.use", "app-misc/* -X", true},
		{"package.use", ">=app-misc/foo-2 VIDEO_CARDS: -* intel", true},
		{"package.use", "app-misc/foo", false},
		{"package.use", "app-misc/foo a,b", false},
		{"package.use", "foo a", false},
		{"package.accept_keywords", "app-misc/foo", true},
		{"package.accept_keywords", "=app-misc/foo-1 ~amd64", true},
		{"package.accept_keywords", "=app-misc/foo-9999 **", true},
		{"package.accept_keywords", "app-misc/foo ~AMD 64!", false},
		{"package.license", "sys-kernel/linux-firmware linux-fw-redistributable", true},
		{"package.license", "*/* @FREE -@EULA", true},
		{"package.license", "sys-kernel/linux-firmware", false},
		{"package.mask", ">=app-misc/foo-2", true},
		{"package.mask", "app-misc/foo x", false},
		{"package.unmask", "-app-misc/foo", true},
		{"package.env", "app-misc/foo debug.conf no-lto", true},
		{"package.env", "app-misc/foo ../../x", false},
	} {
		if err := atom.CheckLine(tc.kind, tc.line); (err == nil) != tc.ok {
			t.Errorf("CheckLine(%s, %q) = %v, want ok %v", tc.kind, tc.line, err, tc.ok)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("app-editors/vim")
	f.Fuzz(func(t *testing.T, a string) {
		if atom.Check(a) != nil {
			return
		}
		for _, r := range a {
			if r <= ' ' || r > '~' || r == ';' || r == '$' || r == '`' || r == '\'' || r == '"' || r == '|' || r == '&' {
				t.Errorf("Check(%q) passes %q", a, r)
			}
		}
		if a[0] == '-' {
			t.Errorf("Check(%q): an option passes", a)
		}
	})
}

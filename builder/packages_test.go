// SPDX-License-Identifier: GPL-2.0-or-later

package builder_test

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"slate/builder"
)

func TestPackages(t *testing.T) {
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for _, tc := range []struct {
		name string
		tree fstest.MapFS
		want []builder.Package
	}{
		{"dpkg", fstest.MapFS{"var/lib/dpkg/status": text(`Package: zlib1g
Status: install ok installed
Architecture: amd64
Version: 1:1.3.1-1
Description: compression library
 Package: not-a-package
 with a long text

Package: gone
Status: deinstall ok config-files
Version: 1

Package: adduser
Status: install ok installed
Architecture: all
Version: 3.152`)},
			[]builder.Package{{"adduser", "3.152", "all"}, {"zlib1g", "1:1.3.1-1", "amd64"}}},
		{"distroless", fstest.MapFS{"var/lib/dpkg/status.d/tzdata": text("Package: tzdata\nVersion: 2026a\nArchitecture: all\n")},
			[]builder.Package{{"tzdata", "2026a", "all"}}},
		{"portage", fstest.MapFS{
			"var/db/pkg/sys-apps/portage-3.0.82-r1/PF":          text("x"),
			"var/db/pkg/sys-kernel/gentoo-kernel-bin-6.12.9/PF": text("x"),
			"var/db/pkg/media-fonts/font-misc-100dpi-1.0/PF":    text("x"),
			"var/db/pkg/x11-libs/gtk+-3.24.42-r3/PF":            text("x"),
			"var/db/pkg/sys-apps/-MERGING-foo-1/PF":             text("x"),
			"var/db/pkg/.cache":                                 text("x"),
		}, []builder.Package{
			{Name: "media-fonts/font-misc-100dpi", Version: "1.0"},
			{Name: "sys-apps/portage", Version: "3.0.82-r1"},
			{Name: "sys-kernel/gentoo-kernel-bin", Version: "6.12.9"},
			{Name: "x11-libs/gtk+", Version: "3.24.42-r3"},
		}},
		{"apk", fstest.MapFS{"lib/apk/db/installed": text("C:Q1\nP:musl\nV:1.2.5-r1\nA:x86_64\n\nP:busybox\nV:1.37\nA:x86_64\n")},
			[]builder.Package{{"busybox", "1.37", "x86_64"}, {"musl", "1.2.5-r1", "x86_64"}}},
		{"none", fstest.MapFS{"etc/passwd": text("")}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := builder.Packages(tc.tree)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Packages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDiffPackages(t *testing.T) {
	from := []builder.Package{{"a", "1", ""}, {"b", "1", ""}, {"c", "1", "amd64"}, {"c", "1", "i386"}}
	to := []builder.Package{{"b", "2", ""}, {"c", "1", "amd64"}, {"d", "1", ""}}
	want := []builder.Change{{"a", "1", ""}, {"b", "1", "2"}, {"d", "", "1"}}
	if diff := cmp.Diff(want, builder.DiffPackages(from, to)); diff != "" {
		t.Errorf("DiffPackages (-want +got):\n%s", diff)
	}
}

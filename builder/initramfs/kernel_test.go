// SPDX-License-Identifier: GPL-2.0-or-later

package initramfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"slate/builder/initramfs"
)

func TestCompareReleases(t *testing.T) {
	// Each is older than the next.
	for _, list := range [][]string{
		{"5.10.0-28-amd64", "6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-56-amd64", "6.12.0-1-amd64"},
		{"6.12-rc1", "6.12-rc10", "6.12", "6.12.1"},
		{"6.6.0-060600rc2-generic", "6.6.0-060600-generic"},
		{"6.12.9-gentoo-dist", "6.12.9-gentoo-r1-dist", "6.12.9-gentoo-r10-dist", "6.12.10-gentoo-dist"},
		{"6.1.0-56-cloud-amd64", "6.1.0-56-amd64", "6.1.0-57-rt-amd64"},
		{"6.12.43+deb13-amd64", "6.12.117+deb13-amd64"},
		{"6.9.0-99999999999999999999999-x", "6.10.0"},
	} {
		for i, a := range list {
			for j, b := range list {
				got, want := initramfs.CompareReleases(a, b), i-j
				if (got < 0) != (want < 0) || (got > 0) != (want > 0) {
					t.Errorf("CompareReleases(%q, %q) = %d, want the sign of %d", a, b, got, want)
				}
			}
		}
	}
}

func file(data []byte) *fstest.MapFile { return &fstest.MapFile{Data: data, Mode: 0o644} }
func link(to string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
}

func TestFindKernel(t *testing.T) {
	empty := file(nil)
	for _, tc := range []struct {
		name          string
		tree          fstest.MapFS
		path, release string
		arch, modules string
		uki           bool
	}{
		{"debian, newest of two by version", fstest.MapFS{
			"lib": link("usr/lib"),
			"usr/lib/modules/6.1.0-9-amd64/modules.dep":  empty,
			"usr/lib/modules/6.1.0-10-amd64/modules.dep": empty,
			"boot/vmlinuz-6.1.0-9-amd64":                 file(bzImage("6.1.0-9-amd64")),
			"boot/vmlinuz-6.1.0-10-amd64":                file(bzImage("6.1.0-10-amd64")),
			"vmlinuz":                                    link("boot/vmlinuz-6.1.0-9-amd64"),
		}, "boot/vmlinuz-6.1.0-10-amd64", "6.1.0-10-amd64", "amd64", "lib/modules/6.1.0-10-amd64", false},
		{"gentoo, link into /usr/src", fstest.MapFS{
			"lib/modules/6.12.9-gentoo-dist/modules.dep":             empty,
			"lib/modules/6.12.9-gentoo-dist/vmlinuz":                 link("../../../usr/src/linux-6.12.9-gentoo-dist/arch/x86/boot/bzImage"),
			"usr/src/linux-6.12.9-gentoo-dist/arch/x86/boot/bzImage": file(bzImage("6.12.9-gentoo-dist")),
		}, "lib/modules/6.12.9-gentoo-dist/vmlinuz", "6.12.9-gentoo-dist", "amd64", "lib/modules/6.12.9-gentoo-dist", false},
		{"newer kernel without modules loses", fstest.MapFS{
			"lib/modules/6.1.0/modules.dep": empty,
			"boot/vmlinuz-6.1.0":            file(bzImage("6.1.0")),
			"boot/vmlinuz-6.2.0":            file(bzImage("6.2.0")),
		}, "boot/vmlinuz-6.1.0", "6.1.0", "amd64", "lib/modules/6.1.0", false},
		{"no modules at all", fstest.MapFS{"boot/bzImage": file(bzImage("6.6.6"))}, "boot/bzImage", "6.6.6", "amd64", "", false},
		{"the header beats the name", fstest.MapFS{
			"lib/modules/6.1.0/kernel/x.ko": empty,
			"boot/vmlinuz-renamed":          file(bzImage("6.1.0")),
		}, "boot/vmlinuz-renamed", "6.1.0", "amd64", "lib/modules/6.1.0", false},
		{"boot loader entries", fstest.MapFS{
			"lib/modules/6.1.0/modules.dep":                    empty,
			"efi/0123456789abcdef0123456789abcdef/6.1.0/linux": file(bzImage("6.1.0")),
		}, "efi/0123456789abcdef0123456789abcdef/6.1.0/linux", "6.1.0", "amd64", "lib/modules/6.1.0", false},
		{"unified image", fstest.MapFS{
			"lib/modules/6.1.0/modules.dep": empty,
			"boot/EFI/Linux/gentoo.efi":     file(uki(bzImage("6.1.0"))),
		}, "boot/EFI/Linux/gentoo.efi", "6.1.0", "amd64", "lib/modules/6.1.0", true},
		{"arm64", fstest.MapFS{
			"lib/modules/6.1.0-arm64/modules.dep": empty,
			"boot/vmlinuz-6.1.0-arm64":            file(append(make([]byte, 0x38), "ARMd\x00\x00"...)),
		}, "boot/vmlinuz-6.1.0-arm64", "6.1.0-arm64", "arm64", "lib/modules/6.1.0-arm64", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := initramfs.FindKernel(tc.tree)
			want := initramfs.Kernel{Path: tc.path, Release: tc.release, Arch: tc.arch, Modules: tc.modules, UKI: tc.uki}
			if err != nil || k != want {
				t.Fatalf("FindKernel = %+v, %v; want %+v", k, err, want)
			}
			r, err := initramfs.OpenKernel(tc.tree, k)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			if err != nil || tc.uki && !bytes.Equal(b, bzImage("6.1.0")) {
				t.Errorf("OpenKernel: %d bytes, %v; want the kernel inside", len(b), err)
			}
		})
	}
}

func TestNoKernel(t *testing.T) {
	_, err := initramfs.FindKernel(fstest.MapFS{
		"lib/modules/6.1.0/modules.dep": file(nil),
		"boot/vmlinuz-6.1.0":            file([]byte("a text")),
		"boot/vmlinuz-6.1.0.sig":        file([]byte("a signature")),
		"boot/vmlinuz":                  link("/proc/kcore"),
	})
	var none *initramfs.NoKernelError
	if !errors.As(err, &none) {
		t.Fatalf("FindKernel = %v, want a NoKernelError", err)
	}
	if !slices.Equal(none.Releases, []string{"6.1.0"}) || len(none.Rejected) != 1 || !strings.Contains(none.Rejected[0], "/boot/vmlinuz-6.1.0") {
		t.Errorf("NoKernelError = %+v", none)
	}
	if none.Hint() == "" {
		t.Error("no hint")
	}
	// The release goes into paths.
	k, err := initramfs.FindKernel(fstest.MapFS{"boot/vmlinuz": file(bzImage("../../etc"))})
	if err != nil || k.Release != "" || k.Modules != "" {
		t.Errorf("FindKernel of a hostile header = %+v, %v; want no release", k, err)
	}
}

func FuzzFindKernel(f *testing.F) {
	f.Add(bzImage("6.1.0"))
	f.Add(uki(bzImage("6.1.0")))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree := fstest.MapFS{"boot/vmlinuz-1": file(b), "lib/modules/1/modules.dep": file(nil)}
		k, err := initramfs.FindKernel(tree)
		if err != nil {
			return
		}
		if strings.Contains(k.Release, "/") {
			t.Errorf("release %q", k.Release)
		}
		if r, err := initramfs.OpenKernel(tree, k); err == nil {
			_, _ = io.Copy(io.Discard, r)
			r.Close()
		}
	})
}

// uki makes a PE file with the kernel in its .linux section.
func uki(kernel []byte) []byte {
	const peOff, data = 0x80, 0x200
	b := make([]byte, data)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], peOff)
	copy(b[peOff:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[peOff+4:], 0x8664)
	binary.LittleEndian.PutUint16(b[peOff+6:], 1) // one section, no optional header
	sec := b[peOff+24:]
	copy(sec, ".linux")
	padded := (len(kernel) + 511) &^ 511
	binary.LittleEndian.PutUint32(sec[8:], uint32(len(kernel)))
	binary.LittleEndian.PutUint32(sec[16:], uint32(padded))
	binary.LittleEndian.PutUint32(sec[20:], data)
	return append(append(b, kernel...), make([]byte, padded-len(kernel))...)
}

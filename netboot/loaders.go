// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"slate/netboot/boot"
)

// loaderFiles says where each loader comes from: a file of a Debian package, for
// some under another name in another release. Without the required ones the
// appliance does not start.
var loaderFiles = []struct {
	name     string
	paths    []string
	pkg      string
	required bool
}{
	{boot.LoaderBIOS, []string{"/usr/lib/ipxe/undionly.kpxe"}, "ipxe", true},
	{boot.LoaderX64, []string{"/usr/lib/ipxe/snponly.efi"}, "ipxe", true},
	{boot.LoaderX64Full, []string{"/usr/lib/ipxe/ipxe.efi"}, "ipxe", false},
	{boot.LoaderARM64, []string{"/usr/lib/ipxe/snponly-arm64.efi", "/usr/lib/ipxe/arm64-efi/snponly.efi", "/usr/lib/ipxe/ipxe-arm64.efi"}, "ipxe", false},
	{boot.LoaderShim, []string{"/usr/lib/shim/shimx64.efi.signed"}, "shim-signed", false},
	{boot.LoaderGRUB, []string{"/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"}, "grub-efi-amd64-signed", false},
}

// LoaderDir is where the admin's own loaders lie, below the data directory; one
// there goes before the distribution's.
const LoaderDir = "loaders"

// loaders opens the loaders that the appliance serves. No other name is opened.
type loaders struct{ own string }

func (l loaders) open(name string) (*os.File, error) {
	for _, lf := range loaderFiles {
		if lf.name != name {
			continue
		}
		var first error
		for _, path := range append([]string{filepath.Join(l.own, name)}, lf.paths...) {
			f, err := os.Open(path)
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return f, err
			}
			first = err
		}
		return nil, first
	}
	return nil, fmt.Errorf("loader %q: %w", name, fs.ErrNotExist)
}

// has tells whether a loader can be served.
func (l loaders) has(name string) bool {
	f, err := l.open(name)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// check reports the required loaders that are missing, with the packages that have them.
func (l loaders) check() error {
	var errs []error
	for _, lf := range loaderFiles {
		f, err := l.open(lf.name)
		if err == nil {
			f.Close()
		} else if lf.required {
			errs = append(errs, &settingsError{fmt.Errorf("loader %s is missing: %w", lf.name, err), "install it with: apt-get install " + lf.pkg})
		}
	}
	return errors.Join(errs...)
}

// LoaderFile is where a loader comes from.
type LoaderFile struct {
	Name     string
	Path     string // "": it is missing
	Package  string // Debian's package that has it
	Required bool
}

// LoaderFiles lists the loaders of an appliance with the given data directory.
func LoaderFiles(data string) []LoaderFile {
	l := loaders{own: filepath.Join(data, LoaderDir)}
	var out []LoaderFile
	for _, lf := range loaderFiles {
		o := LoaderFile{Name: lf.name, Package: lf.pkg, Required: lf.required}
		if f, err := l.open(lf.name); err == nil {
			o.Path = f.Name()
			f.Close()
		}
		out = append(out, o)
	}
	return out
}

// MissingLoaderPackages lists the packages to install so that every loader that
// every appliance needs is there.
func MissingLoaderPackages() []string {
	var pkgs []string
	for _, lf := range LoaderFiles("") {
		if lf.Required && lf.Path == "" && !slices.Contains(pkgs, lf.Package) {
			pkgs = append(pkgs, lf.Package)
		}
	}
	return pkgs
}

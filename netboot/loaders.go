// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"slate/netboot/boot"
)

// loaderFiles says where each loader comes from: a file of a Debian package.
var loaderFiles = []struct{ name, path, pkg string }{
	{boot.LoaderBIOS, "/usr/lib/ipxe/undionly.kpxe", "ipxe"},
	{boot.LoaderX64, "/usr/lib/ipxe/snponly.efi", "ipxe"},
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
		f, err := os.Open(filepath.Join(l.own, name))
		if errors.Is(err, fs.ErrNotExist) {
			f, err = os.Open(lf.path)
		}
		return f, err
	}
	return nil, fmt.Errorf("loader %q: %w", name, fs.ErrNotExist)
}

// check reports the loaders that are missing, with the packages that have them.
func (l loaders) check() error {
	var errs []error
	for _, lf := range loaderFiles {
		f, err := l.open(lf.name)
		if err != nil {
			errs = append(errs, &settingsError{fmt.Errorf("loader %s is missing: %w", lf.name, err), "install it with: apt-get install " + lf.pkg})
			continue
		}
		f.Close()
	}
	return errors.Join(errs...)
}

// MissingLoaderPackages lists the packages to install so that every loader is there.
func MissingLoaderPackages() []string {
	var pkgs []string
	for _, lf := range loaderFiles {
		if _, err := os.Stat(lf.path); err != nil && !strings.Contains(strings.Join(pkgs, " "), lf.pkg) {
			pkgs = append(pkgs, lf.pkg)
		}
	}
	return pkgs
}

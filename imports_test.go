// SPDX-License-Identifier: GPL-2.0-or-later

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers is the table of imports of the design: what each package of the tree
// may import of the rest of the tree. A pattern that ends in /... stands for a
// package and all below it. Every package may import the packages below itself
// and, inside the same top-level folder, whatever its own row allows.
var layers = []struct {
	pkg   string
	allow []string
}{
	{"slate", []string{"slate/netboot/cli"}},
	{"slate/installer/init", []string{"slate/installer"}},
	{"slate/netboot/cli", []string{"slate/..."}},

	{"slate/netboot/config", []string{"slate/images"}},
	{"slate/netboot/api", []string{"slate/images"}},
	{"slate/netboot/boot", []string{"slate/netboot/config", "slate/netboot/api", "slate/images"}},
	{"slate/netboot/...", []string{"slate/netboot/...", "slate/builder/...", "slate/dhcp/...", "slate/tftp", "slate/nfs", "slate/images/..."}},
	{"slate/builder/command", nil},
	{"slate/builder/...", []string{"slate/builder/...", "slate/images/...", "slate/netboot/config"}},

	{"slate/images", nil},
	{"slate/images/tree", []string{"slate/images"}},
	{"slate/images/chunk", nil},
	{"slate/images/repack", nil},
	{"slate/images/durable", nil},
	{"slate/images/transfer", []string{"slate/images", "slate/images/tree", "slate/images/chunk", "slate/images/repack", "slate/images/durable"}},
	{"slate/images/...", []string{"slate/images/..."}},

	{"slate/dhcp/...", []string{"slate/dhcp/..."}},
	{"slate/tftp/...", []string{"slate/tftp/..."}},
	{"slate/nfs/...", []string{"slate/nfs/...", "slate/images", "slate/images/tree"}},

	{"slate/installer/...", []string{"slate/installer/...", "slate/netboot/config", "slate/netboot/api", "slate/images",
		"slate/images/tree", "slate/images/chunk", "slate/images/durable", "slate/images/transfer", "slate/builder/command"}},

	{"slate/testbed/...", []string{"slate/testbed/..."}},
}

// forbidden holds for every package that is not a test, whatever its row says.
var forbidden = []struct {
	pkg  string
	only []string // the only packages that may import it
}{
	{"slate/testbed/...", []string{"slate/netboot/cli", "slate/testbed/..."}},
	{"slate/netboot/cli", []string{"slate"}},
	{"slate/installer/...", []string{"slate/installer/...", "slate/installer/init"}},
	{"testing", []string{"slate/testbed/..."}},
}

// initramfsDeny keeps the controller small: none of these may be linked in.
var initramfsDeny = []string{"github.com/alecthomas/kong", "go.etcd.io/bbolt", "github.com/willscott/go-nfs", "github.com/pin/tftp/v3", "html/template", "testing"}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImportsRunDownNeverSideways(t *testing.T) {
	for _, p := range listPackages(t) {
		allow, found := allowed(p.ImportPath)
		if !found {
			t.Errorf("%s: no row in the table of imports; add one", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if (imp == "slate" || strings.HasPrefix(imp, "slate/")) && !matchAny(allow, imp) {
				t.Errorf("%s imports %s: not allowed by the table of imports", p.ImportPath, imp)
			}
			for _, f := range forbidden {
				if match(f.pkg, imp) && !matchAny(f.only, p.ImportPath) {
					t.Errorf("%s imports %s: only %v may", p.ImportPath, imp, f.only)
				}
			}
		}
		if p.ImportPath == "slate/installer/init" {
			for _, d := range initramfsDeny {
				if slices.Contains(p.Deps, d) {
					t.Errorf("slate-init links %s, which it must not: run go list -deps to see through whom", d)
				}
			}
		}
	}
}

func allowed(pkg string) ([]string, bool) {
	for _, l := range layers {
		if match(l.pkg, pkg) {
			return l.allow, true
		}
	}
	return nil, false
}

func match(pattern, pkg string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
	}
	return pattern == pkg
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

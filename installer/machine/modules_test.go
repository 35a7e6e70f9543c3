// SPDX-License-Identifier: GPL-2.0-or-later

package machine_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"slate/installer/machine"

	"github.com/google/go-cmp/cmp"
)

func index(t testing.TB, dep, alias, softdep, builtin string) *machine.ModuleIndex {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range map[string]string{"dep": dep, "alias": alias, "softdep": softdep, "builtin": builtin} {
		fsys["lib/modules/6.1/modules."+name] = &fstest.MapFile{Data: []byte(text)}
	}
	x, err := machine.ReadModuleIndex(fsys, "6.1")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

const (
	deps = `kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/virtio/virtio_pci.ko.xz:
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/a.ko:
kernel/b.ko:
`
	aliases = `# Aliases extracted from modules themselves.
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias virtio:d00000001v* virtio_net
alias fs-ext4 ext4
alias crypto-crc32c crc32c_generic
alias crypto-crc32c crc32c_intel
alias pci:v00008086d0000100[EF]sv*sd*bc*sc*i* e1000
alias usb:v0B95p772[0-9A]d* ax
alias acpi*:PNP0F13:* mouse
alias of:N*T*Cacme,x-1* of_x
`
	softdeps = `softdep ext4 pre: crypto-crc32c post: a
softdep a pre: b
softdep b pre: a
`
)

func TestModuleIndexMatch(t *testing.T) {
	x := index(t, deps, aliases, softdeps, "")
	for _, tt := range []struct {
		alias string
		want  []string
	}{
		{"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", []string{"virtio_pci"}},
		{"pci:v00008086d0000100Esv0sd0bc02sc00i00", []string{"e1000"}},
		{"pci:v00008086d0000100Dsv0sd0bc02sc00i00", nil},
		{"virtio:d00000001v00001AF4", []string{"virtio_net"}},
		{"usb:v0B95p7727d1", []string{"ax"}},
		{"usb:v0B95p772Ad1", []string{"ax"}},
		{"usb:v0B95p772Bd1", nil},
		{"fs-ext4", []string{"ext4"}},
		{"crypto-crc32c", []string{"crc32c_generic", "crc32c_intel"}},
		{"acpi:PNP0F13:", []string{"mouse"}}, // the wildcard stands before the first colon
		{"of:NxTyCacme,x-1", []string{"of_x"}},
		{"of:NxTyCacme,x_1", []string{"of_x"}},
		{"", nil},
		{"pci:", nil},
	} {
		if got := x.Match(tt.alias); !slices.Equal(got, tt.want) {
			t.Errorf("Match(%q) = %q, want %q", tt.alias, got, tt.want)
		}
	}
}

func TestModuleIndexPlan(t *testing.T) {
	for _, tt := range []struct {
		name    string
		want    []string // wanted modules
		loaded  []string
		builtin string
		plan    []string // NAME<AFTER,AFTER
		missing []string
	}{
		{"nothing", nil, nil, "", nil, nil},
		{"dependencies first, each once", []string{"virtio_net"}, nil, "", []string{"failover<", "net_failover<failover", "virtio_net<net_failover,failover"}, nil},
		{"what is loaded is left out", []string{"virtio_net"}, []string{"failover"}, "", []string{"net_failover<", "virtio_net<net_failover"}, nil},
		{"what is built in is left out", []string{"virtio_net"}, nil, "kernel/net/core/failover.ko\nkernel/drivers/net/net-failover.ko\n", []string{"virtio_net<"}, nil},
		{"by alias, dashes or not", []string{"fs-ext4"}, nil, "", []string{"crc32c_generic<", "crc32c_intel<", "jbd2<", "ext4<crc32c_generic,crc32c_intel,jbd2", "b<", "a<b"}, nil},
		{"two wanted, one shared", []string{"net-failover", "virtio_net"}, nil, "", []string{"failover<", "net_failover<failover", "virtio_net<net_failover,failover"}, nil},
		{"a circle of soft dependencies ends", []string{"a"}, nil, "", []string{"b<", "a<b"}, nil},
		{"unknown", []string{"nope", "a"}, nil, "", []string{"b<", "a<b"}, []string{"nope"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan, missing := index(t, deps, aliases, softdeps, tt.builtin).Plan(tt.want, func(m string) bool { return slices.Contains(tt.loaded, m) })
			var got []string
			for _, l := range plan {
				got = append(got, l.Name+"<"+strings.Join(l.After, ","))
			}
			if d := cmp.Diff(tt.plan, got); d != "" {
				t.Errorf("plan (- want, + got):\n%s", d)
			}
			if d := cmp.Diff(tt.missing, missing); d != "" {
				t.Errorf("missing (- want, + got):\n%s", d)
			}
		})
	}
}

func TestSoftDependencyByAliasIsLoadedBefore(t *testing.T) {
	// modules.softdep may name an alias: Debian's ext4 wants crypto-crc32c.
	plan, _ := index(t, deps, aliases, softdeps, "").Plan([]string{"ext4"}, func(string) bool { return false })
	var names []string
	for _, l := range plan {
		names = append(names, l.Name)
	}
	crc, ext4 := slices.Index(names, "crc32c_generic"), slices.Index(names, "ext4")
	if crc < 0 || crc > ext4 || !slices.Contains(plan[ext4].After, "crc32c_generic") {
		t.Errorf("plan is %v, want crc32c_generic before ext4 and ext4 after it", plan)
	}
}

func TestReadModuleIndexWithoutModules(t *testing.T) {
	_, err := machine.ReadModuleIndex(fstest.MapFS{}, "6.1")
	if err == nil || !strings.Contains(err.Error(), "lib/modules/6.1/modules.dep") {
		t.Errorf("ReadModuleIndex of nothing = %v, want an error that names modules.dep", err)
	}
	x, err := machine.ReadModuleIndex(fstest.MapFS{"lib/modules/6.1/modules.dep": &fstest.MapFile{}}, "6.1")
	if err != nil || x.Match("pci:v1") != nil {
		t.Errorf("ReadModuleIndex of an empty modules.dep = %v, %v", x, err)
	}
}

// The index comes out of an image that somebody made somewhere: matching ends
// soon, and a plan never lists a module twice or before what it needs.
func FuzzModuleIndex(f *testing.F) {
	f.Add(deps, aliases, softdeps, "pci:v00001AF4d00001000sv0")
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "alias [ x\nalias *** a\nalias \\ b\n", "softdep a pre: a\n", "[-]")
	f.Fuzz(func(t *testing.T, dep, alias, softdep, modalias string) {
		fsys := fstest.MapFS{}
		for name, text := range map[string]string{"dep": dep, "alias": alias, "softdep": softdep} {
			fsys["lib/modules/r/modules."+name] = &fstest.MapFile{Data: []byte(text), Mode: fs.FileMode(0o644)}
		}
		x, err := machine.ReadModuleIndex(fsys, "r")
		if err != nil {
			return // a line longer than any real one
		}
		wanted := append(x.Match(modalias), machine.ModuleName(strings.SplitN(dep, ":", 2)[0]))
		plan, _ := x.Plan(wanted, func(string) bool { return false })
		done := map[string]bool{}
		for _, l := range plan {
			if done[l.Name] {
				t.Errorf("%s is planned twice", l.Name)
			}
			for _, a := range l.After {
				if !done[a] {
					t.Errorf("%s comes after %s, which is not before it", l.Name, a)
				}
			}
			done[l.Name] = true
		}
	})
}

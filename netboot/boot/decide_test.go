// SPDX-License-Identifier: GPL-2.0-or-later

package boot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"slate/images"
	"slate/netboot/boot"
	"slate/netboot/config"
)

func version(name string, number int) images.Record {
	return images.Record{Name: name, Number: number, Arch: "amd64", Tree: images.Digest{byte(number)},
		Kernel: &images.Kernel{Release: "6.1", Blob: images.Blob{Digest: images.Digest{1}, Size: 1}}}
}

func TestDecide(t *testing.T) {
	site, err := config.Load(fstest.MapFS{
		"system/boot.conf":              {Data: []byte("console = [\"tty0\"]\ncmdline = [\"quiet\"]\n")},
		"groups/room1/system/boot.conf": {Data: []byte("image = \"lab@testing\"\nmode = \"diskless\"\n")},
		"nodes/old/system/boot.conf":    {Data: []byte("image = \"lab/1\"\ntimeout = 0\n")},
		"nodes/bare/system/boot.conf":   {Data: []byte("image = \"nokernel\"\n")},
		"nodes/lost/system/boot.conf":   {Data: []byte("image = \"lost@stable\"\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	errLost := errors.New("there is no image lost")
	resolve := func(r images.Ref) (images.Record, error) {
		switch r.String() {
		case "demo@stable":
			return version("demo", 3), nil
		case "lab@testing":
			return version("lab", 9), nil
		case "lab/1":
			v := version("lab", 1)
			v.Tools = &images.Blob{Digest: images.Digest{7}, Size: 1}
			return v, nil
		case "nokernel":
			return images.Record{Name: "nokernel", Number: 1}, nil
		case "lost@stable":
			return images.Record{}, errLost
		}
		return images.Record{}, fmt.Errorf("asked for %s", r)
	}
	stable := map[string][]string{"demo": {"stable"}, "lab": {"testing"}}
	for _, c := range []struct {
		name      string
		scope     config.Scope
		firmware  string
		published map[string][]string
		want      string // version, ignore
		err       string
		lines     []string // each: what, value, why
	}{
		{"default", config.Scope{Node: "pc1"}, "BIOS", stable, "demo/3 false", "", []string{
			"mode|ask|default", "loader|undionly.kpxe|BIOS PXE", "image|demo@stable|the only image with a stable channel", "version|demo/3|now in channel stable",
			"kernel|6.1|of demo/3, with the appliance's controller", "choice|diskless|default; when nobody answers: after 10 s, default", "command line|console=tty0 quiet slate.server=|words: system/boot.conf:2"}},
		{"group", config.Scope{Node: "pc1", Groups: []string{"room1"}}, "UEFI x64", stable, "lab/9 false", "", []string{
			"groups|room1|the last has precedence", "mode|diskless|groups/room1/system/boot.conf:2", "loader|snponly.efi|UEFI x64 PXE", "image|lab@testing|named by groups/room1/system/boot.conf:1"}},
		{"node over group", config.Scope{Node: "old", Groups: []string{"room1"}}, "", stable, "lab/1 false", "", []string{
			"loader|undionly.kpxe|; its firmware is not known yet", "loader|snponly-arm64.efi|UEFI arm64 PXE", "image|lab/1|named by nodes/old/system/boot.conf:1", "version|lab/1|named by its number"}},
		{"installed without tools", config.Scope{Node: "pc1", Set: config.Set{Mode: "installed"}}, "BIOS", stable, "demo/3 false", "", []string{"install|not possible|demo/3 lacks the programs"}},
		{"installed", config.Scope{Node: "pc1", Set: config.Set{Mode: "installed", Image: "lab/1"}}, "BIOS", stable, "lab/1 false", "", []string{"install|if it has no system|on the drive that controller/drives.conf"}},
		{"waits for ever", config.Scope{Node: "old"}, "BIOS", stable, "lab/1 false", "", []string{"choice|diskless|never: it waits for ever"}},
		{"set", config.Scope{Node: "old", Set: config.Set{Image: "demo@stable", Cmdline: []string{"debug"}}}, "BIOS", stable, "demo/3 false", "", []string{
			"image|demo@stable|named by slate node set", "command line|console=tty0 debug slate.server|words: slate node set"}},
		{"ignored", config.Scope{Node: "pc1", Set: config.Set{Mode: "ignore"}}, "BIOS", nil, "/0 true", "", []string{"mode|ignore|slate node set", "answer|none|DHCP gives it no loader"}},
		{"firmware without a loader", config.Scope{Node: "pc1"}, "architecture 77", stable, "demo/3 false", "", []string{"loader|none|no loader for architecture 77"}},
		{"for another processor", config.Scope{Node: "pc1"}, "UEFI arm64", stable, "demo/3 false", "demo/3 is for amd64, and this machine is UEFI arm64", []string{"loader|snponly-arm64.efi|UEFI arm64 PXE"}},
		{"nothing published", config.Scope{Node: "pc1"}, "BIOS", nil, "/0 false", "the store is empty", nil},
		{"no such image", config.Scope{Node: "lost"}, "BIOS", stable, "/0 false", "image lost@stable (named by nodes/lost/system/boot.conf:1): there is no image lost", nil},
		{"no kernel", config.Scope{Node: "bare"}, "BIOS", stable, "nokernel/1 false", "nokernel/1 has no kernel", []string{"version|nokernel/1|the newest"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := boot.Decide(boot.Facts{Node: c.scope.Node, Groups: c.scope.Groups, Firmware: c.firmware, MAC: "52:54:00:00:00:01", Config: site.For(c.scope),
				Published: c.published, Resolve: resolve, Server: server, NFSPort: 2049})
			if got := fmt.Sprint(d.Start.Version.Ref(), " ", d.Ignore); got != c.want {
				t.Errorf("Decide = %s, want %s", got, c.want)
			}
			if (d.Err == nil) != (c.err == "") || d.Err != nil && !strings.Contains(d.Err.Error(), c.err) {
				t.Errorf("Decide error = %v, want %q", d.Err, c.err)
			}
			rest := d.Lines
			for _, w := range c.lines { // in this order, perhaps with others between
				part := strings.SplitN(w, "|", 3)
				for len(rest) > 0 && (rest[0].What != part[0] || !strings.HasPrefix(rest[0].Value, part[1]) || !strings.Contains(rest[0].Why, part[2])) {
					rest = rest[1:]
				}
				if len(rest) == 0 {
					t.Fatalf("no line %q, or not at its place, in\n%+v", w, d.Lines)
				}
			}
		})
	}
}

// A decision says the same to the machine as to the person who asks.
func TestDecisionIsWhatIsServed(t *testing.T) {
	site, err := config.Load(fstest.MapFS{})
	if err != nil {
		t.Fatal(err)
	}
	d := boot.Decide(boot.Facts{Node: "pc1", MAC: "52:54:00:00:00:01", Config: site.Node("pc1"), Published: map[string][]string{"demo": {"stable"}},
		Resolve: func(images.Ref) (images.Record, error) { return version("demo", 3), nil }, Server: server, NFSPort: 2049})
	d.Start.BootID = "b1"
	served := strings.Join(d.Start.Cmdline(), " ")
	if !strings.Contains(served, "slate.node=pc1 slate.boot=b1 slate.image=demo/3") || !strings.HasSuffix(served, "BOOTIF=01-52-54-00-00-00-01") {
		t.Errorf("command line = %s", served)
	}
	shown := d.Lines[len(d.Lines)-1].Value
	if got := strings.Replace(shown, "slate.boot=<new>", "slate.boot=b1", 1); got != served {
		t.Errorf("explained\n%s\nserved\n%s", got, served)
	}
}

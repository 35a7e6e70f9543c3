// SPDX-License-Identifier: GPL-2.0-or-later

package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"slate/netboot/config"
)

func site(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestExamplesAreTheDefaults(t *testing.T) {
	example, err := config.Load(config.Examples())
	if err != nil {
		t.Fatalf("the shipped config.d: %v", err)
	}
	empty, err := config.Load(site(nil))
	if err != nil {
		t.Fatal(err)
	}
	got, want := example.Node("x"), empty.Node("x")
	diff := cmp.Diff([]any{want.Boot, want.Etc, want.Servers, want.Tmpfs}, []any{got.Boot, got.Etc, got.Servers, got.Tmpfs}, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(config.File{}))
	diff += cmp.Diff([]any{want.Overlays, want.Fstab, want.Cfstab, want.Network, want.Services, want.Sources}, []any{got.Overlays, got.Fstab, got.Cfstab, got.Network, got.Services, got.Sources}, cmpopts.EquateEmpty())
	diff += cmp.Diff([]any{want.Drives, want.Btrfs, want.Update, want.Health}, []any{got.Drives, got.Btrfs, got.Update, got.Health}, cmpopts.EquateEmpty())
	diff += cmp.Diff(want.DHCP, got.DHCP, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}))
	if diff != "" {
		t.Errorf("the examples differ from the defaults (-default +example):\n%s", diff)
	}
	for _, v := range got.Explain() {
		if v.Origin == "default" {
			t.Errorf("the examples leave out %s %s", v.File, v.Key)
		}
	}
}

func TestMergeAndExplain(t *testing.T) {
	s, err := config.Load(site(map[string]string{
		"system/boot.conf":            "timeout = 30\nchoice = \"shell\"\ncmdline = [\"a\", \"b\"]\n",
		"nodes/pc1/system/boot.conf":  "# ours\n\ntimeout = 5\n",
		"nodes/pc1/system/cboot.conf": "mode = \"diskless\"\n",
		"system/cboot.conf":           "choice = \"reboot\"\n",
		"nodes/pc1/system/etc.conf":   "hostname = \"one\"",
		"README":                      "not ours to read",
	}))
	if err != nil {
		t.Fatal(err)
	}
	n := s.Node("pc1")
	if n.Boot.Timeout != 5 || n.Boot.Choice != "reboot" || n.Boot.Mode != "diskless" || n.Etc.Hostname != "one" || len(n.Boot.Cmdline) != 2 {
		t.Errorf("Node(pc1) = %+v %+v", n.Boot, n.Etc)
	}
	if other := s.Node("pc2"); other.Boot.Timeout != 30 || other.Boot.Mode != "ask" {
		t.Errorf("Node(pc2) = %+v", other.Boot)
	}
	origins := map[string]string{}
	for _, v := range n.Explain() {
		if v.File != "system/boot.conf" && v.Key != "hostname" && v.Key != "limit.total" {
			continue // other tests look at them
		}
		origins[v.File+" "+v.Key] = v.Origin
	}
	want := map[string]string{
		"system/boot.conf timeout":          "nodes/pc1/system/boot.conf:3",
		"system/boot.conf choice":           "system/cboot.conf:1",
		"system/boot.conf mode":             "nodes/pc1/system/cboot.conf:1",
		"system/boot.conf cmdline":          "system/boot.conf:3",
		"system/boot.conf console":          "default",
		"system/boot.conf image":            "default",
		"system/boot.conf loader":           "default",
		"system/boot.conf loader-timeout":   "default",
		"system/etc.conf hostname":          "nodes/pc1/system/etc.conf:1",
		"controller/tmpfs.conf limit.total": "default",
	}
	if diff := cmp.Diff(want, origins); diff != "" {
		t.Errorf("Explain origins (-want +got):\n%s", diff)
	}
}

func TestGroupsAndWhatIsSet(t *testing.T) {
	s, err := config.Load(site(map[string]string{
		"system/boot.conf":               "timeout = 1\nimage = \"site@stable\"\n",
		"groups/room1/system/boot.conf":  "timeout = 2\nimage = \"room@stable\"\n",
		"groups/room2/system/boot.conf":  "timeout = 3\n",
		"groups/room2/system/cboot.conf": "choice = \"shell\"\n",
		"nodes/pc1/system/boot.conf":     "image = \"own@stable\"\nchoice = \"reboot\"\n",
		"system/cboot.conf":              "console = [\"tty0\"]\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"room1", "room2"}, s.Groups()); diff != "" {
		t.Errorf("Groups (-want +got):\n%s", diff)
	}
	set := config.Set{Image: "set@stable", Mode: config.ModeIgnore, Cmdline: []string{"debug"}}
	for _, c := range []struct {
		name  string
		scope config.Scope
		want  string // image, mode, choice, timeout
		from  string // origin of the image
	}{
		{"site", config.Scope{Node: "pc9"}, "site@stable ask diskless 1", "system/boot.conf:2"},
		{"group", config.Scope{Node: "pc9", Groups: []string{"room1"}}, "room@stable ask diskless 2", "groups/room1/system/boot.conf:2"},
		{"two groups", config.Scope{Node: "pc9", Groups: []string{"room1", "room2"}}, "room@stable ask shell 3", "groups/room1/system/boot.conf:2"},
		{"two groups, turned round", config.Scope{Node: "pc9", Groups: []string{"room2", "room1"}}, "room@stable ask shell 2", "groups/room1/system/boot.conf:2"},
		{"group without files", config.Scope{Groups: []string{"x"}}, "site@stable ask diskless 1", "system/boot.conf:2"},
		{"node over group", config.Scope{Node: "pc1", Groups: []string{"room1"}}, "own@stable ask reboot 2", "nodes/pc1/system/boot.conf:1"},
		{"set over node", config.Scope{Node: "pc1", Set: set}, "set@stable ignore reboot 1", "slate node set"},
		{"c over node and set", config.Scope{Node: "pc1", Groups: []string{"room2"}, Set: set}, "set@stable ignore shell 3", "slate node set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := s.For(c.scope)
			if got := fmt.Sprint(n.Boot.Image, " ", n.Boot.Mode, " ", n.Boot.Choice, " ", n.Boot.Timeout); got != c.want {
				t.Errorf("boot.conf = %s, want %s", got, c.want)
			}
			if got := n.Origin("system/boot.conf", "image"); got != c.from {
				t.Errorf("image comes from %s, want %s", got, c.from)
			}
		})
	}
	if n := s.For(config.Scope{Set: set}); len(n.Boot.Cmdline) != 1 || len(n.Boot.Console) != 1 {
		t.Errorf("set command line: %q, consoles %q", n.Boot.Cmdline, n.Boot.Console)
	}
	for _, bad := range []config.Set{{Mode: "maybe"}, {Image: "De mo"}, {Cmdline: []string{"a b"}}, {Cmdline: []string{"slate.node=x"}}} {
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), "slate node set: ") {
			t.Errorf("Check(%+v) = %v, want an error", bad, err)
		}
	}
	if err := set.Check(); err != nil {
		t.Error(err)
	}
}

func TestBadConfigNamesFileLineAndKey(t *testing.T) {
	for _, c := range []struct{ name, file, text, want, hint string }{
		{"unknown key", "system/boot.conf", "mode = \"ask\"\ntimout = 3\n", "system/boot.conf:2: timout: unknown key", "did you mean timeout?"},
		{"unknown table", "controller/tmpfs.conf", "[limits]\ntotal = \"1G\"\n", "controller/tmpfs.conf:1: limits: unknown key", "did you mean limit?"},
		{"wrong type", "system/boot.conf", "\ntimeout = \"ten\"\n", "system/boot.conf:2: timeout: ", ""},
		{"bad value", "system/boot.conf", "# c\nmode = \"auto\"\n", `system/boot.conf:2: mode: "auto" is not one of ask, diskless`, ""},
		{"no image", "system/boot.conf", "image = \"De mo\"\n", "system/boot.conf:1: image: ", ""},
		{"group's file", "groups/room1/system/boot.conf", "mode = 3\n", "groups/room1/system/boot.conf:1: mode: ", ""},
		{"group's unknown file", "groups/room1/boot.conf", "", "groups/room1/boot.conf: slate knows no such file", "below groups/<group>/"},
		{"negative", "system/boot.conf", "timeout = -1\n", "system/boot.conf:1: timeout: -1 seconds is not between", ""},
		{"grammar", "system/boot.conf", "mode = ask\n", "system/boot.conf:1: mode: ", ""},
		{"two words", "system/boot.conf", "cmdline = [\"a b\"]\n", `system/boot.conf:1: cmdline: "a b" is not one word`, ""},
		{"script in word", "system/boot.conf", "cmdline = [\"a||reboot\"]\n", `which the boot loader would take`, ""},
		{"ours", "system/boot.conf", "cmdline = [\"slate.nfs=x\"]\n", "is the appliance's to set", ""},
		{"size", "controller/tmpfs.conf", "[limit]\ntotal = \"half\"\n", "controller/tmpfs.conf:2: limit.total: \"half\" is not a size", ""},
		{"too big", "controller/tmpfs.conf", "[limit]\ntotal = \"95%\"\n", "90% is the most", ""},
		{"hostname", "system/etc.conf", "hostname = \"a b\"\n", "system/etc.conf:1: hostname: ", "use letters"},
		{"unknown file", "system/bott.conf", "", "system/bott.conf: slate knows no such file", "known files: controller/"},
		{"node's file", "nodes/pc1/system/boot.conf", "mode = 3\n", "nodes/pc1/system/boot.conf:1: mode: ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Load(site(map[string]string{c.file: c.text}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Load error = %v, want %q", err, c.want)
			}
			var h interface{ Hint() string }
			if c.hint != "" && (!errors.As(err, &h) || !strings.Contains(h.Hint(), c.hint)) {
				t.Errorf("hint of %v lacks %q", err, c.hint)
			}
		})
	}
}

func TestLoadReportsAllErrorsOnce(t *testing.T) {
	_, err := config.Load(site(map[string]string{
		"system/boot.conf":           "mode = \"x\"\nfoo = 1\n",
		"nodes/pc1/system/boot.conf": "timeout = -3\n",
		"nodes/pc2/system/boot.conf": "timeout = 3\n",
	}))
	if err == nil {
		t.Fatal("no error")
	}
	got := err.Error()
	for _, want := range []string{"system/boot.conf:2: foo", "nodes/pc1/system/boot.conf:1: timeout"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("error names %q %d times, want once:\n%s", want, strings.Count(got, want), got)
		}
	}
}

func TestNodeName(t *testing.T) {
	for _, c := range []struct{ pattern, mac, serial, want string }{
		{"node-{mac6}", "52:54:00:AB:cd:ef", "", "node-abcdef"},
		{"{serial}", "52:54:00:ab:cd:ef", "VMware-56 4d/X", "vmware-56-4d-x"},
		{"{serial}", "52:54:00:ab:cd:ef", " ", "525400abcdef"},
		{"lab-{mac}", "52-54-00-ab-cd-ef", "", "lab-525400abcdef"},
		{"{serial}", "", strings.Repeat("x", 80), strings.Repeat("x", 63)},
	} {
		if got := (config.Etc{Hostname: c.pattern}).NodeName(c.mac, c.serial); got != c.want {
			t.Errorf("NodeName(%q, %q) by %q = %q, want %q", c.mac, c.serial, c.pattern, got, c.want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, name := range []string{"system/boot.conf", "system/dhcp.conf", "controller/tmpfs.conf", serverFile} {
		data, err := os.ReadFile("examples/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a = \"\"\"\nb = 1\n\"\"\"\n[x.\"y\"]\nz=1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"system/boot.conf", "system/dhcp.conf", "controller/tmpfs.conf", serverFile} {
			s, err := config.Load(fstest.MapFS{name: &fstest.MapFile{Data: data}})
			if err == nil {
				s.Node("n").Explain()
			}
		}
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli_test

import (
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"slate/testbed/labtest"
	"slate/testbed/netns"
)

// TestDoctor runs testdata/doctor/*.txtar on a network of its own, doctor0,
// 10.78.0.1/24, that has a link: a bridge with a machine on it.
func TestDoctor(t *testing.T) {
	labtest.NeedRoot(t)
	labtest.Need(t, "nft")
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	machine, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { machine.Close() }) // the scripts run after this function
	for _, err := range []error{
		ns.Bridge("doctor0"),
		ns.Address("doctor0", netip.MustParsePrefix("10.78.0.1/24")),
		ns.Up("doctor0"),
		machine.Veth("eth0", ns, "doctorp"),
		ns.Attach("doctorp", "doctor0"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/doctor",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"waitfor": waitFor},
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"SLATE_NETNS", "SLATE_TEST"} {
				e.Setenv(name, os.Getenv(name))
			}
			e.Setenv("SLATE_CONFIG", e.WorkDir+"/etc/slate.toml")
			e.Setenv("SLATE_DATA", e.WorkDir+"/data")
			return nil
		},
	})
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slate/netboot/doctor"
)

type doctorCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by slate doctor --help.
func (doctorCmd) Help() string {
	return `Looks for what keeps machines from booting: the interface, ports, firewall, other
DHCP servers, boot loaders, disk space, site key, clock and published images; and
tries DHCP, TFTP, HTTP and NFS of the running appliance as a machine would. It
changes nothing. Each warning and problem comes with what to do about it.

The exit status is 1 if there is a problem, 0 with warnings alone. Run it as root.`
}

var errProblems = errors.New("there are problems")

// Run looks at everything and prints what it found.
func (c *doctorCmd) Run(ctx context.Context, a *app) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	built, _ := time.Parse(time.RFC3339, buildDate) // "" in a trial build: not known
	if !c.JSON {
		fmt.Fprintf(a.stderr, "Looking, and asking for other DHCP servers …\n")
	}
	list := doctor.Diagnose(doctor.Gather(ctx, doctor.Options{Settings: s, Version: versionString(), Built: built}))
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(a.stdout, list); err != nil {
			return err
		}
	} else {
		for _, f := range list {
			fmt.Fprintf(a.stdout, "%-8s %s: %s\n", f.State, f.Check, f.Text)
			if f.Fix != "" {
				fmt.Fprintf(a.stdout, "         fix: %s\n", f.Fix)
			}
		}
	}
	if doctor.Worst(list) == doctor.Problem {
		return errProblems
	}
	return nil
}

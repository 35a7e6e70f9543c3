// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"

	"slate/netboot"
)

type serveCmd struct{}

// Help is shown by slate serve --help.
func (serveCmd) Help() string {
	return `Runs the appliance in the foreground: DHCP or proxyDHCP, TFTP, HTTP and NFS, as
slate.toml says. It starts only if everything is in order, and otherwise names
all that is not. SIGTERM or Ctrl-C ends it; running nodes wait for its return.

As a service: systemctl enable --now slate (the unit is netboot/slate.service).`
}

// Run serves until the context ends.
func (c *serveCmd) Run(ctx context.Context, a *app) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	srv := &netboot.Server{Settings: s, Version: versionString(), Log: a.log}
	return srv.Run(ctx)
}

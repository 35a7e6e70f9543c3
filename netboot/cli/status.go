// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"slate/netboot"
	"slate/netboot/api"
)

type statusCmd struct {
	Server string `help:"Base URL of the appliance. Default: the one on this machine, as slate.toml says." placeholder:"URL"`
	JSON   bool   `help:"Print JSON."`
}

// Run asks the appliance how it is and prints the nodes with their last boot.
func (c *statusCmd) Run(ctx context.Context, a *app) error {
	base := c.Server
	if base == "" {
		s, err := a.settings()
		if err != nil {
			return err
		}
		if base, err = baseURL(s); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st, err := (&api.Client{Base: base}).Status(ctx)
	if err != nil {
		return hintError{err, "does it run? start it with: slate serve"}
	}
	if c.JSON {
		return printJSON(a.stdout, st)
	}
	fmt.Fprintf(a.stdout, "%s\nrunning since %s on %s, DHCP mode %s\n", st.Version, st.Started.Local().Format(time.DateTime), st.Address, st.DHCP)
	for _, i := range st.Images {
		fmt.Fprintf(a.stdout, "image %s\n", i)
	}
	for _, r := range st.Rivals {
		fmt.Fprintf(a.stdout, "another DHCP server, %s %s, %s; seen %s\n", r.Address, r.MAC, r.Offers, r.Seen.Local().Format(time.DateTime))
	}
	for _, n := range st.Nodes {
		fmt.Fprintf(a.stdout, "\n%s  %s  %s  %s  seen %s\n", n.Name, n.Address, n.Firmware, n.Product, n.Seen.Local().Format(time.DateTime))
		if len(n.Boots) > 0 {
			printBoot(a.stdout, n.Boots[0])
		}
	}
	return nil
}

// baseURL is where the appliance of the settings answers HTTP.
func baseURL(s netboot.Settings) (string, error) {
	addr := s.Network.Address
	if !addr.IsValid() {
		ifc, err := netboot.InterfaceByName(s.Network.Interface)
		if err != nil {
			return "", err
		}
		if len(ifc.Prefixes) == 0 {
			return "", fmt.Errorf("network.interface: %s has no IPv4 address", ifc.Name)
		}
		addr = ifc.Prefixes[0].Addr()
	}
	return "http://" + net.JoinHostPort(addr.String(), strconv.Itoa(s.HTTP.Port)), nil
}

// printBoot prints the timeline of a boot, in seconds since its start.
func printBoot(w io.Writer, b api.Boot) {
	fmt.Fprintf(w, "  boot %s at %s  %s\n", b.ID, b.Started.Local().Format(time.DateTime), b.Image)
	for _, e := range b.Events {
		mark := map[api.State]string{api.StateFailed: "FAILED ", api.StateStart: "… "}[e.State]
		fmt.Fprintf(w, "  %7.2f s  %-10s %s%s\n", e.Time.Sub(b.Started).Seconds(), e.Step, mark, e.Text)
	}
}

// SPDX-License-Identifier: GPL-2.0-or-later

package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"slate/builder/command"
	"slate/dhcp"
	"slate/images"
	"slate/images/durable"
	"slate/netboot"
	"slate/netboot/config"
)

type initCmd struct {
	Interface string `help:"The interface that the nodes are on. Default: the only one that can be it." placeholder:"NAME"`
	DHCP      string `help:"auto: look whether a DHCP server is there already; or server, proxy, off." enum:"auto,server,proxy,off" default:"auto"`
	NoProbe   bool   `help:"Do not look for other DHCP servers."`
	NoInstall bool   `help:"Do not install missing boot loaders with apt-get."`
}

// Help is shown by slate init --help.
func (initCmd) Help() string {
	return `Looks at this machine and its network and writes what an appliance needs, beside
the file that --config names: slate.toml, a starter config.d with every default
written out, the site key, and a key and certificate for TLS. Files that are there already are kept.

If another DHCP server answers on the network, the appliance is set up to work
beside it (proxyDHCP). Otherwise it gives addresses itself, from the upper half
of the subnet.`
}

// probeTime is how long other DHCP servers have to answer. Some look for three
// seconds whether an address is free before they offer it.
const probeTime = 8 * time.Second

// Run writes the settings of a new appliance.
func (c *initCmd) Run(ctx context.Context, a *app) error {
	dir := filepath.Dir(a.Config)
	if err := c.writeSettings(ctx, a); err != nil {
		return err
	}
	if err := writeExamples(a, filepath.Join(dir, "config.d")); err != nil {
		return err
	}
	if err := writeKey(a, filepath.Join(dir, "site.key")); err != nil {
		return err
	}
	if err := writeTLS(a, filepath.Join(dir, "site.key")); err != nil {
		return err
	}
	if err := c.installLoaders(ctx, a); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nNext: slate build debian --name demo --publish stable\nThen: slate serve\n")
	return nil
}

func (c *initCmd) writeSettings(ctx context.Context, a *app) error {
	if _, err := os.Stat(a.Config); err == nil {
		fmt.Fprintf(a.stdout, "kept   %s\n", a.Config)
		return nil
	}
	f := netboot.SetupFacts{Interface: c.Interface}
	if c.DHCP != "auto" {
		f.Mode = netboot.DHCPMode(c.DHCP)
	}
	var err error
	if f.Interfaces, err = netboot.Interfaces(); err != nil {
		return err
	}
	ifc, err := netboot.ChooseInterface(f)
	if err != nil {
		return err
	}
	if !c.NoProbe {
		if err := probe(ctx, a, ifc.Name, &f); err != nil {
			return err
		}
	}
	f.Gateway = defaultRoute(ifc.Name)
	f.DNS = nameServers("/etc/resolv.conf")
	s, why, err := netboot.PlanSettings(f)
	if err != nil {
		return err
	}
	s.Data = cmp.Or(a.Data, netboot.DefaultData)
	text, err := s.Text()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(a.Config), 0o755); err != nil {
		return err
	}
	if err := durable.WriteFile(a.Config, text, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s\nwrote  %s\n", strings.Join(why, "\n"), a.Config)
	return nil
}

// probe looks for other DHCP servers on the interface.
func probe(ctx context.Context, a *app, ifc string, f *netboot.SetupFacts) error {
	fmt.Fprintf(a.stderr, "Looking for other DHCP servers on %s (%.0f s) …\n", ifc, probeTime.Seconds())
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	rivals, err := dhcp.Probe(ctx, ifc)
	if errors.Is(err, os.ErrPermission) {
		return hintError{err, "run slate init as root, or leave the look out with --no-probe"}
	}
	if err != nil {
		return err
	}
	for _, r := range rivals {
		f.Rivals = append(f.Rivals, r.String())
		f.RivalsGive = f.RivalsGive || !r.Proxy
	}
	return nil
}

// defaultRoute is the router that this machine uses over the interface, if any.
func defaultRoute(ifc string) netip.Addr {
	link, err := netlink.LinkByName(ifc)
	if err != nil {
		return netip.Addr{}
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}
	}
	for _, r := range routes {
		if ones, _ := maskSize(r); ones == 0 && r.Gw != nil {
			a, _ := netip.AddrFromSlice(r.Gw.To4())
			return a
		}
	}
	return netip.Addr{}
}

func maskSize(r netlink.Route) (ones, bits int) {
	if r.Dst == nil {
		return 0, 32
	}
	return r.Dst.Mask.Size()
}

// nameServers reads the IPv4 name servers of a resolv.conf that other machines
// can use too: not the local ones.
func nameServers(file string) []netip.Addr {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []netip.Addr
	for sc := bufio.NewScanner(f); sc.Scan(); {
		w := strings.Fields(sc.Text())
		if len(w) < 2 || w[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(w[1]); err == nil && a.Is4() && !a.IsLoopback() {
			out = append(out, a)
		}
	}
	return out
}

// writeExamples writes the files of the starter config.d that are not there.
func writeExamples(a *app, dir string) error {
	src := config.Examples()
	return fs.WalkDir(src, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dst := filepath.Join(dir, p)
		if e.IsDir() {
			return os.MkdirAll(dst, 0o755)
		}
		data, err := fs.ReadFile(src, p)
		if err != nil {
			return err
		}
		return writeNew(a, dst, data, 0o644)
	})
}

// writeKey makes the site key and its public half.
func writeKey(a *app, file string) error {
	pub := file + netboot.PublicKeySuffix
	key, err := images.LoadKey(file)
	switch {
	case err == nil:
		fmt.Fprintf(a.stdout, "kept   %s\n", file)
	case errors.Is(err, fs.ErrNotExist):
		if key, err = images.GenerateKey(); err != nil {
			return err
		}
		if err := images.WriteKey(file, key); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "wrote  %s\n", file)
	default:
		return err
	}
	return writeNew(a, pub, images.FormatPublicKey(key), 0o644)
}

// writeTLS makes the key and certificate that the appliance serves TLS with.
func writeTLS(a *app, siteKey string) error {
	var addrs []netip.Addr // what is wrong with settings that were kept is for slate serve to say
	if s, err := netboot.ReadSettings(a.Config); err == nil && s.Network.Address.IsValid() {
		addrs = append(addrs, s.Network.Address)
	}
	wrote, err := netboot.WriteTLS(siteKey, addrs)
	for _, file := range wrote {
		fmt.Fprintf(a.stdout, "wrote  %s\n", file)
	}
	if err == nil && len(wrote) == 0 {
		key, _ := netboot.TLSFiles(siteKey)
		fmt.Fprintf(a.stdout, "kept   %s\n", key)
	}
	return err
}

// writeNew writes a file unless it is there, and says which.
func writeNew(a *app, file string, data []byte, mode os.FileMode) error {
	if _, err := os.Lstat(file); err == nil {
		fmt.Fprintf(a.stdout, "kept   %s\n", file)
		return nil
	}
	if err := durable.WriteFile(file, data, mode); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "wrote  %s\n", file)
	return nil
}

// installLoaders installs the packages of missing loaders, or says how to.
func (c *initCmd) installLoaders(ctx context.Context, a *app) error {
	pkgs := netboot.MissingLoaderPackages()
	if len(pkgs) == 0 {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if c.NoInstall || os.Geteuid() != 0 || err != nil {
		fmt.Fprintf(a.stdout, "Boot loaders are missing. Install them with: apt-get install %s\n", strings.Join(pkgs, " "))
		return nil
	}
	fmt.Fprintf(a.stderr, "Installing boot loaders: %s …\n", strings.Join(pkgs, " "))
	cmd := command.Cmd{Args: append([]string{apt, "install", "-y", "--no-install-recommends"}, pkgs...)}
	return command.Run(ctx, cmd)
}
